"""What the user typed: which options, and the whole command again for a hint.

What does not belong here: what options mean.
"""

from __future__ import annotations

import shlex

import typer


def again(ctx: typer.Context) -> str:
    """Return the command as it was typed, in its long form."""
    words = ["tttab", ctx.info_name or ""]
    for option in ctx.command.params:
        if not typed(ctx, option.name or ""):
            continue
        value = ctx.params[option.name or ""]
        words += [option.opts[0]] if value is True else [option.opts[0], str(value)]
    return shlex.join(words)


def typed(ctx: typer.Context, name: str) -> bool:
    """Tell whether an option was on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
