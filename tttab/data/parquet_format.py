"""Parquet within bounds: what it takes is estimated from its metadata, and long texts stay dictionaries.

What does not belong here: what a column means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tttab.data.bounds import CELL, OBJECT, ROOM, Room, check_columns, check_names, room_for
from tttab.data.foreign import free_name, python, split_ending
from tttab.data.sources import Source

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as parquet

LONG_TEXT = 256
"""A column whose texts are longer than this on average may stay a dictionary (a pandas category)."""
LONG_COLUMNS = 64 * 1024**2
"""Bytes of such columns that are written out none the less."""
_TEXTS = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
_ROWS = 65_536
"""Rows whose texts are written out at a time: an Arrow array of text ends at 2 GiB."""


@dataclass(frozen=True)
class _Opened:
    """A file whose metadata keeps the bounds."""

    file: parquet.ParquetFile
    texts: tuple[str, ...]
    """The columns whose texts come as dictionaries."""
    needed: int
    """Bytes of memory that its rows take, texts not written out."""
    source: Source
    room: Room

    def check(self, needed: int) -> None:
        """Raise DataError if so many bytes are too many; the hint makes a part of the rows."""
        count = self.room.most * self.file.metadata.num_rows // max(1, 4 * needed)
        self.room.check(needed, _fewer_rows(self.source, max(1, count)))


def read_parquet(source: Source) -> pd.DataFrame:
    """Return a whole file.

    Raises:
        DataError: two columns have one name, or it has more columns or takes more memory than is allowed.
    """
    opened = _opened(source, whole=True)
    with opened.file as file:
        return _frame_of(file.read(), opened, opened.needed)


def parquet_pieces(source: Source, rows: int) -> Iterator[tuple[pd.DataFrame, float]]:
    """Yield (at most `rows` rows, share of the file done); errors as in `read_parquet`."""
    import pyarrow as pa

    opened = _opened(source, whole=False)
    with opened.file as file:
        rows = max(1, min(rows, ROOM // (CELL * max(1, len(file.schema_arrow)))))
        done, total = 0, max(1, file.metadata.num_rows)
        for batch in file.iter_batches(batch_size=rows):
            done += len(batch)
            yield _frame_of(pa.Table.from_batches([batch]), opened, 0), done / total


def _opened(source: Source, *, whole: bool) -> _Opened:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(source.path) as file:
        schema = file.schema_arrow
        check_columns(max(len(schema), file.metadata.num_columns), source.path, _fewer_columns(source))
        check_names(schema.names, str(source.path))
        needed = _estimate(file)
    texts = tuple(field.name for field in schema if str(field.type) in _TEXTS)
    file = parquet.ParquetFile(source.path, read_dictionary=texts)
    opened = _Opened(file, texts, needed, source, room_for(source.path, whole=whole))
    opened.check(needed)
    return opened


def _estimate(file: parquet.ParquetFile) -> int:
    """Return the bytes that a file's content takes: dictionaries and texts, cells, values of lists."""
    metadata, leaves = file.metadata, file.schema
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    cells = metadata.num_rows * sum(_bytes_of_cell(field.type) for field in file.schema_arrow)
    repeated = [n for n in range(len(leaves)) if leaves.column(n).max_repetition_level]
    values = sum(group.column(number).num_values for group in groups for number in repeated)
    return sum(group.total_byte_size for group in groups) + cells + CELL * values


def _bytes_of_cell(kind: pa.DataType) -> int:
    import pyarrow as pa

    tests = (
        pa.types.is_decimal, pa.types.is_date, pa.types.is_time, pa.types.is_nested,
        pa.types.is_fixed_size_binary,
    )  # fmt: skip
    return OBJECT if isinstance(kind, pa.BaseExtensionType) or any(test(kind) for test in tests) else CELL


def _frame_of(table: pa.Table, opened: _Opened, needed: int) -> pd.DataFrame:
    """Return the rows as pandas would; long texts stay dictionaries where they take much written out."""
    import pyarrow as pa

    table.validate(full=True)  # text that is not UTF-8 would surface much later
    long = 0
    for number, field in enumerate(table.schema):
        column = table.column(number)
        if field.name not in opened.texts or not pa.types.is_dictionary(field.type):
            continue
        size = _written_size(column)
        if size > LONG_TEXT * len(column):
            long += size
            if long > LONG_COLUMNS:
                continue
        needed += size
        opened.check(needed)
        written = _written_out(column)
        table = table.set_column(number, field.with_type(written.type), written)
    return with_named_index(table.to_pandas())


def _written_size(column: pa.ChunkedArray) -> int:
    """Return the bytes of a dictionary's texts, each as often as it occurs."""
    import pyarrow.compute as compute

    lengths = (
        compute.binary_length(chunk.dictionary).cast("int64").take(chunk.indices) for chunk in column.chunks
    )
    return sum(compute.sum(some).as_py() or 0 for some in lengths)


def _written_out(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    pieces = [
        chunk.slice(start, _ROWS).dictionary_decode()
        for chunk in column.chunks
        for start in range(0, len(chunk), _ROWS)
    ]
    return pa.chunked_array(pieces, column.type.value_type)


def with_named_index(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a Parquet file's frame with its named index levels as columns and its rows counted from 0."""
    import pandas as pd

    if not isinstance(frame.index, pd.RangeIndex):
        named = [name for name in frame.index.names if name is not None]
        frame = frame.reset_index(level=named) if named else frame
    return frame.reset_index(drop=True)


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


def _part(source: Source) -> Path:
    stem, form, _ = split_ending(source.path)
    return free_name(source.path, f"{stem}-part{form}")
