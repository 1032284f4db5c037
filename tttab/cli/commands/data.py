"""`tttab data`: list, show, download and check tables."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tttab.cli import completion, options, output
from tttab.text import shell_word, shown

if TYPE_CHECKING:
    from tttab.core import Table
    from tttab.data import Entry, Facts

LONGEST = 60
"""Characters of a text that is shown as an example or a class."""

data = typer.Typer(name="data", help="List, show, download and check tables.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    app.add_typer(data, rich_help_panel="Data and models")


Suite = Annotated[
    str | None, typer.Option(help="Only the tables of this suite.", autocompletion=completion.suites)
]


@data.command("list")
def list_tables(
    suite: Suite = None,
    local: Annotated[bool, typer.Option("--local", help="Only tables that need no network.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show the known tables and where each would come from.

    Example: [bold]tttab data list --suite offline[/]
    """
    from tttab.data import catalog

    known = catalog()
    entries = known.suite(suite) if suite else tuple(known.tables.values())
    with output.waiting("looking into OpenML's cache", quiet=as_json):
        places = {entry.name: _place(entry) for entry in entries}
    shown = [entry for entry in entries if not local or places[entry.name] in ("bundled", "cache")]
    of_suites = {e.name: [s for s, members in known.suites.items() if e.name in members] for e in shown}
    if as_json:
        rows = [asdict(e) | {"place": places[e.name], "suites": of_suites[e.name]} for e in shown]
        output.print_json({"tables": rows})
        return
    output.print_table(
        ("name", "OpenML id", "place", "rows", "features", "classes", "suites"),
        [
            (e.name, e.openml, places[e.name], e.rows, e.features, e.classes, " ".join(of_suites[e.name]))
            for e in shown
        ],
        left=("name", "place", "suites"),
    )


