"""Dates as an ARFF header declares them: patterns of Java's SimpleDateFormat, read strictly.

Supported are y, M, d, H, m, s, S and quoted text. Years have four digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

from tttab.errors import DataError

DEFAULT = "yyyy-MM-dd'T'HH:mm:ss"
"""What a date is where its attribute declares no pattern."""
EPOCH = datetime(1970, 1, 1)
_FIRST_MOMENT = {"year": 1970, "month": 1, "day": 1, "hour": 0, "minute": 0, "second": 0}
"""The date that stands for 0: Weka keeps dates as milliseconds since then."""
LONGEST = 100
"""Characters of a pattern."""
_PARTS = re.compile(r"'((?:[^']|'')*+)'|([A-Za-z])\2*+|([^A-Za-z']++)", re.ASCII)
_FIELDS = {
    "y": "year",
    "M": "month",
    "d": "day",
    "H": "hour",
    "m": "minute",
    "s": "second",
    "S": "millisecond",
}
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december",
)  # fmt: skip


def date_reader(pattern: str) -> Callable[[str], datetime]:
    """Return the function that reads one date; it raises ValueError where a text does not fit.

    Raises:
        DataError: the pattern has a letter that is not known, a field twice, a year of two digits or an
            open quote, or is too long.
    """
    pieces = _pieces(pattern)
    fields = [name for name, _ in pieces if name]
    _check_fields(pattern, fields)
    expression = re.compile("".join(text for _, text in pieces), re.ASCII | re.IGNORECASE)

    def read(text: str) -> datetime:
        found = expression.fullmatch(text)
        if not found:
            raise ValueError(text)
        values = {name: _value(name, cell) for name, cell in zip(fields, found.groups(), strict=True)}
        day = (values.get(name, first) for name, first in _FIRST_MOMENT.items())
        return datetime(*day, microsecond=1000 * values.get("millisecond", 0))

    return read


def _pieces(pattern: str) -> list[tuple[str, str]]:
    """Return (field or nothing, regular expression) of each part of a pattern."""
    if len(pattern) > LONGEST:
        raise _unreadable(pattern, f"has more than {LONGEST} characters")
    parts, place = [], 0
    while place < len(pattern):
        found = _PARTS.match(pattern, place)
        if not found:
            raise _unreadable(pattern, "has a quote that is not closed")
        if found[0] == "yy":
            raise _unreadable(pattern, "has years of two digits, which do not say the century")
        parts.append(found)
        place = found.end()
    pieces = []
    for number, found in enumerate(parts):
        if found[2]:
            follows = number + 1 < len(parts) and _is_number(parts[number + 1])
            pieces.append((_FIELDS.get(found[2], found[2]), _expression(found[0], follows)))
        else:  # two quotes are one, alone as within quotes
            text = found[3] if found[3] is not None else found[1].replace("''", "'") or "'"
            pieces.append(("", re.escape(text)))
    return pieces


def _is_number(found: re.Match[str]) -> bool:
    return bool(found[2]) and not found[0].startswith("MMM")


def _expression(letters: str, number_follows: bool) -> str:
    """Return what matches a field: its width counts only where another number follows at once."""
    letter, width = letters[0], len(letters)
    if letter == "M" and width > 2:
        return "(" + "|".join(month[: None if width > 3 else 3] for month in _MONTHS) + ")"
    if letter == "y":
        return "([0-9]{4})"
    most = 3 if letter == "S" else 2
    return f"([0-9]{{{width}}})" if number_follows else f"([0-9]{{1,{most}}})"


def _value(name: str, cell: str) -> int:
    if cell.isdigit():
        return int(cell)
    return next(number for number, month in enumerate(_MONTHS, 1) if month.startswith(cell.lower()))


def _check_fields(pattern: str, fields: list[str]) -> None:
    for field in fields:
        if field not in _FIELDS.values():
            raise _unreadable(pattern, f"has the letter {field!r}; known are {', '.join(_FIELDS)}")
        if fields.count(field) > 1:
            raise _unreadable(pattern, f"has the {field} twice")
    if not fields:
        raise _unreadable(pattern, "has no field")


def _unreadable(pattern: str, why: str) -> DataError:
    return DataError(
        f"the date pattern {pattern[:60]!r} {why}", "declare the attribute as string, or write its dates anew"
    )
