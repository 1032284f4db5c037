"""What to know of a table before a model reads it: its facts, limits, duplicates, classes with few rows.

Pure functions of a table and row numbers. They never refuse; models refuse what they cannot read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.util import hash_pandas_object

from tttab.core import Table

FEW_ROWS = 10
"""A class with fewer context rows than this is hard to learn from the context."""


@dataclass(frozen=True)
class Limits:
    """What TabPFN v2 was pre-trained for (Hollmann et al., Nature 637, 2025, "Limitations")."""

    context_rows: int = 10_000
    features: int = 500
    classes: int = 10

    def broken_by(self, table: Table) -> tuple[str, ...]:
        """Return why `table` does not fit, a sentence each; empty if it fits.

        The number of rows breaks nothing: a context of n rows is drawn from the table.
        """
        reasons = []
        if len(table.classes) > self.classes:
            reasons.append(f"{len(table.classes)} classes, the model reads at most {self.classes}")
        if table.x.shape[1] > self.features:
            reasons.append(f"{table.x.shape[1]:,} features, the model reads at most {self.features}")
        return tuple(reasons)


@dataclass(frozen=True)
class Facts:
    """A table in figures."""

    rows: int
    features: int
    numbers: int
    """Columns of numbers, dates not counted."""
    dates: int
    categories: int
    missing_cells: int
    missing_columns: int
    """Columns with at least one missing cell."""
    constant_columns: int
    duplicate_columns: int
    """Columns equal to one before them."""
    duplicate_rows: int
    """Rows whose features equal those of a row before them."""
    classes: Mapping[str, int]
    """Rows of each class; empty for regression."""
    too_much: tuple[str, ...]
    """Why the table does not fit the model; empty if it does."""


def facts_of(table: Table, limits: Limits | None = None) -> Facts:
    """Count everything `Facts` names."""
    x = table.x
    hashes = row_hashes(x)
    is_category = [isinstance(x[name].dtype, pd.CategoricalDtype) for name in x.columns]
    missing = x.isna().sum()
    counts = np.bincount(table.y, minlength=len(table.classes)) if table.classes else []
    columns = [row_hashes(x[[name]]).tobytes() for name in x.columns]
    return Facts(
        rows=len(x),
        features=x.shape[1],
        numbers=x.shape[1] - sum(is_category) - len(table.dates),
        dates=len(table.dates),
        categories=sum(is_category),
        missing_cells=int(missing.sum()),
        missing_columns=int((missing > 0).sum()),
        constant_columns=int((x.nunique(dropna=False) <= 1).sum()),
        duplicate_columns=len(columns) - len(set(columns)),
        duplicate_rows=len(hashes) - len(np.unique(hashes)),
        classes={name: int(count) for name, count in zip(table.classes, counts, strict=True)},
        too_much=(limits or Limits()).broken_by(table),
    )


def duplicates_between(x: pd.DataFrame, rows_a: np.ndarray, rows_b: np.ndarray) -> int:
    """Return how many of `rows_b` have exactly the features of one of `rows_a`.

    With the context as `rows_a` and the test rows as `rows_b` this is the number of test rows the
    model has seen. Missing values equal each other. Equality is that of 64-bit hashes.
    """
    hashes = row_hashes(x)
    return int(np.isin(hashes[rows_b], hashes[rows_a]).sum())


def thin_classes(table: Table, rows: np.ndarray) -> dict[str, int]:
    """Return the classes with fewer than `FEW_ROWS` of the given rows, and how many they have."""
    if not table.classes:
        return {}
    counts = np.bincount(table.y[rows], minlength=len(table.classes))
    return {name: int(count) for name, count in zip(table.classes, counts, strict=True) if count < FEW_ROWS}


def row_hashes(x: pd.DataFrame) -> np.ndarray:
    """Return a 64-bit hash of each row's values, uint64, shape (rows,)."""
    # pandas decorates it as an `object`.
    return hash_pandas_object(x, index=False).to_numpy()  # ty: ignore[not-callable]
