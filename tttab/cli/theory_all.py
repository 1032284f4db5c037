"""`tttab theory all`: the bar, the interruption and the summary of a folder of experiments.

What does not belong here: what a folder holds (`tttab.theory.folder`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tttab.cli.console import note, print_json_line, progress
from tttab.cli.theory_output import Output, Row, finish, show
from tttab.cli.typed import again
from tttab.errors import Interrupted

if TYPE_CHECKING:
    from tttab.theory.folder import Folder
    from tttab.theory.linear_attention.curves import Setting


def run_all(setting: Setting, out: Path, *, json_lines: bool) -> None:
    """Run what `out` lacks, then print a line per experiment.

    Raises:
        Interrupted: Ctrl-C; finished experiments stay.
        BadAnswer: a row disagrees with the exact law.
    """
    from tttab.theory.folder import EXPERIMENTS, Folder

    folder = Folder(out, setting)
    missing = folder.missing()
    try:
        _fill(folder, missing, quiet=json_lines)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; what is finished is kept", again()) from None
    folder.write_index()
    summary = [_summary(folder, name, name in missing) for name in EXPERIMENTS]
    for row in summary if json_lines else []:
        print_json_line(row)
    show(summary, list(summary[0]), Output(json_lines), title=f"{out}/index.md")
    seed = setting.plan.seed + 1
    other = f"{out}-seed-{seed}"  # what disagreed stays where it is
    finish([row for name in EXPERIMENTS for row in folder.rows(name)], again(seed=seed, out=other))


def _fill(folder: Folder, missing: list[str], *, quiet: bool) -> None:
    from tttab.theory.folder import EXPERIMENTS

    with progress(quiet=quiet) as bar:
        task = bar.add_task(
            "theory all", total=len(EXPERIMENTS), completed=len(EXPERIMENTS) - len(missing), info=""
        )
        for name in missing:
            rows = []
            for row in EXPERIMENTS[name](folder.setting):
                rows.append(row)
                bar.update(task, info=f"{name}: {len(rows)} rows")
            folder.write(name, rows)
            bar.advance(task)
    kept = len(EXPERIMENTS) - len(missing)
    if kept:
        note(f"{kept} of {len(EXPERIMENTS)} experiments were there already", quiet=quiet)


def _summary(folder: Folder, name: str, new: bool) -> Row:
    rows = folder.rows(name)
    return {
        "experiment": name,
        "rows": len(rows),
        "agree": sum(row.get("agrees") is True for row in rows),
        "disagree": sum(row.get("agrees") is False for row in rows),
        "figure": str(folder.path / f"{name}.svg"),
        "made": "now" if new else "before",
    }
