"""`tttab push` and `tttab pull`: bundles to and from the model hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tttab.cli import options, output
from tttab.cli.signals import ended_cleanly
from tttab.text import shell_word, shown

Repository = Annotated[str, typer.Argument(metavar="REPO", help="USER/NAME on the hub.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("push", rich_help_panel="Adapt")(push)
    app.command("pull", rich_help_panel="Adapt")(pull)


def push(
    bundle: options.Bundle,
    repository: Repository,
    yes: Annotated[
        bool, typer.Option("--yes", help="Confirm the upload of the context rows, which are not encrypted.")
    ] = False,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    as_json: options.Json = False,
) -> None:
    """Upload a bundle to the model hub, with its context rows (not encrypted) and a model card.

    Example: [bold]tttab push churn me/churn --yes[/]
    """
    from tttab.bundle import sharing
    from tttab.bundle.manifest import read_manifest
    from tttab.errors import RequestError
    from tttab.system.files import home_path

    bundle = home_path(bundle)
    manifest = read_manifest(bundle)
    rows = manifest["rows"]
    data = f"{rows:,} context rows with their labels" if "context" in manifest["files"] else "a cache of rows"
    if not yes:
        command = f"tttab push {shell_word(bundle)} {shell_word(repository)} --yes"
        raise RequestError(f"{data} would be uploaded, unencrypted", command)
    output.warn(f"uploaded unencrypted: {data}")
    with ended_cleanly(), output.waiting("uploading", quiet=as_json):
        address = sharing.push(bundle, repository, private=not public)
    if as_json:
        return output.print_json({"address": address, "rows": rows})
    output.print_summary(f"Uploaded: {address}; tttab pull {shell_word(repository)} gets it")


def pull(
    repository: Repository,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write (default: the repository's name).")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Download a bundle from the model hub and check every hash.

    Example: [bold]tttab pull me/churn --out churn[/]
    """
    from tttab.bundle import sharing
    from tttab.system.files import home_path

    out = Path(repository.rpartition("/")[2]) if out is None else home_path(out)
    with ended_cleanly(), output.waiting("downloading", quiet=as_json):
        manifest = sharing.pull(repository, out)
    if as_json:
        return output.print_json({"out": out, "manifest": manifest})
    output.print_summary(
        f"A bundle of {shown(manifest['base']['name'])}, whole: tttab inspect {shell_word(out)}"
    )
