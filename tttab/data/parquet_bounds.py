"""The memory that a Parquet file will take, computed before its rows are read.

A page of a kilobyte may stand for gigabytes: a dictionary repeats a text, a delta encoding its beginning.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tttab.data.bounds import (
    CELL,
    CODED_RATIO,
    LONG,
    LONG_TEXT,
    OBJECT,
    PAGES_RATIO,
    TEXT,
    Room,
    check_columns,
    check_names,
    room_for,
)
from tttab.data.foreign import free_name, python, split_ending
from tttab.data.parquet_pages import chunks, page_sizes
from tttab.data.sources import Source
from tttab.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as parquet

_TEXTS = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
MOST_PAGES = 50_000
"""Pages of a file, and one more per kilobyte: smaller ones would only cost time."""
DELTA_TEXTS = {6, 7}
"""DELTA_LENGTH_BYTE_ARRAY and DELTA_BYTE_ARRAY, as parquet-format numbers them."""
_PROBE = 64 * 1024**2
"""Bytes of texts that are looked at together."""


@dataclass(frozen=True)
class Contents:
    """A Parquet file that keeps the bounds."""

    source: Source
    schema: pa.Schema
    rows: int
    coded: tuple[str, ...]
    """The columns whose texts are to be read as dictionaries."""
    needed: int
    """Bytes of memory that all rows take, the texts of `coded` not written out."""
    room: Room
    """What its cells may take."""
    pages: Room
    """What its pages, and dictionaries that stay dictionaries, may take."""

    @property
    def columns(self) -> list[str] | None:
        """The columns to read; None: all."""
        flat = [field.name for field in self.schema if not is_nested(field.type)]
        return None if len(flat) == len(self.schema) else flat

    def check(self, needed: int, room: Room | None = None) -> None:
        """Raise DataError if so many bytes are too many; the hint makes a file of the first rows."""
        room = room or self.room
        room.check(needed, _fewer_rows(self.source, max(1, room.most * self.rows // max(1, 4 * needed))))

    def check_long(self, size: int) -> None:
        """Raise DataError if so many bytes of texts in dictionaries are too many."""
        self.check(LONG * size, self.pages)


def survey(source: Source, *, whole: bool) -> Contents:
    """Look at a file without reading rows, but for delta-coded texts.

    Raises:
        DataError: two columns have one name, or it has more columns or takes more memory than is allowed,
            or a page's header is damaged.
    """
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(source.path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        check_columns(max(len(schema), file.metadata.num_columns), source.path, _fewer_columns(source))
        check_names(schema.names, str(source.path))
        flat = [field for field in schema if not is_nested(field.type)]
        sizes, largest, deltas = _pages(file, source, {field.name for field in flat})
        texts = [field.name for field in flat if str(_plain(field.type)) in _TEXTS]
        coded = [name for name in texts if str(schema.field(name).type) in _TEXTS and name not in deltas]
        pages = sum(sizes[field.name] * _copies(field.type) for field in flat)
        needed = pages + rows * sum(_bytes_of_cell(field.type) for field in schema)
        rooms = (room_for(source.path, whole=whole, ratio=ratio) for ratio in (CODED_RATIO, PAGES_RATIO))
        contents = Contents(source, schema, rows, tuple(coded), needed, *rooms)
        contents.check(pages, contents.pages)
        contents.check(needed)
        for name in set(texts) - set(coded):
            needed += _probe(file, name, largest[name], contents, needed)
    return replace(contents, needed=needed)


def is_nested(kind: pa.DataType) -> bool:
    """Tell lists, structs and maps."""
    import pyarrow as pa

    return pa.types.is_nested(_plain(kind))


def _pages(
    file: parquet.ParquetFile, source: Source, names: set[str]
) -> tuple[Counter[str], Counter[str], set[str]]:
    """Return (bytes of all pages, of the largest page, by column; columns with delta-coded texts)."""
    sizes: Counter[str] = Counter()
    largest: Counter[str] = Counter()
    deltas = set()
    left = MOST_PAGES + source.path.stat().st_size // 1_000
    columns = [file.schema.column(number).path for number in range(file.metadata.num_columns)]
    with open(source.path, "rb") as raw, open(source.path, "rb") as tail:
        for chunk in chunks(tail):
            name = columns[chunk.column] if chunk.column < len(columns) else ""
            if name not in names:
                continue
            for size in page_sizes(raw, chunk.start, chunk.end):
                left -= 1
                if left < 0:
                    raise DataError(
                        f"{source.path} has pages of a few bytes, more of them than are read",
                        _written_again(source),
                    )
                sizes[name] += size
                largest[name] = max(largest[name], size)
            if chunk.encodings & DELTA_TEXTS:
                deltas.add(name)
    return sizes, largest, deltas


def _probe(file: parquet.ParquetFile, name: str, page: int, contents: Contents, needed: int) -> int:
    """Return what the texts of a column take, read a few rows at a time: none is longer than a page."""
    size = rows = took = 0
    for batch in file.iter_batches(batch_size=max(1, min(65_536, _PROBE // max(1, page))), columns=[name]):
        size, rows = size + batch.nbytes, rows + len(batch)
        took = int((LONG if size > LONG_TEXT * rows else TEXT) * size)
        contents.check(needed + took)
    return took


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type that an extension type is stored as."""
    import pyarrow as pa

    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _copies(kind: pa.DataType) -> int:
    """Return how many copies of a column's pages there are for a while."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return LONG
    return 2 if str(_plain(kind)) in _TEXTS else 1


def _bytes_of_cell(kind: pa.DataType) -> int:
    import pyarrow as pa

    if is_nested(kind):
        return CELL  # it is not read
    if pa.types.is_fixed_size_binary(_plain(kind)):
        return OBJECT + LONG * _plain(kind).byte_width
    objects = pa.types.is_decimal(kind) or pa.types.is_date(kind) or pa.types.is_time(kind)
    return OBJECT if objects or isinstance(kind, pa.BaseExtensionType) else CELL


def _fewer_columns(source: Source) -> str:
    """Return the command that writes the first 500 columns and the last to another file."""
    code = (
        "pyarrow.parquet as p; f = p.ParquetFile(sys.argv[1]); n = f.schema_arrow.names; "
        "p.write_table(f.read(n[:500] + n[-1:]), sys.argv[2])"
    )
    return python(code, source.path, _part(source))


def _fewer_rows(source: Source, count: int) -> str:
    """Return the command that writes the first rows to another file."""
    code = (
        "pyarrow as a, pyarrow.parquet as p; b = next(p.ParquetFile(sys.argv[1]).iter_batches("
        f"{count})); p.write_table(a.Table.from_batches([b]), sys.argv[2])"
    )
    return python(code, source.path, _part(source))


def _written_again(source: Source) -> str:
    code = "pyarrow.parquet as p; p.write_table(p.read_table(sys.argv[1]), sys.argv[2])"
    return python(code, source.path, _part(source))


def _part(source: Source) -> Path:
    stem, form, _ = split_ending(source.path)
    return free_name(source.path, f"{stem}-part{form}")
