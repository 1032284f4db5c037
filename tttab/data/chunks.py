"""Large files in pieces, so that memory stays flat: CSV, TSV and Parquet; ARFF is read whole.

pandas and pyarrow cut the pieces. This adds one decimal mark for all pieces of a file, the share that is
done, and limits on a piece.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tttab.data.bounds import PARSED, ROOM
from tttab.data.reading import damage_told, read_frame, strictly
from tttab.data.sources import BLOCK, Source, expanded_home, find_source, held_still

if TYPE_CHECKING:
    import pandas as pd

    from tttab.data.csv_format import Layout


@dataclass(frozen=True)
class Piece:
    """Some consecutive rows of a file."""

    frame: pd.DataFrame
    done: float
    """Share of the file read so far, between 0 and 1."""
    decimals: Mapping[str, str] = field(default_factory=dict)
    """As in `RawFrame`, seen from the first piece."""


def read_pieces(
    path: str | os.PathLike[str], rows: int, *, text_columns: Collection[str] = ()
) -> Iterator[Piece]:
    """Yield the rows of a table file, at most `rows` at a time.

    Args:
        path: as for `read_frame`.
        rows: the size of a piece; pieces of files with more than some thousand columns are smaller.
        text_columns: CSV columns whose cells stay text.

    Raises:
        DataError: as `read_frame`; damage deep in a file is found when its piece is reached, a change
            when the last one has been yielded.
    """
    path = expanded_home(path)
    with damage_told(path), held_still(path):
        source = find_source(path)
        reader = _READERS.get(source.form, _whole)
        yield from reader(source, rows, text_columns)


def _whole(source: Source, rows: int, text_columns: Collection[str]) -> Iterator[Piece]:
    raw = read_frame(source.path, text_columns=text_columns)
    yield Piece(raw.frame, 1.0, raw.decimals)


def _csv_pieces(source: Source, rows: int, text_columns: Collection[str]) -> Iterator[Piece]:
    from tttab.data.csv_format import decimals_of, layout_of, may_have_commas

    layout = layout_of(source)
    rows = max(1, min(rows, ROOM // (PARSED * len(layout.names))))
    if layout.separator != ",":
        first = next(_parsed(source, layout, rows, text_columns), None)
        if first is not None and may_have_commas(first.frame):
            texts = next(_parsed(source, layout, rows, layout.names)).frame
            if decimals := decimals_of(texts):
                for piece in _parsed(source, layout, rows, layout.names):
                    yield Piece(piece.frame, piece.done, decimals)
                return
    yield from _parsed(source, layout, rows, text_columns)


def _parsed(source: Source, layout: Layout, rows: int, texts: Collection[str]) -> Iterator[Piece]:
    import pandas as pd

    from tttab.data.csv_format import without_words

    with (
        source.open(len(layout.names)) as stream,
        pd.read_csv(io.BufferedReader(stream, BLOCK), chunksize=rows, **layout.options(texts)) as pieces,
    ):
        while True:
            with strictly():  # around the reading alone: what the caller does with a piece is its own
                frame = next(pieces, None)
            if frame is None:
                return
            yield Piece(without_words(frame), stream.share)


def _parquet_pieces(source: Source, rows: int, text_columns: Collection[str]) -> Iterator[Piece]:
    from tttab.data.parquet_format import parquet_pieces

    for frame, done in parquet_pieces(source, rows):
        yield Piece(frame, done)


_READERS = {
    ".csv": _csv_pieces,
    ".tsv": _csv_pieces,
    ".txt": _csv_pieces,
    ".parquet": _parquet_pieces,
    ".pq": _parquet_pieces,
}
