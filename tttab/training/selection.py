"""Guards: which of the weights that training passed through are kept.

Every scored step is a candidate, and so is step 0, the pretrained weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tttab.contracts import RowScores
from tttab.errors import RequestError
from tttab.metrics import METRICS, expected_calibration_error

if TYPE_CHECKING:
    import torch

GUARDS = {
    "loss": "the smallest held-out loss wins; the pretrained weights are a candidate",
    "loss+ece": "the same, but steps that are less calibrated than the pretrained weights are refused",
    "off": "the last step is kept, whatever the held-out loss",
}
ECE_ALLOWANCE = 0.25
"""A step may raise the held-out ECE by this over the square root of the held-out rows.

The ECE of m rows has a standard error of at most 0.5 / sqrt(m); the two ECEs come from the same rows,
so half of it is noise enough: 0.018 at 200 rows.
"""


@dataclass(frozen=True)
class Score:
    """What the held-out rows say of one set of weights."""

    loss: float
    """Mean loss, nats."""
    ece: float
    """Expected calibration error; NaN for regression."""
    rows: int
    metric: float = math.nan
    """What was asked for in the place of the loss, larger is better; NaN where nothing was."""


def score_of(
    rows: RowScores, y: np.ndarray, classes: int, metric: str | None, weights: np.ndarray | None = None
) -> Score:
    """Return what held-out rows with the labels `y` say, with a metric if one is asked for.

    `weights` say how much each row counts; the calibration error counts all alike.
    """
    ece = value = math.nan
    if rows.predicted is not None and np.isfinite(rows.predicted).all():
        ece = expected_calibration_error(y, rows.predicted) if classes else ece
        value = METRICS[metric][1](y, rows.predicted, weights) if metric else value
    return Score(float(np.average(rows.loss, weights=weights)), ece, len(y), value)


def selectors(guards: Iterable[str], untouched: Score, metric: str | None) -> list[Selector]:
    """Return one selector per guard, each guard once.

    Raises:
        RequestError: the metric cannot be computed on the held-out rows.
    """
    if metric is not None and math.isnan(untouched.metric):
        message = f"{metric} cannot be computed on {untouched.rows} held-out rows with these labels"
        raise RequestError(message, "--k 1000, or leave out --metric")
    return [Selector(guard, untouched, by_metric=metric is not None) for guard in dict.fromkeys(guards)]


@dataclass
class Selector:
    """The weights that one guard would keep."""

    guard: str
    before: Score
    """Of the untouched weights, step 0."""
    state: dict[str, torch.Tensor] = field(default_factory=dict)
    """The chosen weights; empty at step 0."""
    step: int = 0
    size: float = 0.0
    softened: bool = False
    """Whether it was trained on softened targets."""
    score: Score = field(init=False)
    vetoed: list[int] = field(default_factory=list)
    """Steps with a better loss that were refused for their calibration."""
    by_metric: bool = False
    """Whether the metric decides, and the loss only among equal ones."""

    def __post_init__(self) -> None:
        self.score = self.before

    def consider(
        self,
        step: int,
        size: float,
        score: Score,
        state: Callable[[], dict[str, torch.Tensor]],
        *,
        softened: bool = False,
    ) -> None:
        """Keep the candidate if the guard prefers it; `state` copies the weights when asked."""
        if self._prefers(step, score):
            self.step, self.size, self.score, self.state = step, size, score, state()
            self.softened = softened

    def _prefers(self, step: int, score: Score) -> bool:
        if not math.isfinite(score.loss) or (self.by_metric and math.isnan(score.metric)):
            return False
        if self.guard == "off":
            return True
        better = self._rank(score) < self._rank(self.score)
        if better and self.guard == "loss+ece" and self._miscalibrated(score):
            self.vetoed.append(step)
            return False
        return better

    def _rank(self, score: Score) -> tuple[float, float]:
        return (-score.metric if self.by_metric else 0.0, score.loss)

    def _miscalibrated(self, score: Score) -> bool:
        return score.ece > self.before.ece + ECE_ALLOWANCE / np.sqrt(score.rows)
