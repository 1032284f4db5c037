"""Ending cleanly: SIGTERM and SIGHUP become exceptions, so that half-written files are removed.

Python itself makes an exception of Ctrl-C.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def ended_cleanly() -> Generator[None]:
    """Leave through `finally` when a signal ends the process, with the shell's exit code, 128 + its number.

    A signal that is ignored (nohup) or handled already stays so, and so do all outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, _leave)
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _leave(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not break the clearing up
    raise SystemExit(128 + number)
