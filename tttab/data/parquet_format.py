"""Parquet within bounds: what it takes is estimated from its metadata, and long texts stay dictionaries.

What does not belong here: what a column means.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tttab.data.bounds import CELL, OBJECT, check_columns, check_names, room_for
from tttab.data.foreign import free_name, python, split_ending
from tttab.data.sources import Source

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as parquet

LONG_TEXT = 256
"""Texts longer than this on average stay a dictionary (a pandas category) in a long column."""
LONG_COLUMN = 64 * 1024**2
"""Bytes of texts, written out, that make a column long."""
_TEXTS = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
_ROWS = 65_536
"""Rows whose texts are written out at a time: an Arrow array of text ends at 2 GiB."""


def read_parquet(source: Source) -> pd.DataFrame:
    """Return a whole file.

    Raises:
        DataError: two columns have one name, or it has more columns or takes more memory than is allowed.
    """
    file, texts = _opened(source, whole=True)
    with file:
        return _frame_of(file.read(), texts)


def parquet_pieces(source: Source, rows: int) -> Iterator[tuple[pd.DataFrame, float]]:
    """Yield (at most `rows` rows, share of the file done); errors as in `read_parquet`."""
    import pyarrow as pa

    file, texts = _opened(source, whole=False)
    with file:
        done, total = 0, max(1, file.metadata.num_rows)
        for batch in file.iter_batches(batch_size=rows):
            done += len(batch)
            yield _frame_of(pa.Table.from_batches([batch]), texts), done / total


def _opened(source: Source, *, whole: bool) -> tuple[parquet.ParquetFile, list[str]]:
    """Return (an open file whose metadata keeps the bounds, the columns whose texts come as dictionaries)."""
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(source.path) as file:
        schema, metadata = file.schema_arrow, file.metadata
        check_columns(max(len(schema), metadata.num_columns), source.path, _fewer_columns(source))
        check_names(schema.names, str(source.path))
        needed = _estimate(file)
    room = room_for(source.path, whole=whole)
    fits = room.most * metadata.num_rows // max(1, 2 * needed)
    room.check(needed, _fewer_rows(source, max(1, fits)))
    texts = [field.name for field in schema if str(field.type) in _TEXTS]
    return parquet.ParquetFile(source.path, read_dictionary=texts), texts


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


def _frame_of(table: pa.Table, texts: Collection[str]) -> pd.DataFrame:
    """Return the rows as pandas would, with the texts written out where they are short."""
    import pyarrow as pa

    table.validate(full=True)  # text that is not UTF-8 would surface much later
    for number, field in enumerate(table.schema):
        column = table.column(number)
        if field.name in texts and pa.types.is_dictionary(field.type) and _is_short(column):
            pieces = [
                chunk.slice(start, _ROWS).dictionary_decode()
                for chunk in column.chunks
                for start in range(0, len(chunk), _ROWS)
            ]
            written = pa.chunked_array(pieces, field.type.value_type)
            table = table.set_column(number, field.with_type(written.type), written)
    return with_named_index(table.to_pandas())


def _is_short(column: pa.ChunkedArray) -> bool:
    """Tell whether texts can be written out: few bytes, or short on average."""
    import pyarrow.compute as compute

    total = 0
    for chunk in column.chunks:
        lengths = compute.binary_length(chunk.dictionary)
        total += compute.sum(lengths.take(chunk.indices)).as_py() or 0
    return total <= max(LONG_COLUMN, LONG_TEXT * len(column))


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
