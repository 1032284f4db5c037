"""How people write numbers, dates, durations, truth values and missing cells as text.

Everything here takes the distinct texts of a column, so a million equal cells cost one. Patterns are
possessive, so a cell of a megabyte costs one pass. `guess` chooses between kinds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import pandas as pd

from tttab.errors import RequestError
from tttab.text import brief

MISSING = frozenset((
    "", "?", "-", "--", "---", "\N{EN DASH}", "\N{EM DASH}", ".", "..", "\N{HORIZONTAL ELLIPSIS}", "*",
    "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "null", "none", "nil", "nat", "missing", "unknown",
    "not available", "#value!", "#null!", "#div/0!",
))  # fmt: skip
"""What stands for a missing number or date, in small letters and without blanks around it."""
INFINITE = frozenset({"inf", "-inf", "+inf", "infinity", "-infinity", "+infinity"})
LONGEST = 400
"""Characters; no number or date that people write is longer (the longest exact float has 1,075 digits)."""

_PAIRS = (("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"), ("off", "on"))
TRUTH = {word: truth for pair in _PAIRS for truth, word in enumerate(pair)} | {"0": 0, "1": 1}
"""The truth of a word in small letters: 0 or 1."""

PLAIN_NUMBER = re.compile(r"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?", re.ASCII)
_CODE = re.compile(r"0\d++", re.ASCII)
_OF_A_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
_BLANKS = " \u00a0\u202f\u2009"
_GROUPS = {"": "", ",": ",", ".": r"\.", " ": f"[{_BLANKS}]", "'": r"['\u2019]"}
_MINUS = ("-", "\N{MINUS SIGN}")
_AROUND = re.compile(r"([+\-\u2212]?)\s*+([$€£¥]?)\s*+([+\-\u2212]?)(.*?)\s*+([$€£¥]?)\s*+(%?)", re.DOTALL)
_EXAMPLE = re.compile(r"1(|,|\.| |')234([.,])5(%?)")

ISO_DATE = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:?\d{2})?)?", re.ASCII
)
DURATION = re.compile(r"-?\d{1,9} days?(?:,? [+-]?\d{1,2}:\d{2}:\d{2}(?:\.\d{1,9})?)?", re.ASCII)
_DATE_START = re.compile(r"\d{1,4}[./ -]|[A-Z][a-z]{2,8} \d{1,2},", re.ASCII)
_SHAPES = {
    "%Y": r"\d{4}", "%f": r"\d{1,9}", "%b": r"[^\W\d_]+\.?", "%B": r"[^\W\d_]+\.?",
    "%p": r"[^\W\d_]+", " ": r"\s+",
} | dict.fromkeys(("%d", "%m", "%H", "%I", "%M", "%S"), r"\s?\d{1,2}")  # fmt: skip
"""What each part of a format of dates takes, at the most."""
_DAYS = (
    "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d",
    "%d %b %Y", "%d-%b-%Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y",
)  # fmt: skip
_TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
DATE_FORMATS = tuple(day + time for time in _TIMES for day in _DAYS)
"""Tried in this order: of two that fit every cell the first is taken, and the guess is said."""


@dataclass(frozen=True)
class NumberFormat:
    """How a column writes its numbers. Its text is an example: `1.234,5%`."""

    decimal: str = "."
    group: str = ""
    """What stands between groups of three digits: nothing, comma, point, blank or apostrophe."""
    percent: bool = False
    """Whether cells may end in %: 5% is 0.05."""

    def __str__(self) -> str:
        """Return the example that `number_format` reads; nothing for plain numbers."""
        text = f"1{self.group}234{self.decimal}5{'%' * self.percent}"
        return "" if text == "1234.5" else text

    def parse(self, text: str) -> float | None:
        """Return the number that `text` writes; None if it writes none."""
        if len(text) > LONGEST:
            return None
        found = _AROUND.fullmatch(text.strip())
        if found is None or (found[1] and found[3]) or (found[2] and found[5]) or not found[4]:
            return None
        if (found[6] and not self.percent) or not self._body.fullmatch(found[4]):
            return None
        number = float(self._ungrouped(found[4]).replace(self.decimal, "."))
        sign = -1.0 if (found[1] or found[3]) in _MINUS else 1.0
        return sign * number / (100.0 if found[6] else 1.0)

    @cached_property
    def _body(self) -> re.Pattern[str]:
        mark = re.escape(self.decimal)
        plain = rf"(?:\d++(?:{mark}\d*+)?|{mark}\d++)(?:[eE][+-]?\d++)?"
        group = _GROUPS[self.group]
        grouped = rf"|[1-9]\d{{0,2}}(?:{group}\d{{3}})++(?:{mark}\d++)?" if group else ""
        return re.compile(plain + grouped, re.ASCII)

    def _ungrouped(self, body: str) -> str:
        return re.sub(_GROUPS[self.group], "", body) if self.group else body


@cache
def number_format(text: str) -> NumberFormat:
    """Return the format that an example writes: `1.234,5`, `1 234.5`, `1234.5%`; nothing is plain.

    Raises:
        RequestError: it is no such example.
    """
    found = _EXAMPLE.fullmatch(text or "1234.5")
    if found is None or found[1] == found[2]:
        raise RequestError(f"{brief(text)} is no example of a number with its marks", "number:1.234,5")
    return NumberFormat(found[2], found[1], bool(found[3]))


def number_formats(mark: str, *, percent: bool) -> list[str]:
    """Return all formats, those with the decimal mark `mark` first, plain ones before grouped ones.

    Nothing as a mark: a point, and nobody told. Where a mark was told, plain numbers are `1234.5`, so that
    they stay what they are beside columns with commas.
    """
    marks = (mark or ".", "." if mark == "," else ",")
    forms = [NumberFormat(one, group, percent) for one in marks for group in _GROUPS if group != one]
    return [str(form) or ("1234.5" if mark else "") for form in forms]


def has_percent(texts: Iterable[str]) -> bool:
    """Tell whether a text ends as a percentage does."""
    return any("%" in text and text.rstrip().endswith("%") for text in texts)


def is_missing(text: str) -> bool:
    """Tell whether `text` stands for a missing value."""
    return len(text) < 20 and text.strip().casefold() in MISSING


def missing_among(texts: Collection[str]) -> set[str]:
    """Return the texts that stand for a missing value."""
    if MISSING.isdisjoint(map(str.casefold, map(str.strip, texts))):
        return set()
    return {text for text in texts if is_missing(text)}


def has_codes(texts: Iterable[str]) -> bool:
    """Tell whether a text is a code such as `007`, whose leading zeros a number would lose."""
    return any(_CODE.fullmatch(text.strip()) for text in texts if len(text) <= LONGEST)


def check_date_format(form: str) -> None:
    """Raise RequestError unless `form` is a format of dates that can be read back."""
    moment = pd.Timestamp("2031-10-24 13:45:56")
    try:
        read_back = pd.to_datetime(moment.strftime(form), format=form)
    except ValueError:
        read_back = None
    if read_back is None or read_back.date() != moment.date():
        raise RequestError(f"{brief(form)} is no format of dates", "date:%d.%m.%Y")


def likely_date_formats(texts: Sequence[str]) -> list[str]:
    """Return the formats whose shape most of the texts have; nothing stands for ISO 8601."""
    short = [text.strip() for text in texts if len(text) <= LONGEST]
    if any(map(ISO_DATE.fullmatch, short)):
        return [""]
    if not any(map(_DATE_START.match, short)):
        return []
    return [form for form in DATE_FORMATS if 2 * sum(map(_is_shaped(form), short)) > len(texts)]


@cache
def _is_shaped(form: str) -> Callable[[str], bool]:
    """Return a test of a text's shape: to try all formats takes pandas a third of a second for a column."""
    parts = (_SHAPES.get(part, re.escape(part)) for part in re.findall("%.|.", form))
    shape = re.compile("".join(parts))
    return lambda text: shape.fullmatch(text) is not None


