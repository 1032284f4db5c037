"""Which rows are test, context and queries: pure functions of labels, sizes and a seed.

Test rows are drawn first and depend only on the seed and the test size. Contexts are nested: with one seed
the context of n = 200 is a prefix of the context of n = 400, and every class is in the smallest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from tttab.errors import RequestError, SplitError
from tttab.seeding import numpy_stream

Budget = Literal["paper", "equal"]
LABELS_OF_EQUAL_BUDGET = 1000
MOST_HELD_OUT = 1_000
"""Rows drawn to choose the step. They are scored again and again: more would cost more than the steps do, and
say little more of which step is best."""


@dataclass(frozen=True)
class Split:
    """Row numbers of one split; the three parts are disjoint."""

    context: np.ndarray
    """Shape (n,): rows the model reads; the first `classes` rows hold each class once."""
    queries: np.ndarray
    """Shape (k,): labelled rows to train on."""
    test: np.ndarray
    """Shape (test,)."""
    seed: int
    notes: tuple[str, ...] = ()
    """Where the table could not give what was asked, a sentence each."""
    held: int = 0
    """So many of the last queries choose the step and never train; 0: `hold_out` draws a share of them."""

    @property
    def digest(self) -> str:
        """SHA-256 of the row numbers: equal digests mean the same rows in the same parts."""
        return self.digest_of("context", "queries", "test")

    def digest_of(self, *parts: str) -> str:
        """SHA-256 of the row numbers of some parts, named as the fields are."""
        text = "|".join(_numbers(getattr(self, part).astype(np.int64).tobytes()) for part in parts)
        text += f"|held out: {self.held}" if self.held and "queries" in parts else ""
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def n(self) -> int:
        """Number of context rows."""
        return len(self.context)

    @property
    def k(self) -> int:
        """Number of query rows."""
        return len(self.queries)

    @property
    def free(self) -> np.ndarray:
        """The labelled rows that may be context or train, the context first."""
        return np.concatenate([self.context, self.queries[: self.k - self.held]])


@lru_cache(maxsize=8)
def _numbers(rows: bytes) -> str:
    """Return row numbers as text; the arms of a split ask for the same."""
    return ",".join(map(str, np.frombuffer(rows, dtype=np.int64).tolist()))


@dataclass(frozen=True)
class SplitRequest:
    """The sizes a user asks for."""

    n: int = 200
    k: int = 1000
    test_size: int | None = None
    """Test rows; None: a quarter of the table, at most 2,000 and at least one per class."""
    budget: Budget = "paper"
    """`paper`: k as given. `equal`: 1,000 labels in all, k = 1000 - n."""
    strict: bool = False
    """Raise instead of shrinking k."""

    @property
    def labels(self) -> int:
        """The k that is asked for."""
        return self.k if self.budget == "paper" else LABELS_OF_EQUAL_BUDGET - self.n

    def test_rows(self, rows: int, classes: int) -> int:
        """The test rows that a table of so many rows and classes gives."""
        return self.test_size or max(classes, 1, min(2000, rows // 4))

    def check(self) -> None:
        """Raise RequestError where a size is not positive."""
        if self.n < 1:
            raise RequestError(f"n must be at least 1, got {self.n}", "--n 200")
        if self.labels < 1:
            smaller = f"--n {LABELS_OF_EQUAL_BUDGET // 2}, of {LABELS_OF_EQUAL_BUDGET:,} labels in all"
            hint = "--k 1000" if self.budget == "paper" else smaller
            raise RequestError(f"k must be at least 1, got {self.labels}", hint)
        if self.test_size is not None and self.test_size < 1:
            raise RequestError(f"the test size must be at least 1, got {self.test_size}", "--test-size 250")


def split_rows(
    y: np.ndarray,
    request: SplitRequest,
    seed: int,
    *,
    classes: int = 0,
    prescribed: tuple[np.ndarray, np.ndarray] | None = None,
    held: np.ndarray | None = None,
) -> Split:
    """Divide rows into context, queries and test.

    Args:
        y: labels, shape (rows,): codes 0..classes-1, or values when `classes` is 0.
        request: the sizes.
        seed: names the split.
        classes: number of classes; 0 means regression: the context is stratified by the target's value, the
            test rows are drawn at random.
        prescribed: (train, test) rows fixed from outside, an OpenML task's for example.
        held: further rows that choose the step, beside the k; None: a part of the k does.

    Raises:
        RequestError: n or k is not positive.
        SplitError: the table is too small, or a class has too few rows.
    """
    request.check()
    k_asked = request.labels
    pool, test = prescribed or _draw_test(y, request, seed, classes)
    _check_classes(y, pool, classes, request.n)
    order = _nested_order(y, pool, classes, seed)
    room = len(order) - request.n
    if room < 1:
        raise SplitError(
            f"{len(y):,} rows cannot give n = {request.n:,} context rows and {len(test):,} test rows",
            f"--n {max(classes, 1, len(order) // 2)} --test-size {len(test)}",
        )
    k = min(k_asked, room)
    notes = _shrink_notes(y, request, k_asked, k, len(test))
    # Under the equal budget the 1,000 labels are the same rows whatever n is.
    labelled = order[: request.n + k] if request.budget == "equal" else order
    queries = _draw_queries(labelled, request.n, k, seed)
    if held is None:
        return Split(order[: request.n], queries, test, seed, notes)
    return Split(order[: request.n], np.concatenate([queries, held]), test, seed, notes, len(held))


def held_out_rows(share: float, k: int) -> int:
    """Return how many of k query rows are drawn to choose the step: a share, one to `MOST_HELD_OUT`."""
    return max(1, min(round(share * k), MOST_HELD_OUT))


def hold_out(
    y: np.ndarray, share: float, seed: int, *, classes: int = 0, held: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Divide positions 0..k-1 of the query rows into (train, held out), stratified by class.

    The held-out part chooses the step: `held_out_rows`, or the last `held` rows where a split says so
    (`Split.held`).

    Raises:
        SplitError: fewer than two query rows.
    """
    if held:
        return np.arange(len(y) - held), np.arange(len(y) - held, len(y))
    if len(y) < 2:
        raise SplitError("one query row cannot be divided into a training and a held-out part", "--k 10")
    size = min(len(y) - 1, held_out_rows(share, len(y)))
    order = stratified_order(y, np.arange(len(y)), classes, numpy_stream(seed, "hold-out"))
    return np.sort(order[size:]), np.sort(order[:size])


