"""The result store: a folder of JSON Lines files, one per writer, that are only ever appended to.

A finished cell is one line, written by one `write` to a file opened with O_APPEND and synced before the cell
counts as done. A process that is killed loses only its current cell. A torn last line, like any other that is
damaged, is left out by the reader and named. Copying the files of two stores into one folder merges them. No
database: SQLite locks badly on the network file systems of clusters, and one torn page would cost more than
one line.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tttab.bench.lines import Unavailable, read_line
from tttab.bench.records import LONGEST_TEXT, Machine, Record
from tttab.core import plain_value
from tttab.errors import StoreError
from tttab.system.linewise import bounded_lines
from tttab.text import decoded, shown

PATTERN = "cells-*.jsonl"
Place = tuple[str | int, ...]


class Writer:
    """Appends lines to a file of its own inside the store's folder; create one per process."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open lazily: a run with nothing to do leaves no file.

        Args:
            folder: the store; made on the first write.
        """
        self.folder = Path(folder)
        self._file: int | None = None
        self._machines: set[str] = set()

    def append(self, record: Record, machine: Machine) -> None:
        """Write one finished cell, on disk when this returns.

        Raises:
            StoreError: the folder cannot be written or the disk is full; the file is as before.
        """
        if machine.id not in self._machines:
            self._write(machine.to_dict())
            self._machines.add(machine.id)
        self._write(record.to_dict())

    def unavailable(self, table: str, reason: str) -> None:
        """Note that a table could not be read, so that no report leaves it out silently.

        Raises:
            StoreError: the folder cannot be written or the disk is full.
        """
        self._write({"kind": "unavailable", "table": table, "reason": shown(reason, LONGEST_TEXT)})

    def prove(self) -> None:
        """Append to a file as a cell will be and take it away again: to be done before long work.

        Raises:
            StoreError: the folder cannot be made or written, or the disk is full.
        """
        with self._as_store_error():
            name, file = self._open()
            try:
                _append_whole(file, b"\n" * 4096)  # what a reader would skip
            finally:
                os.close(file)
                os.unlink(name)

    def close(self) -> None:
        """Close the file, if one was opened."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, separators=(",", ":"), ensure_ascii=False, default=plain_value)
        with self._as_store_error():
            if self._file is None:
                _, self._file = self._open()
            _append_whole(self._file, decoded(text).encode() + b"\n")

    def _open(self) -> tuple[Path, int]:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"cells-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
        path = self.folder / name
        return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)

    @contextmanager
    def _as_store_error(self) -> Generator[None]:
        """Turn an OSError into one line with a hint."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            hint = f"{'free some disk space' if full else 'make it writable'}, then the same command again"
            raise StoreError(f"cannot write to {self.folder}: {error.strerror or error}", hint) from error


@dataclass(frozen=True)
class Contents:
    """All that a store holds, one record per place."""

    done: Mapping[Place, Record] = field(default_factory=dict)
    """Finished cells by `Cell.place`."""
    failed: Mapping[Place, Record] = field(default_factory=dict)
    """Cells that never finished, by place, with the latest reason."""
    machines: Mapping[str, Machine] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """Tables that could not be read and have no row, with the reason."""
    damaged: tuple[str, ...] = ()
    """Lines that are not what they must be, as `file:line`, a torn last line among them; names of what is no
    file."""

    @property
    def records(self) -> list[Record]:
        """Every cell once: the finished ones, then the failed ones."""
        return [*self.done.values(), *self.failed.values()]

    @property
    def known(self) -> set[str]:
        """The keys of all finished cells, under whatever label."""
        return {record.cell.key for record in self.done.values()}

    @property
    def numbers(self) -> dict[str, Record]:
        """One record per key, finished where there is one: what any label may show."""
        return {record.cell.key: record for record in reversed(self.records)}


def read_store(folder: str | os.PathLike[str]) -> Contents:
    """Read every file of a store; an absent folder is an empty store.

    Of several finished lines of one place the first to finish counts: equal keys mean equal numbers.

    Raises:
        StoreError: the folder or a file in it cannot be read.
    """
    rows: list[Record] = []
    machines: dict[str, Machine] = {}
    unavailable: dict[str, str] = {}
    damaged: list[str] = []
    for place, line in _lines(Path(folder)):
        try:
            found = read_line(line)
        except ValueError:
            damaged.append(place)
            continue
        match found:
            case Record():
                rows.append(found)
            case Machine():
                machines[found.id] = found
            case Unavailable():
                unavailable[found.table] = found.reason
    done, failed = _one_per_place(rows)
    seen = {record.cell.table for record in rows}
    absent = {table: reason for table, reason in unavailable.items() if table not in seen}
    return Contents(done, failed, machines, absent, tuple(damaged))


def _one_per_place(rows: Iterable[Record]) -> tuple[dict[Place, Record], dict[Place, Record]]:
    done: dict[Place, Record] = {}
    failed: dict[Place, Record] = {}
    for record in sorted(rows, key=lambda record: record.finished):
        if record.failed:
            failed[record.cell.place] = record
        else:
            done.setdefault(record.cell.place, record)
    return done, {place: record for place, record in failed.items() if place not in done}


def _lines(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (place, line) for every line that is not blank; (name, nothing) for what is no regular file."""
    for name in _names(folder):
        path = folder / name
        if path.is_file():  # to open a pipe would be to wait for ever
            yield from ((f"{name}:{number}", line) for number, line in _lines_of(path))
        elif os.path.lexists(path):
            yield name, b""


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if fnmatchcase(name, PATTERN))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(folder, error) from error


def _lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        yield from bounded_lines(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot read {path}: {error.strerror or error}", "make it readable, or name another folder"
    )


def _append_whole(file: int, data: bytes) -> None:
    """Append all of `data` or nothing, and wait until it is on disk."""
    before = os.fstat(file).st_size
    try:
        written = 0
        while written < len(data):
            written += os.write(file, data[written:])
        os.fsync(file)
    except OSError:
        os.ftruncate(file, before)
        raise
