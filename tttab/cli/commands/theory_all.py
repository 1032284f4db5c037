"""`tttab theory all`: the bar, the interruption and the summary of a folder of experiments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tttab.cli.experiment_output import finish, show
from tttab.cli.invocation import rerun_command
from tttab.cli.output import note, print_json_line, progress
from tttab.errors import Interrupted
from tttab.theory import registry
from tttab.theory.experiment import Row, Table
from tttab.theory.linear_attention.settings import Simulation

if TYPE_CHECKING:
    from tttab.theory.folder import Folder


def run_all(simulation: Simulation, out: Path, *, json_lines: bool) -> None:
    """Run what `out` lacks, then print a line per experiment.

    Raises:
        Interrupted: Ctrl-C; finished experiments stay.
        BadAnswer: a row disagrees with the exact law.
    """
    from tttab.theory.folder import Folder

    simulation.check(matrices=True)
    experiments = {
        name: experiment
        for name, experiment in registry.EXPERIMENTS.items()
        if issubclass(experiment.settings, Simulation)
    }
    folder = Folder(out, simulation, experiments)
    missing = folder.missing()
    try:
        _fill(folder, missing, quiet=json_lines)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; what is finished is kept", rerun_command()) from None
    folder.write_index()
    summary = [_summary(folder, name, name in missing) for name in experiments]
    if json_lines:
        for row in summary:
            print_json_line(row)
    else:
        show(Table(f"{out}/index.md", list(summary[0]), summary))
    seed = simulation.seed + 1
    other = f"{out}-seed-{seed}"  # what disagreed stays where it is
    finish([row for name in experiments for row in folder.rows(name)], rerun_command(seed=seed, out=other))


def _fill(folder: Folder, missing: list[str], *, quiet: bool) -> None:
    total = len(folder.experiments)
    kept = total - len(missing)
    with progress(quiet=quiet) as bar:
        task = bar.add_task("theory all", total=total, completed=kept, info="")
        for name in missing:
            rows: list[Row] = []
            for row in folder.compute(name):
                rows.append(row)
                bar.update(task, info=f"{name}: {len(rows)} rows")
            folder.write(name, rows)
            bar.advance(task)
    if kept:
        note(f"{kept} of {total} experiments were there already", quiet=quiet)


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
