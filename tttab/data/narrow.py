"""Makes a table fit a model's limits, only on request: fewer classes, fewer features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from tttab.core import Table
from tttab.data.build import fingerprint
from tttab.errors import RequestError


def keep_classes(table: Table, count: int) -> Table:
    """Return the rows of the `count` most frequent classes; ties go to the first name.

    Raises:
        RequestError: fewer than two classes are asked for, or the target is a number.
    """
    if not table.classes:
        raise RequestError("a regression target has no classes to keep", "leave out --top-classes")
    if count < 2:
        raise RequestError(f"at least 2 classes are needed, got {count}", "--top-classes 10")
    if count >= len(table.classes):
        return table
    frequency = np.bincount(table.y, minlength=len(table.classes))
    kept = np.sort(np.argsort(-frequency, kind="stable")[:count])
    rows = np.flatnonzero(np.isin(table.y, kept))
    note = (
        f"only the {count} most frequent of {len(table.classes)} classes are kept, as asked: "
        f"{len(table) - len(rows):,} of {len(table):,} rows are left out"
    )
    y = np.searchsorted(kept, table.y[rows])
    classes = tuple(table.classes[c] for c in kept)
    return _rebuilt(table, table.x.iloc[rows].reset_index(drop=True), y, classes, note, rows)


def keep_features(table: Table, count: int, rows: np.ndarray) -> Table:
    """Return the table with the `count` features that tell most about the target in `rows`.

    The score is the F statistic of each feature alone (categories by their codes, missing values by
    the mean). `rows` must be labelled rows, never test rows.

    Raises:
        RequestError: fewer than one feature is asked for.
    """
    from sklearn.feature_selection import f_classif, f_regression

    if count < 1:
        raise RequestError(f"at least 1 feature is needed, got {count}", "--top-features 500")
    if count >= table.x.shape[1]:
        return table
    x = table.x.iloc[rows].apply(_as_numbers)
    x = x.fillna(x.mean()).fillna(0.0)
    varies = (x.nunique() > 1).to_numpy()
    scores = np.full(x.shape[1], -1.0)
    score = f_classif if table.classes else f_regression
    scores[varies] = np.nan_to_num(score(x.loc[:, varies], table.y[rows])[0], nan=-1.0)
    best = np.sort(np.argsort(-scores, kind="stable")[:count])
    note = f"only {count} of {table.x.shape[1]:,} features are kept, as asked: the strongest on labelled rows"
    return _rebuilt(table, table.x.iloc[:, best], table.y, table.classes, note)


def _rebuilt(
    table: Table,
    x: pd.DataFrame,
    y: np.ndarray,
    classes: tuple[str, ...],
    note: str,
    rows: np.ndarray | None = None,
) -> Table:
    split = table.official_split
    if split is not None and rows is not None:
        split = (_places(split[0], rows), _places(split[1], rows))
    return replace(
        table,
        x=x,
        y=y,
        classes=classes,
        fingerprint=fingerprint(x, y, classes, table.target),
        notes=(*table.notes, note),
        official_split=split,
        columns=tuple(column for column in table.columns if column.name in x.columns),
    )


def _places(wanted: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.isin(rows, wanted))


def _as_numbers(column: pd.Series) -> pd.Series:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.astype(float)
    return column.astype(float)
