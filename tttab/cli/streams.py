"""The process's standard streams: closed ones, those whose reader went away, encodings, secrets."""

from __future__ import annotations

import codecs
import logging
import os
import select
import sys
import traceback
import warnings
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, TextIO, cast

from tttab.text import shown, without_secrets

_SIGNS = {"…": "...", "·": "-", "≥": ">=", "≤": "<=", "→": "->", "─": "-", "━": "-", "²": "2"}
"""How signs in our own output are written where an encoding lacks them."""


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


class _OneLine(logging.Formatter):
    """Log lines as one line that drives no terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(record.getMessage())  # without the traceback that a library may have logged with it


def clean_libraries() -> None:
    """Have what libraries print on stderr, warn of and log pass `tttab.text`, for the rest of the process."""
    sys.stderr = Discreet(sys.stderr)  # type: ignore[assignment]
    warnings.showwarning = _warn  # ty: ignore[invalid-assignment] a function of the module, which may be replaced
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_OneLine())


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    from tttab.cli import output

    output.warn(f"{category.__name__}: {message}")


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
    """Have characters that the stream's encoding lacks written in ASCII, instead of failing.

    Signs of ours become their like (`...`), others their escapes (`\\u306f`), so that names stay apart.
    """
    codecs.register_error("tttab", _in_ascii)
    with suppress(AttributeError, ValueError):  # no stream of the process's, or a closed one
        cast(TextIOWrapper, stream).reconfigure(errors="tttab")


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError) and (like := _SIGNS.get(error.object[error.start])):
        return like, error.start + 1
    return codecs.backslashreplace_errors(error)


def reader_gone(error: BaseException) -> bool:
    """Tell whether a command ended because a reader of its output went away (`tttab … | head`).

    rich has then pointed stdout at nothing already; typer says the same of every broken pipe, also of one
    between processes, so there the streams themselves are asked.
    """
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        return frame.f_code.co_name == "on_broken_pipe" or reader_gone(error.__context__)
    return isinstance(error, BrokenPipeError) and any(map(broken, (sys.stdout, sys.stderr)))


def broken(stream: TextIO) -> bool:
    """Tell whether the reader of a stream went away."""
    try:
        watch = select.poll()
        watch.register(stream.fileno(), 0)
        return bool(watch.poll(0))
    except (OSError, ValueError, AttributeError):  # no file, or a system without poll
        return False


def mute_broken() -> None:
    """Point streams that can no longer be written at nothing, so that the end of the process is quiet."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            with suppress(OSError, ValueError, AttributeError), open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), stream.fileno())
