"""The process's standard streams: closed ones, those whose reader went away, encodings, secrets.

What does not belong here: what is printed (`console`).
"""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from typing import Any, TextIO

from tttab.text import without_secrets


class Discreet:
    """A text stream that cuts secrets from whatever is written to it, by us or by a library."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text` without its secrets."""
        self._stream.write(without_secrets(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write every line without its secrets."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_closed() -> None:
    """Open the null device in place of standard streams that are closed (`>&-`).

    Else the next file that is opened would get the stream's number, and what is printed would go into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def tolerate(stream: TextIO) -> None:
    """Let `?` stand for characters that the stream's encoding lacks, instead of failing."""
    with suppress(AttributeError, ValueError):  # no stream of the process's, or a closed one
        stream.reconfigure(errors="replace")  # type: ignore[attr-defined]


def broken(stream: TextIO) -> bool:
    """Tell whether the reader of a stream went away; a stream that is no file counts as broken."""
    try:
        watch = select.poll()
        watch.register(stream.fileno(), 0)
        return bool(watch.poll(0))
    except (OSError, ValueError, AttributeError):
        return True


def mute_broken() -> None:
    """Point streams that can no longer be written at nothing, so that the end of the process is quiet."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            with suppress(OSError, ValueError, AttributeError), open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), stream.fileno())
