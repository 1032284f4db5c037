"""The shape of a table without its rows: what new rows must look like to be predicted.

A schema is plain data (JSON) and applies the conversion of its table to any later frame. It never guesses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from tttab.core import Column, Table, Task
from tttab.data import spelling
from tttab.data.columns import convert
from tttab.data.features import finite
from tttab.data.guess import KINDS
from tttab.data.target import check_targets
from tttab.errors import DataError, RequestError
from tttab.text import brief, decoded, listed


@dataclass(frozen=True)
class NewRows:
    """Rows of a later frame in the table's form, and what was passed over."""

    x: pd.DataFrame
    """The features in the table's order. Texts that the table never had are further levels."""
    unseen: Mapping[str, int] = field(default_factory=dict)
    """Cells per column that hold a text the table never had: models take them as missing."""
    extra: tuple[str, ...] = ()
    """Columns that the table did not have: they are left out."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was passed over, a sentence each."""
        return tuple(unseen_remark(name, count) for name, count in self.unseen.items())


def unseen_remark(name: str, count: int) -> str:
    """Say how many cells of a column hold a text the table never had."""
    if count == 1:
        return f"column {brief(name)}: 1 cell holds an unknown text, which counts as missing"
    return f"column {brief(name)}: {count:,} cells hold unknown texts, which count as missing"


@dataclass(frozen=True)
class Schema:
    """The features of a table in order, its target and classes."""

    columns: tuple[Column, ...]
    target: str
    task: Task
    classes: tuple[str, ...] = ()
    label: Column | None = None
    """What the target column was; None: classes are told by their texts, values are numbers."""

    def apply(self, frame: pd.DataFrame, decimals: Mapping[str, str] | None = None) -> pd.DataFrame:
        """Return the features of `frame` as `read` does, without its remarks."""
        return self.read(frame, decimals).x

    def read(self, frame: pd.DataFrame, decimals: Mapping[str, str] | None = None) -> NewRows:
        """Return the features of `frame` as the table had them, in the table's order.

        Args:
            frame: new rows; columns that the table did not have are left out.
            decimals: the decimal mark of each column where the file that they come from told one.

        Raises:
            DataError: a column is missing or there twice, or its cells are of another kind than the table's.
        """
        frame = frame.set_axis([decoded(name) for name in frame.columns], axis=1).reset_index(drop=True)
        names = [column.name for column in self.columns]
        missing = [name for name in names if name not in frame.columns]
        if missing:
            raise DataError(
                f"the new rows lack {len(missing)} of {len(names)} columns: {listed(missing)}",
                f"their header must hold: {listed(names, 8)}",
            )
        marks = decimals or {}
        x = pd.DataFrame(
            {
                column.name: finite(convert(_only(frame, column.name), column, marks.get(column.name, "")))
                for column in self.columns
            },
            index=frame.index,
        )
        known = {self.target, *names}
        extra = tuple(name for name in frame.columns if name not in known)
        return NewRows(x, self._unseen(x), extra)

    def _unseen(self, x: pd.DataFrame) -> dict[str, int]:
        """Return how many cells of each column hold a text beyond its levels."""
        counts = {
            column.name: int((pd.Categorical(x[column.name]).codes >= len(column.levels)).sum())
            for column in self.columns
            if column.kind in ("level", "boolean")
        }
        return {name: count for name, count in counts.items() if count}

    def labels(self, target: pd.Series, decimal_mark: str = "") -> np.ndarray:
        """Return the codes (int64) or values (float64) of a target column, shape (rows,).

        Raises:
            DataError: a label is missing, or no class of the table, or not a value.
        """
        column = self.label or Column(self.target, "level" if self.classes else "number")
        values = convert(target, replace(column, name=self.target, levels=self.classes), decimal_mark)
        missing = pd.isna(values)
        if missing.any():
            raise DataError(f"{int(missing.sum())} rows have no value in {brief(self.target)}", "drop them")
        if not isinstance(values, pd.Categorical):
            check_targets(values, self.target, np.arange(len(values)))
            return values
        if len(values.categories) > len(self.classes):
            raise DataError(
                f"{brief(values.categories[len(self.classes)])} is none of the table's classes",
                f"known are: {', '.join(map(brief, self.classes[:10]))}",
            )
        return values.codes.astype(np.int64)

    @property
    def stored(self) -> Schema:
        """The schema of rows that are already converted: dates and durations are days, labels are plain."""
        columns = (
            Column(column.name, column.kind, column.levels)
            if column.kind in ("level", "boolean", "empty")
            else Column(column.name, "number")
            for column in self.columns
        )
        return replace(self, columns=tuple(columns), label=None)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns whose cells `read_frame` must leave as texts: levels and numbers with marks."""
        return tuple(
            column.name
            for column in self.columns
            if column.kind in ("level", "boolean") or (column.kind == "number" and column.format)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def schema_of(table: Table) -> Schema:
    """Return the schema of a loaded table."""
    known = {column.name: column for column in table.columns}
    columns = tuple(known.get(name) or _column(table.x[name]) for name in table.x.columns)
    return Schema(columns, table.target, table.task, table.classes, table.label)


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
        if len({column.name for column in columns}) < len(columns) or len(set(classes)) < len(classes):
            raise ValueError("a name occurs twice")
        label = _checked_column(data["label"]) if data.get("label") is not None else None
    except (KeyError, TypeError, ValueError, AttributeError, RequestError) as error:
        raise DataError(
            f"this is no schema of a table: {type(error).__name__} {error}", "write the file again"
        ) from error
    return Schema(columns, target, task, classes, label)


def _column(values: pd.Series) -> Column:
    """Return what a column of a table is that was made from values."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return Column(str(values.name), "level", tuple(values.cat.categories))
    return Column(str(values.name), "number")


def _checked_column(item: Mapping[str, Any]) -> Column:
    kind = {"category": "level"}.get(item["kind"], item["kind"])  # as it was called at first
    levels, form = _texts(item.get("levels", ())), item.get("format", "")
    if kind not in KINDS or not isinstance(item["name"], str) or not isinstance(form, str):
        raise TypeError("column")
    if len(set(levels)) < len(levels):
        raise ValueError("a level occurs twice")
    if kind == "level" and item["kind"] == "category" and spelling.is_truth_pair(levels):
        kind = "boolean"
    if form and kind == "number":
        spelling.number_format(form)
    elif form and kind == "date":
        spelling.check_date_format(form)
    elif form:
        raise ValueError("format")
    return Column(item["name"], kind, levels, form, _texts(item.get("missing", ())))


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise TypeError("levels or classes")
    return tuple(values)


def _only(frame: pd.DataFrame, name: str) -> pd.Series:
    values = frame[name]
    if isinstance(values, pd.DataFrame):
        raise DataError(f"the new rows have two columns named {brief(name)}", "rename one of them")
    return values
