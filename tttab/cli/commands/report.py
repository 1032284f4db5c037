"""`tttab report`: what a benchmark found, on the terminal, as Markdown or as a page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tttab.cli import options, output
from tttab.text import shell_word, shown

if TYPE_CHECKING:
    from tttab.bench import Contents
    from tttab.report import ReportTable

DEFAULT_OUT = Path("bench-results")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("report", rich_help_panel="Research")(report)


def report(
    folder: Annotated[Path, typer.Argument(help="Results folder of `tttab bench --out`.")] = DEFAULT_OUT,
    html: Annotated[Path | None, typer.Option(help="Self-contained HTML file to write.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Markdown file to write; `-` prints it.")] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show what a benchmark found: effective context, harm, break-even, ranks, failures.

    Example: [bold]tttab report results --html report.html[/]
    """
    from tttab.bench import html_report, markdown_report, write_output
    from tttab.errors import RequestError

    if html is not None and markdown is not None and os.path.realpath(html) == os.path.realpath(markdown):
        raise RequestError(
            f"--html and --markdown both name {html}", "--html report.html --markdown report.md"
        )
    contents = read_results(folder)
    if html is not None:
        write_output(html, html_report(contents))
        output.note(f"written: {shown(html)}", quiet=quiet)
    if markdown is not None and str(markdown) == "-":
        output.print_lines(markdown_report(contents).rstrip())
    elif markdown is not None:
        write_output(markdown, markdown_report(contents))
        output.note(f"written: {shown(markdown)}", quiet=quiet)
    if as_json:
        output.print_json(_document(contents))
    elif html is None and markdown is None:
        _print_report(contents, quiet=quiet)


def _print_report(contents: Contents, *, quiet: bool) -> None:
    for table, title in _all_tables(contents):
        print_report_table(table, quiet=quiet, over=title)


def _all_tables(contents: Contents) -> Iterator[tuple[ReportTable, str]]:
    from tttab.bench import summaries
    from tttab.bench.sections import SECTIONS, STORE_SECTIONS, tables_of

    for summary in summaries(contents):
        for table in tables_of(SECTIONS, summary):
            yield table, summary.group.title
    for table in tables_of(STORE_SECTIONS, contents):
        yield table, ""


def _document(contents: Contents) -> list[dict[str, Any]]:
    return [
        {
            "group": title,
            "title": table.title,
            "rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows],
            "notes": list(table.notes),
        }
        for table, title in _all_tables(contents)
    ]


def read_results(folder: Path) -> Contents:
    """Return a store that holds something, with a warning on damaged lines."""
    from tttab.bench import read_store
    from tttab.errors import StoreError

    contents = read_store(folder)
    if not contents.records and not contents.unavailable:
        warn_of_damage(contents)
        raise StoreError(
            f"there are no results in {folder}", f"tttab bench --suite smoke --out {shell_word(folder)}"
        )
    warn_of_damage(contents)
    return contents


def warn_of_damage(contents: Contents) -> None:
    """Warn where lines of a store are damaged."""
    from tttab.bench.tables import damaged_text

    if contents.damaged:
        output.warn(damaged_text(contents))


def print_report_table(table: ReportTable, *, quiet: bool, over: str = "") -> None:
    """Print one table of a report, its title above it, its notes on stderr."""
    from tttab.report.tables import cell_text

    if not table.rows and not table.notes:
        return
    output.print_line(f"# {table.title} ({over})" if over else f"# {table.title}")
    if table.rows:
        rows = [[cell_text(value) for value in row] for row in table.rows]
        output.print_table(table.columns, rows, left=table.left)
    for remark in table.notes:
        output.note(remark, quiet=quiet)
