"""Help: every command explains itself with an example, and nothing heavy is loaded on the way."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import typer.main

from tttab.cli import run
from tttab.cli.app import app
from tttab.cli.options import GROUPS

HEAVY = ("torch", "pandas", "sklearn", "openml", "tabpfn", "numpy", "matplotlib", "ray", "yaml")


def commands(group=None, path=()):
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


ALL = sorted(commands())


def test_no_help_page_loads_anything_heavy():
    code = (
        "import sys, functools, typer.main; from tttab.cli import run;"
        "typer.main.get_command = functools.cache(typer.main.get_command);"
        f"codes = [run([*words, '--help']) for words in [[], *{[list(c) for c in ALL]!r}]];"
        f"heavy = set({HEAVY!r}) & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else max(codes))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_shows_an_example_to_copy(words, capfd):
    assert run([*words, "--help"]) == 0
    shown = " ".join(capfd.readouterr().out.split())
    assert f"tttab {' '.join(words)}" in shown.split("Usage:")[1].split("Options")[0].replace(
        "[OPTIONS]", "", 1
    )
    assert "Example" in shown


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_option_groups_stand_in_one_order(words):
    command = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    places = [GROUPS.index(getattr(option, "rich_help_panel", None)) for option in command.params]
    assert places == sorted(places)


def test_tttab_alone_shows_what_it_can_do_and_where_to_start(capfd):
    assert run([]) == 0
    shown = capfd.readouterr().out
    assert "tttab run --dataset 31 --n 200 --k 1000" in shown
    assert re.findall(r"╭─ ([A-Z][\w ]+\w) ─", shown) == ["Options", "Adapt", "Data and models", "Research"]


def test_names_are_completed():
    from tttab.cli import completion

    assert "banana" in completion.datasets("ban")
    assert completion.rules("temp") == ["temperature"]
    assert "auto" in completion.models("")
