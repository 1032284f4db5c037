"""Where training batches come from: one fixed context, a re-drawn one, or K folds.

The papers keep the context fixed; other tools re-draw it. The held-out rows and the context of prediction are
the same in all three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tttab.contracts import Context, CostModel, Queries, Session
from tttab.core import AS_LABELLED, Objective
from tttab.data.splits import strata_of, stratified_order
from tttab.errors import check_name
from tttab.seeding import numpy_stream

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Batch:
    """Query rows under one context."""

    context: Context
    queries: Queries
    rows: np.ndarray
    """Numbers of rows in `queries`."""
    objective: Objective = AS_LABELLED
    """What is asked of `queries`."""


@dataclass(frozen=True)
class Labelled:
    """The labelled rows that training may use."""

    session: Session
    context: Context
    """The n rows that serve."""
    queries: Queries
    """All k query rows under that context."""
    x: pd.DataFrame
    y: np.ndarray
    """The k query rows as they came."""
    train: np.ndarray
    """Numbers of the query rows that are not held out."""
    seed: int
    objective: Objective = AS_LABELLED
    """What is asked of the k query rows."""

    def pool(self) -> Pool:
        """Return the context and the training queries, the context first: there the labels count."""
        x = stacked(self.context.x, self.x.iloc[self.train])
        weights, targets = self.objective.weights, self.objective.targets
        if weights is not None:
            weights = np.concatenate([np.ones(self.context.n), weights[self.train]])
        if targets is not None:
            targets = np.concatenate([np.eye(self.context.classes)[self.context.y], targets[self.train]])
        objective = replace(self.objective, weights=weights, targets=targets)
        return Pool(x, np.concatenate([self.context.y, self.y[self.train]]), objective)

    def prepare(self, pool: Pool, context: np.ndarray) -> Batch:
        """Return the rows of a pool that are numbered `context` as a context, all others as its queries."""
        rest = np.setdiff1d(np.arange(len(pool.y)), context)
        prepared = self.session.context(pool.x.iloc[context], pool.y[context], self.context.classes)
        some = pool.take(rest)
        queries = self.session.queries(prepared, some.x, some.y)
        return Batch(prepared, queries, np.arange(len(rest)), some.objective)


@dataclass(frozen=True)
class Pool:
    """Rows of which some become a context and others its queries."""

    x: pd.DataFrame
    y: np.ndarray
    objective: Objective

    def take(self, rows: np.ndarray) -> Pool:
        """Return the rows numbered `rows`."""
        asked = self.objective
        weights = None if asked.weights is None else asked.weights[rows]
        targets = None if asked.targets is None else asked.targets[rows]
        return Pool(self.x.iloc[rows], self.y[rows], replace(asked, weights=weights, targets=targets))


class ContextPolicy(Protocol):
    """Makes batches."""

    def batch(self, size: int) -> Batch:
        """Return the next batch of at most `size` rows."""
        ...

    def whole(self) -> list[Batch]:
        """Return all training queries: one batch per context."""
        ...


class Fixed:
    """The n context rows throughout (arXiv 2503.11842, section 3)."""

    def __init__(self, labelled: Labelled) -> None:
        self._labelled = labelled
        self._order = _endless_order(labelled.train, numpy_stream(labelled.seed, "batches"))

    def batch(self, size: int) -> Batch:
        """Return the next rows of an order that is drawn anew each time round."""
        labelled = self._labelled
        rows = [next(self._order) for _ in range(min(size, len(labelled.train)))]
        return self._of(np.array(rows))

    def whole(self) -> list[Batch]:
        """Return all training queries under the one context."""
        return [self._of(self._labelled.train)]

    def _of(self, rows: np.ndarray) -> Batch:
        labelled = self._labelled
        return Batch(labelled.context, labelled.queries, rows, labelled.objective)


class Redraw:
    """Each step draws n context rows from all n + k rows; some of the rest are its queries."""

    def __init__(self, labelled: Labelled) -> None:
        self._labelled = labelled
        self._pool = labelled.pool()
        self._strata = strata_of(self._pool.y, labelled.context.classes)
        self._rng = numpy_stream(labelled.seed, "redraw")

    def batch(self, size: int) -> Batch:
        """Draw a context with every class in it, prepare it, and draw queries from the rest."""
        labelled = self._labelled
        codes, count = self._strata
        order = stratified_order(codes, np.arange(len(codes)), count, self._rng)
        n = labelled.context.n
        chosen = np.concatenate([order[:n], self._rng.permutation(order[n:])[:size]])
        return labelled.prepare(self._pool.take(chosen), np.arange(n))

    def whole(self) -> list[Batch]:
        """Return one drawn context with all other rows as queries."""
        return [self.batch(len(self._pool.y))]


class Folds:
    """K folds of about n rows over all n + k rows: each in turn is the context of all others."""

    def __init__(self, labelled: Labelled) -> None:
        pool = labelled.pool()
        codes, strata = strata_of(pool.y, labelled.context.classes)
        rng = numpy_stream(labelled.seed, "folds")
        order = stratified_order(codes, np.arange(len(pool.y)), strata, rng)
        count = max(2, round(len(pool.y) / labelled.context.n))
        folds = [_with_every_stratum(order[f::count], order, codes) for f in range(count)]
        self._parts = [labelled.prepare(pool, fold) for fold in folds]
        self._orders = [_endless_order(part.rows, rng) for part in self._parts]
        self._turn = 0

    def batch(self, size: int) -> Batch:
        """Return the next fold's next rows."""
        fold = self._turn % len(self._parts)
        self._turn += 1
        part = self._parts[fold]
        rows = [next(self._orders[fold]) for _ in range(min(size, len(part.rows)))]
        return replace(part, rows=np.array(rows))

    def whole(self) -> list[Batch]:
        """Return every fold with all its queries."""
        return self._parts


