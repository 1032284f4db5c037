"""CSV as people write it: what separates the cells, names the columns and marks the decimals.

pandas parses; this finds out what pandas must be told.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tttab.data.bounds import LONGEST_HEADER, check_columns, check_names
from tttab.data.foreign import fewer_columns, look_at
from tttab.data.sources import HEAD, Source
from tttab.errors import DataError
from tttab.text import listed

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = (",", ";", "\t", "|")
"""What may stand between two cells; the first wins a tie."""
MISSING_WORDS = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
    "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
"""Cells that are missing: those of pandas."""
_LINES = 20
"""Lines below the header that are looked at to find the separator."""
_DECLARED = re.compile(r'(?:sep=([^\w\s"]|\t)|"sep=([^\w\s"]|\t)")[ \t]*+(?:\r\n|\r|\n|$)', re.IGNORECASE)
_LINE = re.compile(r"[^\r\n]++")
_COMMA = re.compile(r"[+-]?(?:\d{1,3}(?:[. '\u00a0\u202f]\d{3})++|\d*+),\d++(?:[eE][+-]?\d++)?+", re.ASCII)
_POINT = re.compile(r"[+-]?(?:\d{1,3}(?:[, '\u00a0\u202f]\d{3})++|\d*+)\.\d++(?:[eE][+-]?\d++)?+", re.ASCII)
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}[,.]\d{3}", re.ASCII)
_POINTS_GROUP = re.compile(r"[+-]?\d{1,3}(?:\.\d{3}){2,}+", re.ASCII)
_COMMAS_GROUP = re.compile(r"[+-]?\d{1,3}(?:,\d{3}){2,}+", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d++", re.ASCII)
_MAY_MARK = re.compile(r"[^a-zA-Z,.]*+[,.]\d")
"""How a number begins, up to a comma or point in it."""
_AROUND = " \t\u00a0\u202f%€$£¥"
"""What may stand around a number."""


@dataclass(frozen=True)
class Layout:
    """What pandas must be told to read a CSV file."""

    separator: str
    skip: int
    """Lines before the header: `sep=;`, which Excel writes, is no row."""
    names: tuple[str, ...]
    notes: tuple[str, ...]
    """What was guessed, a sentence each."""

    def options(self, texts: Collection[str]) -> dict[str, Any]:
        """Return the options of `pandas.read_csv`; the columns `texts` stay text."""
        return {
            "sep": self.separator,
            "skiprows": self.skip,
            "header": 0,
            "names": list(self.names),
            "index_col": False,
            "encoding": "utf-8-sig",
            "low_memory": False,
            "dtype": {name: "str" for name in self.names if name in texts},
            "na_values": list(MISSING_WORDS),
            "keep_default_na": False,
            **exact_floats(),
        }


def layout_of(source: Source) -> Layout:
    """Look at a file's first lines.

    Raises:
        DataError: two columns have one name, or there are more columns or longer names than are read.
    """
    skip, separator, header, row = _first_lines(source)
    notes = [] if separator == "," or source.form == ".tsv" else [f"columns are separated by {separator!r}"]
    # Before anything is parsed: a header of a million commas takes a minute.
    count = _masked(header, separator).count(separator) + 1
    check_columns(count, source.path, fewer_columns(source.path, separator, count))
    if row > count + 1:  # pandas would make columns of them first; one more may be an empty last cell
        raise DataError(
            f"{source.path} cannot be read as CSV: {count:,} columns have a name, "
            f"its first row has {row:,} cells or more",
            look_at(source.path),
        )
    names = _names(header, separator)
    unnamed = [number for number, name in enumerate(names, 1) if not name]
    if unnamed:
        some = ", ".join(map(str, unnamed[:10])) + (" …" if len(unnamed) > 10 else "")
        notes.append(f"columns without a name are called column_N: {some}")
    names = [name or f"column_{number}" for number, name in enumerate(names, 1)]
    check_names(names, str(source.path))
    return Layout(separator, skip, tuple(names), tuple(notes))


def decimals_of(texts: pd.DataFrame) -> dict[str, str]:
    """Return the decimal mark of each column of a file whose cells are not separated by commas.

    A column of numbers with `0,5` or `1.234.567`, and without `0.5`, has commas; one with `0.5` has points.
    The others go by the sure ones: without a comma among these nothing is told (an empty mapping), without
    a point all have commas. Where columns differ, `1,234` and `1.234` are decimals. Where no column is sure,
    a comma is one.
    """
    kinds = {str(name): _mark_of(values) for name, values in texts.items()}
    found = set(kinds.values())
    if "comma" not in found and ("point" in found or "comma?" not in found):
        return {}
    points = {"point", "point?"} if "point" in found else set()
    return {name: "." if kind in points else "," for name, kind in kinds.items()}


def decimals_note(decimals: Mapping[str, str]) -> str:
    """Say which mark the columns of `decimals_of` have; it is no empty mapping."""
    points = [name for name, mark in decimals.items() if mark == "."]
    comma = "numbers are written with a decimal comma"
    return f"{comma}, with a decimal point in: {listed(points)}" if points else comma


def may_have_commas(frame: pd.DataFrame) -> bool:
    """Tell whether pandas left a cell like `0,5` or `1.234.567` as text."""
    return any(
        _COMMA.fullmatch(text.strip(_AROUND)) or _POINTS_GROUP.fullmatch(text.strip(_AROUND))
        for _, values in frame.items()
        if _is_text(values)
        for text in values.unique().tolist()
        if isinstance(text, str) and _MAY_MARK.match(text)
    )


def without_words(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame, missing where it holds `MISSING_WORDS`: pandas leaves them in columns with 2^64."""
    for name, values in frame.items():
        words = values.isin(MISSING_WORDS) if _is_text(values) else values[:0]
        if words.any():
            frame[name] = values.mask(words)
    return frame


