"""A table of results as plain data, and its Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tttab.text import markdown_text, shown

Cell = str | float | bool | None
"""What a row holds in a column; None where there is nothing to say."""


@dataclass(frozen=True)
class ReportTable:
    """Rows under columns, with a title and remarks."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left: tuple[str, ...] = ()
    """Columns of text; the others are numbers, right-aligned."""
    notes: tuple[str, ...] = ()
    """Sentences a reader needs to read the numbers right."""

    def __post_init__(self) -> None:
        """Refuse rows that do not fit the columns."""
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"a row of the table {self.title!r} does not have {len(self.columns)} cells")


def cell_text(value: Cell) -> str:
    """Return how a value is written: `-` for nothing, four significant digits for a float."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def to_markdown(table: ReportTable) -> str:
    """Return the table as GitHub-flavoured Markdown, with its title and notes."""
    rule = ["---" if name in table.left else "---:" for name in table.columns]
    head = map(markdown_text, table.columns)
    rows = [map(markdown_text, map(cell_text, row)) for row in table.rows]
    notes = [f"\n{shown(note)}" for note in table.notes]
    return "\n".join([f"### {markdown_text(table.title)}\n", *map(_pipe, (head, rule, *rows)), *notes]) + "\n"


def _pipe(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
