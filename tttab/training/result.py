"""What test-time training reports: each step, what it expects to cost, and the result."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tttab.contracts import Context, Execution, Session
from tttab.core import Precision
from tttab.system.resources import format_bytes, format_seconds
from tttab.training.config import Schedule
from tttab.training.memory_plan import MemoryPlan


@dataclass(frozen=True)
class Step:
    """What one step did; for `sgd-1` one trial size of its line search."""

    number: int
    total: int
    loss: float
    """Mean loss of the step's queries before the step, nats."""
    held_out: float
    """Loss of the held-out rows at the last evaluation, nats."""
    best: float
    """Held-out loss of the weights that would be kept now, nats."""
    seconds: float
    """Since the start."""
    size: float = math.nan
    """Learning rate, or step size."""
    ece: float = math.nan
    """Expected calibration error of the held-out rows at the last evaluation."""
    metric: float = math.nan
    """The metric that chooses, of the held-out rows at the last evaluation; NaN where the loss does."""


@dataclass(frozen=True)
class Estimate:
    """What training will take, from one measured step."""

    step_seconds: float
    """One step with its share of the held-out scores."""
    steps: int
    """As many as fit."""
    seconds: float
    """All of them, and what has passed already."""
    memory: int | None
    """Bytes planned; None where the model has no cost model."""
    members: int
    """Ensemble members that train."""
    served: int
    """Ensemble members that serve."""


@dataclass
class Adapted:
    """The result of test-time training."""

    session: Session
    """A session with the chosen weights; the given one where nothing was trained."""
    context: Context
    step: int
    """The step that was chosen; 0 is the untouched weights."""
    accepted: bool | None
    """False where the untouched weights won; None where the rule trains nothing."""
    before: float = math.nan
    """Held-out loss of the untouched weights, nats."""
    after: float = math.nan
    """Held-out loss of the chosen weights, nats."""
    history: list[Step] = field(default_factory=list)
    seconds: float = 0.0
    plan: MemoryPlan | None = None
    """How steps were made to fit; None where nothing was trained or the model has no cost model."""
    execution: Execution | None = None
    """How steps were run; None where nothing was trained."""
    stopped: str = ""
    """Why training ended early; empty where it did not."""
    ece_before: float = math.nan
    ece_after: float = math.nan
    metric_before: float = math.nan
    """Of the held-out rows, where a metric chooses; NaN where the loss does."""
    metric_after: float = math.nan
    size: float = 0.0
    """Learning rate or step size of the chosen step."""
    softened: bool = False
    """Whether the chosen weights were trained on softened targets."""
    vetoed: tuple[int, ...] = ()
    """Steps that were refused for their calibration."""
    others: dict[str, Session] = field(default_factory=dict)
    """Sessions with the weights that other guards would have kept, by guard."""
    estimate: Estimate | None = None
    """What was expected; None where no time was given."""
    schedule: Schedule | None = None
    """What was trained with: as many steps as fitted into the time; None where nothing was trained."""

    @property
    def precision(self) -> Precision:
        """The arithmetic of the training steps."""
        return "fp32" if self.execution is None else self.execution.precision

    @property
    def plan_summary(self) -> str:
        """In words: the arithmetic of the training steps, and the chunks they were cut into."""
        how = self.execution
        if how is None:
            return "nothing was trained"
        chunks = f"{how.chunk:,} queries at a time" if how.chunk else "all queries at once"
        chunks += ", member by member" if how.by_member else ""
        chunks += ", activations recomputed" if how.recompute_activations else ""
        planned = f", about {format_bytes(self.plan.needed)} planned" if self.plan else ""
        schedule, timed, raced = self.schedule, "", ""
        if schedule is not None and schedule.max_seconds is not None:
            timed = f", {len(self.history)} steps in {format_seconds(self.seconds)}"
        if schedule is not None and schedule.rates and self.accepted:
            taught = " on softened targets" if self.softened else ""
            raced = f", {self.step} steps at {self.size:g}{taught} won"
        return f"trained in {how.precision}, {chunks}{planned}{timed}{raced}"
