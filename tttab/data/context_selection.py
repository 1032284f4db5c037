"""Which of the labelled rows become the context: n of n + k, chosen by their features and a seed.

`splits` has already set the test rows aside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tttab.data.splits import Split
from tttab.errors import check_name
from tttab.seeding import numpy_stream

if TYPE_CHECKING:
    import pandas as pd

COMMON_SCALE = 1e-9
"""Columns whose standard deviation is smaller are constant and left out."""
MOST_TURNS = 50
"""Of groups and medoids; a handful is usual."""


def choose_context(split: Split, how: str, x: pd.DataFrame, y: np.ndarray, *, classes: int = 0) -> Split:
    """Return the split with its labelled rows divided anew: n context rows chosen by `how`, the rest queries.

    Args:
        split: its context, queries and seed are used; the test rows are never looked at.
        how: `stratified` (class shares of the labelled rows; the split as it is), `random` (uniform),
            `kcenter` (greedy farthest points) or `nearest` (nearest to the mean of the labelled rows).
        x: all features of the table. Distances are Euclidean on standardised numbers and one-hot categories.
        y: all labels of the table.
        classes: number of classes; every class keeps a row in the context. 0 for regression.

    Raises:
        RequestError: there is no such choice.
    """
    check_choice(how)
    if how == "stratified":
        return split
    labelled = np.sort(split.free)
    order = ORDERS[how](lambda: point_cloud(x.iloc[labelled]), y[labelled], split.n, classes, split.seed)
    ranked = np.concatenate([order, np.setdiff1d(np.arange(len(labelled)), order)])
    choose = _every_class_first if classes else _with_two_targets
    chosen = labelled[choose(ranked, y[labelled], split.n, classes)]
    rest = np.setdiff1d(labelled, chosen)
    queries = numpy_stream(split.seed, "queries", how).permutation(rest)
    return replace(
        split, context=chosen, queries=np.concatenate([queries, split.queries[split.k - split.held :]])
    )


def medoids_of(vectors: np.ndarray, y: np.ndarray, n: int, *, classes: int = 0) -> np.ndarray:
    """Return the numbers of n rows that stand for all: medoids, each the nearest to all others of a group.

    One row after the other, each brings the rows nearest to a chosen one (PAM's first phase, Kaufman and
    Rousseeuw 1987); then groups and medoids take turns until neither moves (Park and Jun 2009).

    Args:
        vectors: shape (rows, width): the rows as vectors.
        y: their labels.
        n: how many.
        classes: number of classes; every class keeps a row. 0 for regression, which keeps two targets.
    """
    from scipy.spatial.distance import cdist

    distance, chosen = cdist(vectors, vectors), np.zeros(0, dtype=int)
    nearest = np.full(len(y), distance.max())
    for _ in range(n):
        gain = np.maximum(nearest[:, None] - distance, 0.0).sum(axis=0)
        gain[chosen] = -1.0
        chosen = np.append(chosen, gain.argmax())
        nearest = np.minimum(nearest, distance[:, chosen[-1]])
    for _ in range(MOST_TURNS):
        group = distance[:, chosen].argmin(axis=1)
        group[chosen] = np.arange(n)  # of equal rows each medoid keeps itself
        parts = [np.flatnonzero(group == number) for number in range(n)]
        middles = np.array([part[distance[np.ix_(part, part)].sum(axis=1).argmin()] for part in parts])
        if np.array_equal(middles, chosen):
            break
        chosen = middles
    ranked = np.concatenate([chosen, np.setdiff1d(np.arange(len(y)), chosen)])
    return (_every_class_first if classes else _with_two_targets)(ranked, y, n, classes)


def check_choice(how: str) -> None:
    """Raise RequestError where there is no such choice of context."""
    check_name("choice of context", how, CHOICES, "--context")


def point_cloud(x: pd.DataFrame) -> np.ndarray:
    """Return the rows as points, float64: standardised numbers (missing: the mean) and one-hot categories."""
    import pandas as pd

    columns = []
    for name in x.columns:
        if isinstance(x[name].dtype, pd.CategoricalDtype):
            codes = x[name].cat.codes.to_numpy()
            # Two rows of different categories are as far apart as two numbers a standard deviation apart.
            columns.append((codes[:, None] == np.unique(codes[codes >= 0])) / np.sqrt(2.0))
            continue
        values = x[name].to_numpy(dtype=np.float64)
        known = values[np.isfinite(values)]
        if len(known) and known.std() > COMMON_SCALE:
            scaled = (values - known.mean()) / known.std()
            columns.append(np.where(np.isfinite(scaled), scaled, 0.0)[:, None])
    return np.hstack(columns) if columns else np.zeros((len(x), 1))


Order = Callable[[Callable[[], np.ndarray], np.ndarray, int, int, int], np.ndarray]
"""(points, labels, n, classes, seed) -> row numbers, the chosen first."""


def _random(points: Callable[[], np.ndarray], y: np.ndarray, n: int, classes: int, seed: int) -> np.ndarray:
    return numpy_stream(seed, "context", "random").permutation(len(y))


def _kcenter(points: Callable[[], np.ndarray], y: np.ndarray, n: int, classes: int, seed: int) -> np.ndarray:
    """Start at a random row; each next row is the farthest from all before (Gonzalez 1985)."""
    cloud = points()
    first = int(numpy_stream(seed, "context", "kcenter").integers(len(y)))
    order, nearest = [first], _squared_distance(cloud, cloud[first])
    for _ in range(min(n, len(y)) - 1):
        order.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _squared_distance(cloud, cloud[order[-1]]))
        nearest[order] = -1.0
    return np.array(order)


def _nearest(points: Callable[[], np.ndarray], y: np.ndarray, n: int, classes: int, seed: int) -> np.ndarray:
    cloud = points()
    return np.argsort(_squared_distance(cloud, cloud.mean(axis=0)), kind="stable")


ORDERS: dict[str, Order] = {
    "random": _random,
    "kcenter": _kcenter,
    "nearest": _nearest,
}


CHOICES = ("stratified", *ORDERS)


def _squared_distance(cloud: np.ndarray, point: np.ndarray) -> np.ndarray:
    return ((cloud - point) ** 2).sum(axis=1)


def _every_class_first(ranked: np.ndarray, y: np.ndarray, n: int, classes: int) -> np.ndarray:
    """Return n row numbers: the first of each class in `ranked`, then the first others of `ranked`."""
    first = [ranked[np.flatnonzero(y[ranked] == label)[0]] for label in range(classes)]
    rest = ranked[~np.isin(ranked, first)]
    return np.concatenate([np.array(first, dtype=rest.dtype), rest])[:n]


def _with_two_targets(ranked: np.ndarray, y: np.ndarray, n: int, classes: int) -> np.ndarray:
    """Return the first n of `ranked`; where all have one target, the last gives way to a row of another."""
    chosen, others = ranked[:n], ranked[y[ranked] != y[ranked[0]]]
    if n < 2 or len(others) == 0 or others[0] in chosen:
        return chosen
    return np.append(chosen[:-1], others[0])
