"""What must be set before tabpfn is imported: no telemetry, no browser, no folders in the user's home.

What does not belong here: tttab's own settings.
"""

from __future__ import annotations

import os

from tttab.system.files import cache_folder


def prepare() -> None:
    """Set the environment that tabpfn and what it imports read once; what the user has set stays.

    skrub and matplotlib make a folder in the home directory when they are imported: theirs go to the cache.
    """
    cache = cache_folder()
    for name, value in (
        ("TABPFN_DISABLE_TELEMETRY", "1"),
        ("TABPFN_NO_BROWSER", "1"),
        ("SKB_DATA_DIRECTORY", str(cache / "skrub")),
        ("MPLCONFIGDIR", str(cache / "matplotlib")),
    ):
        os.environ.setdefault(name, value)
