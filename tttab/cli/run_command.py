"""`tttab run`: test-time training on one table, compared with its rivals.

What does not belong here: any number's making; this file asks the library and prints.
"""

from __future__ import annotations

import json
import os
import warnings
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import tttab
from tttab.cli import choices, console, options
from tttab.cli.ending import ended_cleanly
from tttab.cli.opening import cautions, open_unit, refusal, stopped, told
from tttab.text import shell_word, shown

if TYPE_CHECKING:
    import pandas as pd

    from tttab.claim import Claim
    from tttab.evaluation.arms import Outcome, Unit

ARMS = ("icl@n", "ttt@n+k", "icl@n+k", "gbt", "logistic")
LABELS = {
    "accuracy": "accuracy",
    "roc_auc": "ROC AUC",
    "log_loss": "log loss",
    "brier": "Brier",
    "ece": "ECE",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R2",
    "crps": "CRPS",
    "nll": "NLL",
}


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("run", rich_help_panel="Adapt")(run)


@options.spread(options.Adapting, "adapting")
def run(
    dataset: Annotated[
        str,
        typer.Option(
            help="An OpenML id, a name in datasets.yaml, or a CSV, Parquet or ARFF file.",
            autocompletion=choices.datasets,
        ),
    ] = "31",
    task: Annotated[
        int | None, typer.Option(help="An OpenML task instead: its data set, target and official split.")
    ] = None,
    fold: Annotated[int, typer.Option(help="Which fold of the task's official split.")] = 0,
    target: Annotated[str | None, typer.Option(help="Target column of a file (default: the last).")] = None,
    test_size: Annotated[
        int | None, typer.Option(help="Test rows (default: a quarter of the table, at most 2,000).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Keep the adapted model and the results here.")] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    *,
    adapting: options.Adapting,
) -> None:
    """Adapt a model to one table and compare it with its rivals.

    Example: [bold]tttab run --dataset 31 --n 200 --k 1000[/]
    """
    dataset = os.path.expanduser(dataset)
    own = {"dataset": dataset, "task": task, "fold": fold, "target": target, "test_size": test_size}
    request = own | asdict(adapting)
    from tttab.bundle import bundle_folder
    from tttab.files import home_path
    from tttab.resources import keep_freed_memory

    quiet, out = quiet or as_json, out and home_path(out)
    keep_freed_memory()
    held = bundle_folder(out, waiting=console.warn) if out else nullcontext()
    with ended_cleanly(), held as claim:
        document, remarks = _measure(request, claim, quiet)
    _print(document, as_json, remarks)
    if out is not None and not as_json:
        console.note(f"kept in {shown(out)}: tttab predict {shell_word(out)} NEW.csv", quiet=quiet)


def _measure(request: dict[str, Any], claim: Claim | None, quiet: bool) -> tuple[dict[str, Any], list[str]]:
    """Run every arm, keep what is to be kept in the claimed folder, and return the document and remarks."""
    from tttab.bundle import room_for

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        unit = open_unit(request, quiet)
        # The arm icl@n+k comes last: what it cannot read must not be found out after the training.
        rows = unit.split.n + unit.split.k
        unit.session.check_fits(len(unit.table.classes), unit.table.x.shape[1], rows)
        if claim is not None:
            claim.check_room(room_for(unit.session))
        outcomes = _run_arms(unit, quiet)
    for outcome in outcomes:
        if outcome.adapted is not None:
            console.note(f"{outcome.row.arm}: {outcome.adapted.manner}", quiet=quiet)
    ended = [remark for outcome in outcomes for remark in stopped(outcome.adapted)]
    remarks = list(dict.fromkeys([*cautions(unit), *told(caught), *ended]))
    document = _document(request, unit, outcomes, remarks)
    if claim is not None:
        _keep(claim, document, unit, outcomes)
    return document, remarks


def _run_arms(unit: Unit, quiet: bool) -> list[Outcome]:
    from tttab.evaluation.arms import Progress

    outcomes = []
    with console.progress(quiet=quiet) as bar:
        for arm in ARMS:
            task = bar.add_task(f"{arm:8}", total=unit.schedule.steps if arm == "ttt@n+k" else 1, info="")
            for event in unit.run(arm):
                if isinstance(event, Progress):
                    step = event.step
                    info = f"loss {step.loss:.4f}  held-out {step.held_out:.4f}  best {step.best:.4f}"
                    bar.update(task, completed=step.number, info=info)
                else:
                    outcomes.append(event)
            bar.update(task, visible=False)
    return outcomes


