"""Losses after training from both starts, and the statistics of the gradients, of one network on one table.

Everything goes through `Session`, so any model family works.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tttab.contracts import Context, Execution, Queries, Rule, Session
from tttab.errors import RuleError
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation

if TYPE_CHECKING:
    import torch

    from tttab.core import Table

CHUNK = 256
"""Query rows of a pass that only scores or only sums gradients."""
PARTS = 2
"""Chunks of rows under every context of which a gradient is taken apart."""


@dataclass(frozen=True)
class Rows:
    """Row numbers of a table, all parts disjoint."""

    context: np.ndarray
    """Shape (n,): the context that is trained on."""
    fresh: list[np.ndarray]
    """Other contexts of n rows."""
    training: np.ndarray
    """Shape (largest k,): every smaller k takes the first ones."""
    test: np.ndarray


@dataclass(frozen=True)
class Losses:
    """Log losses of the test rows, nats, each of shape (test,)."""

    same: np.ndarray
    """Under the context that was trained on."""
    fresh: np.ndarray
    """The mean over fresh contexts."""

    def place(self, name: str) -> np.ndarray:
        """Return `same` or `fresh`."""
        return self.same if name == "same" else self.fresh


@dataclass(frozen=True)
class Gradients:
    """The mean loss's gradient as a random vector: its squared length, and where it scatters.

    Given k rows under one context E|g|^2 = `mean` + `contexts` + `rows`/k, each estimated without bias.
    """

    mean: float
    """|E g|^2, over contexts and rows."""
    contexts: float
    """What the context adds."""
    rows: float
    """What one row adds."""

    @property
    def half(self) -> float | None:
        """B in gain(k) = gain(inf) k/(k + B), rows: one step's law; the linear model has d + 1.

        None where the estimated signal, as everywhere a difference of products, is not positive.
        """
        signal = self.mean + self.contexts
        return max(0.0, self.rows) / signal if signal > 0 else None

    @property
    def carried(self) -> float | None:
        """The share of a step's gain under its own context that it has under fresh ones; None as above."""
        signal = self.mean + self.contexts
        return (max(0.0, self.mean) / signal) ** 2 if signal > 0 else None


class Bench:
    """One split of one table, prepared once for all starts and all k."""

    def __init__(self, session: Session, table: Table, rows: Rows) -> None:
        self._table, self._rows = table, rows
        contexts = [rows.context, *rows.fresh]
        self._contexts = [session.context(*self._of(which), len(table.classes)) for which in contexts]
        self._tests = [session.queries(context, *self._of(rows.test)) for context in self._contexts]

    @staticmethod
    def cold(session: Session, seed: int) -> Session:
        """Return a copy with the architecture's own random weights."""
        fork = session.fork()
        fork.reinitialise(seed)
        return fork

    def losses(self, session: Session) -> Losses:
        """Return how well the session predicts the test rows under every context."""
        same, *fresh = (
            self._scores(session, *pair) for pair in zip(self._contexts, self._tests, strict=True)
        )
        return Losses(same, np.mean(fresh, axis=0))

    def adapted(self, session: Session, rule: Rule, k: int, schedule: Schedule, seed: int) -> Session:
        """Return the session trained on the first k rows; its own untouched weights are a candidate."""
        queries = self._of(self._rows.training[:k])
        run = Adaptation(session, rule, self._contexts[0], queries, schedule, seed)
        for _ in run:
            pass
        return run.result.session

    def gradients(self, session: Session, rule: Rule, rows: int) -> Gradients:
        """Return the statistics of the gradient at the session's weights, from `rows` training rows.

        They are cut into `PARTS` chunks for each of the contexts: products within a chunk, between chunks
        of one context and between contexts have the three sums of `Gradients` as their means.

        Raises:
            RuleError: the rule selects no parameters of this model.
        """
        chunks = np.array_split(self._rows.training[:rows], PARTS * len(self._contexts))
        fork = session.fork()
        parameters = rule.parameters(fork)
        if not parameters:
            raise RuleError(f"the rule {rule.name!r} trains nothing of this model", "--rule full")
        for parameter in parameters:
            parameter.requires_grad_(True)
        taken = []
        for number, chunk in enumerate(chunks):
            context = self._contexts[number // PARTS]
            queries = fork.queries(context, *self._of(chunk))
            taken.append(_gradient(fork, parameters, context, queries))
        rule.finish(fork)
        return _statistics(np.array([[float(a @ b) for b in taken] for a in taken]), len(chunks[0]))

    def _of(self, rows: np.ndarray) -> tuple[Any, np.ndarray]:
        return self._table.x.iloc[rows], self._table.y[rows]

    def _scores(self, session: Session, context: Context, test: Queries) -> np.ndarray:
        return session.row_scores(context, test, np.arange(len(test)), Execution(CHUNK)).loss


def draw(order: np.ndarray, n: int, k: int, test: int, contexts: int) -> Rows:
    """Divide `order`, whose first rows hold every class: context, test, training rows, fresh contexts."""
    context, tests, training, rest = np.split(order, np.cumsum([n, test, k]))
    return Rows(context, [rest[n * i : n * (i + 1)] for i in range(contexts)], training, tests)


def interval(leads: list[np.ndarray], gammas: list[float], rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Return from where on the mean lead is positive, and its 95 % interval over resampled test rows.

    Args:
        leads: per k the warm start's loss minus the cold start's, shape (test,) each.
        gammas: k/d, ascending.
        rng: draws the test rows.

    None stands for a lead that is not positive at the largest k.
    """
    table = np.stack(leads)
    draws = rng.integers(0, table.shape[1], (400, table.shape[1]))
    found = sorted(_crossing(table[:, rows].mean(1), gammas) for rows in draws)
    ends = _crossing(table.mean(1), gammas), found[10], found[389]
    point, low, high = (None if np.isinf(end) else float(end) for end in ends)
    return point, low, high


def crossing(means: Sequence[float], gammas: Sequence[float]) -> float | None:
    """Return from where on leads are positive, by a line in log gamma; None: nowhere."""
    found = _crossing(np.asarray(means), gammas)
    return None if np.isinf(found) else found


def _crossing(means: np.ndarray, gammas: Sequence[float]) -> float:
    """Return where the leads are positive from then on; infinite where the last one is not."""
    behind = np.flatnonzero(~(means > 0))
    if not len(behind):
        return gammas[0]
    at = behind[-1]
    if at == len(means) - 1:
        return np.inf
    share = means[at] / (means[at] - means[at + 1])
    low, high = np.log(gammas[at]), np.log(gammas[at + 1])
    return float(np.exp(low + share * (high - low)))


def _gradient(
    session: Session, parameters: list[torch.nn.Parameter], context: Context, queries: Queries
) -> torch.Tensor:
    """Return the gradient of the mean loss of the queries as one vector, in float64."""
    import torch

    for parameter in parameters:
        parameter.grad = None
    rows = np.arange(len(queries))
    session.accumulate_gradients(context, queries, rows, 1 / len(rows), Execution(CHUNK))
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return torch.cat([part.flatten().double() for part in parts])


def _statistics(products: np.ndarray, size: int) -> Gradients:
    """Return the three sums from the Gram matrix of the chunks' gradients, `size` rows each."""
    place = np.arange(len(products)) // PARTS
    alike = place[:, None] == place[None]
    alone = np.eye(len(products), dtype=bool)
    between, within = products[~alike].mean(), products[alike & ~alone].mean()
    return Gradients(float(between), float(within - between), float(size * (products[alone].mean() - within)))
