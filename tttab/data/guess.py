"""What kind a column has, where nobody said: by its type, else by how its texts are written.

A column of texts that are numbers (or dates) but for a few marks for missing cells is a column of numbers.
What was guessed is kept in the column's schema, and said. What does not belong here: conversion (`columns`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from tttab.core import Column, Kind
from tttab.data import spelling
from tttab.data.columns import IN_WORDS, brief, form_of, levels_of, texts_of
from tttab.errors import DataError, RequestError

MANY_VALUES = 20
"""A numeric target with more distinct values than this is a regression target."""
ODD_SHARE, ODD_TEXTS = 0.02, 3
"""A column of more than `MANY_VALUES` numbers may hold so many cells, and so many texts, that are none."""
GLANCE = 50
"""Texts that a format is tried on first."""
READ_FROM_TEXT: tuple[Kind, ...] = ("date", "number", "duration")
"""The kinds that texts can be, in the order in which they are tried."""
DECLARABLE: tuple[Kind, ...] = ("number", "level", "date", "duration", "boolean")
KINDS = (*DECLARABLE, "empty")


@dataclass(frozen=True)
class Guess:
    """What was found out about a column, and what should be said of it."""

    column: Column
    """Without its levels: they are known when its cells are converted."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Texts that count as missing, with their number of cells."""
    as_text: bool = False
    """Whether numbers, dates or durations were written as text."""
    other: str = ""
    """Another format of dates that fits as well."""


def guess_column(values: pd.Series, decimal_mark: str = ".") -> Guess:
    """Return what a column is, by its type and texts.

    Args:
        values: the cells, of any dtype.
        decimal_mark: the decimal mark of the file they come from.

    Raises:
        DataError: the column holds lists, mappings, complex numbers or other nested things.
    """
    name = str(values.name)
    if isinstance(values.dtype, pd.CategoricalDtype):
        return Guess(Column(name, _kind_of_category(values)))
    form, cells = form_of(values)
    if form == "text":
        return _guess_texts(cells, name, decimal_mark)
    kinds: dict[str, Kind] = {"truth": "boolean", "nothing": "empty"}
    return Guess(Column(name, kinds.get(form, form)))  # type: ignore[arg-type]


def declared_column(name: str, text: str) -> Column:
    """Return the column that a user declares: a kind, and after a colon how its texts are written.

    Args:
        name: the column's name.
        text: `number`, `level`, `date`, `duration` or `boolean`; `number:1.234,5`, `date:%d.%m.%Y`.

    Raises:
        RequestError: there is no such kind or form.
    """
    kind, _, form = str(text).partition(":")
    if kind not in DECLARABLE or (form and kind not in ("number", "date")):
        raise RequestError(
            f"column {name!r} cannot be declared as {text!r}: the kinds are {', '.join(DECLARABLE)}",
            f"--column {name}=number, or --column {name}=date:%d.%m.%Y",
        )
    if form and kind == "date":
        spelling.check_date_format(form)
    if form and kind == "number":
        spelling.number_format(form)
    return Column(name, kind, format=form)  # type: ignore[arg-type]


def fit_declared(values: pd.Series, declared: Column, decimal_mark: str = ".") -> Guess:
    """Return a declared column with what its cells add: the form of its texts where none was declared.

    Raises:
        DataError: fewer than half of the cells are of the declared kind.
    """
    form, cells = form_of(values)
    if form != "text" or declared.kind not in READ_FROM_TEXT:
        return Guess(declared)
    counts = _counts(cells)
    present = _present(counts)
    found = _best(present, counts, declared.kind, decimal_mark, declared.format)
    if found is None or 2 * sum(counts[text] for text in found.odd) > sum(counts[text] for text in present):
        odd = found.odd[0] if found else present[0]
        raise DataError(
            f"column {declared.name!r} is declared to hold {IN_WORDS[declared.kind]}, but most of its cells "
            f"are none, {brief(odd)} for example", f"--column {declared.name}=level",
        )  # fmt: skip
    return _guess(declared.name, declared.kind, found, counts)