def _document(
    request: dict[str, Any], unit: Unit, outcomes: list[Outcome], remarks: list[str]
) -> dict[str, Any]:
    """Return everything there is to know of the run as plain data."""
    from tttab.bundle.manifest import versions
    from tttab.resources import peak_resident_bytes

    table, split, info = unit.table, unit.split, unit.session.info
    return {
        "dataset": {
            "name": table.name,
            "source": table.source,
            "openml_id": table.openml_id,
            "fingerprint": table.fingerprint,
            "target": table.target,
            "rows": len(table),
            "features": table.x.shape[1],
            "classes": list(table.classes),
            "notes": list(table.notes),
        },
        "request": request,
        "split": {"n": split.n, "k": split.k, "test": len(split.test), "notes": list(split.notes)},
        "model": {
            "name": info.name,
            "file": info.file,
            "sha256": info.sha256,
            "provenance": info.provenance,
            "parameters": info.parameters,
            "device": str(unit.session.device),
        },
        "arms": [_arm(outcome) for outcome in outcomes],
        "peak_rss_mb": round(peak_resident_bytes() / 1024**2, 1),
        "versions": {"tttab": tttab.__version__, **versions()},
        "warnings": remarks,
    }


def _arm(outcome: Outcome) -> dict[str, Any]:
    row = outcome.row.to_dict()
    names = (
        "arm",
        "n_context",
        "k",
        "metrics",
        "seconds",
        "ms_per_1000_rows",
        "cache_bytes",
        "steps",
        "accepted",
    )
    extra = {}
    if outcome.adapted is not None:
        adapted = outcome.adapted
        extra = {
            "held_out": {"before": adapted.before, "after": adapted.after},
            "chunk": adapted.plan.chunk if adapted.plan else None,
            "precision": adapted.precision,
            "stopped": adapted.stopped,
            "vetoed": adapted.vetoed,
        }
    return {name: row[name] for name in names} | extra


def _print(document: dict[str, Any], as_json: bool, remarks: list[str]) -> None:
    if as_json:
        console.print_json(document)
        return
    for remark in remarks:
        console.warn(remark)
    data = document["dataset"]
    title = f"{data['name']}: {document['split']['test']} test rows; differences to icl@n below each figure"
    stacked = console.stdout().is_terminal
    columns, rows = _table(document["arms"], stacked=stacked)
    console.print_table(columns, rows, title=title, left=("arm",), stacked=stacked)
    console.conclude(_verdict(document))


