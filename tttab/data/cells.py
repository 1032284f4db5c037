"""What the cells of a column are by their type alone, and the text of each.

Equal values have one text however they are stored, and each distinct value is turned into text once: a
million equal cells cost one. `guess` decides what the column is, `columns` computes its values.
"""

from __future__ import annotations

import datetime
import decimal
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from tttab.errors import DataError
from tttab.text import brief, decoded

Form = Literal["number", "truth", "date", "duration", "text", "nothing"]
"""What cells are by their type alone, before anything is known of the column."""
_NUMBERS = (int, float, np.integer, np.floating, decimal.Decimal)
_DATES = (datetime.date, np.datetime64, pd.Period)
_DURATIONS = (datetime.timedelta, np.timedelta64)
_TRUTHS = (bool, np.bool_)
_ONE_TEXT = frozenset((str, bytes, bool, int, float, np.bool_, np.int64, np.float64))
"""Types whose equal values have equal texts, but for the zeros."""
_TRUTH_WORDS = frozenset(("true", "false"))
_FEW = 500
"""Rows up to which a dictionary is faster than pandas."""


@dataclass(frozen=True)
class Cells:
    """The cells of a column."""

    form: Form
    plain: pd.Series
    """The cells in the plainest dtype for what they are."""

    @cached_property
    def texts(self) -> tuple[np.ndarray, list[str]]:
        """The number of its text per cell, -1 where missing; the distinct texts as they are written."""
        codes, values = self._distinct
        return _merged(codes, values if _are_plain(values) else [_as_text(value) for value in values])

    @cached_property
    def labels(self) -> tuple[np.ndarray, list[str]]:
        """The number of its level per cell, -1 where missing; the distinct label texts in order met."""
        codes, values = self._distinct
        if _are_plain(values) and _TRUTH_WORDS.isdisjoint(map(str.casefold, values)):
            return codes, values
        return _merged(codes, [label_text(value) for value in values])

    @cached_property
    def _distinct(self) -> tuple[np.ndarray, list[Any]]:
        """The number of its value per cell, -1 where missing; values, among them all that differ in text."""
        are_objects = self.plain.dtype == object or isinstance(self.plain.dtype, pd.StringDtype)
        if are_objects and (len(self.plain) < _FEW or not _are_strings(self.plain)):
            return _distinct_objects(self.plain.tolist())
        codes, values = pd.factorize(self.plain)
        return codes, values.tolist()


def cells_of(values: pd.Series) -> Cells:
    """Return the cells of a column of any dtype but a category.

    Raises:
        DataError: the column holds lists, mappings, complex numbers or other things that are no cell.
    """
    values = _plain(values)
    dtype = values.dtype
    if isinstance(dtype, pd.StringDtype):
        return Cells("nothing" if values.array.isna().all() else "text", values)
    if dtype.kind == "O":
        return _cells_of_objects(values)
    if pd.api.types.is_bool_dtype(dtype):
        return Cells("truth", values)
    if pd.api.types.is_complex_dtype(dtype):
        raise _complex(values.name)
    if pd.api.types.is_numeric_dtype(dtype):
        return Cells("number" if values.notna().any() else "nothing", values)
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return Cells("date", values)
    if pd.api.types.is_timedelta64_dtype(dtype):
        return Cells("duration", values)
    return _cells_of_objects(values.astype(object))


def opened(values: pd.Series) -> pd.Series | Cells:
    """Return the cells of a column; a category stays one, since each of its categories is converted once."""
    return values if isinstance(values.dtype, pd.CategoricalDtype) else cells_of(values)


def label_text(value: Any) -> str:
    """Return the text of one label: whole floats lose `.0`, truth values read `True` and `False`.

    Dates have one text whatever holds them: in UTC, without the time where it is midnight.
    """
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, _DATES):
        return _date_text(value)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    text = decoded(value)
    return text.capitalize() if len(text) < 6 and text.casefold() in _TRUTH_WORDS else text


def _as_text(cell: Any) -> str:
    """Return a cell's text; a number beside texts is written without a point, which could mark thousands."""
    if isinstance(cell, float | np.floating | decimal.Decimal):
        text = str(cell) if isinstance(cell, decimal.Decimal) else repr(float(cell))
        number, _, exponent = text.lower().partition("e")
        whole, _, fraction = number.removesuffix(".0").partition(".")
        if fraction:
            return f"{whole}{fraction}e{int(exponent or 0) - len(fraction)}"
        return text.removesuffix(".0")
    return decoded(cell)


