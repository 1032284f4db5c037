"""Experiment: one step's gain predicted from the labelled rows alone, against what the step does.

With v = b - Wu a training row's gradient is g_i = x_i r_i, r_i its residual, and E g_i = v. The products of
different rows' gradients estimate V = |v|^2 without bias; given the context the best step gains
k V^2/((k+1) V + d E r^2), so both numbers can be had before anything is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tttab.theory.experiment import PAPER_A, Experiment, Row, Settings, Table, option
from tttab.theory.linear_attention.calibration import agreement
from tttab.theory.plots import Panel, Series, column, distinct

if TYPE_CHECKING:
    import numpy as np

CONTEXTS, TRAINING, SCALES = (0.25, 3.0), (0.5, 4.0), (0.4, 1.3)
"""The range of n/d, of k/d and of the start's size over the pre-trained one's."""
NOISES = (0.0, 0.1, 0.5)
EDGES = (0.05, 0.15, 0.3, 0.6)
"""Predicted gains at which the table's bins end."""


@dataclass(frozen=True, kw_only=True)
class AdviseSettings(Settings):
    """The problems."""

    d: tuple[int, ...] = option((20, 50, 100), "Features, each of them in turn.", low=2, high=2000)
    problems: int = option(600, "Random problems.", low=10, high=100_000)
    seed: int = option(0, "Random seed.")


def predicted_step(gradients: np.ndarray, residuals: np.ndarray) -> tuple[float, float]:
    """Return the predicted gain over |b|^2 and the step on the summed gradient that should have it.

    Args:
        gradients: shape (k, d), one row's each.
        residuals: shape (k,).
    """
    k, d = gradients.shape
    total = gradients.sum(0)
    agreement = (total @ total - (gradients**2).sum()) / (k * (k - 1))
    error = (residuals**2).mean()
    signal = min(max(float(agreement), 0.0), float(error))
    if signal == 0.0:
        return 0.0, 0.0
    step = signal / ((k + 1) * signal + d * error)
    return k * signal * step, step


def advise(settings: AdviseSettings) -> Iterator[Row]:
    """Yield a row per problem: predicted and realised gain on the context that was trained on."""
    import numpy as np

    from tttab.seeding import numpy_stream

    for problem in range(settings.problems):
        rng, d = numpy_stream(settings.seed, "advise", problem), settings.d[problem % len(settings.d)]
        n, k = (max(2, round(d * rng.uniform(*share))) for share in (CONTEXTS, TRAINING))
        noise, scale = float(rng.choice(NOISES)), rng.uniform(*SCALES)
        b = rng.standard_normal(d)
        b /= np.linalg.norm(b)
        x, z = rng.standard_normal((n, d)), rng.standard_normal((k, d))
        y, labels = (m @ b + noise**0.5 * rng.standard_normal(len(m)) for m in (x, z))
        start = scale / (n + 1 + d * (1 + noise)) * (x.T @ y)
        residuals = labels - z @ start
        gain, step = predicted_step(z * residuals[:, None], residuals)
        v = b - start
        after = v - step * (z.T @ residuals)
        yield {
            "experiment": "advise", "convention": "S", "problem": problem,
            "d": d, "n": n, "k": k, "noise": noise,
            "gain_predicted": gain, "gain_measured": float(v @ v - after @ after),
        }  # fmt: skip


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return the means of problems that were promised about the same."""
    import numpy as np

    predicted, measured = (
        np.array(column(rows, name), float) for name in ("gain_predicted", "gain_measured")
    )
    places, shown = np.digitize(predicted, EDGES), []
    for place, (low, high) in enumerate(zip((0.0, *EDGES), (*EDGES, np.inf), strict=True)):
        here = places == place
        if here.any():
            means = [round(float(values[here].mean()), 4) for values in (predicted, measured)]
            name = f"{low:g} to {high:g}" if high < np.inf else f"from {low:g}"
            shown.append({"predicted": name, "problems": int(here.sum()), "mean predicted": means[0],
                          "mean measured": means[1], "worse": int((measured[here] < 0).sum())})  # fmt: skip
    rank, slope = agreement(predicted, measured)
    remark = (
        f"{len(rows)} problems gain {measured.mean():.3f} on average where {predicted.mean():.3f} was"
        f" predicted; rank correlation {rank:.2f}, slope {slope:.2f}: the extremes promise too much"
    )
    columns = ("predicted", "problems", "mean predicted", "mean measured", "worse")
    return [Table("advise · predicted from labelled rows alone", columns, shown, remark)]


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return realised against predicted gains, a colour per d."""
    top = max(*column(rows, "gain_predicted"), *column(rows, "gain_measured"))
    series = [Series("measured = predicted", [0, top], [0, top], "dotted", 6)]
    for colour, (d,) in enumerate(distinct(rows, "d")):
        part = [row for row in rows if row["d"] == d]
        x, y = column(part, "gain_predicted"), column(part, "gain_measured")
        series.append(Series(f"d = {d}", x, y, "points", colour))
    label = "predicted: k V²/((k+1)V + d mean r²)"
    return [Panel("Linear attention, one step", label, "measured improvement / |b|²", series)]


EXPERIMENT = Experiment(
    name="advise",
    help="One step's gain predicted from the labelled rows alone, against what the step then does.",
    example="--problems 1000 --plot advise.svg",
    group=PAPER_A,
    settings=AdviseSettings,
    rows=advise,
    columns=(
        *("experiment", "convention", "problem", "d", "n", "k", "noise"),
        *("gain_predicted", "gain_measured"),
    ),
    quick=(AdviseSettings(problems=12),),
    tables=tables,
    panels=panels,
    title=lambda rows: "What training gains, predicted from labelled rows",
    total=lambda settings: settings.problems,
)
