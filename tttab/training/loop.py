"""Test-time training: one loop, a generator of steps, for every rule and optimiser.

The n context rows stay fixed; the k query rows are divided once, most train, a held-out part
chooses the step, with the untouched weights as a candidate (arXiv 2503.11842, section 3, for the
fixed context; the held-out choice is ours). What does not belong here: preprocessing (session),
which weights move (rules), how far (optimisers), under which context (batches), which candidate is
kept (guards), how results are compared (arms).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tttab.core import Rule, Session
from tttab.data.splits import hold_out
from tttab.errors import MemoryPlanError, RequestError, RuleError
from tttab.metrics import calibration_error
from tttab.resources import format_bytes, is_out_of_memory
from tttab.training.config import LARGEST_RATE, STARTS, Schedule
from tttab.training.context_policy import Labelled, get_context_policy
from tttab.training.memory_plan import DEFAULT_BUDGET, ExecutionMode, MemoryPlan, StepRequirements, plan_step
from tttab.training.optimizers import NotFinite, Update, get_optimizer
from tttab.training.precision import check_precision, choose_precision
from tttab.training.selection import Score, Selector, check_guard

if TYPE_CHECKING:
    import pandas as pd


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


@dataclass
class Adapted:
    """The result of test-time training."""

    session: Any
    """A session with the chosen weights; the given one where nothing was trained."""
    context: Any
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
    stopped: str = ""
    """Why training ended early; empty where it did not."""
    ece_before: float = math.nan
    ece_after: float = math.nan
    size: float = 0.0
    """Learning rate or step size of the chosen step."""
    vetoed: tuple[int, ...] = ()
    """Steps that were refused for their calibration."""
    precision: str = "fp32"
    """The arithmetic of the training steps."""
    others: dict[str, Any] = field(default_factory=dict)
    """Sessions with the weights that other guards would have kept, by guard."""

    @property
    def manner(self) -> str:
        """In words: the arithmetic of the training steps, and the pieces they were cut into."""
        if self.plan is None:
            return "nothing was trained"
        pieces = f"{self.plan.chunk:,} queries at a time"
        pieces += ", member by member" if self.plan.by_member else ""
        pieces += ", activations recomputed" if self.plan.checkpointing else ""
        return f"trained in {self.precision}, {pieces}, about {format_bytes(self.plan.needed)} planned"


def check_schedule(schedule: Schedule) -> None:
    """Raise RequestError where a value makes no sense."""
    if schedule.steps < 1:
        raise RequestError(f"steps must be at least 1, got {schedule.steps}", "--steps 50, or --rule none")
    if not 0 < schedule.lr <= LARGEST_RATE:
        raise RequestError(
            f"the learning rate must be above 0 and at most {LARGEST_RATE:g}, got {schedule.lr}", "--lr 3e-4"
        )
    if schedule.init not in STARTS:
        raise RequestError(f"no start is called {schedule.init!r}", f"--init {'|'.join(STARTS)}")
    get_optimizer(schedule.optimizer)
    get_context_policy(schedule.split)
    check_guard(schedule.guard)
    check_precision(schedule.precision)


class Adaptation:
    """Test-time training as an iterable of steps; `result` stands when it is exhausted.

    Args:
        session: the pretrained model; it is forked, never changed.
        rule: which weights move.
        context: `session.context(…)`.
        queries: x and y of the k labelled query rows; y holds class codes, or targets for regression.
        schedule: how far.
        seed: names the streams that divide and order the queries.
        budget: the most memory the process may hold, bytes; on a GPU the most its tensors may.
        others: guards beside the schedule's whose choice is kept in `result.others`.
    """

    def __init__(
        self,
        session: Session,
        rule: Rule,
        context: Any,
        queries: tuple[pd.DataFrame, np.ndarray],
        schedule: Schedule,
        seed: int = 0,
        budget: int = DEFAULT_BUDGET,
        *,
        others: tuple[str, ...] = (),
    ) -> None:
        self.result = Adapted(session, context, 0, None)
        self.schedule, self.rate = schedule, schedule.lr * rule.rate
        self._given, self._rule, self._context, self._raw = session, rule, context, queries
        self._seed, self._budget, self._others = seed, budget, others

    def __iter__(self) -> Iterator[Step]:
        """Train; yield after each step."""
        if self._context.constant is not None:
            self.result.stopped = "all targets of the context are equal"
        if self._rule.name == "none" or self.result.stopped:
            return
        check_schedule(self.schedule)
        self._start = time.perf_counter()
        with self._memory_errors():
            self._open()
        updates = get_optimizer(self.schedule.optimizer).updates(self, self._score)
        answer = None
        while True:
            try:
                with self._memory_errors():
                    update = updates.send(answer)
                    answer = self._evaluate(update) if update.evaluate else None
            except StopIteration:
                break
            except NotFinite as error:
                self.result.stopped = str(error)
                break
            self.result.history.append(self._report(update))
            yield self.result.history[-1]
        self._choose()

    def gradient(self, *, whole: bool) -> float:
        """Put the gradient of the mean loss of a batch, or of all training queries, into the parameters.

        Returns:
            The mean loss, nats.

        Raises:
            NotFinite: the loss or the norm of its gradient is.
        """
        for parameter in self.parameters:
            parameter.grad = None
        batches = self._source.whole() if whole else [self._source.batch(self.schedule.batch)]
        count = sum(len(batch.rows) for batch in batches)
        self._steps += 1
        chunk = self.result.plan.chunk
        loss = sum(
            self._session.accumulate(batch.context, batch.queries, batch.rows, 1 / count, chunk)
            for batch in batches
        )
        norms = [p.grad.norm().item() for p in self.parameters if p.grad is not None]
        if not math.isfinite(loss) or not all(map(math.isfinite, norms)):
            raise NotFinite(f"the loss or its gradient was not finite at step {self._steps}")
        return loss

    def _open(self) -> None:
        x, y = self._raw
        self._session = self._given.fork()
        if self.schedule.init == "random":
            self._session.reinitialise(self._seed)
        self.parameters = self._rule.parameters(self._session)
        if not self.parameters:
            raise RuleError(
                f"the rule {self._rule.name!r} selects no parameters of this model", "--rule full"
            )
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        train, self._held = hold_out(y, self.schedule.held_out, self._seed, classes=self._context.classes)
        raw = self._queries = self._session.queries(self._context, x, y)
        self._plan_memory(train)
        self._queries = self._session.embed(self._context, raw, self.result.plan.chunk)
        if self._queries is not raw:  # what is left of a step runs in float32
            self._session.precision = self.result.precision = "fp32"
        labelled = Labelled(self._session, self._context, self._queries, x, y, train, self._seed)
        self._source = get_context_policy(self.schedule.split)(labelled)
        self._steps = 0
        self._evaluate_untouched(raw)

    def _plan_memory(self, train: np.ndarray) -> None:
        from tttab.training.footprint import held_bytes, measure_step

        session = self._session

        def measure(mode: ExecutionMode) -> Any:
            session.by_member, session.checkpointing = mode.by_member, mode.checkpointing
            return measure_step(session, self._context, self._queries)

        weights = sum(p.numel() * p.element_size() for p in self.parameters)
        batch = min(self.schedule.batch, len(train))
        held = held_bytes(session.device)
        piece = session.piece(self._context)
        plan = plan_step(
            StepRequirements(self._budget, held, weights, self._context.n, batch, piece), measure
        )
        session.by_member, session.checkpointing = plan.by_member, plan.checkpointing
        rows = train[: plan.chunk]
        session.precision = choose_precision(
            self.schedule.precision, session, self._context, self._queries, rows
        )
        self.result.plan, self.result.precision = plan, session.precision

    @contextmanager
    def _memory_errors(self) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise self._smaller_plan() from error

    def _smaller_plan(self) -> MemoryPlanError:
        """Return the error for memory that ran out although the plan was kept: others use it too."""
        from tttab.training.footprint import held_bytes

        plan = self.result.plan
        if plan is None:
            return MemoryPlanError(
                "the machine ran out of memory before the first step", f"--n {max(1, self._context.n // 2)}"
            )
        megabytes = max(1, (plan.needed + held_bytes(self._session.device)) // 2**21)
        return MemoryPlanError(
            f"the machine ran out of memory in a step of {plan.chunk} query rows at a time",
            f"--max-memory {megabytes}M plans with half of it",
        )

    def _evaluate_untouched(self, raw: Any) -> None:
        """Make the given weights step 0: a cold start has to beat them too."""
        self._score = untouched = self._score_now(self._session, self._queries)
        if self.schedule.init != "pretrained":
            given = self._given.fork()
            given.by_member = self._session.by_member
            untouched = self._score_now(given, raw)
        guards = dict.fromkeys([self.schedule.guard, *self._others])
        self._choices = [Selector(guard, untouched) for guard in guards]
        self.result.before = self.result.after = untouched.loss
        self.result.ece_before = self.result.ece_after = untouched.ece

    def _evaluate(self, update: Update) -> Score:
        self._score = self._score_now(self._session, self._queries)
        for choice in self._choices:
            choice.consider(update.number, update.size, self._score, self._session.state)
        return self._score

    def _score_now(self, session: Any, queries: Any) -> Score:
        rows = session.row_scores(self._context, queries, self._held, self.result.plan.chunk)
        loss, ece = float(rows.loss.mean()), math.nan
        if rows.confidence is not None and np.isfinite(rows.confidence).all():
            ece = calibration_error(rows.confidence, rows.correct)
        return Score(loss, ece, len(self._held))

    def _report(self, update: Update) -> Step:
        best, seconds = self._choices[0].score.loss, time.perf_counter() - self._start
        return Step(
            update.done,
            update.total,
            update.loss,
            self._score.loss,
            best,
            seconds,
            update.size,
            self._score.ece,
        )

    def _choose(self) -> None:
        kept, *others = self._choices
        result = self.result
        for choice in others:
            result.others[choice.guard] = self._settle(self._session.fork(), choice)
        result.session = self._settle(self._session, kept)
        result.step, result.size, result.vetoed = kept.step, kept.size, tuple(kept.vetoed)
        result.after, result.ece_after = kept.score.loss, kept.score.ece
        result.accepted = kept.step > 0
        result.seconds = time.perf_counter() - self._start

    def _settle(self, session: Any, choice: Selector) -> Any:
        """Return a session with the chosen weights, as plain weights that no longer train."""
        if choice.step == 0:
            return self._given.fork()
        session.restore(choice.state)
        self._rule.finish(session)
        for _, parameter in session.trainable():
            parameter.requires_grad_(False)
            parameter.grad = None
        return session
