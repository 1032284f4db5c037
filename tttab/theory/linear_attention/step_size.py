"""Experiment: the loss as a function of the step, and what other ways to choose the step lose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tttab.theory.experiment import PAPER_A, Experiment, Row, option
from tttab.theory.linear_attention.settings import Simulation, more_trials
from tttab.theory.linear_attention.views import SIZES, Kind, figure_title, law_curves, tables_by_kind, verdict
from tttab.theory.plots import Panel, Series

LOSS = ("eta", "loss_exact", "loss_measured", "stderr")
LOST = ("lost", "lost_share", "loss_same_context")


@dataclass(frozen=True, kw_only=True)
class StepSizeSettings(Simulation):
    """The grid."""

    n: int | None = option(None, "Context rows; default d/2.", low=1)
    k: int | None = option(None, "Training rows; default 2d.", low=1)
    multiple: tuple[float, ...] = option(
        (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0), "Steps in units of the best one, with commas."
    )


def step_size(settings: StepSizeSettings) -> Iterator[Row]:
    """Yield the rows of `step_rules.step_rows`."""
    from tttab.theory.linear_attention.step_rules import step_rows

    settings.check()
    yield from step_rows(settings, *settings.sizes(settings.n, settings.k), settings.multiple)


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the loss against the step, and what each rule loses."""
    curve = [row for row in rows if row["kind"] == "curve"]
    same = [row for row in rows if row["kind"] == "same-context"]
    series = [
        *law_curves(curve, "multiple", "loss", f"convention {curve[0]['convention']}", 0),
        *law_curves(same, "multiple", "loss", "F's step, same context", 1),
    ]
    marks = [row for row in rows if row["kind"] == "choice"]
    choices = [Series("", [i], [row["lost_share"]], "points", i) for i, row in enumerate(marks)]
    zero = Series("the best step", [0, len(marks) - 1], [0, 0], "dotted", 6)
    rules = [row["rule"] for row in marks]
    return [
        Panel("The loss as a function of the step", "step / best step", "loss / |b|²", series),
        Panel(
            "What a rule for the step loses",
            "rule that chooses the step",
            "lost share of the improvement",
            [zero, *choices],
            x_names=rules,
        ),
    ]


def choice_answer(rows: Sequence[Row]) -> str:
    """Say what each rule loses of the improvement."""
    parts = [f"{row['rule']} {row['lost_share']:+.1%}" for row in rows if row["lost_share"] is not None]
    return f"lost share of the improvement: {'; '.join(parts)}"


EXPERIMENT = Experiment(
    name="step-size",
    help="The loss as a function of the step, and what other ways to choose the step lose.",
    example="--plot step-size.png",
    group=PAPER_A,
    settings=StepSizeSettings,
    rows=step_size,
    columns=(
        *("experiment", "kind", "convention", *SIZES, "noise"),
        *("multiple", *LOSS, "agrees", "rule", *LOST),
    ),
    quick=(StepSizeSettings(d=8, trials=300, multiple=(0.0, 1.0)),),
    tables=tables_by_kind(
        {
            None: Kind(("multiple", *LOSS), answer=lambda rows: f"measured points {verdict(rows)}"),
            "choice": Kind(("rule", *LOSS, *LOST), answer=choice_answer),
        }
    ),
    panels=panels,
    title=figure_title,
    total=lambda settings: 2 * len(settings.multiple) + 4,
    retry=more_trials,
)
