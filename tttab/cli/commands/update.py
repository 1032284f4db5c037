"""`tttab update`: train a bundle further on new labelled rows, and keep a new version beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tttab.cli import completion, options, output
from tttab.cli.opening import ended_by_ctrl_c, trained
from tttab.cli.signals import ended_cleanly
from tttab.text import shell_word, shown

if TYPE_CHECKING:
    from tttab.api.update import UpdateResult
    from tttab.evaluation.trial import Trial

_AS_BEFORE = "(default: as the bundle was adapted)."


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("update", rich_help_panel="Adapt")(update)


def update(
    bundle: options.Bundle,
    rows: Annotated[Path, typer.Argument(help="New rows with their labels: CSV, TSV, Parquet or ARFF.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the new version (default: NAME-2 beside the bundle).")
    ] = None,
    rule: Annotated[
        str | None, typer.Option(help=f"Which weights to train {_AS_BEFORE}", autocompletion=completion.rules)
    ] = None,
    steps: Annotated[int | None, typer.Option(help=f"Largest number of gradient steps {_AS_BEFORE}")] = None,
    lr: Annotated[float | None, typer.Option(help=f"Learning rate {_AS_BEFORE}")] = None,
    seed: options.Seed = 0,
    time: options.Time = None,
    max_memory: options.MaxMemory = "4G",
    device: options.Device = "auto",
    keep_on_interrupt: options.KeepOnInterrupt = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a bundle further on new labelled rows; keep the new version if it is better on held-out rows.

    Example: [bold]tttab update churn november.csv[/]
    """
    from tttab.api import calls
    from tttab.api import update as updates
    from tttab.bundle import bundle_folder, load_bundle, room_for, save_bundle, schema_in
    from tttab.bundle.manifest import read_manifest
    from tttab.system.files import home_path

    quiet, bundle, rows = quiet or as_json, home_path(bundle), home_path(rows)
    request = updates.UpdateRequest(rule, steps, lr, seed, time, max_memory)
    schema = schema_in(read_manifest(bundle), bundle)
    raw = updates.read_rows(rows, schema)
    updates.labelled(schema, raw)
    out = updates.next_version(bundle) if out is None else home_path(out)
    updates.check_other_folder(out, bundle)
    with ended_cleanly(), bundle_folder(out, waiting=output.warn) as claim:
        with calls.collected() as caught:
            with output.waiting("opening the bundle", quiet=quiet):
                opened = load_bundle(bundle, device=device)
                trial = updates.update_trial(opened, raw, request)
            output.note(_division(trial), quiet=quiet)
            claim.check_room(room_for(trial.model))
            with ended_by_ctrl_c(trial, keep_on_interrupt):
                adapted = trained(trial, quiet)
            result = updates.update_result(opened, trial, adapted, caught)
        if result.accepted:
            save_bundle(claim, result.bundle)
    _print(out, result, (*opened.notes, *result.warnings), as_json)


def _division(trial: Trial) -> str:
    split = trial.split
    return (
        f"rows: {split.n:,} remain the context, {split.k:,} new ones train and choose the step, "
        f"{len(split.test):,} old ones evaluate it"
    )


def _print(out: Path, result: UpdateResult, remarks: tuple[str, ...], as_json: bool) -> None:
    from tttab.bundle.manifest import read_manifest

    if as_json:
        output.print_json(_document(out, result, remarks) | {
            "manifest": read_manifest(out) if result.accepted else None
        })  # fmt: skip
        return
    for remark in remarks:
        output.warn(remark)
    output.print_change(result.metrics, _ROWS_IN_WORDS, "old weights", "new weights")
    kept = f"Kept in {shown(out)}: tttab predict {shell_word(out)} NEW.csv --out predictions.csv"
    output.print_summary(f"{result.verdict} {kept if result.accepted else 'Nothing was written.'}")


def _document(out: Path, result: UpdateResult, remarks: tuple[str, ...]) -> dict[str, Any]:
    return {
        "accepted": result.accepted,
        "out": out if result.accepted else None,
        "verdict": result.verdict,
        "metrics": result.metrics,
        "warnings": remarks,
    }


_ROWS_IN_WORDS = {
    "new_held_out": "new held-out rows (they chose the step)",
    "old_held_out": "old held-out rows",
}
