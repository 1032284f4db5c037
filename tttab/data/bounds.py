"""How much a table file may hold before it is converted: columns, names, lines, memory.

A few bytes can expand to gigabytes: a dictionary of one long text, a row of only missing cells, a compressed
run of zeros. The model's own limits are in `checks`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tttab.errors import DataError
from tttab.system.resources import format_bytes
from tttab.text import brief, shown

MOST_COLUMNS = 10_001
"""10,000 features and a target; a model reads some hundred."""
LONGEST_NAME = 4_000
"""Characters of a column's name: questionnaires put the question there."""
LONGEST_HEADER = 2 * 1024**2
"""Bytes of the line with the names."""
LONGEST_LINE = 16 * 1024**2
"""Bytes between two line ends."""
ROOM = 512 * 1024**2
"""Bytes of memory that every file may take, however small it is."""
RATIO = 120
"""Bytes of memory per byte on disk beyond that; CSV of single digits takes 25, compressed perhaps 100."""
CODED_RATIO = 250
"""The same for the cells of Parquet: few short texts over and over take 200."""
PAGES_RATIO = 40
"""The same for what is in Parquet's pages: they pack numbers to a third, texts to a fifth, rarely more."""
CELL = 24
"""Bytes of a cell while it is converted and held in a table."""
TEXT = 1.5
"""Bytes of a byte of text while it is written out from a dictionary; there are two copies for a while."""
LONG = 5
"""Bytes of a byte of text that is looked at one by one: in a dictionary that stays one, fixed widths."""
LONG_TEXT = 256
"""Characters; a column whose texts are longer on average is one of long texts."""
PARSED = 48
"""Bytes of a cell that has been parsed from text."""
OBJECT = 120
"""Bytes of a cell that arrives as an object of Python: decimals, dates, times, lists."""

CONTAINER = Path("/sys/fs/cgroup/memory.max")
"""Where Linux says how much memory a container may use."""


@dataclass(frozen=True)
class Room:
    """How much memory a file may take, bytes."""

    path: Path
    by_size: int
    """What its size on disk allows."""
    free: int | None
    """What the machine has left; None where the file is read in pieces."""

    @property
    def most(self) -> int:
        """The smaller of both bounds."""
        return self.by_size if self.free is None else min(self.by_size, self.free)

    def check(self, needed: float, hint: str) -> None:
        """Raise DataError if `needed` bytes, an estimate, are too many; `hint` says how to have fewer."""
        if needed > self.by_size:
            size = format_bytes(self.path.stat().st_size)
            raise DataError(
                f"{self.path} ({size}) takes {format_bytes(needed)} of memory or more; "
                f"{format_bytes(self.by_size)} are allowed for its size",
                hint,
            )
        if self.free is not None and needed > self.free:
            raise DataError(
                f"{self.path} takes about {format_bytes(needed)} of memory or more, "
                f"{format_bytes(self.free)} are free",
                hint,
            )


def room_for(path: Path, *, whole: bool, ratio: int | None = None) -> Room:
    """Return how much memory the file may take; `whole`: its rows are held all at once."""
    by_size = (RATIO if ratio is None else ratio) * path.stat().st_size
    return Room(path, max(ROOM, by_size), free_memory() if whole else None)


def free_memory() -> int:
    """Return the bytes that the machine, or the container, has left for this process."""
    import psutil

    free = psutil.virtual_memory().available
    try:
        limit = int(CONTAINER.read_text())
    except (OSError, ValueError):  # no control groups, or no limit: "max"
        return free
    return max(0, min(free, limit - psutil.Process().memory_info().rss))


def check_columns(count: int, path: Path, hint: str) -> None:
    """Raise DataError if a file has more columns than are read; `hint` says how to have fewer."""
    if count > MOST_COLUMNS:
        raise DataError(f"{path} has {count:,} columns; at most {MOST_COLUMNS:,} are read", hint)


def check_names(names: Collection[Any], where: str) -> None:
    """Raise DataError if two columns have one name, or a name is a text of its own."""
    seen: set[str] = set()
    for number, name in enumerate(map(str, names), 1):
        if len(name) > LONGEST_NAME:
            raise DataError(
                f"{where}: the name of column {number:,} has {len(name):,} characters; "
                f"at most {LONGEST_NAME:,} are read",
                f"shorten it in the header; it begins with {shown(name, 40)}",
            )
        if name in seen:
            raise DataError(
                f"{where} has two columns named {brief(name)}", "rename one of them in its header"
            )
        seen.add(name)
