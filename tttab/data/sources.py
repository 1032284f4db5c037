"""The bytes of a table file: where it is, its ending, its compression, changes while it is read."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tttab.data.bounds import LONGEST_LINE, PARSED, Room, room_for
from tttab.data.foreign import (
    FOREIGN,
    FORMS,
    PACKED,
    first_lines,
    free_name,
    holds_nul,
    inner_refusal,
    look_at,
    refusal,
    split_ending,
)
from tttab.errors import DataError
from tttab.text import shell_word

SUFFIXES = (*FORMS, *PACKED, *FOREIGN)
"""Endings by which a word names a file; not all of them are read."""
BLOCK = 2**20
HEAD = 2**16
_STREAM = re.compile(r"-$|/dev/(stdin|fd/)|/proc/[^/]++/fd/")


@dataclass(frozen=True)
class Source:
    """A regular file whose ending says what it holds."""

    path: Path
    form: str
    """The ending of its format, one of `FORMS`."""
    packing: str
    """The ending of its compression, one of `PACKED`, or nothing."""

    def open(self, columns: int = 0, *, whole: bool = False) -> CountedBytes:
        """Open the file's text; `columns` is what each line may become, `whole` as in `room_for`."""
        return CountedBytes(self, columns, room_for(self.path, whole=whole))

    def head(self, size: int = HEAD) -> bytes:
        """Return the first bytes of the text, `size` of them where there are as many."""
        with (
            io.FileIO(self.path) as file,
            io.BufferedReader(_unpacked(file, self.packing), HEAD) as stream,
        ):
            return stream.read(size)


class CountedBytes(io.RawIOBase):
    """A text file's bytes, decompressed; a DataError comes before a line that breaks a bound."""

    def __init__(self, source: Source, columns: int, room: Room) -> None:
        self._source, self._columns, self._room = source, columns, room
        self._size = max(1, source.path.stat().st_size)
        self._file = io.FileIO(source.path)
        self._unpacked = _unpacked(self._file, source.packing)
        self._count = self._lines = self._line = 0

    @property
    def share(self) -> float:
        """How much of the file has been read, between 0 and 1."""
        return min(1.0, self._file.tell() / self._size)

    def readable(self) -> bool:
        """Return True, for what wraps it."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` and return how many bytes it took; 0 at the end."""
        count = self._unpacked.readinto(buffer)
        self._check(bytes(memoryview(buffer)[:count]))
        return count

    def close(self) -> None:
        """Close the file underneath too."""
        self._file.close()
        super().close()

    def _check(self, block: bytes) -> None:
        if b"\0" in block:
            raise holds_nul(self._source.path, self._lines + block[: block.index(0)].count(b"\n") + 1)
        ends = (b"\n", b"\r") if b"\r" in block else (b"\n",)
        lines = self._lines + max(block.count(end) for end in ends)
        last = max(block.rfind(end) for end in ends)
        self._line = len(block) - last - 1 + (self._line if last < 0 else 0)
        if self._line > LONGEST_LINE:
            raise DataError(
                f"line {lines + 1:,} of {self._source.path} is longer than {LONGEST_LINE // 2**20} MiB",
                look_at(self._source.path),
            )
        self._count += len(block)
        needed = self._count + PARSED * self._columns * lines
        if needed > self._room.most:
            fits = self._lines or self._room.most // (PARSED * max(1, self._columns))
            self._room.check(needed, first_lines(self._source.path, fits))
        self._lines = lines


def _unpacked(file: io.FileIO, packing: str) -> Any:
    """Return the stream of what is in a compressed file."""
    import bz2
    import gzip
    import lzma

    if packing == ".zst":
        import pyarrow

        return pyarrow.CompressedInputStream(file, "zstd")
    opened = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(packing)
    return opened(file) if opened else file


def find_source(path: Path) -> Source:
    """Return the file at `path`.

    Raises:
        DataError: there is no regular, non-empty file of a known format.
    """
    about = _status_of(path)
    if not stat.S_ISREG(about.st_mode) or _is_stream(path):
        raise _no_file(path, about.st_mode)
    if about.st_size == 0:
        raise DataError(f"{path} is empty", f"ls -l {shell_word(path)}")
    with open(path, "rb") as file:
        refused = refusal(path, file.read(HEAD))
    if refused:
        raise refused
    source = Source(path, *split_ending(path)[1:])
    refused = inner_refusal(path, source.head()) if source.packing else None
    if refused:
        raise refused
    return source


@contextmanager
def held_still(path: Path) -> Generator[None]:
    """Raise DataError if the file is another one, or of another size or time, at the end of the block."""
    before = _stamp(path)
    try:
        yield
    except Exception as error:
        if _stamp(path) != before:
            raise _changed(path) from error
        raise
    if _stamp(path) != before:
        raise _changed(path)


def expanded_home(path: str | os.PathLike[str]) -> Path:
    """Return the path with a leading `~` resolved, unless there is such a file: a quoted `~` reaches us."""
    plain = Path(path)
    if not str(plain).startswith("~") or os.path.lexists(plain):
        return plain
    return Path(os.path.expanduser(plain))


def _status_of(path: Path) -> os.stat_result:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the name
        near = _nearest_file(path)
        hint = f"did you mean {shell_word(near)}?" if near else f"ls {shell_word(path.parent)}"
        raise DataError(f"there is no file {path}", hint) from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}", f"ls -ld {shell_word(path.parent)}"
        ) from error


def _is_stream(path: Path) -> bool:
    """Tell a standard stream, which may stand for a regular file but has no ending and one reading."""
    return _STREAM.match(str(path)) is not None


def _no_file(path: Path, mode: int) -> DataError:
    word = shell_word(path)
    if stat.S_ISDIR(mode):
        return DataError(f"{path} is a folder, not a file", f"ls {word}")
    if stat.S_ISFIFO(mode) or _is_stream(path):
        new = shell_word(free_name(Path("rows.csv"), "rows.csv"))
        return DataError(f"{path} is a stream; a table is read more than once", f"cat {word} > {new}")
    return DataError(f"{path} is not a regular file", f"ls -l {word}")


def _nearest_file(path: Path) -> Path | None:
    from difflib import get_close_matches

    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in SUFFIXES]
    except (OSError, ValueError):
        return None
    near = get_close_matches(path.name, names, n=1)
    return path.parent / near[0] if near else None


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return None
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def _changed(path: Path) -> DataError:
    stem, form, packing = split_ending(path)
    copy = free_name(path, f"{stem}-copy{form}{packing}")
    return DataError(
        f"{path} was changed while it was read; nothing of it counts",
        f"cp {shell_word(path)} {shell_word(copy)}",
    )
