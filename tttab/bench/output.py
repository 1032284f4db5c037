"""Where a report or an export goes: a file, replaced in one step, or a pipe or device, written through."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from tttab.bench.store import PATTERN
from tttab.errors import RequestError
from tttab.system.files import atomic_path
from tttab.text import shell_word

STANDARD_STREAMS = (1, 2)


@contextmanager
def output_path(target: str | os.PathLike[str]) -> Generator[Path]:
    """Yield a path to write what is to stand at `target`.

    A regular file is replaced when all is written, links followed. A pipe or a character device such as
    `/dev/stdout` gets the bytes and stays what it is.

    Raises:
        RequestError: `target` is, or would become, a file of a store; a folder; a disk or a socket; a pipe
            that nobody reads.
    """
    target = Path(target)
    if fnmatchcase(Path(os.path.realpath(target)).name, PATTERN):
        raise RequestError(f"{target}: files called {PATTERN} are a store's own", "give it another name")
    if not _is_written_through(target):
        with atomic_path(target) as part:
            yield part
        return
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / f"output{target.suffix}"
        yield part
        with open(part, "rb") as whole, _opened(target) as stream:
            shutil.copyfileobj(whole, stream)


def write_output(target: str | os.PathLike[str], text: str) -> None:
    """Write `text` (UTF-8) to `target`, see `output_path`."""
    with output_path(target) as part:
        part.write_text(text, encoding="utf-8")


def _is_written_through(target: Path) -> bool:
    """Whether `target` is no regular file, or one that this process already writes to."""
    try:
        found = target.stat()
    except FileNotFoundError:
        return False
    if stat.S_ISREG(found.st_mode):
        return _stream_of(found) is not None
    if stat.S_ISFIFO(found.st_mode) or stat.S_ISCHR(found.st_mode) or _stream_of(found) is not None:
        return True
    if stat.S_ISDIR(found.st_mode):
        raise RequestError(f"{target} is a folder", f"name a file in it: {shell_word(target / 'report')}")
    raise RequestError(f"{target} is no file that can be written", "name a file")


def _stream_of(found: os.stat_result) -> int | None:
    """Return which of this process's output streams the file is: it must not be replaced under them."""
    for stream in STANDARD_STREAMS:
        with suppress(OSError):  # a closed one
            if os.path.samestat(found, os.fstat(stream)):
                return stream
    return None


def _opened(target: Path) -> BinaryIO:
    stream = _stream_of(target.stat())
    if stream is not None:
        return open(stream, "wb", closefd=False)
    try:
        file = os.open(target, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise RequestError(
            f"nobody reads {target}", f"start the reader first: cat {shell_word(target)} &"
        ) from None
    os.set_blocking(file, True)
    return open(file, "wb")
