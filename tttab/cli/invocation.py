"""What the user typed: the whole command, to repeat it in a hint, and which options were in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tttab.text import shell_word

if TYPE_CHECKING:
    import typer

words: list[str] = []
"""The command's words without `tttab`; `tttab.cli.run` puts them here."""


def rerun_command(**changed: object) -> str:
    """Return the command that was typed, with the named options' values replaced."""
    kept, changes = ["tttab"], {f"--{name}": str(value) for name, value in changed.items()}
    skip = False
    for word in words:
        if not skip and word.partition("=")[0] not in changes:
            kept.append(word)
        skip = not skip and word in changes
    return " ".join(map(shell_word, [*kept, *[part for pair in changes.items() for part in pair]]))


def typed(ctx: typer.Context, name: str) -> bool:
    """Tell whether an option was on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
