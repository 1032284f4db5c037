"""What must be set before tabpfn is imported: no telemetry, no browser, no folders in the user's home."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

from tttab.system.files import cache_folder

_OURS = "1 (set by tttab)"
"""tabpfn takes any word but 0, false, no and off for yes; this one tells ours from the user's."""


def prepare() -> None:
    """Set the environment that tabpfn and what it imports read once; what the user has set stays.

    skrub and matplotlib make a folder in the home directory when they are imported: theirs go to the cache.
    """
    cache = cache_folder()
    for name, value in (
        ("TABPFN_DISABLE_TELEMETRY", "1"),
        ("TABPFN_NO_BROWSER", _OURS),
        ("SKB_DATA_DIRECTORY", str(cache / "skrub")),
        ("MPLCONFIGDIR", str(cache / "matplotlib")),
    ):
        os.environ.setdefault(name, value)


@contextmanager
def browser_allowed() -> Generator[None]:
    """Let tabpfn open a browser for its log-in, unless the user has set that it must not."""
    ours = os.environ.get("TABPFN_NO_BROWSER") == _OURS
    if ours:
        del os.environ["TABPFN_NO_BROWSER"]
    try:
        yield
    finally:
        prepare()
