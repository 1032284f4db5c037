"""One column at a time: what kind it is, and its values as numbers or as category text.

A column becomes float64 (numbers, durations and dates in days) or a pandas `category` with text
levels. What does not belong here: whole tables, files, and the target's encoding.
"""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import pandas as pd

from tttab.errors import DataError
from tttab.text import decoded

Kind = Literal["number", "date", "category"]
KINDS: tuple[Kind, ...] = ("number", "date", "category")

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_ISO_DATE = re.compile(
    r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?", re.ASCII
)
_DAY = pd.Timedelta(days=1)
_EPOCH = pd.Timestamp(0, tz="UTC").as_unit("us")  # nanoseconds would end in the year 2262


def column_kind(values: pd.Series) -> Kind:
    """Return what `values` becomes: booleans and text are categories, ISO 8601 text is a date.

    Raises:
        DataError: the column holds lists, mappings, complex numbers or other nested things.
    """
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return "category" if values.notna().any() else "number"
    if pd.api.types.is_bool_dtype(dtype):
        return "category"
    if pd.api.types.is_complex_dtype(dtype):
        raise DataError(f"column {values.name!r} holds complex numbers", "split them into two columns")
    if pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_timedelta64_dtype(dtype):
        return "number"
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return "date"
    return _kind_of_objects(values.dropna(), values.name)


def to_numbers(values: pd.Series) -> np.ndarray:
    """Return float64, shape (rows,); missing values are NaN, durations are in days.

    Raises:
        DataError: a value is not a number.
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    if pd.api.types.is_timedelta64_dtype(values.dtype):
        return (values / _DAY).to_numpy(dtype=np.float64)
    if not pd.api.types.is_numeric_dtype(values.dtype):
        values = _parse_numbers(values)
    return values.to_numpy(dtype=np.float64, na_value=np.nan) + 0.0  # -0.0 becomes 0.0


def to_days(values: pd.Series) -> np.ndarray:
    """Return dates as float64 days since 1970-01-01 UTC, shape (rows,); missing dates are NaN.

    Raises:
        DataError: a value is not a date.
    """
    parsed = _parse_dates(values)
    bad = parsed.isna() & values.notna()
    if bad.any():
        raise DataError(
            f"column {values.name!r} holds {_shown(values[bad].iloc[0])}, which is not an ISO 8601 date",
            "write dates as 2024-01-31 or 2024-01-31T12:00:00",
        )
    return ((parsed.dt.as_unit("us") - _EPOCH) / _DAY).to_numpy(dtype=np.float64)


def to_category(values: pd.Series, known: Iterable[str] = ()) -> pd.Categorical:
    """Return text levels: those `known`, in their order, then the others that occur, sorted.

    The text of a level is `label_text` of its value, so an id 7, 7.0 and "7" is one level.
    """
    codes, levels = _factorize(values)
    known = list(known)
    order = known + sort_labels(set(levels) - set(known))
    place = {level: code for code, level in enumerate(order)}
    lookup = np.array([place[level] for level in levels] + [-1], dtype=np.int64)
    return pd.Categorical.from_codes(lookup[codes], categories=pd.Index(order, dtype="str"))


def label_text(value: Any) -> str:
    """Return the text of one label: whole floats lose `.0`, booleans read `True` and `False`."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    text = decoded(value)
    return text.capitalize() if text.casefold() in ("true", "false") else text


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Return labels in order: by value where every one is a number, else by their characters."""
    labels = list(labels)
    if all(_NUMBER.fullmatch(label) for label in labels):
        return sorted(labels, key=lambda label: (float(label), label))
    return sorted(labels)


def _kind_of_objects(present: pd.Series, name: Any) -> Kind:
    if present.empty:
        return "number"
    types = {type(value) for value in present}
    if all(issubclass(kind, bool | np.bool_) for kind in types):
        return "category"
    if all(issubclass(kind, int | float | np.number | decimal.Decimal) for kind in types):
        return "number"
    if all(issubclass(kind, datetime.date) for kind in types):
        return "date"
    plain = bool | np.bool_ | int | float | np.number | decimal.Decimal | datetime.date | datetime.time
    odd = [kind for kind in types if not issubclass(kind, plain | str | bytes | pd.Period)]
    if odd:
        raise DataError(
            f"column {name!r} holds {odd[0].__name__} values; a cell must be a number, a date or text",
            "flatten or drop that column first",
        )
    return "date" if types == {str} and _all_iso_dates(present) else "category"


def _all_iso_dates(present: pd.Series) -> bool:
    if not _ISO_DATE.fullmatch(present.iloc[0]):
        return False
    return all(_ISO_DATE.fullmatch(text) for text in present) and _parse_dates(present).notna().all()


def _parse_dates(values: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(values.dtype) and values.notna().any():
        return pd.Series(pd.NaT, index=values.index, dtype="datetime64[us, UTC]")
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    return pd.to_datetime(values, utc=True, errors="coerce", format=_format_of(values))


def _format_of(values: pd.Series) -> str | None:
    return None if pd.api.types.is_datetime64_any_dtype(values.dtype) else "ISO8601"


def _parse_numbers(values: pd.Series) -> pd.Series:
    parsed = pd.to_numeric(values, errors="coerce")
    bad = parsed.isna() & values.notna()
    if bad.any():
        raise DataError(
            f"column {values.name!r} holds {_shown(values[bad].iloc[0])}, which is not a number",
            "mend or drop that cell",
        )
    return parsed


def _factorize(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Return (code per row, -1 where missing; distinct texts)."""
    if values.dtype == object:
        values = values.map(label_text, na_action="ignore")
    codes, levels = pd.factorize(values)
    texts = [label_text(level) for level in levels]
    return codes, texts


def _shown(value: Any) -> str:
    text = repr(value if not hasattr(value, "item") else value.item())
    return text if len(text) <= 60 else text[:57] + "..."
