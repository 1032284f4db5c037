"""The one place where a cell becomes a value: a conversion for each kind of column, from any dtype.

A column becomes float64 (numbers, and dates and durations in days) or a pandas `category` with text
levels. Equal values give equal results however they are stored: NumPy, pandas' extension types, Arrow,
Python objects or text. Another kind is refused by the column's name. What does not belong here: which
kind a column has (`guess`), whole tables, and files.
"""

from __future__ import annotations

import datetime
import decimal
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from tttab.core import Column
from tttab.data import spelling
from tttab.errors import DataError
from tttab.text import decoded

Form = Literal["number", "truth", "date", "duration", "text", "nothing"]
"""What cells are by their type alone, before anything is known of the column."""
IN_WORDS = {
    "number": "numbers", "truth": "truth values", "boolean": "truth values", "date": "dates",
    "duration": "durations", "text": "texts", "level": "texts",
    "empty": "empty cells", "nothing": "empty cells",
}  # fmt: skip
LARGEST = 1e30
"""No measured number is larger; files mark missing cells with such values, and float32 ends at 3e38."""
_HINTS = {
    "number": "write plain numbers, such as 1234.5",
    "date": "write dates as 2024-01-31 or 2024-01-31T12:00:00",
    "duration": "write durations as pandas does: 3 days 04:05:06",
}


def convert(values: pd.Series, column: Column, decimal_mark: str = ".") -> np.ndarray | pd.Categorical:
    """Return a column's cells as values.

    Args:
        values: the cells, of any dtype.
        column: what the column is.
        decimal_mark: the decimal mark of the file that the cells come from, for those that are text.

    Returns:
        float64 of shape (rows,), NaN where missing; or a categorical whose levels begin with
        `column.levels`, followed by those that the column never had.

    Raises:
        DataError: the cells are of another kind than the column; the message names it.
    """
    if column.kind == "empty":
        return np.full(len(values), np.nan)
    if isinstance(values.dtype, pd.CategoricalDtype):
        return _convert_categories(values.cat.remove_unused_categories(), column, decimal_mark)
    form, cells = form_of(values)
    if form == "nothing":
        form, cells = "text", pd.Series(None, index=cells.index, dtype=object)
    if column.kind in ("level", "boolean"):
        return _to_categories(cells, column)
    return _to_numbers(cells, form, column, decimal_mark)


def _convert_categories(values: pd.Series, column: Column, decimal_mark: str) -> np.ndarray | pd.Categorical:
    """Convert each category once: a text of a megabyte may stand in a million rows."""
    categories = pd.Series(values.cat.categories, name=values.name)
    converted, codes = convert(categories, column, decimal_mark), values.cat.codes.to_numpy()
    if isinstance(converted, pd.Categorical):
        lookup = np.append(converted.codes, -1).astype(np.int64)
        return pd.Categorical.from_codes(lookup[codes], categories=converted.categories)
    return np.append(converted, np.nan)[codes]


def form_of(values: pd.Series) -> tuple[Form, pd.Series]:
    """Return what the cells are by type, and the same cells in the plainest dtype for it.

    Raises:
        DataError: the column holds lists, mappings, complex numbers or other things that are no cell.
    """
    values = _plain(values)
    dtype = values.dtype
    if pd.api.types.is_bool_dtype(dtype):
        return "truth", values
    if pd.api.types.is_complex_dtype(dtype):
        raise _complex(values.name)
    if pd.api.types.is_numeric_dtype(dtype):
        return ("number" if values.notna().any() else "nothing"), values
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return "date", values
    if pd.api.types.is_timedelta64_dtype(dtype):
        return "duration", values
    return _form_of_objects(values)


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
    return text.capitalize() if text.casefold() in ("true", "false") else text


def _date_text(day: Any) -> str:
    try:
        moment = pd.Timestamp(day.start_time if isinstance(day, pd.Period) else day)
    except (ValueError, OverflowError):  # beyond the years that pandas knows
        return decoded(day)
    if moment.tz is not None:
        moment = moment.tz_convert("UTC").tz_localize(None)
    return str(moment).removesuffix(" 00:00:00")


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Return labels in order: by value where every one is a number, else by their characters."""
    labels = list(labels)
    if all(spelling.PLAIN_NUMBER.fullmatch(label) for label in labels):
        return sorted(labels, key=lambda label: (float(label), label))
    return sorted(labels)


def levels_of(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Return (number of its level per cell, -1 where missing; the distinct label texts in order met)."""
    if values.dtype == object:
        values = values.map(label_text, na_action="ignore")
    codes, found = pd.factorize(values)
    texts = [label_text(level) for level in found]
    merged = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    places = np.array([merged[text] for text in texts] + [-1], dtype=np.int64)
    return places[codes], list(merged)


