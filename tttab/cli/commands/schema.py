"""`tttab schema`: the JSON schema of what a command prints with `--json`."""

from __future__ import annotations

from typing import Annotated

import typer

from tttab.cli import output


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("schema", rich_help_panel="Data and models")(schema)


def schema(
    command: Annotated[str, typer.Argument(help="The command: run or advise.")],
) -> None:
    """Print the JSON schema of what a command prints with --json.

    Example: [bold]tttab schema run > run.schema.json[/]
    """
    from tttab.errors import RequestError
    from tttab.evaluation.documents import DOCUMENTS, json_schema

    if command not in DOCUMENTS:
        raise RequestError(f"no document of {command!r} has a schema", f"tttab schema {'|'.join(DOCUMENTS)}")
    output.print_json(json_schema(command))
