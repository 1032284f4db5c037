"""ARFF, OpenML's text format, in time proportional to the file's length.

Dense and sparse rows, quoted names and values with backslash escapes, dates by their declared pattern.
liac-arff's patterns take minutes on a damaged line of some hundred kilobytes, hence a reader of our own.
Grammar: Weka manual, "ARFF".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat

from tttab.data.arff_dates import DEFAULT, EPOCH, date_reader
from tttab.data.bounds import PARSED, Room, check_columns
from tttab.data.foreign import first_lines
from tttab.errors import DataError
from tttab.text import brief

_TOKEN = re.compile(
    r"""\s*+(?:'((?:[^'\\]|\\.)*+)' | "((?:[^"\\]|\\.)*+)" | ([^,'"]*+))\s*+(,|$)""", re.VERBOSE | re.DOTALL
)
_NAME = re.compile(
    r"""\s*+(?:'((?:[^'\\]|\\.)*+)' | "((?:[^"\\]|\\.)*+)" | ([^\s{}%,'"]++))\s*+""", re.VERBOSE | re.DOTALL
)
_PAIR = re.compile(
    r"""((?:'(?:[^'\\]|\\.)*+' | "(?:[^"\\]|\\.)*+" | [^,'"])*+)(,|$)""", re.VERBOSE | re.DOTALL
)
_SPARSE = re.compile(r"\s*+([0-9]{1,9})\s++(.*)", re.ASCII | re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_NUMERIC = ("numeric", "real", "integer")
_NUMBER = re.compile(
    r"[+-]?(?:(?:\d++\.?+\d*+|\.\d++)(?:e[+-]?\d++)?+|nan|inf(?:inity)?+)", re.ASCII | re.IGNORECASE
)
Cell = float | str | datetime | None
Reader = Callable[[str, int], Cell]


class ArffFault(DataError):
    """A file breaks the grammar; the message names the line, not the file."""


@dataclass(frozen=True)
class Attribute:
    """One column: its name and what its cells are."""

    name: str
    kind: str
    """`number`, `text`, `nominal` or `date`."""
    levels: tuple[str, ...] = ()
    """The declared levels of a nominal column."""
    pattern: str = ""
    """How the cells of a date column are written."""

    @property
    def unwritten(self) -> Cell:
        """What a sparse row leaves out: 0, the first level, the first day that counts."""
        if self.kind == "nominal":
            return self.levels[0] if self.levels else None
        return {"number": 0.0, "date": EPOCH}.get(self.kind, "0")


@dataclass(frozen=True)
class Arff:
    """A file's content, column by column."""

    attributes: tuple[Attribute, ...]
    columns: list[list[Cell]]
    """The cells of each column; None is missing."""


def parse_arff(text: str | Iterable[str], room: Room | None = None) -> Arff:
    """Return the content of an ARFF file.

    Args:
        text: all of it, or its lines one by one.
        room: the memory it may take; None: it is not bounded.

    Raises:
        ArffFault: a line breaks the grammar.
        DataError: there is more than `room` allows.
    """
    lines = enumerate(text.split("\n") if isinstance(text, str) else text, 1)
    attributes = tuple(_header(lines, room))
    readers = [_reader(attribute) for attribute in attributes]
    unwritten = [attribute.unwritten for attribute in attributes]
    columns: list[list[Cell]] = [[] for _ in attributes]
    most = room.most // (PARSED * max(1, len(attributes))) if room else 0
    rows, ragged = 0, False
    for number, line in lines:
        line = line.strip()
        if not line or line[0] == "%":
            continue
        if room and columns and rows == most:
            room.check(room.most + 1, first_lines(room.path, number - 1))
        if line[0] == "{":
            _add_sparse(columns, unwritten, rows, _sparse(line, len(attributes), number), readers, number)
            ragged = True
        else:
            if ragged:
                _fill(columns, unwritten, rows)
                ragged = False
            _add_dense(columns, _values(line, number), readers, number)
        rows += 1
    _fill(columns, unwritten, rows)
    return Arff(attributes, columns)


def _add_sparse(
    columns: list[list[Cell]],
    unwritten: list[Cell],
    rows: int,
    written: list[tuple[int, str | None]],
    readers: list[Reader],
    number: int,
) -> None:
    """Add the cells that row `rows` writes; what it leaves out is filled in later and costs no time here."""
    for place, value in written:
        column = columns[place]
        if len(column) < rows:
            column.extend(repeat(unwritten[place], rows - len(column)))
        column[rows:] = [None if value is None else readers[place](value, number)]  # the last of two counts


def _fill(columns: list[list[Cell]], unwritten: list[Cell], rows: int) -> None:
    """Fill columns up to `rows` with what sparse rows left out."""
    for column, left_out in zip(columns, unwritten, strict=True):
        column.extend(repeat(left_out, rows - len(column)))


def _add_dense(columns: list[list[Cell]], row: list[str | None], readers: list[Reader], number: int) -> None:
    if len(row) != len(columns):
        raise _fault(number, f"{len(row)} values for {len(columns)} attributes")
    for column, value, read in zip(columns, row, readers, strict=True):
        column.append(None if value is None else read(value, number))


def _header(lines: Iterator[tuple[int, str]], room: Room | None) -> Iterator[Attribute]:
    """Yield the attributes up to `@data`."""
    count = 0
    for number, line in lines:
        line = line.strip()
        word = line.split(None, 1)[0].lower() if line else "%"
        if word == "@data":
            return
        if word == "@attribute":
            count += 1
            if room:
                check_columns(count, room.path, "save the columns that matter as CSV")
            yield _attribute(line[len(word) :], number)
        elif word[0] != "%" and word != "@relation":
            raise _fault(number, "expected @relation, @attribute or @data")
    raise ArffFault("there is no line @data", "write @data before the rows")


def _attribute(text: str, number: int) -> Attribute:
    found = _NAME.match(text)
    if not found:
        raise _fault(number, "an attribute needs a name and a type")
    name, kind = _text(found), text[found.end() :].strip()
    if kind[:1] == "{" and kind[-1:] == "}":
        levels = tuple(value for value in _values(kind[1:-1], number) if value is not None)
        return Attribute(name, "nominal", levels)
    word = kind.split(None, 1)[0].lower() if kind else ""
    if word in _NUMERIC and word == kind.lower():
        return Attribute(name, "number")
    if word == "string":
        return Attribute(name, "text")
    if word == "date":
        pattern = _pattern(kind[len(word) :].strip(), number)
        try:
            date_reader(pattern)
        except DataError as error:
            raise _fault(number, f"attribute {name[:40]!r}: {error.message}") from error
        return Attribute(name, "date", pattern=pattern)
    raise _fault(number, f"attribute {name[:40]!r} has the type {kind[:40]!r}")


def _pattern(text: str, number: int) -> str:
    """Return a date pattern without the quotes around it; the default one where none is declared."""
    found = _TOKEN.fullmatch(text) if text[:1] in ("'", '"') else None
    if text[:1] in ("'", '"') and not found:
        raise _fault(number, f"{text[:40]!r} is no date pattern")
    return (_text(found) if found else text) or DEFAULT


def _values(line: str, number: int) -> list[str | None]:
    """Return the values between the commas; an unquoted `?` or nothing is None."""
    if "'" not in line and '"' not in line:
        return [None if value in ("?", "") else value for value in map(str.strip, line.split(","))]
    values: list[str | None] = []
    place = 0
    while True:
        found = _TOKEN.match(line, place)
        if not found:
            raise _fault(number, "a quote is not closed, or is in the middle of a value")
        bare = found[3] is not None and found[3].strip() in ("?", "")
        values.append(None if bare else _text(found))
        place = found.end()
        if not found[4]:
            return values


def _sparse(line: str, count: int, number: int) -> list[tuple[int, str | None]]:
    """Return (place, value) of what a sparse row writes."""
    if line[-1] != "}":
        raise _fault(number, "a sparse row is not closed")
    inner = line[1:-1]
    quoted = "'" in inner or '"' in inner
    written = []
    for pair in _split_pairs(inner, number) if quoted or not inner.strip() else inner.split(","):
        found = _SPARSE.fullmatch(pair)
        place = int(found[1]) if found else count
        if not found or place >= count:
            raise _fault(number, f"{pair[:40]!r} is no number of an attribute and a value")
        (value,) = _values(found[2], number)
        written.append((place, value))
    return written


def _split_pairs(inner: str, number: int) -> Iterator[str]:
    """Yield what stands between the commas outside quotes."""
    place, more = 0, bool(inner.strip())
    while more:
        found = _PAIR.match(inner, place)
        if not found:
            raise _fault(number, "a quote is not closed")
        yield found[1]
        place, more = found.end(), bool(found[2])


def _reader(attribute: Attribute) -> Reader:
    """Return the function from (text, line number) to a cell of that column."""
    name, kind = attribute.name[:40], attribute.kind
    known = {level: level for level in attribute.levels}
    read_date = date_reader(attribute.pattern if kind == "date" else DEFAULT)

    def number_of(value: str, line: int) -> float:
        if not _NUMBER.fullmatch(value.strip()):  # float() would take 1_000 and digits of other scripts
            raise _fault(line, f"{value[:40]!r} is no number (attribute {brief(name)})")
        return float(value)

    def level_of(value: str, line: int) -> str:
        if value not in known:
            raise _fault(line, f"{value[:40]!r} is no level of attribute {name!r}")
        return known[value]

    def date_of(value: str, line: int) -> datetime:
        try:
            return read_date(value)
        except ValueError:
            message = f"{value[:40]!r} is no date like {attribute.pattern[:40]} (attribute {brief(name)})"
            raise _fault(line, message) from None

    return {"number": number_of, "nominal": level_of, "date": date_of}.get(kind, lambda value, _: value)


def _text(found: re.Match[str]) -> str:
    """Return the token's text: quoted, with its escapes resolved, or bare."""
    quoted = found[1] if found[1] is not None else found[2]
    if quoted is None:
        return found[3].strip()
    return _ESCAPE.sub(_unescape, quoted) if "\\" in quoted else quoted


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    return chr(int(code[1:], 16)) if len(code) == 5 else _ESCAPED.get(code, code)


def _fault(number: int, problem: str) -> ArffFault:
    return ArffFault(f"line {number:,}: {problem}", "mend that line, or save the table as CSV")
