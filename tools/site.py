"""What the documentation site adds to the pages as they are written; mkdocs calls it (`hooks` in mkdocs.yml).

Run: mkdocs build, or mkdocs serve

A line `<!-- commands: run adapt -->` becomes the reference of these commands, read from the app itself.
A link to a file outside `docs/` leads to the repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

COMMANDS = re.compile(r"^<!-- commands: (.+) -->$", re.MULTILINE)
CODE = re.compile(r"<code>.*?</code>")
OPTION = re.compile(r"(?<!\w)--?[a-z][\w-]*")
OUTSIDE = re.compile(r"\]\(((?:\.\./)+)([^)#\s]+)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Fill in commands and turn links that leave `docs/`."""
    here = PurePosixPath("docs", page.file.src_uri).parent
    depth = len(here.parts)

    def turned(link: re.Match[str]) -> str:
        if link[1].count("..") != depth:
            return link[0]
        kind = "tree" if Path(config.config_file_path).parent.joinpath(link[2]).is_dir() else "blob"
        return f"]({config.extra['repository']}/{kind}/main/{link[2]}"

    filled = COMMANDS.sub(lambda found: "\n".join(_reference(found[1].split())), markdown)
    return OUTSIDE.sub(turned, filled)


def on_page_content(html: str, **_: Any) -> str:
    """Keep the name of an option on one line: browsers break lines behind its hyphens."""
    return CODE.sub(lambda code: OPTION.sub(r'<span class="option">\g<0></span>', code[0]), html)


def _reference(names: list[str]) -> Iterator[str]:
    """Yield the lines of Markdown about the named commands and what stands below them."""
    from typer.main import get_command

    from tttab.cli.app import app

    root = get_command(app)
    context = root.make_context("tttab", [], resilient_parsing=True)
    for name in names:
        yield from _about(root.get_command(context, name), name, context)


def _about(command: Any, name: str, parent: Any) -> Iterator[str]:
    context = type(parent)(command, info_name=name, parent=parent)
    words = context.command_path
    yield from (f"## {words} {{: #{words.replace(' ', '-')} }}", "", _plain(command.help or ""), "")
    if command.params:
        usage = " ".join(command.collect_usage_pieces(context))
        yield from ("```text", f"{words} {usage}", "```", "")
    for group, items in groupby(command.params, lambda item: getattr(item, "rich_help_panel", None)):
        yield from (f"**{group}**", "") if group else ()
        for record in filter(None, (item.get_help_record(context) for item in items)):
            yield from (f"`{record[0]}`", f":   {_plain(record[1]) or ' '}", "")
    for below in getattr(command, "commands", {}).values():
        yield from _about(below, below.name, context)


def _plain(marked: str) -> str:
    """Return a help text without the terminal's markup, safe in Markdown."""
    from rich.markup import render

    words, bracket, extra = marked.partition("  [")  # the default and the bounds, which are no markup
    text = render(re.sub(r"\[bold\](.+?)\[/\]", r"`\1`", words)).plain + bracket[1:] + extra
    return text.replace("*", r"\*").replace("<", "&lt;").replace("[", r"\[").replace("_", r"\_")
