"""Commands in a copy of this process, which spares the seconds that a process of its own takes to import."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import TextIO


@dataclass
class Copy:
    """A running copy."""

    process: BaseProcess
    stdout: TextIO
    stderr: TextIO

    def end(self, number: int = 0, seconds: float = 60) -> tuple[int, str, str]:
        """Send a signal; return the exit code and what had not been read of its streams.

        After so many seconds the copy is killed.
        """
        os.kill(self.process.pid, number)
        limit = threading.Timer(seconds, self.process.kill)
        limit.start()
        with self.stdout, self.stderr:
            out, err = self.stdout.read(), self.stderr.read()
        self.process.join()
        limit.cancel()
        return self.process.exitcode, out, err


def forked(ask, *, stdout=None):
    """Start a copy that calls `ask` and ends with the code it returns; it writes to pipes, or to `stdout`."""
    pipes = [os.pipe(), os.pipe()]
    ends = [stdout or pipes[0][1], pipes[1][1]]
    process = multiprocessing.get_context("fork").Process(target=_run, args=(ask, *ends), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about other threads: no copy needs them
        process.start()
    for _, end in pipes:
        os.close(end)
    return Copy(process, *(os.fdopen(read, encoding="utf-8") for read, _ in pipes))


def typed(*words):
    """Return a call of `tttab` for `forked`, as the shell makes it."""
    from tttab.cli import main

    return lambda: main([*map(str, words)])


def _run(ask, *ends):
    from tttab.cli import output

    for number, end in enumerate(ends, 1):
        os.dup2(end, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    output.stdout.cache_clear()
    output.stderr.cache_clear()
    code = ask()
    sys.stdout.flush()
    sys.exit(code)
