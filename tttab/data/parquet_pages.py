"""Where a Parquet file's pages lie and how large they are, by their own headers.

pyarrow cannot be asked: its sizes are what the file claims, none of its memory pools has a limit, and
`RowGroupMetaData.column` (26.0) ends the process if statistics do not fit their column. Structs are Thrift's
in the compact protocol (parquet-format, "FileMetaData", "PageHeader").
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from tttab.errors import DataError

LONGEST_HEADER = 2**20
"""Bytes; the statistics in it make a header long."""
_DEPTH = 8
_I32, _I64, _LIST = 5, 6, 9


@dataclass(frozen=True)
class Chunk:
    """A column's pages in one row group."""

    column: int
    """The column's number in the schema."""
    start: int
    end: int
    encodings: frozenset[int]
    """As parquet-format numbers them."""


def chunks(file: BinaryIO) -> Iterator[Chunk]:
    """Yield the chunks of a Parquet file, row group by row group.

    Raises:
        DataError: the metadata at the file's end cannot be read.
    """
    file.seek(-8, os.SEEK_END)
    end = file.tell()
    place = max(0, end - int.from_bytes(file.read(4), "little"))
    file.seek(place)
    thrift = _Thrift(file.read(end - place))
    try:
        for number, kind in thrift.fields():
            if (number, kind) == (4, _LIST):
                for _ in thrift.items():
                    yield from _chunks_of_group(thrift)
    except (IndexError, ValueError) as error:
        raise DataError("the metadata at the file's end is damaged", "write the file again") from error


def page_sizes(file: BinaryIO, start: int, end: int) -> Iterator[int]:
    """Yield the unpacked size, bytes, of each page between two places of a file.

    Raises:
        DataError: a header cannot be read.
    """
    while start < end:
        unpacked, packed, length = _header_at(file, start)
        if unpacked < 0 or packed < 0:
            raise _damaged(start)
        yield unpacked
        start += length + packed


def _chunks_of_group(thrift: _Thrift) -> Iterator[Chunk]:
    for number, kind in thrift.fields():
        if (number, kind) == (1, _LIST):
            for column, _ in enumerate(thrift.items()):
                yield _chunk(thrift, column)


def _chunk(thrift: _Thrift, column: int) -> Chunk:
    encodings: list[int] = []
    places: dict[int, int] = {}
    for outer, _ in thrift.fields():
        if outer != 3:
            continue
        for number, kind in thrift.fields():
            if (number, kind) == (2, _LIST):
                encodings += [thrift.integer() for item in thrift.items() if item == _I32]
            elif kind == _I64:
                places[number] = thrift.integer()
    # A chunk of no rows has no data page: its place is 0 then, where no page can be.
    start = min(filter(None, (places.get(9), places.get(11))), default=0)
    return Chunk(column, start, start + places.get(7, 0) if start else 0, frozenset(encodings))


def _header_at(file: BinaryIO, place: int) -> tuple[int, int, int]:
    """Return (size unpacked, size as it stands, size of the header)."""
    size = 256
    while True:
        file.seek(place)
        thrift = _Thrift(file.read(size))
        try:
            sizes = {number: thrift.integer() for number, kind in thrift.fields() if kind == _I32}
            return sizes[2], sizes[3], thrift.at
        except (IndexError, KeyError, ValueError) as error:
            if not isinstance(error, IndexError) or len(thrift.data) < size or size >= LONGEST_HEADER:
                raise _damaged(place) from error
        size *= 16


class _Thrift:
    """A place in structs of the compact protocol; IndexError where the data ends before they do."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield (number, type) of each field of a struct; a value that is not taken is passed over."""
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            start = self.at
            yield number, head & 15
            if self.at == start:
                self._skip(head & 15, _DEPTH)

    def items(self) -> Iterator[int]:
        """Yield the type of each item of a list; one that is not taken is passed over."""
        count, kind = self._head_of_list()
        for _ in range(count):
            start = self.at
            yield kind
            if self.at == start:
                self._skip_item(kind, _DEPTH)

    def integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) > 127:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
        return value | byte << shift

    def _head_of_list(self) -> tuple[int, int]:
        head = self._byte()
        return (self._varint() if head >> 4 == 15 else head >> 4), head & 15

    def _skip_item(self, kind: int, depth: int) -> None:
        self._skip(3 if kind in (1, 2) else kind, depth)
        if self.at > len(self.data):  # before a count of billions is run through
            raise IndexError

    def _skip(self, kind: int, depth: int) -> None:
        if not depth:
            raise ValueError("nested too deep")
        match kind:
            case 1 | 2:  # true, false: no value of their own
                return
            case 3 | 7:
                self.at += 1 if kind == 3 else 8
            case 4 | 5 | 6:
                self._varint()
            case 8:
                length = self._varint()
                self.at += length
            case 9 | 10:
                count, inner = self._head_of_list()
                for _ in range(count):
                    self._skip_item(inner, depth - 1)
            case 12:
                while head := self._byte():
                    if not head >> 4:
                        self._varint()
                    self._skip(head & 15, depth - 1)
            case _:
                raise ValueError(f"type {kind}")


def _damaged(place: int) -> DataError:
    return DataError(f"the header of the page at byte {place:,} is damaged", "write the file again")