def read(kind: str, texts: Sequence[str], form: str) -> np.ndarray:
    """Return texts as numbers, float64 of shape (texts,); dates and durations in days, NaN where it is none.

    Args:
        kind: `number`, `date` or `duration`.
        texts: distinct cells.
        form: an example of a number, a `strftime` format of dates, or nothing.
    """
    return _READERS[kind]([text if len(text) <= LONGEST else "" for text in texts], form)


def _numbers(texts: Sequence[str], form: str) -> np.ndarray:
    way = number_format(form)
    written = texts
    if way.decimal == ",":
        written = [text.replace(".", "'").replace(",", ".") for text in texts]
    found = [
        float(plain) if matched else way.parse(text)
        for text, plain, matched in zip(texts, written, map(PLAIN_NUMBER.fullmatch, written), strict=True)
    ]
    odd = [place for place, number in enumerate(found) if number is None]
    for place in odd:
        is_infinite = texts[place].strip().casefold() in INFINITE
        found[place] = float(texts[place]) if is_infinite else np.nan
    return np.array(found, dtype=np.float64) + 0.0


def _days(texts: Sequence[str], form: str) -> np.ndarray:
    # No other format looks like the international one, so such dates are read whatever the format is.
    stripped = [text.strip() for text in texts]
    international = [ISO_DATE.fullmatch(text) is not None for text in stripped]
    found = _read_some(stripped, international, _times("ISO8601"))
    if not form:
        return found
    unread = np.isnan(found)
    return np.where(unread, _read_some(stripped, unread, _times(form)), found)


