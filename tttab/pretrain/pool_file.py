"""A file of pool tables, checked against what a worker writes before it is used; nothing is unpickled."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tttab.errors import RequestError
from tttab.text import shell_word

LARGEST_FILE = 2**28
"""Bytes of all tables of a file; four of 1,120 rows and 60 columns take 0.6 MB."""
LARGEST_CODE = 2**15


@dataclass(frozen=True)
class PoolTable:
    """One table as stored."""

    x: np.ndarray
    """(rows, features), float16, standardised."""
    y: np.ndarray
    """(rows,), float32: class codes or a continuous target."""
    named: bool
    """Whether `y` holds class codes."""


def read_file(path: Path) -> list[PoolTable]:
    """Return the tables of one file in the order of their numbers.

    Raises:
        RequestError: the file is damaged, or no file of a pool.
    """
    try:
        if not path.is_file():
            raise ValueError("no regular file")
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST_FILE:
                raise ValueError("too large")
        with np.load(path, allow_pickle=False) as content:
            names = sorted(key[1:] for key in content.files if key.startswith("x"))
            if sorted(content.files) != sorted(part + name for part in "xyn" for name in names):
                raise ValueError("arrays of other names")
            return [_checked(content[f"x{name}"], content[f"y{name}"], content[f"n{name}"]) for name in names]
    except Exception as error:  # a damaged archive gives errors of every kind, of zipfile, zlib and numpy
        raise RequestError(
            f"{path} is no file of pool tables, or damaged: {type(error).__name__}: {error}",
            f"rm {shell_word(path)}, and the same command with --workers 1 makes it again",
        ) from error


def _checked(x: np.ndarray, y: np.ndarray, named: np.ndarray) -> PoolTable:
    """Return a table, or raise ValueError where it is none that `write_file` writes."""
    kinds = (x.dtype, y.dtype, named.dtype) == (np.float16, np.float32, np.bool_)
    if not kinds or x.ndim != 2 or y.shape != x.shape[:1] or named.shape != ():
        raise ValueError("arrays of other types or shapes")
    if not np.isfinite(x).all() or not np.isfinite(y).all():
        raise ValueError("a value is not finite")
    if named and not (
        np.equal(y, y.round()).all() and 0 <= y.min(initial=0) <= y.max(initial=0) < LARGEST_CODE
    ):
        raise ValueError("a class is no code")
    return PoolTable(x, y, bool(named))
