"""A table of results as plain data, and its Markdown and HTML.

What does not belong here: the terminal (the CLI draws the same data with its own means).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tttab.text import html_text as escape
from tttab.text import markdown_text, shown


@dataclass(frozen=True)
class ReportTable:
    """Rows under columns, with a title and remarks."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    left: tuple[str, ...] = ()
    """Columns of text; the others are numbers, right-aligned."""
    notes: tuple[str, ...] = ()
    """Sentences a reader needs to read the numbers right."""

    def __post_init__(self) -> None:
        """Refuse rows that do not fit the columns."""
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"a row of the table {self.title!r} does not have {len(self.columns)} cells")


def cell_text(value: Any) -> str:
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


def to_html(table: ReportTable) -> str:
    """Return the table as an HTML fragment; every text is escaped."""
    sides = ["text" if name in table.left else "number" for name in table.columns]
    head = "".join(
        f'<th class="{side}">{escape(name)}</th>' for side, name in zip(sides, table.columns, strict=True)
    )
    body = "".join(f"<tr>{_html_cells(row, sides)}</tr>" for row in table.rows)
    notes = "".join(f"<p class='note'>{escape(note)}</p>" for note in table.notes)
    frame = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<h3>{escape(table.title)}</h3><div class='scroll'>{frame}</div>{notes}"


def _html_cells(row: Sequence[Any], sides: Sequence[str]) -> str:
    return "".join(
        f'<td class="{side}">{escape(cell_text(value))}</td>' for side, value in zip(sides, row, strict=True)
    )


def _pipe(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
