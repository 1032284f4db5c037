"""The target column: the task, and its cells as class codes or values.

`build` decides which column is the target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from tttab.core import Column, Task
from tttab.data import spelling
from tttab.data.cells import Cells, opened
from tttab.data.columns import IN_WORDS, LARGEST, convert
from tttab.data.features import fit_column
from tttab.data.guess import MANY_VALUES, declared_column, guess_column
from tttab.errors import DataError
from tttab.text import brief


@dataclass(frozen=True)
class Target:
    """A target column, converted."""

    y: np.ndarray
    classes: tuple[str, ...]
    task: Task
    column: Column
    rows: np.ndarray
    """The rows that have a target."""
    notes: tuple[str, ...]


def read_target(
    cells: pd.Series,
    table: str,
    task: Task | None = None,
    declared: str | None = None,
    decimal_mark: str = "",
) -> Target:
    """Return a table's target.

    Args:
        cells: the target's cells.
        table: the table's name, for messages.
        task: what is asked for; None: guessed.
        declared: what the column is declared to be; None: guessed.
        decimal_mark: the one that the file of the cells told; empty: none.

    Raises:
        DataError: fewer than 2 rows have a target, all are of one class, or a value is none or too large.
    """
    name, found = str(cells.name), opened(cells)
    column = fit_column(found, declared_column(name, declared) if declared else None, decimal_mark).column
    guessed = task or guess_task(found, column)
    notes = () if task else (_task_note(cells, column, guessed),)
    task = guessed
    if task == "classification":  # classes are told apart by their texts, whatever else these can be read as
        column = Column(name, "boolean" if column.kind == "boolean" else "level")
    elif column.kind in ("level", "boolean"):
        column = Column(name, "number")
    values = convert(found, column, decimal_mark)
    rows = np.flatnonzero(~pd.isna(values) if task == "classification" else np.isfinite(values))
    if len(rows) < 2:
        raise DataError(f"{table} has {len(rows)} rows with a target; at least 2 are needed", _LIST)
    if isinstance(values, pd.Categorical):
        classes = tuple(values.categories)
        if len(classes) < 2:
            raise _one_class(name, classes[0], len(rows), len(cells))
        codes = values.codes[rows].astype(np.int64)
        return Target(codes, classes, task, replace(column, levels=classes), rows, notes)
    check_targets(values[rows], name, rows)
    return Target(values[rows], (), task, column, rows, notes)


def check_targets(y: np.ndarray, name: str, rows: np.ndarray) -> None:
    """Raise DataError where a target is beyond `columns.LARGEST`: no model can learn from it.

    Args:
        y: the targets, shape (rows,).
        name: the target's column.
        rows: the number of each row in its file, counted from 0.
    """
    huge = np.flatnonzero(np.abs(y) > LARGEST)
    if len(huge):
        raise DataError(
            f"row {rows[huge[0]] + 1:,} holds {y[huge[0]]:g} in the target {brief(name)}: a mark for a "
            "missing value rather than a measured one", "mend or leave out that row",
        )  # fmt: skip


def _task_note(cells: pd.Series, column: Column, task: Task) -> str:
    what = IN_WORDS[column.kind]
    asked = "regression" if task == "classification" else "classification"
    hint = f" (--{asked} asks for the other)" if column.kind == "number" else ""
    found = f"the target {brief(column.name)} has {cells.nunique():,} different {what}"
    return f"{found}, so the task is {task}{hint}"


def _one_class(name: str, label: str, rows: int, all_rows: int) -> DataError:
    without = f"; {all_rows - rows:,} rows without a target (an empty cell, NA, None, …) are left out"
    message = f"the target {brief(name)} has one class only, {brief(label)}"
    hint = "--regression" if spelling.PLAIN_NUMBER.fullmatch(label) else "--target NAME, another column"
    return DataError(message + (without if rows < all_rows else ""), hint)


def guess_task(target: pd.Series | Cells, column: Column | None = None) -> Task:
    """Guess the task from the target's values.

    Texts and truth values are classes, dates and durations are values. Numbers are classes unless more than
    20 differ, or they have fractions and more than a tenth of the rows (at least 3) differ or most values
    stand in one row alone.

    Args:
        target: the target's cells.
        column: what the column is; None: guessed.
    """
    column = column or guess_column(target).column
    if column.kind != "number":
        return "regression" if column.kind in ("date", "duration") else "classification"
    values = convert(target, column)
    values = values[np.isfinite(values)]
    distinct, counts = np.unique(values, return_counts=True)
    fractions = bool((distinct != np.round(distinct)).any())
    scattered = len(distinct) > max(2, len(values) // 10) or 2 * (counts == 1).sum() > len(distinct) > 2
    is_regression = len(distinct) > MANY_VALUES or (fractions and scattered)
    return "regression" if is_regression else "classification"


_LIST = "tttab data list"
