"""Files into raw DataFrames: CSV, TSV, Parquet and ARFF.

Every way a file can be unreadable ends as a `DataError` of one line.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tttab.data.bounds import check_names as check_names
from tttab.data.bounds import room_for
from tttab.data.foreign import look_at, not_utf8, split_ending
from tttab.data.sources import BLOCK, Source, expanded_home, find_source, held_still
from tttab.data.sources import SUFFIXES as SUFFIXES
from tttab.errors import DataError, TttabError
from tttab.text import shell_word

if TYPE_CHECKING:
    import pandas as pd

    from tttab.data.csv_format import Layout


@dataclass(frozen=True)
class RawFrame:
    """A file's content as it stands."""

    frame: pd.DataFrame
    notes: tuple[str, ...] = ()
    """What was guessed while reading, a sentence each."""
    decimals: Mapping[str, str] = field(default_factory=dict)
    """The decimal mark of each column; empty where no column has a comma. Where one has, every column comes
    as text (`1.234` may be a thousand)."""


def read_frame(path: str | os.PathLike[str], *, text_columns: Collection[str] = ()) -> RawFrame:
    """Read a table file; its ending says the format.

    Args:
        path: a regular file ending in .csv, .tsv or .txt (also with .gz, .bz2, .xz or .zst behind it),
            .parquet, .pq or .arff; `~` is the home folder.
        text_columns: CSV columns whose cells stay text (a postcode keeps its leading zero).

    Raises:
        DataError: there is no such file, it is empty, damaged, of no known format, more than the bounds
            (`tttab.data.bounds`) allow, or changed while it was read; or two of its columns have one name.
    """
    path = expanded_home(path)
    with damage_told(path), held_still(path), strictly():
        source = find_source(path)
        return _READERS[source.form](source, text_columns)


@contextmanager
def strictly() -> Generator[None]:
    """Make an error of what pandas only warns about: cells of a CSV row that it would leave out."""
    from pandas.errors import ParserWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", ParserWarning)
        yield


@contextmanager
def damage_told(path: Path) -> Generator[None]:
    """Turn everything that a reader raises on a damaged file into a DataError of one line."""
    try:
        yield
    except TttabError:
        raise
    except UnicodeDecodeError as error:
        raise not_utf8(path) from error
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", f"ls -l {shell_word(path)}") from error
    except Exception as error:  # pandas and pyarrow raise nearly everything
        form = split_ending(path)[1][1:].upper()
        raise DataError(f"{path} cannot be read as {form}: {first_line(error)}", look_at(path)) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its type's name where it has no text."""
    try:
        text = str(error).strip()
    except Exception:  # some libraries' errors fail to print
        text = ""
    return text.splitlines()[0][:200] if text else type(error).__name__


def _read_csv(source: Source, text_columns: Collection[str]) -> RawFrame:
    from tttab.data.csv_format import decimals_note, decimals_of, layout_of, may_have_commas

    layout = layout_of(source)
    frame = _parsed(source, layout, text_columns)
    if layout.separator != "," and may_have_commas(frame):
        texts = _parsed(source, layout, layout.names)
        if decimals := decimals_of(texts):
            return RawFrame(texts, (*layout.notes, decimals_note(decimals)), decimals)
    return RawFrame(frame, layout.notes)


def _parsed(source: Source, layout: Layout, texts: Collection[str]) -> pd.DataFrame:
    import pandas as pd

    from tttab.data.csv_format import without_words

    with source.open(len(layout.names), whole=True) as stream:
        return without_words(pd.read_csv(io.BufferedReader(stream, BLOCK), **layout.options(texts)))


def _read_parquet(source: Source, text_columns: Collection[str]) -> RawFrame:
    from tttab.data.parquet_format import read_parquet

    return RawFrame(read_parquet(source))


def _read_arff(source: Source, text_columns: Collection[str]) -> RawFrame:
    import pandas as pd

    from tttab.data.arff_format import ArffFault, parse_arff

    room = room_for(source.path, whole=True)
    try:
        with (
            source.open(whole=True) as stream,
            io.TextIOWrapper(io.BufferedReader(stream, BLOCK), encoding="utf-8-sig") as lines,
        ):
            content = parse_arff(lines, room)
    except ArffFault as error:
        raise DataError(f"{source.path} cannot be read as ARFF: {error.message}", error.hint) from error
    check_names([attribute.name for attribute in content.attributes], str(source.path))
    dtypes = {"number": "float64", "text": "object", "nominal": "category", "date": "datetime64[us]"}
    columns = {
        attribute.name: pd.Series(cells, dtype=dtypes[attribute.kind])
        for attribute, cells in zip(content.attributes, content.columns, strict=True)
    }
    return RawFrame(pd.DataFrame(columns))


_READERS = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_csv,
    ".parquet": _read_parquet,
    ".pq": _read_parquet,
    ".arff": _read_arff,
}
