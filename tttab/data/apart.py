"""Splits that do not leak: no group on two sides, or training on earlier rows and testing on later ones.

The sides are what may be context or query, what is held out to choose the step, and the test rows. `splits`
divides rows that are independent of each other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
import pandas as pd

from tttab.core import Table
from tttab.data.build import fingerprint
from tttab.data.splits import Split, SplitRequest, held_out_rows, split_rows, strata_of, stratified_order
from tttab.errors import DataError, RequestError, SplitError
from tttab.seeding import numpy_stream
from tttab.text import brief, shell_word


@dataclass(frozen=True)
class Apart:
    """What rows must not share across the sides of a split."""

    values: np.ndarray
    """Of each row, shape (rows,): the number of its group, or its time."""
    ordered: bool = False
    """Whether `values` are times: later rows are then held out, the latest are the test."""

    @property
    def several(self) -> str:
        """What there must be several of."""
        return "different times" if self.ordered else "groups"


def apart_of(groups: object = None, times: object = None) -> Apart | None:
    """Return what `groups` or `times`, one value per row, ask for; None where neither is given.

    Args:
        groups: values of any kind, shape (rows,): equal ones are one group.
        times: numbers, shape (rows,).

    Raises:
        RequestError: both are given.
        DataError: a row has no value.
    """
    if groups is not None and times is not None:
        raise RequestError("rows are kept apart by groups or by time, not by both", "leave out --time-column")
    if groups is None and times is None:
        return None
    values = pd.Series(np.asarray(groups if times is None else times))
    if values.isna().any():
        what = "group" if times is None else "time"
        raise DataError(
            f"{int(values.isna().sum())} rows have no {what}", "fill in the cells, or drop the rows"
        )
    if times is not None:
        return Apart(values.to_numpy(dtype=np.float64), ordered=True)
    return Apart(pd.factorize(values)[0])


def take_column(table: Table, name: str, option: str) -> tuple[Table, pd.Series]:
    """Return the table without a column, and the column.

    Args:
        table: the table.
        name: a feature.
        option: what names it, such as `--group`.

    Raises:
        DataError: it is no feature, or the only one, or a row has no value in it.
    """
    others = [column for column in table.x.columns if column != name]
    if name not in table.x.columns:
        near = get_close_matches(name, others, n=1, cutoff=0.0)[0]
        raise DataError(
            f"{table.name} has no feature {brief(name)}; the nearest is {brief(near)}",
            f"{option} {shell_word(near)}",
        )
    if not others:
        raise DataError(f"{table.name} has no feature besides {brief(name)}", f"leave out {option}")
    values = table.x[name]
    if values.isna().any():
        raise DataError(
            f"{int(values.isna().sum())} rows have no value in {brief(name)}",
            f"fill in the cells, or drop the rows, or leave out {option}",
        )
    x = table.x[others]
    columns = tuple(column for column in table.columns if column.name != name)
    mark = fingerprint(x, table.y, table.classes, table.target)
    note = f"{brief(name)} divides the rows and is no feature"
    return replace(table, x=x, columns=columns, fingerprint=mark, notes=(*table.notes, note)), values


def split_apart(
    y: np.ndarray,
    request: SplitRequest,
    seed: int,
    apart: Apart,
    *,
    classes: int = 0,
    share: float = 0.2,
    keep_test: bool = True,
) -> Split:
    """Divide rows as `split_rows` does, with groups or times apart.

    Sizes are those asked for as nearly as whole groups, or rows of one time, allow.

    Args:
        y: labels, as for `split_rows`.
        request: the sizes.
        seed: names the split.
        apart: what is kept apart.
        classes: number of classes; 0 means regression.
        share: of the k rows, to hold out.
        keep_test: keep rows for a test.

    Raises:
        RequestError: n or k is not positive.
        SplitError: there are too few groups or times, or rows, or a class is only on one side.
    """
    request.check()
    pool, test = np.arange(len(y)), np.arange(0)
    if keep_test:
        size = min(request.test_rows(len(y), classes), len(y) - 1)
        pool, test = _cut(y, pool, size, apart, classes, seed, "test")
    k, room = request.labels, len(pool) - request.n
    notes = ()
    if room < k:
        notes = (f"k shrank from {k:,} to {room:,}: {len(pool):,} rows are not for the test",)
        if request.strict or room < 2:
            hint = f"--k {room}, or leave out --strict" if room > 1 else f"--n {max(classes, len(pool) // 2)}"
            raise SplitError(notes[0].replace("shrank", "would shrink"), hint)
    k = min(k, room)
    free, held = _cut(y, pool, held_out_rows(share, k), apart, classes, seed, "hold-out")
    trains = min(k - len(held), len(free) - request.n)
    if trains < 1:
        raise SplitError(
            f"{len(free):,} rows are left for n = {request.n:,} context rows and the training, "
            f"{len(held):,} are held out, {len(test):,} the test: too few {apart.several}, or too large ones",
            f"--n {max(classes, 1, len(free) // 2)}",
        )
    sizes = replace(request, k=trains, budget="paper")  # `labels` has applied the budget already
    split = split_rows(y, sizes, seed, classes=classes, prescribed=(free, test), held=held)
    return replace(split, notes=(*notes, *split.notes))


def _cut(
    y: np.ndarray, rows: np.ndarray, size: int, apart: Apart, classes: int, seed: int, side: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return (the rest, about `size` of the rows), with nothing on both sides that must be kept apart."""
    values = apart.values[rows]
    found, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(found) < 2:
        raise SplitError(
            f"{len(rows):,} rows of {len(found)} of the {apart.several} cannot be divided",
            "leave out --time-column" if apart.ordered else "leave out --group",
        )
    rng = numpy_stream(seed, side, "groups")
    order = np.arange(len(found))[::-1] if apart.ordered else _groups(y[rows], codes, classes, rng)
    sizes = np.cumsum(counts[order])  # of the first group, the first two, …: take as many as come nearest
    taken = 1 + int(np.abs(sizes[:-1] - size).argmin())
    chosen = np.isin(codes, order[:taken])
    return rows[~chosen], rows[chosen]


def _groups(y: np.ndarray, codes: np.ndarray, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Return the groups in a random order of which every prefix has about the shares of the strata.

    scikit-learn's StratifiedGroupKFold makes folds of equal size alone, and takes long.
    """
    strata, count = strata_of(y, classes)
    table = np.zeros((codes.max() + 1, count), dtype=np.int64)
    np.add.at(table, (codes, strata), 1)
    likeliest = table.argmax(axis=1)
    return stratified_order(likeliest, np.arange(len(table)), count, rng)