def _first_lines(source: Source) -> tuple[int, str, str, int]:
    """Return (lines before the header, separator, the text of the header, cells of the row below)."""
    for size in (HEAD, LONGEST_HEADER):
        data = source.head(size)
        text, whole = data.decode("utf-8-sig", "replace"), len(data) < size
        declared = _DECLARED.match(text)
        body = text[declared.end() :] if declared else text
        if declared:
            separator = declared[1] or declared[2]
        else:
            separator = "\t" if source.form == ".tsv" else _separator(_masked(body, SEPARATORS), whole)
        masked = _masked(body, separator)
        end = _end_of_line(masked, 0)
        if whole or 2 * end < len(body) or (size == LONGEST_HEADER and end < len(body)):
            row = masked[end : _end_of_line(masked, end)]
            return (1 if declared else 0), separator, body[:end], row.count(separator) + 1
    raise DataError(
        f"{source.path} has a first line of more than {LONGEST_HEADER // 2**20} MiB", look_at(source.path)
    )


def _masked(text: str, separators: Collection[str]) -> str:
    """Return the text with what stands in quotes as `x`: a quote opens at the beginning of a cell alone."""
    opening = re.escape("".join(separators))
    return re.sub(
        rf'(?:^|(?<=[{opening}\r\n]))"(?:[^"]++|"")*+(?:"|\Z)', lambda found: "x" * len(found[0]), text
    )


def _end_of_line(masked: str, start: int) -> int:
    """Return where the first line with something on it ends."""
    return next((line.end() for line in _LINE.finditer(masked, start) if line[0].strip()), len(masked))


def _separator(masked: str, whole: bool) -> str:
    """Return what stands equally often in every line; else the first that stands in the header."""
    lines = [line[0] for line in _LINE.finditer(masked) if line[0].strip()][: _LINES + 2]
    lines = lines[: _LINES + 1] if whole or len(lines) > _LINES + 1 else lines[:-1]
    in_header = [mark for mark in SEPARATORS if lines and mark in lines[0]]
    even = [mark for mark in in_header if len({line.count(mark) for line in lines}) == 1]
    return max(even, key=lines[0].count) if even else (in_header or [","])[0]


def _names(header: str, separator: str) -> list[str]:
    import pandas as pd

    first = pd.read_csv(
        io.StringIO(header), header=None, nrows=1, dtype=object, keep_default_na=False, sep=separator,
        index_col=False, low_memory=False,
    )  # fmt: skip
    return [str(name).strip() for name in first.iloc[0]]


def _is_text(values: pd.Series) -> bool:
    import pandas as pd

    return values.dtype == object or pd.api.types.is_string_dtype(values.dtype)


def _mark_of(values: pd.Series) -> str:
    """Return `comma` or `point`; nothing where a column has both, neither, or few numbers.

    A question mark behind it: the mark might as well mark thousands in every cell (but `1.234` beside `7`
    does mark thousands).
    """
    texts = [text.strip(_AROUND) for text in values.dropna().unique()]
    marked = {text for text in texts if "," in text or "." in text}
    groups = {text for text in marked if _GROUPED.fullmatch(text)}
    commas = {text for text in marked if _COMMA.fullmatch(text) or _POINTS_GROUP.fullmatch(text)}
    points = {text for text in marked if _POINT.fullmatch(text) or _COMMAS_GROUP.fullmatch(text)}
    whole = sum(_WHOLE.fullmatch(text) is not None for text in texts)
    sure_points = points - groups
    if 2 * (len(commas | points) + whole) < len(texts) or (sure_points and commas - groups):
        return ""
    if sure_points:
        return "point"
    if commas:
        return "comma" if commas - groups else "comma?"
    return "point?" if points and not whole else ""


def exact_floats() -> dict[str, str]:
    """Return the option that makes pandas read floats to the last bit; its default from 3.1 on."""
    import pandas as pd

    version = tuple(int(part) for part in pd.__version__.split(".")[:2])
    return {} if version >= (3, 1) else {"float_precision": "round_trip"}