def _draw_test(
    y: np.ndarray, request: SplitRequest, seed: int, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    size = request.test_rows(len(y), classes)
    if size >= len(y):
        raise SplitError(
            f"{size:,} test rows leave nothing of the table's {len(y):,} rows",
            f"--test-size {max(1, len(y) // 4)}",
        )
    order = _drawn(y.tobytes(), y.dtype.str, classes, seed, "test")
    return np.sort(order[size:]), np.sort(order[:size])


def _check_classes(y: np.ndarray, pool: np.ndarray, classes: int, n: int) -> None:
    if not classes:
        return
    counts = np.bincount(y[pool], minlength=classes)
    if counts.min() < 1:
        raise SplitError(
            f"class number {int(counts.argmin())} has no row left for the context after the test rows",
            "--test-size 1, or leave out classes with fewer than 2 rows",
        )
    if n < classes:
        raise SplitError(f"n = {n} context rows cannot hold all {classes} classes", f"--n {classes}")


def _nested_order(y: np.ndarray, pool: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Order the pool so that every prefix of as many rows as strata holds each of them, in proportion."""
    codes, count = strata_of(y[pool], classes)
    return pool[_drawn(codes.tobytes(), codes.dtype.str, count, seed, "context")]


@lru_cache(maxsize=4)
def _drawn(y: bytes, kind: str, classes: int, seed: int, stream: str) -> np.ndarray:
    """Return the stratified order of the rows of y, bytes of dtype `kind`: every n of a seed has the same."""
    labels = np.frombuffer(y, dtype=kind)
    return stratified_order(labels, np.arange(len(labels)), classes, numpy_stream(seed, stream))


def _draw_queries(order: np.ndarray, n: int, k: int, seed: int) -> np.ndarray:
    rest = np.sort(order[n:])
    return numpy_stream(seed, "queries").permutation(rest)[:k]


STRATA = 10
"""Into so many parts of about equal size regression targets are divided, by their value."""


def strata_of(y: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
    """Return (the stratum of each row, their number): its class, or which tenth of the targets it is in.

    A value that many rows share, such as the zeros of a target that is mostly zero, is a stratum of its own.

    Args:
        y: labels, shape (rows,): codes 0..classes-1, or values when `classes` is 0.
        classes: number of classes; 0 means regression.
    """
    if classes:
        return y, classes
    edges = np.unique(np.quantile(y, np.arange(1, STRATA) / STRATA, method="inverted_cdf"))
    part = np.searchsorted(edges, y)
    if part.min() == part.max():  # nine tenths are one value: it against all others
        part = (y != np.median(y)).astype(np.int64)
    found, codes = np.unique(part, return_inverse=True)
    return codes, len(found)


def stratified_order(y: np.ndarray, rows: np.ndarray, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Return `rows` shuffled so that each prefix keeps the class shares, every class first once.

    Row j of a class with m rows gets the position (j + 1/2) / m, its first row a negative one.
    """
    shuffled = rng.permutation(rows)
    if not classes:
        return shuffled
    labels = y[shuffled]
    position = np.empty(len(shuffled))
    for label in range(classes):
        members = np.flatnonzero(labels == label)
        position[members] = (np.arange(len(members)) + 0.5) / max(1, len(members))
        position[members[:1]] -= 2.0
    return shuffled[np.argsort(position, kind="stable")]


def _shrink_notes(y: np.ndarray, request: SplitRequest, asked: int, k: int, test: int) -> tuple[str, ...]:
    if k == asked:
        return ()
    note = (
        f"k shrank from {asked:,} to {k:,}: {len(y):,} rows less {test:,} test rows and "
        f"{request.n:,} context rows leave {k:,}"
    )
    if request.strict:
        raise SplitError(note.replace("shrank", "would shrink"), f"--k {k}, or leave out --strict")
    return (note,)
