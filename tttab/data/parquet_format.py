"""Parquet into frames, as pandas would read it, except for long texts and lists.

Long texts stay a dictionary. Lists and structs are not read: an empty column takes their place, because a
feature that holds them is refused anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tttab.data.bounds import CELL, LONG_TEXT, ROOM, TEXT
from tttab.data.parquet_bounds import Contents, is_nested, survey
from tttab.data.sources import Source

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

LONG_COLUMNS = 64 * 1024**2
"""Bytes of columns of long texts that are written out; more of them stay dictionaries (pandas categories)."""
_ROWS = 65_536
"""Rows whose texts are written out at a time: an Arrow array of text ends at 2 GiB."""


def read_parquet(source: Source) -> pd.DataFrame:
    """Return a whole file.

    Raises:
        DataError: as `survey`; or its texts take more memory than is allowed.
    """
    import pyarrow.parquet as parquet

    contents = survey(source, whole=True)
    with parquet.ParquetFile(source.path, read_dictionary=contents.coded) as file:
        return _frame_of(file.read(columns=contents.columns), contents, contents.needed)


def parquet_pieces(source: Source, rows: int) -> Iterator[tuple[pd.DataFrame, float]]:
    """Yield (at most `rows` rows, share of the file done); errors as in `read_parquet`."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    contents = survey(source, whole=False)
    rows = max(1, min(rows, ROOM // (CELL * max(1, len(contents.schema)))))
    done = 0
    with parquet.ParquetFile(source.path, read_dictionary=contents.coded) as file:
        for batch in file.iter_batches(batch_size=rows, columns=contents.columns):
            done += len(batch)
            frame = _frame_of(pa.Table.from_batches([batch]), contents, 0)
            yield frame, done / max(1, contents.rows)


def _frame_of(table: pa.Table, contents: Contents, needed: int) -> pd.DataFrame:
    """Return the rows as pandas would; `needed` bytes are taken besides their texts."""
    import pyarrow as pa

    table.validate(full=True)  # text that is not UTF-8 would surface much later
    long = kept = 0
    for number, field in enumerate(table.schema):
        column = table.column(number)
        if field.name not in contents.coded or not pa.types.is_dictionary(field.type):
            continue
        size = _written_size(column)
        if size > LONG_TEXT * len(column):
            long += size
            if long > LONG_COLUMNS:
                kept += sum(chunk.dictionary.nbytes for chunk in column.chunks)
                contents.check_long(kept)
                continue
        needed += int(TEXT * size)
        contents.check(needed)
        written = _written_out(column)
        table = table.set_column(number, field.with_type(written.type), written)
    return _with_nested(with_named_index(table.to_pandas()), contents.schema)


def _written_size(column: pa.ChunkedArray) -> int:
    """Return the bytes of a dictionary's texts, each as often as it occurs."""
    import pyarrow.compute as compute

    lengths = (
        compute.call_function("binary_length", [chunk.dictionary]).cast("int64").take(chunk.indices)
        for chunk in column.chunks
    )
    return sum(compute.call_function("sum", [some]).as_py() or 0 for some in lengths)


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


def _with_nested(frame: pd.DataFrame, schema: pa.Schema) -> pd.DataFrame:
    """Return the frame with an empty list or mapping for every cell of the columns that were not read."""
    import pandas as pd
    import pyarrow as pa

    known, before = {str(name) for name in frame}, ""
    follow: dict[str, list[pa.Field]] = {}
    for field in schema:
        if is_nested(field.type):
            follow.setdefault(before, []).append(field)
        elif field.name in known:
            before = field.name
    if not follow:
        return frame
    columns = {}
    for name in ["", *frame]:
        if str(name) in known:
            columns[name] = frame[name]
        for field in follow.get(str(name), ()):
            empty: object = {} if pa.types.is_struct(field.type) or pa.types.is_map(field.type) else []
            columns[field.name] = pd.Series([empty] * len(frame), index=frame.index, dtype=object)
    return pd.DataFrame(columns)
