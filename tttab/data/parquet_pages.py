"""The sizes of Parquet pages by their own headers: what the metadata at a file's end says need not be true.

A page header is a Thrift struct in the compact protocol (parquet-format, "PageHeader"): its fields 2 and 3
are the page's size unpacked and as it stands. What does not belong here: the pages' content.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from tttab.errors import DataError

LONGEST_HEADER = 2**20
"""Bytes; the statistics in it make a header long."""
_FIELDS = {4, 5, 6}  # i16, i32, i64
_DEPTH = 8


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


def _header_at(file: BinaryIO, place: int) -> tuple[int, int, int]:
    """Return (size unpacked, size as it stands, size of the header)."""
    size = 256
    while True:
        file.seek(place)
        data = file.read(size)
        try:
            fields, length = _struct(data, 0, _DEPTH)
            return fields[2], fields[3], length
        except (IndexError, KeyError, ValueError) as error:
            if not isinstance(error, IndexError) or len(data) < size or size >= LONGEST_HEADER:
                raise _damaged(place) from error
        size *= 16


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, int], int]:
    """Return (whole numbers by field, where the struct ends); IndexError where the data ends before."""
    fields: dict[int, int] = {}
    number = 0
    while data[at]:
        kind, step = data[at] & 15, data[at] >> 4
        at += 1
        if step:
            number += step
        else:
            number, at = _integer(data, at)
        if kind in _FIELDS:
            fields[number], at = _integer(data, at)
        else:
            at = _skip(data, at, kind, depth)
    return fields, at + 1


def _skip(data: bytes, at: int, kind: int, depth: int) -> int:
    """Return where a value ends."""
    if not depth:
        raise ValueError("nested too deep")
    match kind:
        case 1 | 2:  # true, false: no value of their own
            return at
        case 3:
            return at + 1
        case 4 | 5 | 6:
            return _varint(data, at)[1]
        case 7:
            return at + 8
        case 8:
            length, at = _varint(data, at)
            return at + length
        case 9 | 10:
            count, inner = data[at] >> 4, data[at] & 15
            count, at = _varint(data, at + 1) if count == 15 else (count, at + 1)
            for _ in range(count):
                at = at + 1 if inner in (1, 2) else _skip(data, at, inner, depth - 1)
                data[at - 1]  # IndexError, before a count of billions is run through
            return at
        case 12:
            return _struct(data, at, depth - 1)[1]
    raise ValueError(f"type {kind}")


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _damaged(place: int) -> DataError:
    return DataError(f"the header of the page at byte {place:,} is damaged", "write the file again")
