"""`tttab adapt`: adapt a model to a table and keep it, with its context, as a bundle to predict from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tttab.cli import completion, options, output
from tttab.cli.opening import ended_by_ctrl_c, open_trial, trained
from tttab.cli.signals import ended_cleanly
from tttab.text import shell_word, shown

if TYPE_CHECKING:
    from tttab.api.calls import AdaptResult
    from tttab.evaluation.trial import Trial


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("adapt", rich_help_panel="Adapt")(adapt)


@options.expand_options(options.AdaptOptions, "adapting")
def adapt(
    table: Annotated[
        str,
        typer.Argument(
            help="A CSV, Parquet or ARFF file, an OpenML id, or a name of `tttab data list`.",
            autocompletion=completion.datasets,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to save the bundle in.")],
    target: Annotated[str | None, typer.Option(help="Target column (default: the last).")] = None,
    test_size: Annotated[
        int, typer.Option(help="Test rows to set aside; 0: use every row for context and training.")
    ] = 0,
    held_rows: Annotated[
        bool, typer.Option(help="Save the held-out rows in the bundle; `tttab update` evaluates on them.")
    ] = True,
    rows: options.Rows = True,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    *,
    adapting: options.AdaptOptions,
) -> None:
    """Adapt a model to a table and keep it as a bundle to predict from.

    Example: [bold]tttab adapt customers.csv --target churned --out churn[/]
    """
    own = {"dataset": table, "task": None, "fold": 0, "target": target, "test_size": test_size or None}
    request = own | adapting.request()
    from tttab.api import calls
    from tttab.bundle import bundle_folder, room_for, save_bundle
    from tttab.bundle.rowless import check_rowless, without_rows
    from tttab.system.files import home_path

    quiet, out = quiet or as_json, home_path(out)
    with ended_cleanly(), bundle_folder(out, waiting=output.warn) as claim:
        with calls.collected() as caught:
            trial = open_trial(request, quiet, keep_test=test_size > 0)
            output.note(_division(trial), quiet=quiet)
            claim.check_room(room_for(trial.model))
            if not rows:
                check_rowless(trial.model)
            with calls.logged(trial, request):
                with ended_by_ctrl_c(trial, adapting.keep_on_interrupt):
                    adapted = trained(trial, quiet)
                output.note(adapted.plan_summary, quiet=quiet)
                result = calls.adapt_result(trial, adapted, caught, adapting.blend, adapting.threshold)
        kept = result.bundle if rows else without_rows(result.bundle)
        save_bundle(claim, kept if held_rows else replace(kept, held=None))
    _print(out, result, as_json)


def _division(trial: Trial) -> str:
    """Say which rows are used for what."""
    split = trial.split
    unused = len(trial.table) - split.n - split.k - len(split.test)
    parts = [f"{split.n:,} rows are the context", f"{split.k:,} the training queries"]
    parts += [f"the last {split.held:,} of them choose the step"] if split.held else []
    parts += [f"{len(split.test):,} are kept aside to measure on"] if len(split.test) else []
    larger = "" if split.held else f" (--k {split.k + unused} would)"
    parts += [f"{unused:,} are not used{larger}"] if unused else []
    return "rows: " + ", ".join(parts)


def _print(out: Path, result: AdaptResult, as_json: bool) -> None:
    from tttab.bundle.card import TITLES
    from tttab.bundle.manifest import read_manifest

    if as_json:
        output.print_json({"out": out, "manifest": read_manifest(out), "warnings": result.warnings})
        return
    for remark in result.warnings:
        output.warn(remark)
    output.print_change(result.metrics, TITLES, "pretrained", "adapted")
    serve = f"tttab predict {shell_word(out)} NEW.csv --out predictions.csv"
    output.print_summary(f"{result.verdict} Kept in {shown(out)}: {serve}")