def _table(arms: list[dict[str, Any]], *, stacked: bool) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows; differences stand below the figures, or in columns of their own."""
    names = list(arms[0]["metrics"])
    values = [[_figure(arm["metrics"].get(name)) for name in names] for arm in arms]
    deltas = [[_difference(arm, arms[0], name) for name in names] for arm in arms]
    costs = [_cost_cells(arm) for arm in arms]
    lead = [[arm["arm"], str(arm["n_context"] or "-")] for arm in arms]
    if stacked:
        columns = ["arm", "rows\nread", *(LABELS[name].replace(" ", "\n") for name in names)]
        columns += ["adapt\ns", "ms per\n1,000", "KV\ncache"]
        figures = [
            [f"{value}\n{delta}" for value, delta in zip(*pair, strict=True)]
            for pair in zip(values, deltas, strict=True)
        ]
        return columns, [a + f + c for a, f, c in zip(lead, figures, costs, strict=True)]
    columns = ["arm", "n_context", *names, *(f"d_{name}" for name in names)]
    columns += ["adapt_s", "ms_per_1000", "cache"]
    return columns, [a + v + d + c for a, v, d, c in zip(lead, values, deltas, costs, strict=True)]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _difference(arm: dict[str, Any], base: dict[str, Any], name: str) -> str:
    value = arm["metrics"].get(name)
    return "" if arm is base or value is None else f"{value - base['metrics'][name]:+.4f}"


def _cost_cells(arm: dict[str, Any]) -> list[str]:
    from tttab.resources import format_bytes

    cache = format_bytes(arm["cache_bytes"]) if arm["cache_bytes"] is not None else "-"
    adapt = f"{arm['seconds']['adapt']:.1f}" if arm["seconds"]["adapt"] else "-"
    return [adapt, f"{arm['ms_per_1000_rows']:.0f}", cache]


def _verdict(document: dict[str, Any]) -> str:
    """Say in one sentence what test-time training gained, what it cost and when it has paid for itself."""
    icl, ttt, full = document["arms"][:3]
    n, k = document["split"]["n"], document["split"]["k"]
    if ttt["accepted"] is None:
        why = ttt["stopped"] or "the rule `none` trains nothing"
        return f"Nothing was trained: {why}. Both arms are plain in-context learning with {n} rows."
    if not ttt["accepted"]:
        why = refusal(ttt) or f"no step beat them on the held-out part of the {k} rows"
        return (
            f"TTT kept the pretrained weights: {why} "
            f"(loss {ttt['held_out']['before']:.4f}), and looking cost {ttt['seconds']['adapt']:.1f} s."
        )
    before, after = icl["metrics"], ttt["metrics"]
    loss, name = ("log_loss", "log loss") if "log_loss" in before else ("nll", "negative log likelihood")
    verb = "lowered" if after[loss] < before[loss] else "RAISED"
    return (
        f"With the same {n} context rows TTT {verb} the {name} from {before[loss]:.4f} to {after[loss]:.4f} "
        f"and moved {_second_figure(before, after)}; it cost {ttt['seconds']['adapt']:.1f} s, and "
        f"{_break_even(ttt, full, n + k)}."
    )


def _second_figure(before: dict[str, float], after: dict[str, float]) -> str:
    if "accuracy" in before:
        return f"accuracy by {100 * (after['accuracy'] - before['accuracy']):+.1f} points"
    return f"the RMSE by {100 * (after['rmse'] / before['rmse'] - 1):+.1f} %"


def _break_even(ttt: dict[str, Any], full: dict[str, Any], rows: int) -> str:
    saved = full["ms_per_1000_rows"] - ttt["ms_per_1000_rows"]
    if saved <= 0:
        return f"a prediction is no cheaper here than with all {rows} rows as context"
    count = ttt["seconds"]["adapt"] * 1e6 / saved
    return f"against icl@n+k ({rows} rows as context) it has paid for itself after {count:,.0f} predictions"


def _keep(claim: Claim, document: dict[str, Any], unit: Unit, outcomes: list[Outcome]) -> None:
    """Write the adapted model with its context as a bundle, beside it the predictions and the JSON."""
    from tttab.bundle import Bundle, adaptation_record, save_bundle, table_record
    from tttab.data import schema_of
    from tttab.files import plain

    adapted = next(outcome.adapted for outcome in outcomes if outcome.adapted is not None)
    by_arm = {outcome.row.arm: dict(outcome.row.metrics) for outcome in outcomes}
    record = {
        "table": table_record(unit.table),
        "split": document["split"] | {"seed": unit.split.seed, "rows": unit.split.digest},
        "adaptation": adaptation_record(adapted, unit.rule, unit.schedule, unit.seed),
        "metrics": {
            "test": {
                "rows": len(unit.split.test),
                "before": by_arm["icl@n"],
                "after": by_arm["ttt@n+k"],
            }
        },
    }
    x, y = unit.rows("context")
    bundle = Bundle(adapted.session, x, y, schema_of(unit.table), record)
    text = json.dumps(plain(document), indent=2, ensure_ascii=False)
    predictions = _predictions(unit, outcomes)
    attachments = {
        "result.json": lambda path: path.write_text(text + "\n", encoding="utf-8"),
        "predictions.csv": lambda path: predictions.to_csv(path, index=False),
    }
    save_bundle(claim, bundle, attachments)


def _predictions(unit: Unit, outcomes: list[Outcome]) -> pd.DataFrame:
    """Return one line per test row: its number in the table, its label, what each arm predicts."""
    import numpy as np
    import pandas as pd

    y, classes = unit.table.y[unit.split.test], np.array(unit.table.classes, dtype=object)
    columns = {"row": unit.split.test, "label": classes[y] if len(classes) else y}
    for outcome in outcomes:
        if not len(classes):
            columns[outcome.row.arm] = outcome.probabilities
        for number, name in enumerate(classes):
            columns[f"{outcome.row.arm}:{name}"] = outcome.probabilities[:, number]
    return pd.DataFrame(columns)
