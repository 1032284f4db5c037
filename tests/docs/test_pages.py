"""The tutorial works from top to bottom; every command of the other pages can be typed as it stands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from typer.main import get_command

from tests.support.forked import forked, typed
from tttab.cli import run
from tttab.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / name for name in ("index.md", "start.md", "how-ttt-works.md")]
PAGES += sorted((ROOT / "docs" / "howto").glob("*.md"))
SMALL = {
    "run": ["--n", "50", "--k", "120", "--steps", "2", "--test-size", "100"],
    "adapt": ["--n", "50", "--k", "120", "--steps", "2"],
    "explain": ["--rows", "3", "--background", "3"],
}
"""What is added to the tutorial's commands, which take minutes as they stand."""


def blocks(page):
    """Yield the shell blocks of a page: the words of each command, and what the page shows as output."""
    text = page.read_text(encoding="utf-8")
    for code, shown in re.findall(r"```bash\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", text, re.DOTALL):
        lexer = shlex.shlex(code.replace("\\\n", " "), posix=True, punctuation_chars="\n")
        lexer.whitespace, lexer.whitespace_split = " \t", True
        commands = [[]]
        for word in lexer:
            if set(word) == {"\n"}:
                commands.append([])
            else:
                commands[-1].append(word)
        yield [words for words in commands if words], shown


def test_no_line_begins_with_a_number_that_markdown_takes_for_a_list():
    texts = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md")}
    assert {name for name, text in texts.items() if re.search(r"^\s*\d{2,}\. ", text, re.MULTILINE)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_can_be_typed(page):
    for commands, _ in blocks(page):
        for words in commands:
            if words[0] != "tttab":
                continue
            command, words = get_command(app), words[1:]
            context = command.make_context("tttab", list(words), resilient_parsing=True)
            while hasattr(command, "commands"):
                name, *words = words
                parent, command = context, command.get_command(context, name)
                assert command is not None, (page.name, name)
                context = type(parent)(command, info_name=name, parent=parent)
            command.make_context(name, words, parent=parent)


def test_the_tutorial_works(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TTTAB_OFFLINE", "1")
    done = []
    for commands, shown in blocks(ROOT / "docs" / "start.md"):
        done += (ran := [words for words in commands if perform(words)])
        printed = "".join(capfd.readouterr())
        if shown and ran:
            assert_alike(shown, printed)
    assert [words[1] for words in done if words[0] == "tttab"] == [
        "data",
        "run",
        "adapt",
        "predict",
        "explain",
    ]


def perform(words):
    """Run a command of the tutorial; return whether it is one to run here."""
    match words:
        case ("pip", *_) | ("tttab", "serve", *_):  # `curl` starts the server
            return False
        case "python", "-c", code:
            exec(code, {})
        case "tttab", name, *rest:
            assert run([name, *rest, *SMALL.get(name, [])]) == 0
        case "curl", *_:
            if shutil.which("curl") is None:
                return False
            with served() as port:
                subprocess.run([word.replace("8000", port) for word in words], check=True, timeout=60)
        case _:
            subprocess.run(words, check=True, timeout=60)
    return True


def assert_alike(shown, printed):
    """Fail where a line of the page begins with a word that was not printed, or JSON has other keys."""
    if shown.startswith("{"):
        answer, _ = json.JSONDecoder().raw_decode(printed, printed.index("{"))
        assert answer["predictions"][0].keys() == json.loads(shown)["predictions"][0].keys()
        return
    firsts = {re.split(r"[\s,:]", line)[0] for line in shown.splitlines()}
    assert not [first for first in firsts if not re.search(rf"^{re.escape(first)}", printed, re.MULTILINE)]


@contextmanager
def served():
    """Serve the bundle of this folder on a free port until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = forked(typed("serve", "vowels", "--port", port))
    try:
        for _ in range(600):
            try:
                with urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
            except OSError:
                time.sleep(0.2)
        yield port
    finally:
        server.process.kill()
        server.end()