@data.command("show")
def show_table(
    dataset: Annotated[
        str, typer.Argument(help="An OpenML id, a known name, or a file.", autocompletion=completion.datasets)
    ],
    target: Annotated[str | None, typer.Option(help="Target column.")] = None,
    column: options.Columns = None,
    regression: options.Regression = None,
    columns: Annotated[bool, typer.Option("--columns", help="Show one line per column.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show what is in a table, and whether it fits the model.

    Example: [bold]tttab data show spambase[/]
    """
    with output.waiting("loading the table", quiet=as_json):
        from tttab.data import facts_of, load_table

        declared, task = options.columns_of(column), options.task_of(regression)
        table = load_table(dataset, target=target, task=task, columns=declared)
        facts = facts_of(table)
    if as_json:
        output.print_json(_document(table, facts))
        return
    for note in table.notes:
        output.note(f"note: {note}")
    if columns:
        output.print_table(("column", "kind", "missing", "distinct", "examples"), _columns(table),
                            left=("column", "kind", "examples"))  # fmt: skip
        return
    output.print_table(("", table.name), _lines(table, facts), left=("", table.name))


@data.command("get")
def get_data(
    datasets: Annotated[
        list[str] | None,
        typer.Argument(help="OpenML ids or known names.", autocompletion=completion.datasets),
    ] = None,
    suite: Suite = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Download again what is cached.")] = False,
    as_json: options.Json = False,
) -> None:
    """Download OpenML's tables and those of packages into the cache, for use without a network.

    Example: [bold]tttab data get --suite core[/]
    """
    from tttab.errors import BadAnswer, RequestError

    specs = [*(datasets or ()), *_members(suite)]
    if not specs:
        raise RequestError("nothing to get: name data sets or a suite", "tttab data get --suite core")
    rows = _get(specs, refresh, quiet=as_json)
    if as_json:
        output.print_json({"tables": rows})
    else:
        head = ("dataset", "source", "rows", "features", "classes", "problem")
        output.print_table(head, [list(row.values()) for row in rows], left=("dataset", "source", "problem"))
    failed = [row["dataset"] for row in rows if row["problem"]]
    if failed:
        raise BadAnswer(
            f"{len(failed)} of {len(rows)} failed", f"tttab data get {' '.join(map(shell_word, failed))}"
        )


@data.command("check")
def check_catalog(
    file: Annotated[Path | None, typer.Argument(help="A datasets.yaml (default: tttab's own).")] = None,
) -> None:
    """Check a datasets.yaml; mistakes are named with their line.

    Example: [bold]tttab data check datasets.yaml[/]
    """
    from tttab.data import catalog, read_catalog

    found = read_catalog(file) if file else catalog()
    output.print_line(f"{found.path}: {len(found.tables)} tables, {len(found.suites)} suites, no fault")


def _members(suite: str | None) -> list[str]:
    from tttab.data import catalog

    return [entry.name for entry in catalog().suite(suite)] if suite else []


def _get(specs: list[str], refresh: bool, quiet: bool) -> list[dict[str, Any]]:
    from tttab.data import get_tables

    rows = []
    with output.progress(quiet=quiet) as bar:
        task = bar.add_task("getting", total=len(specs), info=specs[0])
        for number, got in enumerate(get_tables(specs, refresh=refresh), 1):
            rows.append(
                {
                    "dataset": got.spec,
                    "source": got.table.source if got.table else None,
                    "rows": len(got.table) if got.table else None,
                    "features": got.table.x.shape[1] if got.table else None,
                    "classes": len(got.table.classes) if got.table else None,
                    "problem": got.error,
                }
            )
            bar.update(task, completed=number, info=specs[number] if number < len(specs) else "")
    return rows


def _place(entry: Entry) -> str:
    from tttab.data.packages import PACKAGES, wheel_path
    from tttab.data.remote import is_cached

    if entry.bundled:
        return "bundled"
    if entry.package:
        name = entry.package.partition("/")[0]
        return "cache" if wheel_path(name).is_file() else PACKAGES[name].source
    return "cache" if entry.openml is not None and is_cached(entry.openml) else "OpenML"


def _document(table: Table, facts: Facts) -> dict[str, Any]:
    return {
        "name": table.name,
        "source": table.source,
        "openml_id": table.openml_id,
        "fingerprint": table.fingerprint,
        "task": table.task,
        "target": table.target,
        "notes": table.notes,
        **asdict(facts),
    }


def _lines(table: Table, facts: Facts) -> list[tuple[str, Any]]:
    classes = " · ".join(
        f"{shown(name, LONGEST)}: {count:,}" for name, count in list(facts.classes.items())[:12]
    )
    more = len(facts.classes) - 12
    return [
        ("source", table.source + (f", id {table.openml_id}" if table.openml_id else "")),
        ("fingerprint", table.fingerprint),
        ("target", f"{table.target} ({table.task})"),
        ("rows", f"{facts.rows:,}"),
        ("features", f"{facts.features:,}: {facts.numbers} numbers, {facts.categories} categories, "
                     f"{facts.dates} dates"),
        ("missing", f"{facts.missing_cells:,} cells in {facts.missing_columns} columns"),
        ("constant or duplicate columns", f"{facts.constant_columns} and {facts.duplicate_columns}"),
        ("duplicate rows", f"{facts.duplicate_rows:,}"),
        ("classes", (classes + (f" and {more} more" if more > 0 else "")) or "-"),
        ("fits the model", "no: " + "; ".join(facts.too_much) if facts.too_much else "yes"),
    ]  # fmt: skip


def _columns(table: Table) -> list[tuple[str, str, int, int, str]]:
    from tttab.data import schema_of

    rows, kinds = [], {column.name: column for column in schema_of(table).columns}
    for name in table.x.columns:
        values = table.x[name]
        kind = kinds[name].kind + (f" {kinds[name].format}" if kinds[name].format else "")
        present = values.dropna().unique()[:3]
        examples = ", ".join(
            shown(value, LONGEST) if isinstance(value, str) else f"{value:g}" for value in present
        )
        rows.append((name, kind, int(values.isna().sum()), int(values.nunique()), examples))
    return rows
