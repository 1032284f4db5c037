"""The kind of a column that was not declared: by its type, else by how its texts are written.

A column of texts that are numbers (or dates), apart from a few marks for missing cells, is a column of
numbers. A guess is kept in the column's schema and noted. `columns` converts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np
import pandas as pd

from tttab.core import Column, Kind
from tttab.data import spelling
from tttab.data.cells import Cells, Form, cells_of
from tttab.data.columns import IN_WORDS
from tttab.errors import DataError, RequestError
from tttab.text import brief, shell_word

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


def guess_column(values: pd.Series | Cells, decimal_mark: str = "") -> Guess:
    """Return what a column is, by its type and texts.

    Args:
        values: the cells, of any dtype.
        decimal_mark: the one that the file they come from told; empty: none.

    Raises:
        DataError: the column holds lists, mappings, complex numbers or other nested things.
    """
    if isinstance(values, pd.Series) and isinstance(values.dtype, pd.CategoricalDtype):
        return Guess(Column(str(values.name), _kind_of_category(values)))
    cells = cells_of(values) if isinstance(values, pd.Series) else values
    name = str(cells.plain.name)
    if cells.form == "text":
        return _guess_texts(cells, name, decimal_mark)
    kinds: dict[Form, Kind] = {"truth": "boolean", "nothing": "empty", "number": "number", "date": "date",
                               "duration": "duration"}  # fmt: skip
    return Guess(Column(name, kinds[cells.form]))


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
            f"column {brief(name)} cannot be declared as {brief(text)}: "
            f"the kinds are {', '.join(DECLARABLE)}",
            f"--column {shell_word(name)}=number, or --column {shell_word(name)}=date:%d.%m.%Y",
        )
    if form and kind == "date":
        spelling.check_date_format(form)
    if form and kind == "number":
        spelling.number_format(form)
    return Column(name, kind, format=form)  # type: ignore[arg-type]


def fit_declared(values: pd.Series | Cells, declared: Column, decimal_mark: str = "") -> Guess:
    """Return a declared column with what its cells add: the form of its texts where none was declared.

    Raises:
        DataError: fewer than half of the cells are of the declared kind.
    """
    cells = cells_of(values) if isinstance(values, pd.Series) else values
    if cells.form != "text" or declared.kind not in READ_FROM_TEXT:
        return Guess(declared)
    texts = _Texts(cells)
    if not texts.present:
        return Guess(declared)
    found = _best(texts, declared.kind, decimal_mark, declared.format)
    if found is None or 2 * texts.cells(found.odd) > texts.cells(texts.present):
        odd = found.odd[0] if found else texts.present[0]
        raise DataError(
            f"column {brief(declared.name)} is declared to hold {IN_WORDS[declared.kind]}, but most of its "
            f"cells are none, {brief(odd)} for example", f"--column {shell_word(declared.name)}=level",
        )  # fmt: skip
    return _guess(declared.name, declared.kind, found, texts)


def _kind_of_category(values: pd.Series) -> Kind:
    used = pd.Categorical(values).remove_unused_categories().categories
    if not len(used):
        return "empty"
    labels = cells_of(pd.Series(used, name=values.name)).labels[1]
    return "boolean" if spelling.is_truth_pair(labels) else "level"


@dataclass(frozen=True)
class _Reading:
    """One way of reading a column's texts, and the texts that it does not read."""

    format: str
    odd: Sequence[str]


def _guess_texts(cells: Cells, name: str, mark: str) -> Guess:
    texts = _Texts(cells)
    first = next(iter(texts.counts))
    if spelling.truth_of(first) is not None and spelling.is_truth_pair(cells.labels[1]):
        return Guess(Column(name, "boolean"))
    for kind in READ_FROM_TEXT:
        found = _best(texts, kind, mark)
        if found is not None and texts.are_few(found.odd):
            return _guess(name, kind, found, texts)
    return Guess(Column(name, "level"))


def _guess(name: str, kind: Kind, found: _Reading, texts: _Texts) -> Guess:
    left = texts.marks.union(found.odd)
    dropped = {text: n for text, n in texts.counts.items() if text in left}
    other = _SWAPPED.get(found.format[:8], "") + found.format[8:] if kind == "date" else ""
    fits = False
    if other in spelling.DATE_FORMATS:
        read = [text for text in texts.counts if text not in dropped]
        fits = not np.isnan(spelling.read("date", read, other)).any()
    column = Column(name, kind, format=found.format, missing=tuple(found.odd))
    return Guess(column, dropped, as_text=True, other=other if fits else "")


class _Texts:
    """The distinct texts of a column."""

    def __init__(self, cells: Cells) -> None:
        codes, texts = cells.texts
        cells_of_each = np.bincount(codes[codes >= 0], minlength=len(texts)).tolist()
        self.counts: Mapping[str, int] = dict(zip(texts, cells_of_each, strict=True))
        """Cells per text."""
        self.marks = spelling.missing_among(self.counts)
        """Those that stand for nothing."""
        self.present = [text for text in texts if text not in self.marks]
        self.glance = self.present[:GLANCE]
        """A column of a million names is not parsed fifteen times."""

    def cells(self, texts: Iterable[str]) -> int:
        """Return how many cells hold one of these texts."""
        return sum(self.counts[text] for text in texts)

    def are_few(self, odd: Sequence[str]) -> bool:
        """Tell whether these texts are so few that the others say what the column is."""
        if not odd:
            return True
        allowed = max(1, int(ODD_SHARE * self.cells(self.present)))
        known = len(self.present) - len(odd)
        return len(odd) <= ODD_TEXTS and self.cells(odd) <= allowed and known > MANY_VALUES


def _best(texts: _Texts, kind: Kind, mark: str, declared: str | None = None) -> _Reading | None:
    """Return the way of reading that leaves the fewest cells unread; None where most stay unread.

    Of equals it is the first. A format that was declared is the only one that is tried.
    """
    if 2 * sum(map(spelling.MAY_BE[kind], texts.glance)) <= len(texts.glance):
        return None
    readings: list[_Reading] = []
    for form in [declared] if declared else _formats(texts, kind, mark, declared is not None):
        unread = np.isnan(spelling.read(kind, texts.glance, form))
        if 2 * unread.sum() < len(texts.glance):
            if readings and np.isnan(spelling.read(kind, readings[-1].odd, form)).all():
                continue  # it reads no text that the other does not
            if len(texts.present) > len(texts.glance):
                unread = np.isnan(spelling.read(kind, texts.present, form))
            readings.append(_Reading(form, list(compress(texts.present, unread))))
            if not readings[-1].odd:
                break
    return min(readings, key=lambda one: texts.cells(one.odd), default=None)


def _formats(texts: _Texts, kind: Kind, mark: str, is_declared: bool) -> Sequence[str]:
    if kind == "date":
        return spelling.likely_date_formats(texts.glance)
    if kind == "duration":
        return [""]
    if spelling.has_codes(texts.present) and not is_declared:
        return []
    return spelling.number_formats(mark, percent=spelling.has_percent(texts.present))


_SWAPPED = {"%m/%d/%Y": "%d/%m/%Y", "%d/%m/%Y": "%m/%d/%Y", "%d-%m-%Y": "%m-%d-%Y", "%m-%d-%Y": "%d-%m-%Y"}
