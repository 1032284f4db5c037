"""Files into raw DataFrames: CSV, TSV, Parquet and ARFF.

Every way a file can be unreadable ends as a `DataError` of one line. What does not belong here:
deciding what a column means (`columns`) and which one is the target (`build`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tttab.errors import DataError, TttabError

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".arff")


@dataclass(frozen=True)
class RawFrame:
    """A file's content as it stands."""

    frame: pd.DataFrame
    notes: tuple[str, ...] = ()
    """What was guessed while reading, a sentence each."""
    decimal: str = "."
    """The file's decimal mark. Where it is a comma every column holds texts."""


def read_frame(path: str | os.PathLike[str], *, text_columns: Collection[str] = ()) -> RawFrame:
    """Read a table file; its ending says the format.

    Args:
        path: a regular file ending in .csv, .tsv, .txt, .parquet, .pq or .arff.
        text_columns: CSV columns whose cells stay text (a postcode keeps its leading zero).

    Raises:
        DataError: there is no such file, it is empty, damaged or of no known format, or two of its
            columns have one name.
    """
    path = Path(path)
    with damage_told(path), strictly():
        check_file(path)
        return _READERS[path.suffix.lower()](path, text_columns)


@contextmanager
def strictly() -> Iterator[None]:
    """Make an error of what pandas only warns about: cells of a CSV row that it would leave out."""
    from pandas.errors import ParserWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", ParserWarning)
        yield


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn everything that a reader raises on a damaged file into a DataError of one line."""
    try:
        yield
    except TttabError:
        raise
    except Exception as error:  # pandas and pyarrow raise nearly everything
        raise DataError(
            f"{path} cannot be read as {path.suffix[1:].upper()}: {first_line(error)}",
            f"look at the file's first lines: head -c 300 '{path}'",
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its type's name where it has no text."""
    try:
        text = str(error).strip()
    except Exception:  # some libraries' errors fail to print
        text = ""
    return text.splitlines()[0][:200] if text else type(error).__name__


def check_file(path: Path) -> None:
    """Raise DataError if there is no regular, non-empty file of a known format."""
    if not path.exists():
        near = _nearest_file(path)
        raise DataError(
            f"there is no file {path}", f"did you mean {near}?" if near else f"ls '{path.parent}'"
        )
    if not path.is_file():
        raise DataError(f"{path} is not a regular file", f"ls '{path}'")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path} has no known ending; known are {', '.join(SUFFIXES)}", f"mv '{path}' '{path}.csv'"
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", "tttab data list")


def _nearest_file(path: Path) -> Path | None:
    from difflib import get_close_matches

    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in SUFFIXES]
    except OSError:
        return None
    near = get_close_matches(path.name, names, n=1)
    return path.parent / near[0] if near else None


def _read_csv(path: Path, text_columns: Collection[str]) -> RawFrame:
    import pandas as pd

    options, notes = csv_options(path, text_columns)
    return RawFrame(pd.read_csv(path, **options), notes)


def csv_options(path: Path, text_columns: Collection[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return (the options with which `pandas.read_csv` reads a file, what was guessed).

    Raises:
        DataError: two columns have one name.
    """
    import pandas as pd

    separator, notes = _separator(path)
    how = {"sep": separator, "index_col": False, "encoding": "utf-8-sig", "low_memory": False}
    first = pd.read_csv(path, header=None, nrows=1, dtype="str", keep_default_na=False, **how)
    names = [str(name).strip() for name in first.iloc[0]]
    unnamed = [number for number, name in enumerate(names, 1) if not name]
    if unnamed:
        notes.append(f"columns without a name are called column_N: {', '.join(map(str, unnamed))}")
    names = [name or f"column_{number}" for number, name in enumerate(names, 1)]
    check_names(names, str(path))
    texts = {name: "str" for name in names if name in text_columns}
    return {"header": 0, "names": names, "dtype": texts, **_exact_floats(), **how}, tuple(notes)


def _exact_floats() -> dict[str, str]:
    """Return the option that makes pandas read floats to the last bit; its default from 3.1 on."""
    import pandas as pd

    version = tuple(int(part) for part in pd.__version__.split(".")[:2])
    return {} if version >= (3, 1) else {"float_precision": "round_trip"}


def _separator(path: Path) -> tuple[str, list[str]]:
    """Return (separator, notes): tabs in a .tsv, else commas, else what the first line has instead."""
    if path.suffix.lower() == ".tsv":
        return "\t", []
    with open(path, encoding="utf-8-sig", newline="") as stream:
        line = next((line for line in stream if line.strip()), "")
    other = next((mark for mark in (";", "\t") if mark in line), ",")
    if "," in line or other == ",":
        return ",", []
    return other, [f"columns are separated by {other!r}"]


def _read_parquet(path: Path, text_columns: Collection[str]) -> RawFrame:
    import pyarrow.parquet as parquet

    arrow = parquet.read_table(path, partitioning=None)  # a folder named a=1 is no column
    arrow.validate(full=True)  # text that is not UTF-8 would surface much later
    check_names(arrow.schema.names, str(path))
    return RawFrame(with_named_index(arrow.to_pandas()))


def with_named_index(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a Parquet file's frame with its named index levels as columns and its rows counted from 0."""
    import pandas as pd

    if not isinstance(frame.index, pd.RangeIndex):
        named = [name for name in frame.index.names if name is not None]
        frame = frame.reset_index(level=named) if named else frame
    return frame.reset_index(drop=True)


def _read_arff(path: Path, text_columns: Collection[str]) -> RawFrame:
    import pandas as pd

    from tttab.data.arff_format import parse_arff

    try:
        content = parse_arff(path.read_text(encoding="utf-8-sig"))
    except DataError as error:
        raise DataError(f"{path} cannot be read as ARFF: {error.message}", error.hint) from error
    check_names([attribute.name for attribute in content.attributes], str(path))
    dtypes = {"number": "float64", "text": "object", "nominal": "category"}
    columns = {
        attribute.name: pd.Series(cells, dtype=dtypes[attribute.kind])
        for attribute, cells in zip(content.attributes, content.columns, strict=True)
    }
    return RawFrame(pd.DataFrame(columns))


def check_names(names: Collection[Any], where: str) -> None:
    """Raise DataError if two columns have one name."""
    seen: set[str] = set()
    for name in map(str, names):
        if name in seen:
            raise DataError(f"{where} has two columns named {name!r}", "rename one of them in its header")
        seen.add(name)


_READERS = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_csv,
    ".parquet": _read_parquet,
    ".pq": _read_parquet,
    ".arff": _read_arff,
}
