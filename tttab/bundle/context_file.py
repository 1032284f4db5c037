"""The files of a bundle that hold rows, context and held out: writing them, and reading even a stranger's."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tttab.errors import BundleError, DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

    from tttab.data.schema import Schema

SMALL_CONTEXT, MOST_EXPANSION = 2**28, 1000
"""Bytes that any context may fill in memory, and how often its file's size beyond that."""


def read_context(content: bytes, schema: Schema, rows: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return x and y of a context file.

    Args:
        content: of the file.
        schema: of the bundle.
        rows: that the manifest tells of.

    Raises:
        DataError: it is damaged, does not hold these rows, or would fill far more memory than a context does.
    """
    import pyarrow

    try:
        table = _read_table(content, schema.target, rows)
        frame = table.to_pandas(ignore_metadata=True)
        return schema.stored.apply(frame), schema.stored.labels(frame[schema.target])
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, OverflowError, AttributeError) as error:
        raise DataError(f"the context file is not readable Parquet: {str(error)[:120]}") from error


def no_rows(schema: Schema) -> tuple[pd.DataFrame, np.ndarray]:
    """Return x and y of a context without rows: of x the columns and their categories alone."""
    import pandas as pd

    names = [column.name for column in schema.columns]
    empty = pd.DataFrame({name: pd.Series([], dtype=object) for name in names})
    return schema.stored.apply(empty), np.zeros(0, np.int64 if schema.classes else np.float64)


def rows_writer(schema: Schema, x: pd.DataFrame, y: np.ndarray) -> Callable[[Path], None]:
    """Return what writes rows, features and labels, to a path."""

    def write(path: Path) -> None:
        frame = x.reset_index(drop=True)
        classes = np.array(schema.classes, dtype=object)
        frame[schema.target] = classes[y] if len(classes) else np.asarray(y, float)
        try:
            with open(path, "wb") as stream:  # pyarrow takes no path that is not UTF-8
                frame.to_parquet(stream, index=False)
        except UnicodeError as error:
            raise BundleError(
                f"a text of the table is not UTF-8: {error}", "str.encode('utf-8', 'replace').decode()"
            ) from error

    return write


def _read_table(content: bytes, target: str, rows: int) -> pyarrow.Table:
    """Read a context, its texts as dictionaries: a small file may hold a long text very often."""
    import pyarrow
    import pyarrow.parquet as parquet

    form, metadata = parquet.read_schema(io.BytesIO(content)), parquet.read_metadata(io.BytesIO(content))
    nested = any(pyarrow.types.is_nested(column.type) for column in form)
    if nested or target not in form.names or metadata.num_rows != rows:
        raise DataError(f"the context file does not hold the {rows} context rows of the manifest")
    sizes = [metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)]
    most = SMALL_CONTEXT + MOST_EXPANSION * len(content)
    if max(8 * rows * metadata.num_columns, sum(sizes)) > most:
        raise _too_large()
    texts = [column.name for column in form if not pyarrow.types.is_primitive(column.type)]
    table = parquet.read_table(io.BytesIO(content), read_dictionary=texts)
    if sum(map(_bytes_written_out, table.columns)) > most:
        raise _too_large()
    return table


def _too_large() -> DataError:
    return DataError("the context file would fill far more memory than a context does")


def _bytes_written_out(column: pyarrow.ChunkedArray) -> int:
    """Return the bytes of a column's texts, each as often as it stands in a row."""
    import pyarrow
    from pyarrow import compute

    if not pyarrow.types.is_dictionary(column.type):
        return column.nbytes
    lengths = [
        compute.call_function("binary_length", [part.dictionary]).take(part.indices) for part in column.chunks
    ]
    return sum(compute.call_function("sum", [part.cast("int64")]).as_py() or 0 for part in lengths)
