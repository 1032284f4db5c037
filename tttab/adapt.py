"""Test-time training: one loop, a generator of steps, for every rule.

The n context rows stay fixed; the k query rows are divided once, most train, a held-out part
chooses the step, with the untouched weights as a candidate (arXiv 2503.11842, section 3, for the
fixed context; the held-out choice is ours). What does not belong here: preprocessing (session),
which weights move (rules), how results are compared (arms).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tttab.core import Rule, Session
from tttab.errors import RequestError, RuleError
from tttab.memory import DEFAULT_BUDGET, Plan, plan_step, resident_bytes
from tttab.seeding import numpy_stream
from tttab.splits import hold_out

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Schedule:
    """How far the weights move."""

    steps: int = 50
    lr: float = 3e-4
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

    def check(self) -> None:
        """Raise RequestError where a value makes no sense."""
        if self.steps < 1:
            raise RequestError(f"steps must be at least 1, got {self.steps}", "--steps 50, or --rule none")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise RequestError(f"the learning rate must be positive, got {self.lr}", "--lr 3e-4")


@dataclass(frozen=True)
class Step:
    """What one step did."""

    number: int
    total: int
    loss: float
    """Mean log loss of the step's queries before the step, nats."""
    held_out: float
    """Log loss of the held-out rows at the last evaluation, nats."""
    best: float
    """Smallest held-out log loss so far, nats."""
    seconds: float
    """Since the start."""


@dataclass
class Adapted:
    """The result of test-time training."""

    session: Any
    """A session with the chosen weights; the given one where nothing was trained."""
    context: Any
    step: int
    """The step that was chosen; 0 is the pretrained weights."""
    accepted: bool | None
    """False where the pretrained weights won; None where the rule trains nothing."""
    before: float = math.nan
    """Held-out log loss of the pretrained weights."""
    after: float = math.nan
    """Held-out log loss of the chosen weights."""
    history: list[Step] = field(default_factory=list)
    seconds: float = 0.0
    plan: Plan | None = None
    stopped: str = ""
    """Why training ended early; empty where it did not."""


class Adaptation:
    """Test-time training as an iterable of steps; `result` stands when it is exhausted.

    Args:
        session: the pretrained model; it is forked, never changed.
        rule: which weights move.
        context: `session.context(…)`.
        x, y: the k labelled query rows; y holds class codes.
        schedule: how far.
        seed: names the streams that divide and order the queries.
        budget: the most memory the process may hold, bytes.
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
    ) -> None:
        self.result = Adapted(session, context, 0, None)
        self._given, self._rule, self._context, self._raw = session, rule, context, queries
        self._schedule, self._seed, self._budget = schedule, seed, budget

    def __iter__(self) -> Iterator[Step]:
        """Train; yield after each step."""
        if self._rule.name == "none":
            return
        self._schedule.check()
        start = time.perf_counter()
        self._open()
        self._measure_untouched()
        for number in range(1, self._schedule.steps + 1):
            step = self._advance(number, start)
            if step is None:
                break
            self.result.history.append(step)
            yield step
        self._choose(start)

    def _open(self) -> None:
        x, y = self._raw
        self._session = self._given.fork()
        self._trained = self._rule.parameters(self._session)
        if not self._trained:
            raise RuleError(
                f"the rule {self._rule.name!r} selects no parameters of this model", "--rule full"
            )
        for parameter in self._trained:
            parameter.requires_grad_(True)
        self._train, self._held = hold_out(
            y, self._schedule.held_out, self._seed, classes=self._context.classes
        )
        self._queries = self._session.queries(self._context, x, y)
        self._order = _endless_order(self._train, numpy_stream(self._seed, "batches"))
        self._plan = self.result.plan = self._make_plan()
        self._optimizer = self._make_optimizer()

    def _make_plan(self) -> Plan:
        session = self._session
        session.checkpointing = True
        saving = session.bytes_per_row(self._context)
        session.checkpointing = False
        weights = sum(p.numel() * p.element_size() for p in self._trained)
        batch = min(self._schedule.batch, len(self._train))
        plan = plan_step(
            self._budget,
            resident_bytes(),
            weights,
            self._context.n,
            batch,
            session.bytes_per_row(self._context),
            saving,
        )
        session.checkpointing = plan.checkpointing
        return plan

    def _make_optimizer(self) -> Any:
        import torch

        optimizer = torch.optim.AdamW(
            self._trained, lr=self._schedule.lr, weight_decay=self._schedule.weight_decay
        )
        warmup, total = self._schedule.warmup, self._schedule.steps

        def rate(done: int) -> float:
            rise = min(1.0, (done + 1) / max(1, warmup))
            return rise * 0.5 * (1 + math.cos(math.pi * done / total))

        self._rates = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return optimizer

    def _measure_untouched(self) -> None:
        self.result.before = self.result.after = self._last_held = self._held_out_loss()
        self._best = self._session.state()

    def _advance(self, number: int, start: float) -> Step | None:
        """Take one step; None where the loss or gradient is not finite."""
        loss = self._gradient()
        if not math.isfinite(loss) or not self._clip():
            self.result.stopped = f"the loss or its gradient was not finite at step {number}"
            return None
        self._optimizer.step()
        self._rates.step()
        last = number == self._schedule.steps
        if last or number % self._schedule.evaluate_every == 0:
            self._evaluate(number)
        seconds = time.perf_counter() - start
        return Step(number, self._schedule.steps, loss, self._last_held, self.result.after, seconds)

    def _gradient(self) -> float:
        """Accumulate the gradient of the mean loss over a batch, chunk by chunk; return the mean loss."""
        self._optimizer.zero_grad(set_to_none=True)
        rows = [next(self._order) for _ in range(min(self._schedule.batch, len(self._train)))]
        total = 0.0
        for chunk in _chunks(np.array(rows), self._plan.chunk):
            loss = self._session.loss(self._context, self._queries, chunk) / len(rows)
            if not math.isfinite(loss.item()):
                return math.nan
            loss.backward()
            total += loss.item()
        return total

    def _clip(self) -> bool:
        import torch

        norm = torch.nn.utils.clip_grad_norm_(self._trained, self._schedule.clip)
        return math.isfinite(norm.item())

    def _evaluate(self, number: int) -> None:
        self._last_held = self._held_out_loss()
        if self._last_held < self.result.after:
            self.result.after, self.result.step = self._last_held, number
            self._best = self._session.state()

    def _held_out_loss(self) -> float:
        import torch

        with torch.no_grad():
            parts = [
                self._session.loss(self._context, self._queries, chunk).item()
                for chunk in _chunks(self._held, 4 * self._plan.chunk)
            ]
        return sum(parts) / len(self._held)

    def _choose(self, start: float) -> None:
        self._session.restore(self._best)
        for parameter in self._trained:
            parameter.requires_grad_(False)
            parameter.grad = None
        self.result.accepted = self.result.step > 0
        self.result.session = self._session
        self.result.seconds = time.perf_counter() - start


def _endless_order(rows: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    """Yield the rows in a new random order each time round."""
    while True:
        yield from rng.permutation(rows)


def _chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
