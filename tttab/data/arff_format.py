"""ARFF, OpenML's text format, in time that grows with the file's length alone.

Dense and sparse rows, quoted names and values with backslash escapes, dates as text. liac-arff's
patterns take minutes on a damaged line of some hundred kilobytes, hence a reader of our own. Grammar:
Weka manual, "ARFF". What does not belong here: what the columns become.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tttab.errors import DataError

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


@dataclass(frozen=True)
class Attribute:
    """One column: its name and what its cells are."""

    name: str
    kind: str
    """`number`, `text` or `nominal`."""
    levels: tuple[str, ...] = ()
    """The declared levels of a nominal column."""


@dataclass(frozen=True)
class Arff:
    """A file's content, column by column."""

    attributes: tuple[Attribute, ...]
    columns: list[list[float | str | None]]
    """The cells of each column; None is missing."""


def parse_arff(text: str) -> Arff:
    """Return the content of an ARFF file.

    Raises:
        DataError: a line breaks the grammar; the message names it.
    """
    lines = enumerate(text.split("\n"), 1)
    attributes = tuple(_header(lines))
    columns: list[list[float | str | None]] = [[] for _ in attributes]
    levels = [frozenset(attribute.levels) for attribute in attributes]
    for number, line in lines:
        line = line.strip()
        if line and line[0] != "%":
            row = _sparse(line, attributes, number) if line[0] == "{" else _values(line, number)
            if len(row) != len(attributes):
                raise _fault(number, f"{len(row)} values for {len(attributes)} attributes")
            for value, attribute, known, column in zip(row, attributes, levels, columns, strict=True):
                column.append(_cell(value, attribute, known, number))
    return Arff(attributes, columns)


def _header(lines: Iterator[tuple[int, str]]) -> Iterator[Attribute]:
    """Yield the attributes up to `@data`."""
    for number, line in lines:
        line = line.strip()
        word = line.split(None, 1)[0].lower() if line else "%"
        if word == "@data":
            return
        if word == "@attribute":
            yield _attribute(line[len(word) :], number)
        elif word[0] != "%" and word != "@relation":
            raise _fault(number, "expected @relation, @attribute or @data")
    raise DataError("there is no line @data", "write @data before the rows")


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
    if word in ("string", "date"):
        return Attribute(name, "text")
    raise _fault(number, f"attribute {name[:40]!r} has the type {kind[:40]!r}")


def _values(line: str, number: int) -> list[str | None]:
    """Return the values between the commas; an unquoted `?` or nothing is None."""
    if "'" not in line and '"' not in line:
        return [None if value in ("?", "") else value for value in map(str.strip, line.split(","))]
    values: list[str | None] = []
    place = 0
    while True:
        found = _TOKEN.match(line, place)
        if not found:
            raise _fault(number, "a quote is not closed, or stands in the middle of a value")
        bare = found[3] is not None and found[3].strip() in ("?", "")
        values.append(None if bare else _text(found))
        place = found.end()
        if not found[4]:
            return values


def _sparse(line: str, attributes: tuple[Attribute, ...], number: int) -> list[str | None]:
    """Return the row in full: what is not written is 0, or the first level."""
    if line[-1] != "}":
        raise _fault(number, "a sparse row is not closed")
    cells: list[str | None] = [attribute.levels[0] if attribute.levels else "0" for attribute in attributes]
    for pair in _split_pairs(line[1:-1], number):
        found = _SPARSE.fullmatch(pair)
        place = int(found[1]) if found else len(cells)
        if not found or place >= len(cells):
            raise _fault(number, f"{pair[:40]!r} is no number of an attribute and a value")
        (cells[place],) = _values(found[2], number)
    return cells


def _split_pairs(inner: str, number: int) -> Iterator[str]:
    """Yield what stands between the commas outside quotes."""
    place, more = 0, bool(inner.strip())
    while more:
        found = _PAIR.match(inner, place)
        if not found:
            raise _fault(number, "a quote is not closed")
        yield found[1]
        place, more = found.end(), bool(found[2])


def _cell(value: str | None, attribute: Attribute, levels: frozenset[str], number: int) -> float | str | None:
    if value is None or attribute.kind == "text":
        return value
    if attribute.kind == "nominal":
        if value not in levels:
            raise _fault(number, f"{value[:40]!r} is no level of attribute {attribute.name[:40]!r}")
        return value
    try:
        return float(value)
    except ValueError:
        raise _fault(number, f"{value[:40]!r} is no number (attribute {attribute.name[:40]!r})") from None


def _text(found: re.Match[str]) -> str:
    """Return the token's text: quoted, with its escapes resolved, or bare."""
    quoted = found[1] if found[1] is not None else found[2]
    if quoted is None:
        return found[3].strip()
    return _ESCAPE.sub(_unescape, quoted) if "\\" in quoted else quoted


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    return chr(int(code[1:], 16)) if len(code) == 5 else _ESCAPED.get(code, code)


def _fault(number: int, problem: str) -> DataError:
    return DataError(f"line {number:,}: {problem}", "mend that line, or save the table as CSV")