def _date_text(day: Any) -> str:
    try:
        moment = pd.Timestamp(day.start_time if isinstance(day, pd.Period) else day)
    except (ValueError, OverflowError):  # beyond the years that pandas knows
        return decoded(day)
    if moment.tz is not None:
        moment = moment.tz_convert("UTC").tz_localize(None)
    return str(moment).removesuffix(" 00:00:00")


def _plain(values: pd.Series) -> pd.Series:
    """Return the cells without the dtypes that only wrap others: Arrow, categories, periods, sparse."""
    dtype = values.dtype
    if isinstance(dtype, pd.StringDtype):  # Arrow may hold them too: as texts they need no wrapper taken off
        return values
    if isinstance(values.array, pd.arrays.ArrowExtensionArray):
        plain = values.array.__arrow_array__().to_pandas(integer_object_nulls=True)
        return pd.Series(plain.to_numpy(dtype=object) if plain.dtype == object else plain.array,
                         index=values.index, name=values.name)  # fmt: skip
    if isinstance(dtype, pd.CategoricalDtype):
        return values.astype(object)
    if isinstance(dtype, pd.PeriodDtype):
        return values.dt.to_timestamp()
    if isinstance(dtype, pd.SparseDtype):
        return values.sparse.to_dense()
    return values


def _are_strings(values: pd.Series) -> bool:
    """Tell whether all cells are texts, but for missing ones."""
    return (
        isinstance(values.dtype, pd.StringDtype) or pd.api.types.infer_dtype(values, skipna=True) == "string"
    )


def _are_plain(values: list[Any]) -> bool:
    """Tell whether values are texts that are their own texts."""
    return set(map(type, values)) <= {str} and all(map(str.isascii, values))


def _merged(codes: np.ndarray, texts: list[str]) -> tuple[np.ndarray, list[str]]:
    """Return codes and texts, each text once."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    if len(places) == len(texts):
        return codes, texts
    return np.array([places[text] for text in texts] + [-1], dtype=np.int64)[codes], list(places)


def _distinct_objects(cells: list[Any]) -> tuple[np.ndarray, list[Any]]:
    """Return `Cells._distinct` of objects: 1 and True are equal and have two texts."""
    first: dict[Any, Any] = {}
    keys = [
        (type(cell), cell or str(cell)) if type(cell) in _ONE_TEXT else row for row, cell in enumerate(cells)
    ]
    for key, cell in zip(keys, cells, strict=True):
        first.setdefault(key, cell)
    present = ~pd.isna(np.array([*first.values(), None], dtype=object))[:-1]
    numbers = np.where(present, np.cumsum(present) - 1, -1)
    places = dict(zip(first, numbers.tolist(), strict=True))
    codes = np.array([places[key] for key in keys], dtype=np.int64)
    return codes, [value for value, is_there in zip(first.values(), present, strict=True) if is_there]


def _cells_of_objects(values: pd.Series) -> Cells:
    if _are_strings(values):
        return Cells("text", values)
    present = values.dropna()
    types = {type(value) for value in present}
    if not types:
        return Cells("nothing", values)
    if all(issubclass(kind, _TRUTHS) for kind in types):
        return Cells("truth", values)
    if all(issubclass(kind, _NUMBERS) and not issubclass(kind, _TRUTHS) for kind in types):
        return Cells("number", values)
    if all(issubclass(kind, _DATES) for kind in types):
        return Cells("date", _as_times(values))
    if all(issubclass(kind, _DURATIONS) for kind in types):
        return Cells("duration", pd.to_timedelta(values.where(values.notna(), None)))
    plain = (*_TRUTHS, *_NUMBERS, *_DATES, datetime.time, str, bytes)
    odd = [kind for kind in types if not issubclass(kind, plain)]
    if odd and issubclass(odd[0], complex | np.complexfloating):
        raise _complex(values.name)
    if odd:
        raise DataError(
            f"column {brief(values.name)} holds {odd[0].__name__} values; "
            "a cell must be a number, a date or text",
            "flatten or drop that column first",
        )
    return Cells("text", values)


def _complex(name: Any) -> DataError:
    return DataError(
        f"Complex data not supported: column {brief(name)} holds complex numbers",
        "split them into two columns",
    )


def _as_times(values: pd.Series) -> pd.Series:
    starts = values.map(lambda day: day.start_time if isinstance(day, pd.Period) else day, na_action="ignore")
    return pd.to_datetime(starts, utc=True, errors="coerce", format="ISO8601")
