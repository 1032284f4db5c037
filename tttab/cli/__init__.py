"""The terminal: the only part of tttab that knows typer and rich.

`main` runs the command and turns every exception into one line, a hint and an exit code:
0 done, 1 ran but the answer is bad, 2 the request was wrong, 3 a bug, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback

ISSUES = "please report it, with the output of TTTAB_DEBUG=1 in front of the same command"
SWITCHES = ("TTTAB_DEBUG", "TTTAB_OFFLINE")
"""Our environment variables that are on or off."""


def main(argv: list[str] | None = None) -> None:
    """Run `tttab` with `argv` (default: the process's own arguments) and exit."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Run one command and return its exit code."""
    from tttab.cli import typed
    from tttab.cli.app import app
    from tttab.files import switch

    typed.words[:] = argv
    debug = False
    try:
        debug, _ = (switch(name) for name in SWITCHES)  # a word that is neither ends before any work
        answer = app(argv, prog_name="tttab", standalone_mode=False)
        sys.stdout.flush()
        if answer == 130:  # typer has turned Ctrl-C into this number
            raise KeyboardInterrupt
        return answer if isinstance(answer, int) else 0
    except BaseException as error:
        if debug and not isinstance(error, SystemExit | KeyboardInterrupt):
            traceback.print_exc()
        return _explain(error)


def _explain(error: BaseException) -> int:
    from typer import Abort, TyperException

    from tttab.errors import TttabError

    match error:
        case SystemExit():
            return error.code if isinstance(error.code, int) else 1
        case TttabError():
            return _say(error.message, error.hint, error.exit_code)
        case TyperException() if type(error).__name__ == "NoArgsIsHelpError":
            return 0  # the help has been printed: a command group alone is a question, not a mistake
        case TyperException():
            return _say(error.format_message(), _usage_hint(error), 2)
        case KeyboardInterrupt() | Abort():
            return _say("interrupted", "", 130)
        case BrokenPipeError():
            # The reader of our pipe went away (`tttab … | head`): point stdout at nothing and stop quietly.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        case OSError():
            return _say(str(error), "check the path, its permissions and the free disk space", 2)
        case _:
            return _say(f"internal error: {type(error).__name__}: {error}", ISSUES, 3)


def _usage_hint(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path} --help" if context is not None else "tttab --help"


def _say(message: str, hint: str, code: int) -> int:
    from tttab.cli.console import stderr

    first = " ".join(message.split())
    stderr().print(f"[bold red]error:[/] {_plain(first)}", soft_wrap=True, highlight=False)
    if hint:
        stderr().print(f"[dim]hint:[/] {_plain(hint)}", soft_wrap=True, highlight=False)
    return code


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
