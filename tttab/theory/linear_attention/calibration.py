"""Experiment: predicted against measured improvement over many constructed tasks (the papers' own check).

Rank correlation and slope are computed over the families of `covariances`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tttab.theory.experiment import PAPER_A, Experiment, Row, option
from tttab.theory.linear_attention.settings import FamilyName, Precondition, Sized, more_trials
from tttab.theory.linear_attention.views import BARS, Kind, figure_title, tables_by_kind, verdict
from tttab.theory.plots import Panel, Series, column, distinct

if TYPE_CHECKING:
    import numpy as np

    from tttab.theory.linear_attention.problem import LinearProblem

FAMILIES: tuple[FamilyName, ...] = ("two-level", "power-law", "random")
PREDICTORS = {
    "gain_papers": "papers' formula",
    "gain_limit": "leading order, any Sx",
    "gain_exact": "exact law",
}


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings(Sized):
    """The tasks."""

    n: int | None = option(None, "Context rows; default d/2.", low=1)
    k: int | None = option(None, "Training rows; default 2d.", low=1)
    tasks: int = option(21, "Tasks of each of the three families, turning from unlikely to likely.", low=3)


def calibration(settings: CalibrationSettings) -> Iterator[Row]:
    """Yield a row per task and step, plain and whitened, then one of kind `fit` per step and predictor.

    `rank` is the rank correlation of predicted and measured gains over all tasks, `slope` that of the
    measured in the predicted, `off` the mean of predicted over measured.
    """
    from tttab.theory.linear_attention.covariances import covariance_family
    from tttab.theory.linear_attention.problem import LinearProblem, pretrained_weights, whitened

    settings.sampling.backend.check_matrices(settings.d)
    n, k = settings.sizes(settings.n, settings.k)
    steps: tuple[Precondition, ...] = ("none", "sx")
    for step in steps:
        rows = []
        for family in FAMILIES:
            for task in range(settings.tasks):
                pair = covariance_family(family, settings.d, settings.seed + task)
                weights = pretrained_weights(pair.covariance, pair.prior, n)
                share = task / (settings.tasks - 1)
                plain = LinearProblem(pair.task(share), weights, pair.covariance, n, k)
                identity = {"precondition": step, "family": family, "task": task, "alignment": share}
                rows.append(_row(settings, identity, whitened(plain) if step == "sx" else plain))
                yield rows[-1]
        for predictor in PREDICTORS:
            yield _head(settings) | {
                "precondition": step,
                "kind": "fit",
                "predictor": predictor,
                **fit(rows, predictor),
            }


def fit(rows: Sequence[Row], predictor: str) -> Row:
    """Return how well a predictor orders and sizes the measured gains."""
    import numpy as np

    predicted, measured = (np.array(column(rows, name)) for name in (predictor, "gain_measured"))
    rank, slope = agreement(predicted, measured)
    return {"rank": rank, "slope": slope, "off": float((predicted / measured).mean())}


def agreement(predicted: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """Return the rank correlation of two sets of gains, and the slope of the measured in the predicted."""
    import numpy as np

    first, second = (values.argsort().argsort() for values in (predicted, measured))
    return float(np.corrcoef(first, second)[0, 1]), float(np.polyfit(predicted, measured, 1)[0])


def _head(settings: CalibrationSettings) -> Row:
    n, k = settings.sizes(settings.n, settings.k)
    return {"experiment": "calibration", "convention": "F", "d": settings.d, "n": n, "k": k}


def _row(settings: CalibrationSettings, identity: Row, problem: LinearProblem) -> Row:
    from tttab.theory.linear_attention import limit
    from tttab.theory.linear_attention.law import one_step
    from tttab.theory.linear_attention.measure import Measured, checked, matrix_sampler, measure
    from tttab.theory.linear_attention.settings import Sampling

    law = one_step(problem)
    sampler = matrix_sampler([problem], settings.sampling.sampler)
    names = ["calibration", *map(str, identity.values()), problem.d, problem.n, problem.k]

    def look(sampling: Sampling) -> list[Measured]:
        return measure(sampler, sampling, names, "F", [law.best_step])

    ((seen, agrees),) = checked(look, settings.sampling, [law.best])
    return {
        **_head(settings),
        **identity,
        "gain_papers": limit.papers_gain(problem),
        "gain_limit": limit.general_gain(problem),
        "gain_exact": law.gain,
        "gain_measured": seen.gain,
        "gain_stderr": seen.gain_stderr,
        "agrees": agrees,
    }


def answer(rows: Sequence[Row]) -> str:
    """Say what each step's predictions by the papers' formula are worth."""
    words = {"none": "plain step", "sx": "whitened step"}
    parts = [
        f"{words[row['precondition']]}: rank correlation {row['rank']:.2f}, slope {row['slope']:.2f},"
        f" {row['off']:.2f} times the measured gain on average"
        for row in rows
        if row["predictor"] == "gain_papers"
    ]
    return f"the papers' formula, {'; '.join(parts)}"


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return measured against predicted gains, a panel per step, a colour per family."""
    found = []
    points = [row for row in rows if not row.get("kind")]
    for (step,) in distinct(points, "precondition"):
        here = [row for row in points if row["precondition"] == step]
        top = max(max(column(here, "gain_papers")), max(column(here, "gain_measured")))
        series = [Series("measured = predicted", [0, top], [0, top], "dotted", 6)]
        for colour, (family,) in enumerate(distinct(here, "family")):
            part = [row for row in here if row["family"] == family]
            bars = [BARS * row["gain_stderr"] for row in part]
            x, y = column(part, "gain_papers"), column(part, "gain_measured")
            series.append(Series(f"{family}", x, y, "points", colour, bars))
        title = "Plain step" if step == "none" else "Step whitened by Sx"
        found.append(Panel(title, "predicted by k/(k+d) A²/(A+B)", "measured improvement / b'Sx b", series))
    return found


EXPERIMENT = Experiment(
    name="calibration",
    help="Predicted against measured improvement over many constructed tasks, plain and whitened step.",
    example="--tasks 30 --plot calibration.svg",
    group=PAPER_A,
    settings=CalibrationSettings,
    rows=calibration,
    columns=(
        *("experiment", "convention", "d", "n", "k", "precondition", "family", "task", "alignment"),
        *("gain_papers", "gain_limit", "gain_exact", "gain_measured", "gain_stderr", "agrees"),
        *("kind", "predictor", "rank", "slope", "off"),
    ),
    quick=(CalibrationSettings(d=8, trials=300, tasks=3),),
    tables=tables_by_kind(
        {
            None: Kind(
                (
                    *("precondition", "family", "alignment"),
                    *("gain_papers", "gain_limit", "gain_exact", "gain_measured", "gain_stderr"),
                ),
                answer=lambda rows: f"measured gains {verdict(rows)}",
            ),
            "fit": Kind(
                ("precondition", "predictor", "rank", "slope", "off"), "Predicted against measured", answer
            ),
        }
    ),
    panels=panels,
    title=figure_title,
    total=lambda settings: 2 * (len(FAMILIES) * settings.tasks + len(PREDICTORS)),
    retry=more_trials,
)
