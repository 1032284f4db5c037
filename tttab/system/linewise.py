"""Files of lines that a crash, a copy or an editor may have damaged, read with a limit on a line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count

LONGEST_LINE = 2**20
"""Bytes."""


def bounded_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes]]:
    """Yield (number from 1, line with its end) for every line that is not blank.

    Of a line longer than `LONGEST_LINE` the content is left out: it is empty.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as stream:
        for number in count(1):
            line = stream.readline(LONGEST_LINE)
            if not line:
                return
            whole = line.endswith(b"\n") or len(line) < LONGEST_LINE
            if line.strip():
                yield number, line if whole else b""
            while not whole:
                rest = stream.readline(LONGEST_LINE)
                whole = rest.endswith(b"\n") or len(rest) < LONGEST_LINE
