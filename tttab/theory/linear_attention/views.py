"""How the rows of the linear experiments are shown: tables by kind, and curves of three sources.

In figures dashed lines are the limit, full lines the exact law, points the measurement with 2 standard
errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tttab.theory.experiment import Row, Table
from tttab.theory.linear_attention.settings import CONVENTIONS
from tttab.theory.plots import Series, column

LOSSES = ("eta", "loss_limit", "loss_exact", "loss_measured", "stderr")
GAINS = ("gain_limit", "gain_exact", "gain_measured", "gain_stderr")
SIZES = ("d", "n", "k", "alpha", "gamma")
POINT = ("experiment", "convention", *SIZES, "init", "noise", *LOSSES, *GAINS, "agrees")
"""The fields of a row of `curves.points`."""
BARS = 2.0
"""Standard errors of an error bar."""


@dataclass(frozen=True)
class Kind:
    """How the rows of one kind are printed."""

    columns: tuple[str, ...]
    title: str = ""
    """Empty: the experiment, the kind, d and the convention."""
    answer: Callable[[Sequence[Row]], str] | None = None
    """From the rows of this kind to the sentence below them."""


def tables_by_kind(kinds: Mapping[str | None, Kind]) -> Callable[[Sequence[Row]], list[Table]]:
    """Return a function from all rows to one table per kind; a kind that is not there is shown as None is."""

    def tables(rows: Sequence[Row]) -> list[Table]:
        parts: dict[str | None, list[Row]] = {}
        for row in rows:
            parts.setdefault(row.get("kind"), []).append(row)
        found = []
        for name, part in parts.items():
            kind, first = kinds.get(name, kinds[None]), part[0]
            label = f"{first['experiment']}: {name}" if name else first["experiment"]
            title = f"{label} · d = {first['d']}, {convention_of(first)}"
            found.append(
                Table(kind.title or title, kind.columns, part, kind.answer(part) if kind.answer else "")
            )
        return found

    return tables


def figure_title(rows: Sequence[Row]) -> str:
    """Return what holds for all panels: experiment, size, convention, noise."""
    row = rows[0]
    noise = f", noise {row['noise']:g}" if row.get("noise") and row["experiment"] != "noise" else ""
    return f"tttab theory {row['experiment']}: d = {row['d']}{noise}\n{convention_of(row)}"


def convention_of(row: Row) -> str:
    """Return the convention of a row in words."""
    name = row["convention"]
    return f"{name}: {CONVENTIONS[name]}"


def law_curves(rows: Sequence[Row], x: str, value: str, label: str, colour: int) -> list[Series]:
    """Return limit, exact law and measurement of `value`, loss or gain, against `x`."""
    error = "stderr" if value == "loss" else "gain_stderr"
    bars = [BARS * row[error] for row in rows]
    places, measured = column(rows, x), column(rows, f"{value}_measured")
    curves = [
        Series(f"{label} limit".strip(), places, column(rows, f"{value}_limit"), "dashed", colour),
        Series(f"{label} exact".strip(), places, column(rows, f"{value}_exact"), "line", colour),
        Series(f"{label} measured".strip(), places, measured, "points", colour, bars),
    ]
    return [series for series in curves if any(y is not None for y in series.y)]


def verdict(rows: Sequence[Row]) -> str:
    """Return how many of the rows that have an exact law agree with it."""
    judged = [row for row in rows if row["agrees"] is not None]
    if not judged:
        return "have no exact law"
    held = sum(row["agrees"] for row in judged)
    return f"{held} of {len(judged)} within 4 standard errors of the exact law"
