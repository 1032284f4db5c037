"""The one place where a cell becomes a value: a conversion for each kind of column, from any dtype.

A column becomes float64 (numbers, and dates and durations in days) or a pandas `category` with text levels.
Equal values give equal results however they are stored: NumPy, pandas' extension types, Arrow, Python objects
or text. Another kind is refused with the column's name. `guess` finds the kind.
"""

from __future__ import annotations

import decimal
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd

from tttab.core import Column, Kind
from tttab.data import spelling
from tttab.data.cells import Cells, Form, cells_of
from tttab.data.cells import label_text as label_text
from tttab.errors import DataError
from tttab.text import brief

IN_WORDS = {
    "number": "numbers", "truth": "truth values", "boolean": "truth values", "date": "dates",
    "duration": "durations", "text": "texts", "level": "texts",
    "empty": "empty cells", "nothing": "empty cells",
}  # fmt: skip
KEPT = 1_000
"""Characters of the levels that are kept between calls."""
LARGEST = 1e30
"""No measured number is larger; files mark missing cells with such values, and float32 ends at 3e38."""
_NUMBER_OR_TRUTH = re.compile(
    rf"\s*+(?:{spelling.PLAIN_NUMBER.pattern})\s*+|True|False".replace(r"\d", "[0-9]")
)
_HINTS = {
    "number": "write plain numbers, such as 1234.5",
    "date": "write dates as 2024-01-31 or 2024-01-31T12:00:00",
    "duration": "write durations as pandas does: 3 days 04:05:06",
}


def convert(values: pd.Series | Cells, column: Column, decimal_mark: str = "") -> np.ndarray | pd.Categorical:
    """Return a column's cells as values.

    Args:
        values: the cells, of any dtype.
        column: what the column is.
        decimal_mark: the one that the file of the cells told, for those that are text; empty: none.

    Returns:
        float64 of shape (rows,), NaN where missing; or a categorical whose levels begin with
        `column.levels`, followed by those that the column never had.

    Raises:
        DataError: the cells are of another kind than the column; the message names it.
    """
    if column.kind == "empty":
        return np.full(len(values.plain if isinstance(values, Cells) else values), np.nan)
    if isinstance(values, pd.Series) and isinstance(values.dtype, pd.CategoricalDtype):
        return _convert_categories(values, column, decimal_mark)
    cells = values if isinstance(values, Cells) else cells_of(values)
    if cells.form == "nothing":
        cells = Cells("text", pd.Series(None, index=cells.plain.index, dtype=object))
    if column.kind in ("level", "boolean"):
        return _to_categories(cells, column)
    return _to_numbers(cells, column, decimal_mark)


