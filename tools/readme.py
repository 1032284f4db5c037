"""Write the outputs in README.md anew by running the commands they stand under.

Run: python -m tools.readme

A block begins with `<!-- output: COMMAND -->` and ends with `<!-- end -->`; between them stands what COMMAND
prints on a terminal of 100 columns.
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"(<!-- output: (?P<command>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
STYLE = re.compile(r"\x1b\[[0-9;]*m")
WIDTH = 100


def main() -> None:
    text = README.read_text(encoding="utf-8")
    README.write_text(BLOCK.sub(_filled, text), encoding="utf-8")


def _filled(block: re.Match[str]) -> str:
    command = block["command"]
    return f"{block[1]}```console\n$ {command}\n{output_of(command)}```\n{block[3]}"


def output_of(command: str) -> str:
    """Return what a command prints on stdout when that is a terminal; notes on stderr come first."""
    arguments = [sys.executable, "-m", *shlex.split(command)]
    env = os.environ | {"COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "xterm"}
    ours, theirs = pty.openpty()
    done = subprocess.Popen(arguments, stdout=theirs, stderr=subprocess.PIPE, env=env)
    os.close(theirs)
    printed = _read_all(ours)
    notes = done.stderr.read().decode() if done.stderr else ""
    if done.wait():
        raise SystemExit(notes)
    lines = STYLE.sub("", notes + printed.replace("\r\n", "\n")).splitlines()
    return "\n".join(line.rstrip() for line in lines if line.strip()) + "\n"


def _read_all(descriptor: int) -> str:
    parts = []
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # the other end of a pseudo-terminal is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(descriptor)
    return b"".join(parts).decode()


if __name__ == "__main__":
    main()