def brief(value: Any) -> str:
    """Return a cell as an error message shows it."""
    text = repr(value if not hasattr(value, "item") else value.item())
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(values: pd.Series) -> pd.Series:
    """Return the cells without the dtypes that only wrap others: Arrow, categories, periods, sparse."""
    dtype = values.dtype
    if isinstance(dtype, pd.ArrowDtype):
        plain = values.array.__arrow_array__().to_pandas(integer_object_nulls=True)
        return pd.Series(plain.to_numpy(dtype=object) if plain.dtype == object else plain.array,
                         index=values.index, name=values.name)  # fmt: skip
    if isinstance(dtype, pd.CategoricalDtype):
        return values.astype(object)
    if isinstance(dtype, pd.PeriodDtype):
        return values.dt.to_timestamp()
    if isinstance(dtype, pd.SparseDtype):
        return values.sparse.to_dense()
    return values.astype(object) if isinstance(dtype, pd.StringDtype) else values


_NUMBERS = (int, float, np.integer, np.floating, decimal.Decimal)
_DATES = (datetime.date, np.datetime64, pd.Period)
_DURATIONS = (datetime.timedelta, np.timedelta64)
_TRUTHS = (bool, np.bool_)


def _form_of_objects(values: pd.Series) -> tuple[Form, pd.Series]:
    values = values.astype(object)
    present = values.dropna()
    types = {type(value) for value in present}
    if not types:
        return "nothing", values
    if all(issubclass(kind, _TRUTHS) for kind in types):
        return "truth", values
    if all(issubclass(kind, _NUMBERS) and not issubclass(kind, _TRUTHS) for kind in types):
        return "number", values
    if all(issubclass(kind, _DATES) for kind in types):
        return "date", _as_times(values)
    if all(issubclass(kind, _DURATIONS) for kind in types):
        return "duration", pd.to_timedelta(values)
    plain = (*_TRUTHS, *_NUMBERS, *_DATES, datetime.time, str, bytes)
    odd = [kind for kind in types if not issubclass(kind, plain)]
    if odd and issubclass(odd[0], complex | np.complexfloating):
        raise _complex(values.name)
    if odd:
        raise DataError(
            f"column {values.name!r} holds {odd[0].__name__} values; a cell must be a number, a date or text",
            "flatten or drop that column first",
        )
    return "text", values


def _complex(name: Any) -> DataError:
    return DataError(
        f"Complex data not supported: column {name!r} holds complex numbers", "split them into two columns"
    )


def _as_times(values: pd.Series) -> pd.Series:
    starts = values.map(lambda day: day.start_time if isinstance(day, pd.Period) else day, na_action="ignore")
    return pd.to_datetime(starts, utc=True, errors="coerce", format="ISO8601")


def _to_numbers(cells: pd.Series, form: Form, column: Column, mark: str) -> np.ndarray:
    if form == column.kind == "date":
        return spelling.days_of(cells)
    if form == column.kind == "duration":
        return (cells / pd.Timedelta(days=1)).to_numpy(dtype=np.float64)
    if form == "truth" and column.kind == "number":
        return cells.astype("boolean").to_numpy(dtype=np.float64, na_value=np.nan)
    if form == column.kind == "number":
        return cells.to_numpy(dtype=np.float64, na_value=np.nan) + 0.0  # -0.0 becomes 0.0
    if form != "text":
        raise _other_kind(form, column)
    codes, texts = texts_of(cells)
    return np.append(_values_of(texts, column, mark), np.nan)[codes]


def _values_of(texts: Sequence[str], column: Column, mark: str) -> np.ndarray:
    """Return the number that each text writes; NaN where it stands for nothing."""
    told = [not spelling.is_missing(text) and text not in column.missing for text in texts]
    present = [text for text, is_told in zip(texts, told, strict=True) if is_told]
    found = _read(present, column, mark)
    if np.isnan(found).any():
        bad = present[int(np.isnan(found).argmax())]
        written = f" written like {column.format}" if column.format else ""
        raise DataError(
            f"column {column.name!r} holds {brief(bad)}, which is not a {column.kind}{written}",
            _HINTS[column.kind],
        )
    values = np.full(len(texts), np.nan)
    values[np.array(told, dtype=bool)] = found
    return values