def _convert_categories(values: pd.Series, column: Column, decimal_mark: str) -> np.ndarray | pd.Categorical:
    """Convert each category once: a text of a megabyte may stand in a million rows."""
    used = pd.Categorical(values).remove_unused_categories()
    categories = pd.Series(used.categories, name=values.name)
    converted, codes = convert(categories, column, decimal_mark), used.codes
    if isinstance(converted, pd.Categorical):
        lookup = np.append(converted.codes, -1).astype(np.int64)
        return pd.Categorical.from_codes(lookup[codes], dtype=converted.dtype)
    return np.append(converted, np.nan)[codes]


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Return labels in order: by value where every one is a number, else by their characters."""
    labels = list(labels)
    if all(spelling.PLAIN_NUMBER.fullmatch(label) for label in labels):
        return sorted(labels, key=lambda label: (float(label), label))
    return sorted(labels)


def _to_numbers(cells: Cells, column: Column, mark: str) -> np.ndarray:
    form, plain = cells.form, cells.plain
    if form == column.kind == "date":
        return spelling.days_of(plain)
    if form == column.kind == "duration":
        return spelling.days_in(plain)
    if form == "truth" and column.kind == "number":
        return plain.astype("boolean").to_numpy(dtype=np.float64, na_value=np.nan)
    if form == column.kind == "number":
        return _floats(plain) + 0.0  # -0.0 becomes 0.0
    if form != "text":
        raise _other_kind(form, column)
    codes, texts = cells.texts
    return np.append(_values_of(texts, column, mark), np.nan)[codes]


def _floats(cells: pd.Series) -> np.ndarray:
    try:
        return cells.to_numpy(dtype=np.float64, na_value=np.nan)
    except OverflowError:  # whole numbers of Python have no largest one
        return cells.map(_float, na_action="ignore").to_numpy(dtype=np.float64, na_value=np.nan)


def _float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:
        return np.inf if number > 0 else -np.inf


def _values_of(texts: Sequence[str], column: Column, mark: str) -> np.ndarray:
    """Return the number that each text writes; NaN where it stands for nothing."""
    absent = spelling.missing_among(texts).union(column.missing)
    filled = [text not in absent for text in texts]
    present = list(compress(texts, filled))
    found = _read(present, column, mark)
    if np.isnan(found).any():
        bad = present[int(np.isnan(found).argmax())]
        written = f" written like {column.format}" if column.format else ""
        raise DataError(
            f"column {brief(column.name)} holds {brief(bad)}, which is not a {column.kind}{written}",
            _HINTS[column.kind],
        )
    values = np.full(len(texts), np.nan)
    values[np.array(filled, dtype=bool)] = found
    return values


def _read(texts: Sequence[str], column: Column, mark: str) -> np.ndarray:
    """Read texts as the column's format says, unless they are numbers of another one.

    A column of plain numbers goes by the mark of the new rows' own file: 1.234 may be 1,234 there.
    """
    forms = [column.format]
    if column.kind == "number":
        others = spelling.number_formats(mark, percent=spelling.number_format(column.format).percent)
        forms = [*others, ""] if mark and not column.format else [column.format, *others]
    readings = (spelling.read(column.kind, texts, form) for form in forms)
    whole = next((found for found in readings if not np.isnan(found).any()), None)
    return spelling.read(column.kind, texts, column.format) if whole is None else whole


def _other_kind(form: Form, column: Column) -> DataError:
    return DataError(
        f"column {brief(column.name)} holds {IN_WORDS[form]} where the table had {IN_WORDS[column.kind]}",
        _HINTS[column.kind],
    )


def _to_categories(cells: Cells, column: Column) -> pd.Categorical:
    codes, texts = cells.labels
    if not column.levels:
        return _categorical(codes, _one_spelling_each(texts, column.kind), ())
    find = _truth_finder(column.levels) if column.kind == "boolean" else _level_finder(column.levels)
    known = set(column.levels)
    return _categorical(codes, [text if text in known else find(text) for text in texts], column.levels)


def _one_spelling_each(texts: Sequence[str], kind: Kind) -> Sequence[str]:
    """Return the texts, each value in its shortest spelling: `1` for `1.0` where both are, not for `01`."""
    shortest: dict[decimal.Decimal | int, str] = {}
    values: dict[str, decimal.Decimal | int] = {}
    for text in texts if kind == "boolean" else filter(_NUMBER_OR_TRUTH.fullmatch, texts):
        value = _truth_or_number(text, kind)
        if value is not None:
            values[text] = value
            shortest[value] = min(text, shortest.get(value, text), key=lambda one: (len(one), one))
    return [shortest[values[text]] if text in values else text for text in texts] if values else texts


def _truth_or_number(text: str, kind: Kind) -> decimal.Decimal | int | None:
    if kind == "boolean":
        return spelling.truth_of(text)
    return None if spelling.has_codes([text]) else _value_of(text)


def _truth_finder(known: Sequence[str]) -> Callable[[str], str]:
    """Return a function from a text to the known level of the same truth, or to itself."""
    levels = {truth: level for level in known if (truth := spelling.truth_of(level)) is not None}
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
    counts = Counter(values)
    pairs = zip(values, known, strict=True)
    return {value: level for value, level in pairs if value is not None and counts[value] == 1}


def _categorical(codes: np.ndarray, texts: Sequence[str], known: Sequence[str]) -> pd.Categorical:
    """Return cells by the text of their level: the `known` ones first, then the others that occur, sorted."""
    order = [*known, *sort_labels(set(texts) - set(known))]
    place = {level: code for code, level in enumerate(order)}
    lookup = np.array([place[text] for text in texts] + [-1], dtype=np.int64)
    levels = _kept_levels(tuple(order)) if sum(map(len, order)) <= KEPT else _levels_of(order)
    return pd.Categorical.from_codes(lookup[codes], dtype=levels)


def _levels_of(order: Sequence[str]) -> pd.CategoricalDtype:
    return pd.CategoricalDtype(pd.Index(order, dtype="str"))


@lru_cache(maxsize=4096)
def _kept_levels(order: tuple[str, ...]) -> pd.CategoricalDtype:
    """Return `_levels_of` short levels, made once: rows come in pieces, and pandas compares all texts."""
    return _levels_of(order)


def _value_of(text: str) -> decimal.Decimal | None:
    """Return the number that a level's text writes; None where it writes none. `True` is 1."""
    text = {"True": "1", "False": "0"}.get(text, text).strip()
    if len(text) > spelling.LONGEST or not spelling.PLAIN_NUMBER.fullmatch(text):
        return None
    try:
        return decimal.Decimal(text)
    except decimal.InvalidOperation:  # an exponent of some twenty digits
        return None
