"""How tttab prints: results on stdout, everything else on stderr.

On a terminal a table is drawn by rich; in a pipe it becomes tab-separated lines, uncut and
uncoloured; with `--json` only JSON goes to stdout. What does not belong here: what is printed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tttab.files import plain


@cache
def stdout() -> Console:
    """Return the console for results."""
    return Console()


@cache
def stderr() -> Console:
    """Return the console for progress, warnings and hints."""
    return Console(stderr=True)


def note(text: str, *, quiet: bool = False) -> None:
    """Print a remark on stderr."""
    if not quiet:
        stderr().print(text, soft_wrap=True, highlight=False, markup=False)


def warn(text: str) -> None:
    """Print a warning on stderr, also when quiet."""
    stderr().print(f"[yellow]warning:[/] {_escape(text)}", soft_wrap=True, highlight=False)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str = "",
    left: Sequence[str] = (),
) -> None:
    """Print rows under `columns`: a rich table on a terminal, tab-separated lines in a pipe.

    Columns named in `left` are text; the others are right-aligned.
    """
    lines = [[_cell(value) for value in row] for row in rows]
    if not stdout().is_terminal:
        for line in [list(columns), *lines]:
            sys.stdout.write("\t".join(" ".join(cell.split()) for cell in line) + "\n")
        return
    table = Table(
        title=title or None, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD,
        show_edge=False, padding=0,
    )  # fmt: skip
    for place, name in enumerate(columns):
        # Only running text may be wrapped: a cut figure is worse than a wide table.
        words = any(" " in line[place] for line in lines) and name in left
        table.add_column(name, justify="left" if name in left else "right", no_wrap=not words)
    for line in lines:
        table.add_row(*[_escape(cell) for cell in line])
    stdout().print(table)


def say(text: str) -> None:
    """Print one line of result text on stdout."""
    stdout().print(text, soft_wrap=True, highlight=False, markup=False)


def conclude(text: str) -> None:
    """Print the sentence that ends a command: below its table, or on stderr where a pipe wants rows alone."""
    (stdout() if stdout().is_terminal else stderr()).print(
        text, soft_wrap=True, highlight=False, markup=False
    )


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(plain(document), indent=2, ensure_ascii=False) + "\n")


def print_json_line(row: Mapping[str, Any]) -> None:
    """Print one row of JSON Lines on stdout."""
    sys.stdout.write(json.dumps(plain(row), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def progress(*, quiet: bool = False) -> Progress:
    """Return a progress display on stderr: description, bar, count, free text field `info`, time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[info]}"),
        TimeRemainingColumn(compact=True),
        console=stderr(),
        transient=True,
        disable=quiet or not stderr().is_terminal,
    )


@contextmanager
def waiting(text: str, *, quiet: bool = False) -> Iterator[None]:
    """Show a spinner on stderr while something of unknown length is done."""
    if quiet or not stderr().is_terminal:
        yield
        return
    with stderr().status(text, spinner="dots"):
        yield


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