def _read(texts: Sequence[str], column: Column, mark: str) -> np.ndarray:
    """Read texts as the column's format says, unless they are numbers of another one.

    A column of plain numbers goes by the decimal mark of the new rows' own file: 1.234 may be 1,234 there.
    """
    forms = [column.format]
    if column.kind == "number":
        others = spelling.number_formats(mark, percent=spelling.number_format(column.format).percent)
        forms = [*others, ""] if mark == "," and not column.format else [column.format, *others]
    readings = (spelling.read(column.kind, texts, form) for form in forms)
    whole = next((found for found in readings if not np.isnan(found).any()), None)
    return spelling.read(column.kind, texts, column.format) if whole is None else whole


def _other_kind(form: Form, column: Column) -> DataError:
    return DataError(
        f"column {column.name!r} holds {IN_WORDS[form]} where the table had {IN_WORDS[column.kind]}",
        _HINTS[column.kind],
    )


def texts_of(cells: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Return (number of its text per cell, -1 where missing; the distinct texts as they are written)."""
    codes, found = pd.factorize(cells.map(_as_text, na_action="ignore"))
    return codes, list(found)


def _as_text(cell: Any) -> str:
    return repr(float(cell)) if isinstance(cell, float | np.floating) else decoded(cell)


def _to_categories(cells: pd.Series, column: Column) -> pd.Categorical:
    codes, texts = levels_of(cells)
    if not column.levels:
        return _categorical(codes, _one_spelling_each(texts), ())
    find = _truth_finder(column.levels) if column.kind == "boolean" else _level_finder(column.levels)
    known = set(column.levels)
    return _categorical(codes, [text if text in known else find(text) for text in texts], column.levels)


def _one_spelling_each(texts: Sequence[str]) -> list[str]:
    """Return the texts, each number in its shortest spelling: `1` for `1.0` where both are, not for `01`."""
    values = [None if spelling.has_codes([text]) else _value_of(text) for text in texts]
    shortest: dict[decimal.Decimal, str] = {}
    for value, text in zip(values, texts, strict=True):
        if value is not None:
            shortest[value] = min(text, shortest.get(value, text), key=lambda one: (len(one), one))
    return [text if value is None else shortest[value] for value, text in zip(values, texts, strict=True)]


def _truth_finder(known: Sequence[str]) -> Callable[[str], str]:
    """Return a function from a text to the known level of the same truth, or to itself."""
    levels = {spelling.truth_of(level): level for level in known}
    return lambda text: levels.get(spelling.truth_of(text), text)


def _level_finder(known: Sequence[str]) -> Callable[[str], str]:
    """Return a function from a text to the one known level of equal value, or to itself.

    A code such as `007` that lost its zeros on the way is found so, unless `7` is a level too.
    """
    codes = [level for level in known if spelling.has_codes([level])]
    levels = _by_value(codes) | _by_value([level for level in known if level not in set(codes)])
    return lambda text: levels.get(_value_of(text), text)


def _by_value(known: Sequence[str]) -> dict[decimal.Decimal, str]:
    """Return the levels that are numbers by their value; those that share one are left out."""
    values = [_value_of(level) for level in known]
    once = {value for value, count in Counter(values).items() if count == 1 and value is not None}
    return {value: level for value, level in zip(values, known, strict=True) if value in once}


def _categorical(codes: np.ndarray, texts: Sequence[str], known: Sequence[str]) -> pd.Categorical:
    """Return cells by the text of their level: the `known` ones first, then the others that occur, sorted."""
    order = [*known, *sort_labels(set(texts) - set(known))]
    place = {level: code for code, level in enumerate(order)}
    lookup = np.array([place[text] for text in texts] + [-1], dtype=np.int64)
    return pd.Categorical.from_codes(lookup[codes], categories=pd.Index(order, dtype="str"))


def _value_of(text: str) -> decimal.Decimal | None:
    """Return the number that a level's text writes; None where it writes none. `True` is 1."""
    text = {"True": "1", "False": "0"}.get(text, text).strip()
    if len(text) > spelling.LONGEST or not spelling.PLAIN_NUMBER.fullmatch(text):
        return None
    try:
        return decimal.Decimal(text)
    except decimal.InvalidOperation:  # an exponent of some twenty digits
        return None
