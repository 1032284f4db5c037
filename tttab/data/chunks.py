"""Large files in pieces, so that memory stays flat: CSV, TSV and Parquet; ARFF comes whole.

What does not belong here: what a column means (`schema`).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tttab.data.reading import (
    check_file,
    check_names,
    csv_options,
    damage_told,
    read_frame,
    strictly,
    with_named_index,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Piece:
    """Some consecutive rows of a file."""

    frame: pd.DataFrame
    done: float
    """Share of the file read so far, between 0 and 1."""


def read_pieces(
    path: str | os.PathLike[str], rows: int, *, text_columns: Collection[str] = ()
) -> Iterator[Piece]:
    """Yield the rows of a table file, at most `rows` at a time.

    Args:
        path: as for `read_frame`.
        rows: the size of a piece.
        text_columns: CSV columns whose cells stay text.

    Raises:
        DataError: as `read_frame`; damage deep in a file is found when its piece is reached.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        yield Piece(read_frame(path, text_columns=text_columns).frame, 1.0)
        return
    with damage_told(path):
        check_file(path)
        yield from reader(path, rows, text_columns)


def _csv_pieces(path: Path, rows: int, text_columns: Collection[str]) -> Iterator[Piece]:
    import pandas as pd

    options, _ = csv_options(path, text_columns)
    size = max(1, path.stat().st_size)
    with open(path, "rb") as stream, pd.read_csv(stream, chunksize=rows, **options) as pieces:
        while True:
            with strictly():  # around the reading alone: what the caller does with a piece is its own
                frame = next(pieces, None)
            if frame is None:
                return
            yield Piece(frame, stream.tell() / size)


def _parquet_pieces(path: Path, rows: int, text_columns: Collection[str]) -> Iterator[Piece]:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        check_names(file.schema_arrow.names, str(path))
        done, total = 0, max(1, file.metadata.num_rows)
        for batch in file.iter_batches(batch_size=rows):
            batch.validate(full=True)  # text that is not UTF-8 would surface much later
            frame = with_named_index(batch.to_pandas())
            done += len(frame)
            yield Piece(frame, done / total)


_READERS = {
    ".csv": _csv_pieces,
    ".tsv": _csv_pieces,
    ".txt": _csv_pieces,
    ".parquet": _parquet_pieces,
    ".pq": _parquet_pieces,
}
