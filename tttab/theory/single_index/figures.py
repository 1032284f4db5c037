"""Panels of the single-index and transformer commands, made from their rows.

What does not belong here: drawing (`plots`), computing rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tttab.theory.plots import Panel, Series, Style

Row = dict[str, Any]


def weak_panels(rows: Sequence[Row]) -> list[Panel]:
    """Return one panel per link and r: alignment against N1 by method, with the random floor."""
    panels = []
    for link, r in _distinct(rows, "link", "r"):
        here = [row for row in rows if (row["link"], row["r"]) == (link, r)]
        lines = _lines(here, "method", "n1", "alignment")
        lines.append(
            Series("E of a random direction", *_xy(here[::4], "n1", "floor"), style="dotted", colour=6)
        )
        title = f"{link}, r = {r} (ie {here[0]['ie']}, ge {here[0]['ge']})"
        panels.append(Panel(title, "N1", "mean |<b, u1>|", lines, log_x=True))
    return panels


def strong_panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the decay of the error, and the steps to the targets that were reached against the two laws."""
    trace = [row for row in rows if row["kind"] == "trace"]
    sampled = [row for row in rows if row["kind"] == "samples" and row["reached"]]
    steps = [row["steps"] for row in trace]
    decay = [
        Series("measured (mean)", steps, [row["error"] for row in trace], "points", 0),
        Series("predicted from 0.1 on", steps, [row["predicted"] for row in trace], "line", 1),
        Series("floor eta(r-1)V/4I", steps, [row["floor"] for row in trace], "dotted", 6),
    ]
    eps = [row["eps"] for row in sampled]
    laws = []
    for colour, name in enumerate(("steps*eps/log(1/eps)", "steps*eps^2") if sampled else ()):
        first = sampled[0][name]
        laws.append(Series(name, eps, [row[name] / first for row in sampled], "line", colour))
        laws.append(Series("", eps, [row[name] / first for row in sampled], "points", colour))
    first_panel = Panel("one constant step size", "online steps", "1 - <b, u>", decay, log_y=True)
    if not sampled:
        return [first_panel]
    label = "relative to the largest eps"
    return [first_panel, Panel("flat: the law holds", "eps", label, laws, log_x=True, log_y=True)]


def pipeline_panels(rows: Sequence[Row]) -> list[Panel]:
    """Return median and mean test error against N, by d and method, with the noise level."""
    panels = []
    for name, title in (("median", "median over tasks"), ("error", "mean over tasks")):
        lines = []
        for colour, (d, method) in enumerate(_distinct(rows, "d", "method")):
            here = [row for row in rows if (row["d"], row["method"]) == (d, method)]
            bars = [row["stderr"] for row in here] if name == "error" else ()
            lines += _line(f"{method}, d = {d}", here, ("n", name), colour, bars)
        noise = [row for row in rows if row["method"] == "ttt" and row["d"] == rows[0]["d"]]
        lines.append(Series("noise", *_xy(noise, "n", "noise_level"), style="dotted", colour=6))
        panels.append(Panel(title, "N", "squared error", lines, log_x=True, log_y=True))
    return panels


def warm_cold_panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the loss against k from the warm and the cold start, with in-context learning as a line."""
    adapted = [row for row in rows if row["k"]]
    lines = []
    for colour, (start,) in enumerate(_distinct(adapted, "start")):
        here = [row for row in adapted if row["start"] == start]
        lines += _line(f"{start} start", here, ("k", "loss"), colour, [row["stderr"] for row in here])
    plain = next((row for row in rows if not row["k"]), None)
    if plain and adapted:
        span = [min(row["k"] for row in adapted), max(row["k"] for row in adapted)]
        lines.append(Series("in context, n rows", span, [plain["loss"]] * 2, "dashed", 2))
        lines.append(Series("best linear, n rows", span, [plain["best_linear"]] * 2, "dotted", 6))
    first = rows[0]
    title = f"{first['model']}, d = {first['d']}, n = {first['n']}"
    return [Panel(title, "k", "loss / E|b|^2", lines, log_x=True, log_y=True)]


DASHES: tuple[Style, ...] = ("line", "dashed", "dashdot")


def context_panels(rows: Sequence[Row]) -> list[Panel]:
    """Return one panel per link shift: the loss against context length, by d and method."""
    panels = []
    for (shift,) in _distinct(rows, "shift"):
        here = [row for row in rows if row["shift"] == shift]
        lines = []
        methods = [method for (method,) in _distinct(here, "method")]
        dims = [d for (d,) in _distinct(here, "d")]
        for d, method in _distinct(here, "d", "method"):
            cell = [row for row in here if (row["d"], row["method"]) == (d, method)]
            colour, style = methods.index(method), DASHES[dims.index(d) % len(DASHES)]
            bars = [row["stderr"] for row in cell]
            lines += _line(f"{method}, d = {d}", cell, ("n", "loss"), colour, bars, style)
        single = [row for row in here if row["method"] == "icl" and row["d"] == here[0]["d"]]
        lines.append(Series("noise", *_xy(single, "n", "noise"), style="dotted", colour=6))
        title = "in distribution" if shift == "none" else f"link shift: {shift}"
        panels.append(Panel(title, "context length", "loss / label power", lines, log_x=True, log_y=True))
    return panels


PANELS: dict[str, Callable[[Sequence[Row]], list[Panel]]] = {
    "weak": weak_panels,
    "strong": strong_panels,
    "single-index": pipeline_panels,
    "transformer A": warm_cold_panels,
    "transformer B": context_panels,
}


def _lines(rows: Sequence[Row], by: str, x: str, y: str) -> list[Series]:
    lines: list[Series] = []
    for colour, (name,) in enumerate(_distinct(rows, by)):
        here = [row for row in rows if row[by] == name]
        lines += _line(str(name), here, (x, y), colour, [row["stderr"] for row in here])
    return lines


def _line(
    label: str,
    rows: Sequence[Row],
    names: tuple[str, str],
    colour: int,
    bars: Sequence[float | None],
    style: Style = "line",
) -> list[Series]:
    x, y = _xy(rows, *names)
    return [Series(label, x, y, style, colour), Series("", x, y, "points", colour, bars)]


def _xy(rows: Sequence[Row], x: str, y: str) -> tuple[list[Any], list[Any]]:
    return [row[x] for row in rows], [row[y] for row in rows]


def _distinct(rows: Sequence[Row], *names: str) -> list[tuple[Any, ...]]:
    return list(dict.fromkeys(tuple(row[name] for name in names) for row in rows))
