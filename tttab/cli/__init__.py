"""The terminal: the only part of tttab that knows typer and rich.

`main` runs the command and turns every exception into one line, a hint and an exit code. The codes:
0 done, 1 ran but the answer is bad, 2 the request was wrong, 3 a bug, 130 interrupted. A reader of
our pipe that goes away (`tttab … | head`) ends the command quietly with 0.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress

ISSUES = "please report it, with the output of TTTAB_DEBUG=1 in front of the same command"
SWITCHES = ("TTTAB_DEBUG", "TTTAB_OFFLINE")
"""Our environment variables that are on or off."""


def main(argv: list[str] | None = None) -> None:
    """Run `tttab` with `argv` (default: the process's own arguments) and exit."""
    from tttab.cli import streams
    from tttab.system.resources import yield_cores

    yield_cores()
    streams.open_closed()
    streams.clean_libraries()
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Run one command and return its exit code."""
    from tttab.cli import invocation, streams
    from tttab.cli.app import app
    from tttab.system.files import switch

    invocation.words[:] = argv
    standard = sys.stdout, sys.stderr
    streams.tolerate(sys.stdout)
    debug = False
    try:
        debug, _ = (switch(name) for name in SWITCHES)  # a word that is neither ends before any work
        answer = app(argv, prog_name="tttab", standalone_mode=False)
        sys.stdout.flush()
        if answer == 130:  # typer has turned Ctrl-C into this number
            raise KeyboardInterrupt
        return answer if isinstance(answer, int) else 0
    except BaseException as error:
        sys.stdout, sys.stderr = standard  # typer wraps both where a pipe's reader went away
        return _explain(error, debug)
    finally:
        streams.mute_broken()


def _beneath(error: BaseException) -> BaseException:
    """Return what happened where typer has put an exception of its own in its place."""
    from typer import Abort

    if isinstance(error, Abort) and isinstance(error.__cause__, EOFError):
        return error.__cause__  # typer takes any end of a file for Ctrl-D at a prompt
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
        return error.__context__
    return error


def _explain(error: BaseException, debug: bool) -> int:
    """Print why the command failed and return its exit code."""
    from tttab.cli import output, streams

    if streams.reader_gone(error):
        return 0
    error = _beneath(error)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    message, hint, code = _message_of(error)
    with suppress(OSError, SystemExit):  # stderr may be full or without a reader: the exit code still speaks
        if debug and code in (1, 2, 3):
            sys.stderr.write(_traceback(error))
        if message:
            output.fail(message, hint)
    return code


def _message_of(error: BaseException) -> tuple[str, str, int]:
    """Return (message, hint, exit code)."""
    from typer import Abort, TyperException

    from tttab.errors import TttabError
    from tttab.system.resources import is_out_of_memory
    from tttab.text import shown

    match error:
        case TttabError():
            return error.message, error.hint, error.exit_code
        case TyperException() if type(error).__name__ == "NoArgsIsHelpError":
            return "", "", 0  # the help has been printed: a command group alone is a question, not a mistake
        case TyperException():
            return error.format_message(), _usage_hint(error), 2
        case KeyboardInterrupt() | Abort():
            return "interrupted", "", 130
        case RuntimeError() if is_out_of_memory(error) and "can't allocate" not in str(error):
            return f"the device has too little memory: {shown(error, 120)}", "--device cpu", 2
        case _ if is_out_of_memory(error):
            return "there is not enough memory", "a smaller --max-memory, or fewer other processes", 2
        case OSError():
            return str(error), "check the path, its permissions and the free disk space", 2
        case _:
            return f"internal error: {type(error).__name__}: {error}", ISSUES, 3


def _usage_hint(error: Exception) -> str:
    from tttab.text import shell_word

    context = getattr(error, "ctx", None)
    if context is None:
        return "tttab --help"
    extra = re.search(r"unexpected extra argument\(s\) \((.+)\)", str(error))
    if extra and any("--dataset" in parameter.opts for parameter in context.command.params):
        return f"{context.command_path} --dataset {shell_word(extra[1])}"
    return f"{context.command_path} --help"


def _traceback(error: BaseException) -> str:
    """Return Python's traceback with its chain, without secrets and without what drives a terminal."""
    import traceback

    from tttab.text import visible, without_secrets

    found = traceback.TracebackException.from_exception(error)
    found.__notes__ = None  # type: ignore[attr-defined]  # the hint comes below, once
    lines = without_secrets("".join(found.format())).split("\n")
    return "\n".join(map(visible, lines))
