"""What the shell completes: names of data sets, models and rules, without loading anything heavy."""

from __future__ import annotations


def datasets(incomplete: str) -> list[str]:
    """Return the known data sets that begin like `incomplete`."""
    from tttab.data import names

    return [name for name in names() if name.lower().startswith(incomplete.lower())]


def suites(incomplete: str) -> list[str]:
    """Return the suites of data sets that begin like `incomplete`."""
    from tttab.data import suite_names

    return [name for name in suite_names() if name.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Return the known models that begin like `incomplete`."""
    from tttab.models import names

    return [name for name in names() if name.startswith(incomplete)]


def rules(incomplete: str) -> list[str]:
    """Return the rules that begin like `incomplete`."""
    from tttab.rules import RULES

    return [name for name in RULES if name.startswith(incomplete)]


def metrics(incomplete: str) -> list[str]:
    """Return the metrics that begin like `incomplete`."""
    from tttab.metrics import METRICS

    return [name for name in METRICS if name.startswith(incomplete)]
