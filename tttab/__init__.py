"""tttab: test-time training (TTT) for tabular foundation models.

Public names load on first use, so that `import tttab` and `tttab --help` stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Table": "tttab.core",
    "Session": "tttab.contracts",
    "Rule": "tttab.contracts",
    "Row": "tttab.core",
    "TTTClassifier": "tttab.api.estimator",
    "TTTRegressor": "tttab.api.estimator",
    "TttabError": "tttab.errors",
    "adapt": "tttab.api.calls",
    "advise": "tttab.api.calls",
    "load_bundle": "tttab.bundle",
    "load_table": "tttab.data",
    "open_model": "tttab.models",
    "run": "tttab.api.calls",
    "update": "tttab.api.update",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    """Import a public name from its home module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'tttab' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
