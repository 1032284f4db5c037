"""What an arm reports while it runs and when it is done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tttab.blend.blending import Blend
from tttab.core import Row
from tttab.training.result import Adapted, Estimate, Step


@dataclass(frozen=True)
class Progress:
    """An arm is at work: the step it has reached."""

    arm: str
    step: Step


@dataclass(frozen=True)
class Planned:
    """An arm is about to train, within a time."""

    arm: str
    estimate: Estimate


Event = Planned | Progress


@dataclass
class Outcome:
    """An arm is done."""

    row: Row
    probabilities: np.ndarray
    """Predictions on the test rows: probabilities, shape (test, classes), or means, shape (test,)."""
    adapted: Adapted | None = None
    blend: Blend | None = None
