"""How tttab prints: results on stdout, everything else on stderr; every text passes `tttab.text` here.

On a terminal rich draws the tables. In a pipe they become tab-separated lines, uncut and uncoloured; with
`--json` only JSON goes to stdout. Names and messages are printed as they are, never as rich's markup.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tttab.system.files import plain
from tttab.text import json_text, shown


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
        _line(stderr(), text)


def warn(text: str) -> None:
    """Print a warning on stderr, also when quiet."""
    _line(stderr(), text, "warning:", "yellow")


def fail(message: str, hint: str = "") -> None:
    """Print on stderr why a command failed, and what to type next."""
    _line(stderr(), message, "error:", "bold red")
    if hint:
        _line(stderr(), hint, "hint:", "dim")


def print_line(text: str) -> None:
    """Print one line of result text on stdout."""
    _line(stdout(), text)


def print_lines(text: str) -> None:
    """Print a text of several lines, such as a Markdown document, on stdout."""
    for line in text.split("\n"):
        _line(stdout(), line)


def print_summary(text: str) -> None:
    """Print the sentence that ends a command: below its table, or on stderr where a pipe wants rows alone."""
    _line(stdout() if stdout().is_terminal else stderr(), text)


def print_change(
    metrics: Mapping[str, Mapping[str, Any]], words: Mapping[str, str], before: str, after: str
) -> None:
    """Print figures of two models side by side, under the headings `before` and `after`.

    Args:
        metrics: by the rows measured on: `rows`, `before` and `after`, the figures by name.
        words: what those rows are called.
        before, after: the headings.
    """
    lines = [
        (words[name], measured["rows"], metric, old, new, f"{new - old:+.4f}")
        for name, measured in metrics.items()
        for metric, old in measured["before"].items()
        if (new := measured["after"].get(metric)) is not None
    ]  # fmt: skip
    columns = ("measured on", "rows", "metric", before, after, "change")
    print_table(columns, lines, left=("measured on", "metric"))


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str = "",
    left: Sequence[str] = (),
    stacked: bool = False,
) -> None:
    """Print rows under `columns`: a rich table on a terminal, tab-separated lines in a pipe.

    Columns named in `left` are text; the others are right-aligned. Where the table is `stacked`, a line
    break in a cell or a heading is ours and is kept on a terminal.
    """
    lines = [[_cell(value) for value in row] for row in rows]
    if not stdout().is_terminal:
        for line in [list(columns), *lines]:
            sys.stdout.write("\t".join(" ".join(shown(cell).split()) for cell in line) + "\n")
        return
    table = Table(
        title=Text(shown(title), style="table.title") if title else None, title_justify="left",
        header_style="bold", box=box.SIMPLE_HEAD, show_edge=False, padding=0,
    )  # fmt: skip
    for place, name in enumerate(columns):
        # Only running text may be wrapped: a cut figure is worse than a wide table.
        words = any(" " in line[place] for line in lines) and name in left
        heading, side = _drawn(name, stacked), "left" if name in left else "right"
        table.add_column(heading, justify=side, no_wrap=not words)  # type: ignore[arg-type]
    for line in lines:
        table.add_row(*[_drawn(cell, stacked) for cell in line])
    stdout().print(table)


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    _write_json(document, indent=2)


def print_json_line(row: Mapping[str, Any]) -> None:
    """Print one row of JSON Lines on stdout."""
    _write_json(row)
    sys.stdout.flush()


def progress(*, quiet: bool = False) -> Progress:
    """Return a progress display on stderr: description, bar, count, free text field `info`, time left."""
    return Progress(
        _Words("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        _Words("{task.fields[info]}"),
        TimeRemainingColumn(compact=True),
        console=stderr(),
        transient=True,
        disable=quiet or not stderr().is_terminal,
    )


@contextmanager
def waiting(text: str, *, quiet: bool = False) -> Generator[None]:
    """Show a spinner on stderr while something of unknown length is done."""
    if quiet or not stderr().is_terminal:
        yield
        return
    with stderr().status(Text(shown(text)), spinner="dots"):
        yield


class _Words(TextColumn):
    """A column of a progress display that shows names as they are."""

    def render(self, task: Task) -> Text:
        return Text(shown(self.text_format.format(task=task)))


def _line(console: Console, text: str, lead: str = "", style: str = "") -> None:
    parts = [(lead, style), " "] if lead else []
    console.print(Text.assemble(*parts, shown(text)), soft_wrap=True, highlight=False)


def _write_json(document: Any, indent: int | None = None) -> None:
    text = json.dumps(plain(document), indent=indent, ensure_ascii=False)
    encoding = (sys.stdout.encoding or "utf-8").lower()
    sys.stdout.write(json_text(text, ascii_only=not encoding.startswith("utf")) + "\n")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _drawn(text: str, stacked: bool) -> Text:
    return Text("\n".join(map(shown, text.split("\n") if stacked else [text])))