def _times(form: str) -> Callable[[pd.Series], np.ndarray]:
    return lambda cells: days_of(pd.to_datetime(cells, utc=True, errors="coerce", format=form))


def _durations(texts: Sequence[str], form: str) -> np.ndarray:
    stripped = [text.strip() for text in texts]
    those = [DURATION.fullmatch(text) is not None for text in stripped]
    return _read_some(stripped, those, _spans)


def _spans(cells: pd.Series) -> np.ndarray:
    return days_in(pd.to_timedelta(cells, errors="coerce"))


def _read_some(
    texts: Sequence[str], those: Sequence[bool] | np.ndarray, read: Callable[[pd.Series], np.ndarray]
) -> np.ndarray:
    """Return what `read` makes of `those` texts, NaN for the others: pandas takes a millisecond for none."""
    found = np.full(len(texts), np.nan)
    places = np.flatnonzero(those)
    if len(places):
        found[places] = read(pd.Series([texts[place] for place in places], dtype=object))
    return found


_NUMBER_SIGNS = re.compile(r"[\s0-9eE+\-\u2212.,'\u2019$€£¥%]++")
_DIGIT = re.compile(r"\d")


def _may_be_number(text: str) -> bool:
    return _NUMBER_SIGNS.fullmatch(text) is not None or text.strip().casefold() in INFINITE


def _has_digit(text: str) -> bool:
    return _DIGIT.search(text) is not None


MAY_BE = {"number": _may_be_number, "date": _has_digit, "duration": _has_digit}
"""Tests that every text passes which `read` can read in some format, and most words do not."""
_READERS = {"number": _numbers, "date": _days, "duration": _durations}


def days_of(times: pd.Series) -> np.ndarray:
    """Return times as float64 days since 1970-01-01 UTC, shape (rows,); missing ones are NaN."""
    utc = times if times.dt.tz is None else times.dt.tz_convert("UTC").dt.tz_localize(None)
    return days_in(pd.Series(utc.dt.as_unit("us") if utc.dt.unit == "ns" else utc).to_numpy())


def days_in(spans: pd.Series | np.ndarray) -> np.ndarray:
    """Return times since 1970-01-01 or durations as float64 days, shape (rows,); missing ones are NaN.

    Whole numbers are divided exactly, so a value is the same in every unit, however long it is.
    """
    values = np.asarray(spans)
    a_day = _OF_A_DAY[np.datetime_data(values.dtype)[0]]
    days = np.array([count / a_day for count in values.astype(np.int64).tolist()], dtype=np.float64)
    return np.where(np.isnat(values), np.nan, days)


def truth_of(text: str) -> int | None:
    """Return 0 or 1 for a word of truth or the numbers 0 and 1, however written; None for other texts."""
    word = text.strip().casefold() if len(text) < 20 else ""
    if word in TRUTH:
        return TRUTH[word]
    number = float(word) if PLAIN_NUMBER.fullmatch(word) else math.nan
    return int(number) if number in (0.0, 1.0) else None


def is_truth_pair(texts: Collection[str]) -> bool:
    """Tell whether the texts are one pair of words for false and true, or one word that can be no other."""
    words = {text.strip().casefold() for text in texts if len(text) < 20}
    whole = any(words == set(pair) for pair in _PAIRS)
    return len(words) == len(texts) and (whole or words in ({"true"}, {"false"}))
