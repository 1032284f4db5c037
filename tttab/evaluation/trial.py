"""One table, split and model, with what its arms share: rows, contexts, weights, training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tttab.contracts import Context, Objective, Rule, Session
from tttab.core import Table
from tttab.data.splits import Split, hold_out
from tttab.errors import RequestError
from tttab.evaluation.loggers import RunLogger, Silent
from tttab.evaluation.teacher import teacher_of
from tttab.evaluation.timing import LATENCY_CALLS
from tttab.rules import get_rule
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation
from tttab.training.memory_plan import DEFAULT_BUDGET
from tttab.training.result import Adapted

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Trial:
    """One (table, split, model), with what its arms share."""

    table: Table
    split: Split
    session: Session | None
    """An opened model, or None where only arms without one are run, or none is run at all."""
    rule: str = "full"
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0
    """Names the training streams; the split carries its own seed."""
    budget: int = DEFAULT_BUDGET
    open_seconds: float = 0.0
    trained: dict[tuple[str | None, ...], Adapted] = field(default_factory=dict)
    """What arms have trained, so that two arms with the same training share it."""
    latency_calls: int = LATENCY_CALLS
    """Extra calls that measure latency; 0 reads it off the prediction of the test rows, at no cost."""
    members: int | None = None
    """Ensemble members that predict; None: as many as the model's file says."""
    stop: Callable[[], str] = str
    """Called after every training step; a reason that it returns ends training, the best weights are kept."""
    logger: RunLogger = field(default_factory=Silent)
    planned_model: str = ""
    """The SHA-256 of the model file, for identities alone: where no session has been opened yet."""

    @property
    def model(self) -> Session:
        """The opened model.

        Raises:
            RequestError: the trial has none.
        """
        if self.session is None:
            raise RequestError("this trial has no model", "Trial(table, split, open_model())")
        return self.session

    @property
    def model_sha256(self) -> str:
        """The SHA-256 of the model file."""
        return self.session.info.sha256 if self.session is not None else self.planned_model

    def rows(self, part: str) -> tuple[pd.DataFrame, np.ndarray]:
        """Return x and y of a part of the split: `context`, `queries`, `test` or `labelled` (n + k)."""
        which = self._numbers(part)
        return self.table.x.iloc[which], self.table.y[which]

    def weights(self, part: str) -> np.ndarray | None:
        """Return how much each row of a part counts, shape (rows,); None: all alike."""
        return None if self.table.weights is None else self.table.weights[self._numbers(part)]

    @property
    def held(self) -> np.ndarray:
        """The numbers of the queries that choose the step."""
        share, classes = self.schedule.held_out, len(self.table.classes)
        return hold_out(self.rows("queries")[1], share, self.seed, classes=classes, held=self.split.held)[1]

    def _numbers(self, part: str) -> np.ndarray:
        if part == "labelled":
            return np.concatenate([self.split.context, self.split.queries])
        return getattr(self.split, part)

    def adaptation(
        self, rule: Rule | None = None, schedule: Schedule | None = None, session: Session | None = None
    ) -> Adaptation:
        """Return the training, by default with the trial's own rule, schedule and model, not yet begun."""
        model, schedule = session or self.model, schedule or self.schedule
        inputs = self.context, self.rows("queries"), schedule, self.seed
        return Adaptation(
            model, rule or get_rule(self.rule), *inputs, self.budget, teach=teacher_of(model, *inputs),
            objective=Objective(weights=self.weights("queries")), stop=self.stop, held=self.split.held,
        )  # fmt: skip

    @cached_property
    def context(self) -> Context:
        """The n context rows, prepared."""
        return self.model.context(*self.rows("context"), len(self.table.classes))

    @cached_property
    def whole_context(self) -> Context:
        """All n + k labelled rows, prepared."""
        return self.model.context(*self.rows("labelled"), len(self.table.classes))
