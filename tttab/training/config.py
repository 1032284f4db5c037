"""How far the weights move and what is kept: settings alone, without the registries they name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tttab.core import Loss

STEP_MEMBERS = 2
"""Members that a step trains where nothing else is asked: as many as the bundled models have."""
SCORING_SHARE = 0.5
"""The most that held-out scores may take, of the time that the steps take."""
RACED = (1e-3, 3e-3)
"""Learning rates that race where nothing else is asked, for a network of `RACED_WEIGHTS` or fewer."""
RACED_WEIGHTS = 550_000
"""Weights of the bundled classifier, on which these rates were chosen."""
STARTS = ("pretrained", "random")
LOSSES: dict[Loss, str] = {
    "ensemble": "the loss of the members' average, as in prediction",
    "members": "the mean of the members' own losses",
}
LATER = ("max_seconds", "train_members", "step_members", "loss", "rates", "metric", "taught", "balanced")
"""Settings that came after the first rows: an identity leaves them out where they ask for nothing special."""
LARGEST_RATE = 1e3
"""Beyond it float32 overflows before a loss could say so."""


@dataclass(frozen=True)
class Schedule:
    """How far the weights move, and what is kept."""

    steps: int = 50
    """Steps of an optimiser that takes several."""
    lr: float = 3e-4
    """Learning rate where every weight moves; a rule that moves few multiplies it by its `rate`."""
    batch: int = 256
    """Query rows per step."""
    warmup: int = 5
    """Steps over which the rate rises linearly."""
    clip: float = 1.0
    """Largest norm of the gradient of the mean loss."""
    weight_decay: float = 0.0
    held_out: float = 0.2
    """Share of the k rows that chooses the step."""
    evaluate_every: int = 2
    """Steps between held-out scores, at least: more where a score would cost much beside the steps."""
    optimizer: str = "adamw"
    """`adamw`, `sgd-1` or `race`."""
    split: str = "fixed"
    """`fixed`, `redraw` or `kfold`: the contexts that training sees."""
    guard: str = "loss"
    """`loss`, `loss+ece` or `off`: which candidate is kept."""
    metric: str | None = None
    """What the guard compares in the place of the loss, one of `tttab.metrics.METRICS`; None: the loss."""
    init: str = "pretrained"
    """`pretrained` (warm start) or `random` (cold start)."""
    precision: str = "auto"
    """`auto`, `fp32` or `bf16`: the arithmetic of the training steps."""
    max_seconds: float | None = None
    """The most that preparing and training may take; as many steps are taken as fit, at most `steps`."""
    train_members: int | None = None
    """Ensemble members that train; None: all that serve."""
    step_members: int | None = None
    """Of those, how many one step trains, taking turns; None: at most `STEP_MEMBERS`."""
    loss: Loss = "ensemble"
    """`ensemble` or `members`: which loss trains. Held-out rows are scored as served."""
    rates: tuple[float, ...] = ()
    """Learning rates that race, in the place of `lr`; `steps` are then those of all of them together."""
    taught: bool = False
    """Race every rate twice: on the labels, and on what teachers make of the rows (`evaluation.teacher`)."""
    balanced: bool = False
    """Whether every class counts alike in the training loss and the guard."""

    @property
    def lanes(self) -> int:
        """How many runs there are side by side."""
        return max(1, len(self.rates)) * (1 + self.taught)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings by name; those that ask for nothing special are left out.

        What a row's identity holds: a setting that came later must not give an earlier row another key.
        """
        later = {name: getattr(Schedule, name) for name in LATER}
        return {
            name: value for name, value in asdict(self).items() if name not in later or value != later[name]
        }
