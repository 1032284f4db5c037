"""`tttab advise`: before any training, what a model could still learn from a table's rows."""

from __future__ import annotations

from typing import Annotated

import typer

from tttab.cli import completion, options, output
from tttab.cli.opening import open_trial
from tttab.cli.signals import ended_cleanly


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("advise", rich_help_panel="Adapt")(advise)


def advise(
    table: Annotated[
        str,
        typer.Argument(
            help="A CSV, Parquet or ARFF file, an OpenML id, or a known name.",
            autocompletion=completion.datasets,
        ),
    ],
    target: Annotated[str | None, typer.Option(help="Target column (default: the last).")] = None,
    n: options.N = 200,
    k: options.K = 1000,
    seed: options.Seed = 0,
    model: options.Model = "auto",
    column: options.Columns = None,
    top_classes: options.TopClasses = None,
    top_features: options.TopFeatures = None,
    device: options.Device = "auto",
    members: options.Members = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Say before any training what the model could still learn from the rows; a report, no verdict.

    Example: [bold]tttab advise customers.csv --target churned[/]
    """
    from tttab.api import calls
    from tttab.evaluation import advice

    request = {
        "dataset": table, "target": target, "n": n, "k": k, "seed": seed, "model": model, "device": device,
        "members": members, "column": column, "top_classes": top_classes, "top_features": top_features,
    }  # fmt: skip
    quiet = quiet or as_json
    with ended_cleanly(), calls.collected():
        trial = open_trial(request, quiet, keep_test=False)
        with output.waiting("asking the rows", quiet=quiet):
            found = advice.advise(trial)
    if as_json:
        output.print_json(found.to_dict(trial, request))
        return
    output.print_table(("what", "nats", "meaning"), found.lines(), left=("what", "meaning"))
    output.print_summary(found.sentence)
