"""Guards: which of the weights that training passed through are kept.

Every scored step is a candidate, step 0 (the untouched weights) among them. What does not belong
here: making the candidates (`optimizers`) and scoring them (`loop`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tttab.errors import RequestError

if TYPE_CHECKING:
    import torch

GUARDS = {
    "loss": "the smallest held-out loss wins, the untouched weights are a candidate",
    "loss+ece": "the same, but a step that is worse calibrated than the untouched weights is none",
    "off": "the last step wins, whatever the held-out rows say",
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
    score: Score = field(init=False)
    vetoed: list[int] = field(default_factory=list)
    """Steps with a better loss that were refused for their calibration."""

    def __post_init__(self) -> None:
        self.score = self.before

    def consider(
        self, step: int, size: float, score: Score, state: Callable[[], dict[str, torch.Tensor]]
    ) -> None:
        """Keep the candidate if the guard prefers it; `state` copies the weights when asked."""
        if self._prefers(step, score):
            self.step, self.size, self.score, self.state = step, size, score, state()

    def _prefers(self, step: int, score: Score) -> bool:
        if not math.isfinite(score.loss):
            return False
        if self.guard == "off":
            return True
        better = score.loss < self.score.loss
        if better and self.guard == "loss+ece" and self._miscalibrated(score):
            self.vetoed.append(step)
            return False
        return better

    def _miscalibrated(self, score: Score) -> bool:
        return score.ece > self.before.ece + ECE_ALLOWANCE / np.sqrt(score.rows)


def check_guard(name: str) -> None:
    """Raise RequestError where there is no such guard."""
    if name not in GUARDS:
        raise RequestError(f"no guard is called {name!r}", f"--guard {'|'.join(GUARDS)}")
