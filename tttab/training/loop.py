"""Test-time training: one loop, a generator of steps, for every rule and optimiser.

The n context rows stay fixed. The k query rows are divided once: most train, a held-out part chooses the
step, and the pretrained weights are a candidate (arXiv 2503.11842, section 3, for the fixed context; the
held-out choice is ours). Rules say which weights move, `optimizers` how far, `context_policy` under which
context, `selection` which candidate is kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tttab.contracts import Context, CostModel, Execution, Queries, Rule, Session
from tttab.core import AS_LABELLED, Objective
from tttab.data.splits import hold_out
from tttab.data.weights import check_counts, training_weights
from tttab.errors import MemoryPlanError, RequestError, RuleError
from tttab.system.resources import format_seconds, is_out_of_memory
from tttab.training.checks import check_schedule
from tttab.training.config import RACED_WEIGHTS, SCORING_SHARE, STEP_MEMBERS, Schedule
from tttab.training.context_policy import (
    Batch,
    ContextPolicy,
    InTurns,
    Labelled,
    get_context_policy,
    heaviest_turn,
)
from tttab.training.memory_plan import (
    DEFAULT_BUDGET,
    ExecutionMode,
    Footprint,
    MemoryPlan,
    StepRequirements,
    plan_step,
)
from tttab.training.optimizers import NotFinite, Update, get_optimizer
from tttab.training.precision import choose_precision
from tttab.training.result import Adapted, Estimate, Step
from tttab.training.selection import Score, Selector, score_of, selectors

if TYPE_CHECKING:
    import pandas as pd
    import torch


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
        objective: weights and targets of the queries; which loss trains is the schedule's affair.
        teach: makes the targets of all queries from the numbers of those that train, where they are taught.
        others: guards beside the schedule's whose choice is kept in `result.others`.
        stop: asked after every step; a reason ends training, and the best weights so far are kept.
        held: so many of the last queries are held out, in the place of the schedule's share (`Split.held`).
    """

    def __init__(
        self,
        session: Session,
        rule: Rule,
        context: Context,
        queries: tuple[pd.DataFrame, np.ndarray],
        schedule: Schedule,
        seed: int = 0,
        budget: int = DEFAULT_BUDGET,
        *,
        objective: Objective = AS_LABELLED,
        teach: Callable[[np.ndarray], np.ndarray] | None = None,
        others: tuple[str, ...] = (),
        stop: Callable[[], str] = str,
        held: int = 0,
    ) -> None:
        self.result = Adapted(session, context, 0, None)
        self.schedule = schedule
        self.rates: Sequence[float] = [rate * rule.rate for rate in _rates(schedule, session)]
        self._pretrained, self._rule, self._context, self._raw = session, rule, context, queries
        count = training_weights(queries[1], objective.weights, context.classes, balanced=schedule.balanced)
        self._objective, self._teach = replace(objective, loss=schedule.loss, weights=count), teach
        self._seed, self._budget, self._others, self._stop = seed, budget, others, stop
        self._given = held
        self._ready: bool | None = None

    def prepare(self) -> bool:
        """Do what comes before the first step, once; return whether there is anything to train.

        Where the schedule has a time, `result.estimate` stands from then on.

        Raises:
            RequestError: the time is shorter than a step.
            MemoryPlanError: no plan keeps the budget.
        """
        if self._ready is None:
            if self._context.constant is not None:
                self.result.stopped = "all targets of the context are equal"
            self._ready = self._rule.name != "none" and not self.result.stopped
            if self._ready:
                check_schedule(self.schedule, self._pretrained.task)
                self._start = time.perf_counter()
                with self._memory_errors():
                    self._open()
                    if self.schedule.max_seconds is not None:
                        self._fit_into(self.schedule.max_seconds)
                self.result.schedule = self.schedule
        return self._ready

    def __iter__(self) -> Iterator[Step]:
        """Train; yield after each step."""
        if not self.prepare():
            return
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
            if reason := self._reason_to_stop(update):
                self.result.stopped = reason
                break
        self._choose()

    def _reason_to_stop(self, update: Update) -> str:
        limit = self.schedule.max_seconds
        if update.done == update.total:
            return ""
        if limit is not None and time.perf_counter() - self._start > limit:
            return f"the time, {format_seconds(limit)}, was up"
        return self._stop()

    def _fit_into(self, seconds: float) -> None:
        """Measure one step and take as many as fit; the batch is drawn apart, so training sees its own."""
        start = time.perf_counter()
        batch = self._batches().batch(self.schedule.batch)
        self._accumulate(batch, 1.0)
        now = time.perf_counter()
        step = now - start + self._score_seconds / self.schedule.evaluate_every
        steps = min(self.schedule.steps, int((seconds - (now - self._start)) / step))
        if steps < 1:
            needed = now - self._start + step
            raise RequestError(
                f"{format_seconds(seconds)} is too short: a step takes about {format_seconds(step)} here, "
                f"with what comes before it {format_seconds(needed)}",
                f"--time {math.ceil(10 * needed)}s, or a smaller --members, --train-members or --n",
            )
        self.schedule = replace(self.schedule, steps=steps)
        memory = self.result.plan.needed if self.result.plan else None
        members = self._labelled.session.members, self._session.members
        self.result.estimate = Estimate(step, steps, now - self._start + steps * step, memory, *members)

    def gradient(self, *, whole: bool, repeat: bool = False, labels: bool = False) -> float:
        """Put the gradient of the mean loss of a batch, or of all training queries, into the parameters.

        Args:
            whole: all training queries.
            repeat: the batch of the last call, not the next one.
            labels: ask for the labels where there are soft targets, too.

        Returns:
            The mean loss, nats.

        Raises:
            NotFinite: the loss or the norm of its gradient is.
        """
        for parameter in self.parameters:
            parameter.grad = None
        if not repeat:
            self._asked = self._source.whole() if whole else [self._source.batch(self.schedule.batch)]
        count = sum(len(batch.rows) for batch in self._asked)
        self._steps += 1
        loss = sum(self._accumulate(batch, 1 / count, labels=labels) for batch in self._asked)
        norms = [p.grad.norm().item() for p in self.parameters if p.grad is not None]
        if not math.isfinite(loss) or not all(map(math.isfinite, norms)):
            raise NotFinite(f"the loss or its gradient was not finite at step {self._steps}")
        return loss

    def _accumulate(self, batch: Batch, scale: float, *, labels: bool = False) -> float:
        objective = replace(batch.objective, targets=None) if labels else batch.objective
        arguments = batch.context, batch.queries, batch.rows, scale, self._how, objective
        return self._labelled.session.accumulate_gradients(*arguments)

    def _open(self) -> None:
        x, y = self._raw
        self._session = self._pretrained.fork()
        if self.schedule.init == "random":
            self._session.reinitialise(self._seed)
        self.parameters = self._rule.parameters(self._session)
        if not self.parameters:
            raise RuleError(
                f"the rule {self._rule.name!r} selects no parameters of this model", "--rule full"
            )
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        share, classes = self.schedule.held_out, self._context.classes
        train, self._held = hold_out(y, share, self._seed, classes=classes, held=self._given)
        if self.schedule.taught and self._teach is not None:
            self._objective = replace(self._objective, targets=self._teach(train))
        raw = self._queries = self._session.queries(self._context, x, y)
        costs = self._session.cost_model
        check_counts(self._objective.weights, train, self._held)
        self._members = self._members_of_a_step(costs)
        self._how = self._plan(costs, train)
        if costs is not None:
            self._queries = costs.frozen_features(self._context, raw, self._how)
            layers = self._session.layers.parameters()
            if self._queries is not raw and not any(p.requires_grad for p in layers):  # no layer runs
                self._how = replace(self._how, precision="fp32")
        self.result.execution = self._how
        self._labelled = self._for_training(train, costs)
        self._source = self._batches()
        self._steps = 0
        if self._queries is raw:  # layers run
            every = self._scoring_interval(self._members or self._labelled.session.members, len(train))
            self.schedule = replace(self.schedule, evaluate_every=every)
        start = time.perf_counter()
        self._evaluate_untouched(raw)
        self._score_seconds = time.perf_counter() - start

    def _members_of_a_step(self, costs: CostModel | None) -> int | None:
        """Return how many members a step trains; None where it trains all that train."""
        schedule = self.schedule
        trained = min(schedule.train_members or self._session.members, self._session.members)
        size = schedule.step_members or STEP_MEMBERS
        takes_turns = costs is not None and get_optimizer(schedule.optimizer).in_turns
        return size if takes_turns and size < trained else None

    def _scoring_interval(self, members: int, rows: int) -> int:
        """Return after how many steps, each of so many members and at most so many rows, a score is made.

        It is a forward pass of every member, a step a forward and a backward pass, three times as much, of
        those whose turn it is.
        """
        n, served = self._context.n, self._session.members
        score = served * (n + len(self._held))
        step = 3 * members * (n + min(self.schedule.batch, rows))
        return max(self.schedule.evaluate_every, math.ceil(score / (SCORING_SHARE * step)))

    def _batches(self) -> ContextPolicy:
        """Return what makes the batches, from its first."""
        labelled, size = self._labelled, self._members
        policy = get_context_policy(self.schedule.split)(labelled)
        costs = labelled.session.cost_model
        if size is None or costs is None:
            return policy
        return InTurns(policy, costs, labelled.session.members, size, self._seed)

    def _for_training(self, train: np.ndarray, costs: CostModel | None) -> Labelled:
        """Return what training reads: the whole ensemble, or as many members as train."""
        x, y = self._raw
        session, context, queries = self._session, self._context, self._queries
        members = self.schedule.train_members
        if members is not None and members < session.members:
            session = session.with_members(members)
            context = session.context(context.x, context.y, context.classes)
            queries = session.queries(context, x, y)
            if costs is not None:
                queries = costs.frozen_features(context, queries, self._how)
        return Labelled(session, context, queries, x, y, train, self._seed, self._objective)

    def _plan(self, costs: CostModel | None, train: np.ndarray) -> Execution:
        """Return how steps run: within the budget, where the model's costs are known."""
        session, batch = self._session, min(self.schedule.batch, len(train))
        how, seen = Execution(batch), (self._context, self._queries)
        if costs is not None:
            seen = heaviest_turn(costs, *seen, self._session.members, self._members)
            self.result.plan = self._memory_plan(costs, batch, *seen)
            how = self.result.plan.execution
        rows = train[: how.chunk]
        return replace(how, precision=choose_precision(self.schedule.precision, session, *seen, rows, how))

    def _memory_plan(self, costs: CostModel, batch: int, context: Context, queries: Queries) -> MemoryPlan:
        from tttab.training.footprint import held_bytes, measure_step, usable_bytes

        session = self._session

        def measure(mode: ExecutionMode) -> Footprint:
            return measure_step(session, costs, context, queries, mode.execution())

        weights = sum(p.numel() * p.element_size() for p in self.parameters)
        held, shared = held_bytes(session.device), costs.preferred_chunk(context)
        budget = usable_bytes(session.device, self._budget)
        try:
            copies = get_optimizer(self.schedule.optimizer).copies(self.schedule.lanes)
            demand = StepRequirements(budget, held, weights, context.n, batch, shared, copies)
            return plan_step(demand, measure)
        except MemoryPlanError as error:
            if budget == self._budget:
                raise
            raise MemoryPlanError(
                f"{session.device} is too small: {error.message}", "--device cpu"
            ) from error

    @contextmanager
    def _memory_errors(self) -> Generator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            from tttab.training.footprint import smaller_plan

            how, plan = self.result.execution, self.result.plan
            raise smaller_plan(self._pretrained.device, how, plan, self._context.n) from error

    def _evaluate_untouched(self, raw: Queries) -> None:
        """Make the pretrained weights step 0: a cold start has to beat them too."""
        self._score = untouched = self._score_now(self._session, self._queries, self._how)
        if self.schedule.init != "pretrained":
            untouched = self._score_now(self._pretrained.fork(), raw, Execution(self._how.chunk))
        guards = [self.schedule.guard, *self._others]
        self._choices = selectors(guards, untouched, self.schedule.metric)
        self.result.metric_before = self.result.metric_after = untouched.metric
        self.result.before = self.result.after = untouched.loss
        self.result.ece_before = self.result.ece_after = untouched.ece

    def _evaluate(self, update: Update) -> Score:
        self._score = self._score_now(self._session, self._queries, self._how)
        for choice in self._choices:
            choice.consider(update.number, update.size, self._score, self._state, softened=update.softened)
        return self._score

    def _state(self) -> dict[str, torch.Tensor]:
        """Return a copy of everything that the rule has set to train."""
        return {name: p.detach().clone() for name, p in self._session.trainable().items()}

    def _score_now(self, session: Session, queries: Queries, how: Execution) -> Score:
        rows = session.row_scores(self._context, queries, self._held, how)
        y, count = self._raw[1][self._held], self._objective.weights
        count = None if count is None else count[self._held]
        return score_of(rows, y, self._context.classes, self.schedule.metric, count)

    def _report(self, update: Update) -> Step:
        best, seconds = self._choices[0].score.loss, time.perf_counter() - self._start
        score = self._score
        seen = update.loss, score.loss, best, seconds, update.size, score.ece, score.metric
        return Step(update.done, update.total, *seen)

    def _choose(self) -> None:
        kept, *others = self._choices
        result = self.result
        for choice in others:
            result.others[choice.guard] = self._settle(self._session.fork(), choice)
        result.session = self._settle(self._session, kept)
        result.step, result.size, result.softened = kept.step, kept.size, kept.softened
        result.vetoed = tuple(kept.vetoed)
        result.after, result.ece_after = kept.score.loss, kept.score.ece
        result.metric_after = kept.score.metric
        result.accepted = kept.step > 0
        result.seconds = time.perf_counter() - self._start

    def _settle(self, session: Session, choice: Selector) -> Session:
        """Return a session with the chosen weights, as plain weights that no longer train."""
        if choice.step == 0:
            return self._pretrained.fork()
        session.load_trainable(choice.state)
        self._rule.finish(session)
        for parameter in session.trainable().values():
            parameter.requires_grad_(False)
            parameter.grad = None
        return session


def _rates(schedule: Schedule, session: Session) -> Sequence[float]:
    """Return the learning rates before the rule's own factor.

    One that was asked for is taken as it is. Beyond the size on which the raced ones were chosen they
    shrink as 1/width, here the root of the number of weights (for Adam: Yang et al. 2022).
    """
    if not schedule.rates:
        return (schedule.lr,)
    weights = sum(parameter.numel() for parameter in session.parameters("all"))
    share = min(1.0, math.sqrt(RACED_WEIGHTS / max(1, weights)))
    return [rate * share for rate in schedule.rates]
