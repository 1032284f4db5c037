"""`tttab bundle`: pack a bundle to the difference from its base model, and unpack it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tttab.cli import options, output
from tttab.cli.signals import ended_cleanly
from tttab.text import shell_word, shown

bundle = typer.Typer(
    name="bundle",
    help="Pack a bundle to the difference from its base model, and unpack it.",
    no_args_is_help=True,
)
Folder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of a bundle.")]
Out = Annotated[Path, typer.Option(help="Folder to write.")]
Base = Annotated[
    Path | None, typer.Option(help="File of the base model (default: found by its name in the manifest).")
]


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    app.add_typer(bundle, rich_help_panel="Adapt")


@bundle.command("pack")
def pack(
    folder: Folder, out: Out, base: Base = None, rows: options.Rows = True, as_json: options.Json = False
) -> None:
    """Store only what training changed in the weights, and the hash of the base model.

    Example: [bold]tttab bundle pack churn --out churn-packed[/]
    """
    from tttab.bundle.packing import pack_bundle
    from tttab.bundle.rowless import pack_without_rows
    from tttab.system.files import home_path

    folder, out = home_path(folder), home_path(out)
    with ended_cleanly():
        make = pack_bundle if rows else pack_without_rows
        done = make(folder, out, base and home_path(base))
    if as_json:
        return output.print_json({"out": out, **vars(done)})
    output.print_summary(
        f"{done.moved} of {done.tensors} tensors moved: {done.after / 1e6:.2f} MB instead of "
        f"{done.before / 1e6:.2f} MB in {shown(out)}: tttab predict {shell_word(out)} NEW.csv"
    )


@bundle.command("unpack")
def unpack(folder: Folder, out: Out, base: Base = None, as_json: options.Json = False) -> None:
    """Restore a packed bundle, byte for byte.

    Example: [bold]tttab bundle unpack churn-packed --out churn[/]
    """
    from tttab.bundle.packing import unpack_bundle
    from tttab.system.files import home_path

    folder, out = home_path(folder), home_path(out)
    with ended_cleanly():
        unpack_bundle(folder, out, base and home_path(base))
    if as_json:
        return output.print_json({"out": out})
    output.print_summary(f"Unpacked, every hash as it was: tttab inspect {shell_word(out)}")
