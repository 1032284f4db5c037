"""`tttab adapt`: adapt a model to a table and keep it, with its context, as a bundle to predict from.

What does not belong here: the comparison with rivals (`run_command`) and predictions (`predict`).
"""

from __future__ import annotations

import os
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tttab.cli import choices, console, options
from tttab.cli.ending import ended_cleanly
from tttab.cli.opening import cautions, open_unit, refusal, stopped, told
from tttab.text import shell_word, shown

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from tttab.bundle import Bundle
    from tttab.evaluation.arms import Unit
    from tttab.training.loop import Adapted


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("adapt", rich_help_panel="Adapt")(adapt)


@options.spread(options.Adapting, "adapting")
def adapt(
    table: Annotated[
        str,
        typer.Argument(
            help="A CSV, Parquet or ARFF file, an OpenML id, or a known name.",
            autocompletion=choices.datasets,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder of the bundle.")],
    target: Annotated[str | None, typer.Option(help="Target column (default: the last).")] = None,
    test_size: Annotated[
        int, typer.Option(help="Rows to keep aside and measure on; 0: every row may be context or query.")
    ] = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    *,
    adapting: options.Adapting,
) -> None:
    """Adapt a model to a table and keep it as a bundle to predict from.

    Example: [bold]tttab adapt customers.csv --target churned --out churn[/]
    """
    table = os.path.expanduser(table)
    own = {"dataset": table, "task": None, "fold": 0, "target": target, "test_size": test_size or None}
    request = own | asdict(adapting)
    from tttab.bundle import bundle_folder, room_for, save_bundle
    from tttab.files import home_path

    quiet, out = quiet or as_json, home_path(out)
    with ended_cleanly(), bundle_folder(out, waiting=console.warn) as claim:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            unit = open_unit(request, quiet, test=test_size > 0)
            console.note(_division(unit), quiet=quiet)
            claim.check_room(room_for(unit.session))
            adapted = _adapt(unit, quiet)
            console.note(adapted.manner, quiet=quiet)
            bundle = _bundle(unit, adapted)
        save_bundle(claim, bundle)
    remarks = list(dict.fromkeys([*cautions(unit), *told(caught), *stopped(adapted)]))
    _print(out, unit, bundle, remarks, as_json)


def _division(unit: Unit) -> str:
    """Say which rows are used for what."""
    split = unit.split
    unused = len(unit.table) - split.n - split.k - len(split.test)
    parts = [f"{split.n:,} rows are the context", f"{split.k:,} the training queries"]
    parts += [f"{len(split.test):,} are kept aside to measure on"] if len(split.test) else []
    parts += [f"{unused:,} are not used (--k {split.k + unused} would)"] if unused else []
    return "rows: " + ", ".join(parts)


def _adapt(unit: Unit, quiet: bool) -> Adapted:
    from tttab.rules import get_rule
    from tttab.training.loop import Adaptation

    with console.waiting("preparing the context", quiet=quiet):
        context = unit.context
    adaptation = Adaptation(
        unit.session,
        get_rule(unit.rule),
        context,
        unit.rows("queries"),
        unit.schedule,
        unit.seed,
        unit.budget,
    )
    with console.progress(quiet=quiet) as bar:
        task = bar.add_task("adapting", total=unit.schedule.steps, info="")
        for step in adaptation:
            info = f"loss {step.loss:.4f}  held-out {step.held_out:.4f}  best {step.best:.4f}"
            bar.update(task, completed=step.number, total=step.total, info=info)
    return adaptation.result


def _bundle(unit: Unit, adapted: Adapted) -> Bundle:
    """Return the bundle, measured on the held-out part of the queries and on test rows if there are any."""
    from tttab.bundle import Bundle, adaptation_record, table_record
    from tttab.data import schema_of
    from tttab.data.splits import hold_out

    x, y = unit.rows("queries")
    _, held = hold_out(y, unit.schedule.held_out, unit.seed, classes=len(unit.table.classes))
    samples = {"held_out": (x.iloc[held], y[held])}
    if len(unit.split.test):
        samples["test"] = unit.rows("test")
    record = {
        "table": table_record(unit.table),
        "split": {
            "n": unit.split.n,
            "k": unit.split.k,
            "test": len(unit.split.test),
            "seed": unit.split.seed,
            "rows": unit.split.digest,
            "notes": unit.split.notes,
        },
        "adaptation": adaptation_record(adapted, unit.rule, unit.schedule, unit.seed),
        "metrics": {name: _before_and_after(unit, adapted, *rows) for name, rows in samples.items()},
    }
    return Bundle(adapted.session, *unit.rows("context"), schema_of(unit.table), record)


def _before_and_after(unit: Unit, adapted: Adapted, x: pd.DataFrame, y: np.ndarray) -> dict[str, Any]:
    servers = [session.serve(unit.context) for session in (unit.session, adapted.session)]
    before, after = (server.metrics(x, y, server.predict(x)) for server in servers)
    return {"rows": len(y), "before": before, "after": after}


def _print(out: Path, unit: Unit, bundle: Bundle, remarks: list[str], as_json: bool) -> None:
    from tttab.bundle.manifest import read_manifest

    if as_json:
        console.print_json({"out": out, "manifest": read_manifest(out), "warnings": remarks})
        return
    for remark in remarks:
        console.warn(remark)
    rows = [
        (_ROWS_IN_WORDS[name], measured["rows"], metric, value, measured["after"][metric],
         f"{measured['after'][metric] - value:+.4f}")
        for name, measured in bundle.record["metrics"].items()
        for metric, value in measured["before"].items()
    ]  # fmt: skip
    columns = ("measured on", "rows", "metric", "pretrained", "adapted", "change")
    console.print_table(columns, rows, left=("measured on", "metric"))
    console.conclude(
        f"{_verdict(unit, bundle)} Kept in {shown(out)}: "
        f"tttab predict {shell_word(out)} NEW.csv --out predictions.csv"
    )


def _verdict(unit: Unit, bundle: Bundle) -> str:
    about = bundle.record["adaptation"]
    if about["accepted"] is None:
        return f"Nothing was trained: the bundle is plain in-context learning with {unit.split.n:,} rows."
    if not about["accepted"]:
        why = refusal(about) or "no step beat them on held-out rows"
        return f"The pretrained weights stay: {why} ({about['seconds']:.1f} s)."
    loss, step = about["held_out_loss"], about["chosen_step"]
    return (
        f"Step {step} of {about['steps']} lowered the held-out loss from {loss['before']:.4f} "
        f"to {loss['after']:.4f} in {about['seconds']:.1f} s."
    )


_ROWS_IN_WORDS = {"held_out": "held-out queries (they chose the step)", "test": "test rows (never seen)"}