def _kind_of_category(values: pd.Series) -> Kind:
    values = values.cat.remove_unused_categories()
    if not len(values.cat.categories):
        return "empty"
    return "boolean" if spelling.is_truth_pair(levels_of(pd.Series(values.cat.categories))[1]) else "level"


@dataclass(frozen=True)
class _Reading:
    """One way of reading a column's texts, and the texts that it does not read."""

    format: str
    odd: Sequence[str]


def _guess_texts(cells: pd.Series, name: str, mark: str) -> Guess:
    counts = _counts(cells)
    present = _present(counts)
    if spelling.is_truth_pair(levels_of(pd.Series(list(counts), dtype=object))[1]):
        return Guess(Column(name, "boolean"))
    for kind in READ_FROM_TEXT:
        found = _best(present, counts, kind, mark)
        if found is not None and _few(found.odd, present, counts):
            return _guess(name, kind, found, counts)
    return Guess(Column(name, "level"))


def _guess(name: str, kind: Kind, found: _Reading, counts: Mapping[str, int]) -> Guess:
    dropped = {text: n for text, n in counts.items() if spelling.is_missing(text) or text in found.odd}
    other = _SWAPPED.get(found.format[:8], "") + found.format[8:] if kind == "date" else ""
    read = [text for text in counts if text not in dropped]
    fits = other in spelling.DATE_FORMATS and not np.isnan(spelling.read("date", read, other)).any()
    column = Column(name, kind, format=found.format, missing=tuple(found.odd))
    return Guess(column, dropped, as_text=True, other=other if fits else "")


def _counts(cells: pd.Series) -> dict[str, int]:
    codes, texts = texts_of(cells)
    return dict(zip(texts, np.bincount(codes[codes >= 0], minlength=len(texts)).tolist(), strict=True))


def _present(counts: Mapping[str, int]) -> list[str]:
    return [text for text in counts if not spelling.is_missing(text)]


def _best(
    present: Sequence[str], counts: Mapping[str, int], kind: Kind, mark: str, declared: str | None = None
) -> _Reading | None:
    """Return the way of reading that leaves the fewest cells unread; None where most stay unread.

    Of equals it is the first. A format that was declared is the only one that is tried.
    """
    glance = present[:GLANCE]  # a column of a million names is not parsed fifteen times
    readings: list[_Reading] = []
    for form in [declared] if declared else _formats(present, kind, mark, declared is not None):
        if 2 * np.isnan(spelling.read(kind, glance, form)).sum() < len(glance):
            unread = np.isnan(spelling.read(kind, present, form))
            readings.append(_Reading(form, [text for text, odd in zip(present, unread, strict=True) if odd]))
            if not readings[-1].odd:
                break
    return min(readings, key=lambda one: sum(counts[text] for text in one.odd), default=None)


def _formats(present: Sequence[str], kind: Kind, mark: str, is_declared: bool) -> Sequence[str]:
    if kind == "date":
        return spelling.likely_date_formats(present[:GLANCE])
    if kind == "duration":
        return [""]
    if spelling.has_codes(present) and not is_declared:
        return []
    return spelling.number_formats(mark, percent=any(map(spelling.is_percent, present)))


def _few(odd: Sequence[str], present: Sequence[str], counts: Mapping[str, int]) -> bool:
    if not odd:
        return True
    allowed = max(1, int(ODD_SHARE * sum(counts[text] for text in present)))
    known = len(present) - len(odd)
    return len(odd) <= ODD_TEXTS and sum(counts[text] for text in odd) <= allowed and known > MANY_VALUES


_SWAPPED = {"%m/%d/%Y": "%d/%m/%Y", "%d/%m/%Y": "%m/%d/%Y", "%d-%m-%Y": "%m-%d-%Y", "%m-%d-%Y": "%d-%m-%Y"}
