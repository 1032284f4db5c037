"""Experiment: several steps, constant and decaying, and gradient flow, against the single step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tttab.theory.experiment import PAPER_A, Experiment, Row, option
from tttab.theory.linear_attention.settings import MatrixSimulation, more_trials
from tttab.theory.linear_attention.views import BARS, SIZES, Kind, figure_title, tables_by_kind, verdict
from tttab.theory.plots import Panel, Series, Style, column

SCHEDULE = ("schedule", "decay", "steps", "tuned", "multiple")
MEASURED = ("loss_start", "loss_exact", "loss_measured", "stderr", "median")
MEASURED += ("loss_rows", "share_worse", "diverged")
BEST = ("gain_single", "gain_best", "share_kept")


@dataclass(frozen=True, kw_only=True)
class StepsSettings(MatrixSimulation):
    """The grid."""

    n: int | None = option(None, "Context rows; default d/2.", low=1)
    k: int | None = option(None, "Training rows; default 2d.", low=1)
    count: int = option(20, "Steps.", low=2)
    decay: tuple[float, ...] = option(
        (0.2, 0.4, 0.6, 0.8), "Decays of the step, with commas.", low=0, strict=True
    )


def steps(settings: StepsSettings) -> Iterator[Row]:
    """Yield the rows of `schedules.schedule_rows`."""
    from tttab.theory.linear_attention.schedules import schedule_rows

    settings.check(matrices=True)
    sizes = settings.sizes(settings.n, settings.k)
    yield from schedule_rows(settings, *sizes, settings.count, settings.decay)


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the loss after all steps against the decay, with the single step and gradient flow as lines."""
    here = [row for row in rows if row.get("kind") != "best"]
    start, single = here[0]["loss_start"], here[0]["loss_measured"]
    plain = [row for row in here if row["steps"] and row["steps"] > 1]
    series = [part for tuned in (False, True) for part in _points(plain, tuned, start)]
    tuned = [row for row in plain if row["tuned"]]
    x = [1.0 if row["decay"] is None else row["decay"] for row in tuned]
    series.append(Series("best first step, median", x, column(tuned, "median"), "crosses", 3))
    ends = [min(s for s in [0.2, *series[0].x]), 1.0]
    lines: list[tuple[str, float, Style, int]] = [
        ("untrained", start, "dotted", 6),
        ("single step", single, "line", 6),
    ]
    flow = [row["loss_measured"] for row in here if row["schedule"] == "flow"]
    lines += [("gradient flow, best time", value, "dashed", 2) for value in flow]
    series += [Series(label, ends, [y, y], style, colour) for label, y, style, colour in lines]
    return [Panel(f"{plain[0]['steps']} steps", "decay of the step (1: constant)", "loss / |b|²", series)]


def _points(rows: Sequence[Row], tuned: bool, start: float) -> list[Series]:
    """Return the measured losses, and crosses at the untrained loss where the steps diverged."""
    chosen = [row for row in rows if row["tuned"] is tuned]
    x = [row["decay"] if row["decay"] is not None else 1.0 for row in chosen]
    y = [None if row["diverged"] else row["loss_measured"] for row in chosen]
    bars = [None if row["diverged"] else BARS * row["stderr"] for row in chosen]
    label = "best first step" if tuned else "first step as the single one"
    gone = [place for place, value in zip(x, y, strict=True) if value is None]
    crosses = f"diverged ({label})" if gone else ""
    return [
        Series(label, x, y, "points", int(tuned), bars),
        Series(crosses, gone, [start] * len(gone), "crosses", int(tuned)),
    ]


def best_answer(rows: Sequence[Row]) -> str:
    """Say how much of the best gain the single step keeps."""
    row = rows[0]
    if row["share_kept"] is None:
        return "no schedule gains anything"
    how = row["schedule"] if row["decay"] is None else f"{row['schedule']} {row['decay']:g}"
    return f"the single step keeps {row['share_kept']:.0%} of the best gain found, that of {how}"


EXPERIMENT = Experiment(
    name="steps",
    help="Several steps, constant and decaying, and gradient flow, against the single step.",
    example="--d 60 --json",
    group=PAPER_A,
    settings=StepsSettings,
    rows=steps,
    columns=(
        *("experiment", "convention", *SIZES, "noise", *SCHEDULE, *MEASURED),
        *("finite", "agrees", "kind", *BEST),
    ),
    quick=(StepsSettings(d=8, trials=300, count=3, decay=(0.4,)),),
    tables=tables_by_kind(
        {
            None: Kind((*SCHEDULE, *MEASURED), answer=lambda rows: f"comparisons: {verdict(rows)}"),
            "best": Kind(("schedule", "decay", *BEST), answer=best_answer),
        }
    ),
    panels=panels,
    title=figure_title,
    total=lambda settings: 2 * len(settings.decay) + 5,
    retry=more_trials,
)
