"""The shape of a table without its rows: what new rows must look like to be served.

A schema is plain data (JSON) and applies the conversion of its table to any later frame. What does
not belong here: reading files, and guessing (a schema has nothing to guess).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from tttab.core import Table, Task
from tttab.data.build import convert_column
from tttab.data.columns import KINDS, Kind, to_category, to_numbers
from tttab.errors import DataError
from tttab.text import decoded


@dataclass(frozen=True)
class Column:
    """One feature."""

    name: str
    kind: Kind
    levels: tuple[str, ...] = ()
    """The texts a category column held, sorted; empty for numbers and dates."""


@dataclass(frozen=True)
class Schema:
    """The features of a table in order, its target and classes."""

    columns: tuple[Column, ...]
    target: str
    task: Task
    classes: tuple[str, ...] = ()

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the features of `frame` as the table had them, in the table's order.

        Extra columns are left out; a category column may hold texts the table never had, which
        become further levels.

        Raises:
            DataError: a column is missing, or a cell is not of its column's kind.
        """
        frame = frame.set_axis([decoded(name) for name in frame.columns], axis=1)
        missing = [column.name for column in self.columns if column.name not in frame.columns]
        if missing:
            raise DataError(
                f"the new rows lack {len(missing)} of {len(self.columns)} columns: {', '.join(missing[:5])}",
                f"their header must hold: {', '.join(column.name for column in self.columns[:8])}, …",
            )
        converted = {
            column.name: convert_column(_only(frame, column.name), column.kind, column.levels)[0]
            for column in self.columns
        }
        return pd.DataFrame(converted)

    def notes_on(self, frame: pd.DataFrame) -> tuple[str, ...]:
        """Return what `apply` passes over in silence, a sentence each: extra columns, unseen texts."""
        known = {column.name for column in self.columns} | {self.target}
        names = [decoded(name) for name in frame.columns]
        extra = [name for name in names if name not in known]
        notes = [f"columns the table did not have are left out: {', '.join(extra[:5])}"] if extra else []
        x = self.apply(frame)
        for column in self.columns:
            if column.kind == "category":
                unseen = x[column.name].cat.categories[len(column.levels) :]
                notes += [f"column {column.name!r} has texts never seen: {', '.join(unseen[:3])}"] * (
                    len(unseen) > 0
                )
        return tuple(notes)

    def labels(self, target: pd.Series) -> np.ndarray:
        """Return the codes (int64) or values (float64) of a target column, shape (rows,).

        Raises:
            DataError: a label is missing, or no class of the table, or not a number.
        """
        if target.isna().any():
            raise DataError(f"{int(target.isna().sum())} rows have no value in {self.target!r}", "drop them")
        if self.task == "regression":
            return to_numbers(target)
        found = to_category(target, self.classes)
        if len(found.categories) > len(self.classes):
            raise DataError(
                f"{found.categories[len(self.classes)]!r} is none of the table's classes",
                f"known are: {', '.join(self.classes[:10])}",
            )
        return found.codes.astype(np.int64)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The category columns: what `read_frame` must not take for numbers."""
        return tuple(column.name for column in self.columns if column.kind == "category")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def schema_of(table: Table) -> Schema:
    """Return the schema of a loaded table."""
    return Schema(
        tuple(_column(table, name) for name in table.x.columns), table.target, table.task, table.classes
    )


def schema_from_dict(data: Mapping[str, Any]) -> Schema:
    """Return the schema that `Schema.to_dict` wrote.

    Raises:
        DataError: a field is missing or of another type: the file was damaged or changed.
    """
    try:
        columns = tuple(_checked_column(item) for item in data["columns"])
        task, target, classes = data["task"], data["target"], _texts(data["classes"])
        if task not in ("classification", "regression") or not isinstance(target, str):
            raise TypeError("task or target")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"this is no schema of a table: {type(error).__name__} {error}", "write the file again"
        ) from error
    return Schema(columns, target, task, classes)


def _column(table: Table, name: str) -> Column:
    values = table.x[name]
    if isinstance(values.dtype, pd.CategoricalDtype):
        return Column(name, "category", tuple(values.cat.categories))
    return Column(name, "date" if name in table.dates else "number")


def _checked_column(item: Mapping[str, Any]) -> Column:
    if item["kind"] not in KINDS or not isinstance(item["name"], str):
        raise TypeError("column")
    return Column(item["name"], item["kind"], _texts(item.get("levels", ())))


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise TypeError("levels or classes")
    return tuple(values)


def _only(frame: pd.DataFrame, name: str) -> pd.Series:
    values = frame[name]
    if isinstance(values, pd.DataFrame):
        raise DataError(f"the new rows have two columns named {name!r}", "rename one of them")
    return values.reset_index(drop=True)