CONTEXT_POLICIES: dict[str, Callable[[Labelled], ContextPolicy]] = {
    "fixed": Fixed,
    "redraw": Redraw,
    "kfold": Folds,
}


def get_context_policy(name: str) -> Callable[[Labelled], ContextPolicy]:
    """Return the class that makes batches under the name `name`.

    Raises:
        RequestError: there is no such split.
    """
    check_name("split", name, CONTEXT_POLICIES, "--split")
    return CONTEXT_POLICIES[name]


class InTurns:
    """Batches that some ensemble members see at a time, every member as often as any other."""

    def __init__(self, policy: ContextPolicy, costs: CostModel, members: int, size: int, seed: int) -> None:
        """Take turns.

        Args:
            policy: makes the batches.
            costs: of the session that trains.
            members: its ensemble members.
            size: members per batch.
            seed: names the stream that orders them.
        """
        self._policy, self._costs = policy, costs
        self._turns = _endless_turns(members, size, numpy_stream(seed, "members"))

    def batch(self, size: int) -> Batch:
        """Return the next batch as the members whose turn it is see it."""
        batch = self._policy.batch(size)
        seen = self._costs.of_members(batch.context, batch.queries, next(self._turns))
        return Batch(*seen, batch.rows, batch.objective)

    def whole(self) -> list[Batch]:
        """Return all training queries, seen by all members."""
        return self._policy.whole()


def heaviest_turn(
    costs: CostModel, context: Context, queries: Queries, members: int, size: int | None
) -> tuple[Context, Queries]:
    """Return what those `size` of the members see whose step takes the most memory; None: all of them."""
    if size is None:
        return context, queries

    def seen(*some: int) -> tuple[Context, Queries]:
        return costs.of_members(context, queries, some)

    order = sorted(range(members), key=lambda member: -costs.row_bytes(seen(member)[0]))
    return seen(*order[:size])


def _endless_turns(members: int, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Yield members, `size` at a time, in a new random order each time round."""
    while True:
        for turn in np.array_split(rng.permutation(members), -(-members // size)):
            yield turn.tolist()


def _endless_order(rows: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    """Yield the rows in a new random order each time round."""
    while True:
        yield from rng.permutation(rows)


def _with_every_stratum(fold: np.ndarray, order: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the fold, with the first row of each class or part of the targets that it alone lacks."""
    missing = set(codes.tolist()) - set(codes[fold].tolist())
    extra = [order[np.flatnonzero(codes[order] == label)[0]] for label in sorted(missing)]
    return np.concatenate([fold, np.array(extra, dtype=fold.dtype)])


def stacked(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return two frames on top of each other; categories are the union of both."""
    import pandas as pd
    from pandas.api.types import union_categoricals

    columns = {}
    for name in first.columns:
        parts = [first[name], second[name]]
        if isinstance(first[name].dtype, pd.CategoricalDtype):
            columns[name] = union_categoricals(parts, sort_categories=True)
        else:
            columns[name] = np.concatenate([part.to_numpy() for part in parts])
    return pd.DataFrame(columns)
