"""What an arm says while it is at work.

What does not belong here: arms (`arms`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tttab.training.result import Estimate, Step


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
