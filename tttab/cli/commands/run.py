"""`tttab run`: test-time training on one table, compared with its rivals.

Every number comes from `tttab.api.calls`; this file draws the bar and prints the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tttab.cli import completion, options, output
from tttab.cli.opening import ended_by_ctrl_c, expected, open_trial, step_info, warn_of_length
from tttab.cli.signals import ended_cleanly
from tttab.text import shell_word, shown

if TYPE_CHECKING:
    from tttab.evaluation.outcome import Outcome
    from tttab.evaluation.result import ArmResult, RunResult
    from tttab.evaluation.trial import Trial
    from tttab.system.claim import Claim


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("run", rich_help_panel="Adapt")(run)


@options.expand_options(options.AdaptOptions, "adapting")
def run(
    dataset: Annotated[
        str,
        typer.Option(
            help="Table: an OpenML id, a name of `tttab data list`, or a CSV, Parquet or ARFF file.",
            autocompletion=completion.datasets,
        ),
    ] = "31",
    task: Annotated[
        int | None,
        typer.Option(help="OpenML task instead of --dataset: its table, target and official split."),
    ] = None,
    fold: Annotated[int, typer.Option(help="Fold of the task's official split.")] = 0,
    target: Annotated[str | None, typer.Option(help="Target column of a file (default: the last).")] = None,
    test_size: Annotated[
        int | None, typer.Option(help="Test rows (default: a quarter of the table, at most 2,000).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to save the adapted model and the results in.")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    *,
    adapting: options.AdaptOptions,
) -> None:
    """Adapt a model to one table and compare it with its rivals.

    Example: [bold]tttab run --dataset 31 --n 200 --k 1000[/]
    """
    own = {"dataset": dataset, "task": task, "fold": fold, "target": target, "test_size": test_size}
    request = own | adapting.request()
    from tttab.bundle import bundle_folder
    from tttab.system.files import home_path
    from tttab.system.resources import keep_freed_memory

    quiet, out = quiet or as_json, out and home_path(out)
    keep_freed_memory()
    held = bundle_folder(out, waiting=output.warn) if out else nullcontext()
    with ended_cleanly(), held as claim:
        result = _measure(request, claim, quiet, adapting)
    _print(result, as_json)
    if out is not None and not as_json:
        output.note(f"kept in {shown(out)}: tttab predict {shell_word(out)} NEW.csv", quiet=quiet)


def _measure(
    request: dict[str, Any], claim: Claim | None, quiet: bool, adapting: options.AdaptOptions
) -> RunResult:
    """Run every arm and keep what is to be kept in the claimed folder."""
    from tttab.api import calls

    with calls.collected() as caught:
        trial = open_trial(request, quiet)
        calls.check_run(trial, claim)
        with ended_by_ctrl_c(trial, adapting.keep_on_interrupt), calls.logged(trial, request):
            outcomes = _run_arms(trial, calls.arms_of(adapting.blend), quiet)
    for outcome in outcomes:
        if outcome.adapted is not None and outcome.blend is None:
            output.note(f"{outcome.row.arm}: {outcome.adapted.plan_summary}", quiet=quiet)
    result = calls.run_result(request, trial, outcomes, caught)
    if claim is not None:
        calls.save_run(claim, result)
    return result


def _run_arms(trial: Trial, arms: Sequence[str], quiet: bool) -> list[Outcome]:
    from tttab.api import calls
    from tttab.evaluation.outcome import Outcome, Planned, Progress

    outcomes = []
    with output.progress(quiet=quiet) as bar:
        for arm in arms:
            task = bar.add_task(f"{arm:8}", total=trial.schedule.steps if arm == "ttt@n+k" else 1, info="")
            for event in calls.run_arms(trial, [arm]):
                if isinstance(event, Planned):
                    output.note(f"{arm}: {expected(event.estimate)}", quiet=quiet)
                    bar.update(task, total=event.estimate.steps)
                elif isinstance(event, Progress):
                    warn_of_length(event.step, quiet)
                    bar.update(task, completed=event.step.number, info=step_info(event.step))
                elif isinstance(event, Outcome):
                    outcomes.append(event)
            bar.update(task, visible=False)
    return outcomes


FOR_RARE, RARE_SHARE = ("balanced_accuracy", "average_precision"), 0.2
"""Metrics that a terminal shows where a class has less than this share of the rows: it has little room."""


def _print(result: RunResult, as_json: bool) -> None:
    if as_json:
        output.print_json(result.to_dict())
        return
    import numpy as np

    for remark in result.warnings:
        output.warn(remark)
    title = f"{result.table.name}: {len(result.split.test)} test rows; differences to icl@n below each figure"
    stacked = output.stdout().is_terminal
    classes = np.bincount(result.table.y) if result.table.classes else np.ones(1)
    rare = classes.min() < RARE_SHARE * classes.sum()
    columns, rows = _table(result.arms, stacked=stacked, hidden=() if rare or not stacked else FOR_RARE)
    output.print_table(columns, rows, title=title, left=("arm",), stacked=stacked)
    output.print_summary(result.verdict)


def _table(
    arms: Sequence[ArmResult], *, stacked: bool, hidden: Sequence[str] = ()
) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows; differences stand below the figures, or in columns of their own."""
    from tttab.evaluation.result import LABELS

    names = [name for name in arms[0].metrics if name not in hidden]
    values = [[_figure(arm.metrics.get(name)) for name in names] for arm in arms]
    deltas = [[_difference(arm, arms[0], name) for name in names] for arm in arms]
    costs = [_cost_cells(arm) for arm in arms]
    lead = [[arm.arm, str(arm.n_context or "-")] for arm in arms]
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


def _difference(arm: ArmResult, base: ArmResult, name: str) -> str:
    value = arm.metrics.get(name)
    return "" if arm is base or value is None else f"{value - base.metrics[name]:+.4f}"


def _cost_cells(arm: ArmResult) -> list[str]:
    from tttab.system.resources import format_bytes

    cache = format_bytes(arm.cache_bytes) if arm.cache_bytes is not None else "-"
    adapt = f"{arm.seconds['adapt']:.1f}" if arm.seconds["adapt"] else "-"
    return [adapt, f"{arm.ms_per_1000_rows:.0f}", cache]
