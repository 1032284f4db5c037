"""The figure of each linear experiment, from its rows alone.

Dashed lines are the limit, full lines the exact law, points the measurement with 2 standard errors.
What does not belong here: how panels are drawn (`plots`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tttab.theory.plots import Marker, Panel, Series

Row = dict[str, Any]
_BARS = 2.0
_LOSSES = ("loss_limit", "loss_exact", "loss_measured")


def figure_panels(experiment: str, rows: Sequence[Row]) -> list[Panel]:
    """Return the panels of `experiment`, a key of `FIGURES`, from its rows."""
    return FIGURES[experiment](rows)


def figure_title(rows: Sequence[Row]) -> str:
    """Return what holds for all panels: experiment, size, convention, noise."""
    row = rows[0]
    noise = f", noise {row['noise']:g}" if row.get("noise") and row["experiment"] != "noise" else ""
    return f"tttab theory {row['experiment']}: d = {row['d']}, convention {row['convention']}{noise}"


def _phase(rows: Sequence[Row]) -> list[Panel]:
    panels = []
    for alpha in _values(rows, "alpha"):
        here = [row for row in rows if row["alpha"] == alpha]
        series = []
        for colour, init in enumerate(("pretrained", "zero")):
            of_init = [row for row in here if row.get("init") == init]
            series += _three(of_init, "gamma", "loss", init, colour)
        last = [row for row in here if row.get("kind") == "threshold"]
        title = f"alpha = n/d = {alpha:g}"
        panels.append(Panel(title, "gamma = k/d", "loss / |b|²", series, _thresholds(last)))
    return panels


def _thresholds(rows: Sequence[Row]) -> list[Marker]:
    markers = []
    for row in rows:
        low, high = row["interval"] or (None, None)
        found = [
            ("threshold, limit", row["gamma_limit"], "dashed", None, None),
            ("threshold, exact", row["gamma_exact"], "line", None, None),
            ("threshold, measured", row["gamma_measured"], "dotted", low, high),
        ]
        markers += [Marker(name, x, style, 6, lo, hi) for name, x, style, lo, hi in found if x is not None]
    return markers


def _samples(rows: Sequence[Row]) -> list[Panel]:
    loss, gain, equal = [], [], []
    for colour, n in enumerate(_values(rows, "n")):
        here = [row for row in rows if row["n"] == n]
        loss += _three(here, "k", "loss", f"n = {n}", colour)
        gain += _three(here, "k", "gain", f"n = {n}", colour)
        equal.append(Series(f"n = {n}", _column(here, "k"), _column(here, "n_equivalent"), "line", colour))
    return [
        Panel("Loss", "training rows k", "loss / |b|²", loss, log_x=True),
        Panel("Improvement", "training rows k", "improvement / |b|²", gain, log_x=True),
        Panel("Context of equal loss without training", "training rows k", "n'", equal, log_x=True),
    ]


def _context(rows: Sequence[Row]) -> list[Panel]:
    here = [row for row in rows if row.get("kind") != "peak"]
    top = rows[-1]
    markers = [
        Marker("peak, exact", top["n_exact"], "line"),
        Marker("0.87 d^(2/3)", top["n_rule"], "dotted"),
    ]
    series = _three(here, "n", "gain", f"k = {here[0]['k']}", 0)
    return [
        Panel(
            "One step from the pre-trained weights",
            "context rows n",
            "improvement / |b|²",
            series,
            markers,
            True,
        )
    ]


def _noise(rows: Sequence[Row]) -> list[Panel]:
    panels = []
    for where in _values(rows, "where"):
        series = []
        for colour, init in enumerate(("pretrained", "zero")):
            here = [_excess(row) for row in rows if row["where"] == where and row["init"] == init]
            series += _three(here, "noise", "loss", init, colour)
        title = {"both": "Noise in context and training rows"}.get(where, f"Noise in {where} rows alone")
        panels.append(
            Panel(title, "noise variance / |b|²", "(loss - noise of the test label) / |b|²", series)
        )
    return panels


def _excess(row: Row) -> Row:
    """Return the row with the noise of the test label, which no weights can undo, taken off its losses."""
    noise = 0.0 if row["where"] == "training" else row["noise"]
    return {name: value - noise if name in _LOSSES else value for name, value in row.items()}


def _alignment(rows: Sequence[Row]) -> list[Panel]:
    panels, thresholds = [], []
    for colour, family in enumerate(_values(rows, "family")):
        here = [row for row in rows if row["family"] == family and row["init"] == "pretrained"]
        x = _column(here, "alignment")
        series = [*_three(here, "alignment", "gain", "", 0)]
        series.append(Series("A²/(A+B), k >> d", x, _column(here, "a2_over_ab"), "dotted", 1))
        panels.append(Panel(family, "share of b in likely directions", "improvement / b'Sx b", series))
        thresholds.append(Series(f"{family}, limit", x, _column(here, "gamma_limit"), "dashed", colour))
        thresholds.append(Series(f"{family}, exact", x, _column(here, "gamma_exact"), "line", colour))
    title = "Threshold beyond which zero wins (F)"
    panels.append(Panel(title, "share of b in likely directions", "gamma* = k/d", thresholds, log_y=True))
    return panels


def _steps(rows: Sequence[Row]) -> list[Panel]:
    here = [row for row in rows if row.get("kind") != "best"]
    start, single = here[0]["loss_start"], here[0]["loss_measured"]
    plain = [row for row in here if row["steps"] and row["steps"] > 1]
    series = []
    for colour, tuned in enumerate((False, True)):
        chosen = [row for row in plain if row["tuned"] is tuned]
        x = [row["decay"] if row["decay"] is not None else 1.0 for row in chosen]
        y = [None if row["diverged"] else row["loss_measured"] for row in chosen]
        label = "best first step" if tuned else "first step as the single one"
        bars = [
            _BARS * row["stderr"] if value is not None else None for row, value in zip(chosen, y, strict=True)
        ]
        series.append(Series(label, x, y, "points", colour, bars))
        gone = [place for place, value in zip(x, y, strict=True) if value is None]
        series.append(
            Series(f"diverged ({label})" if gone else "", gone, [start] * len(gone), "crosses", colour)
        )
    ends = [min(s for s in [0.2, *series[0].x]), 1.0]
    lines = [("untrained", start, "dotted", 6), ("single step", single, "line", 6)]
    flow = [row["loss_measured"] for row in here if row["schedule"] == "flow"]
    lines += [("gradient flow, best time", value, "dashed", 2) for value in flow]
    series += [Series(label, ends, [y, y], style, colour) for label, y, style, colour in lines]
    return [Panel(f"{plain[0]['steps']} steps", "decay of the step (1: constant)", "loss / |b|²", series)]


def _step_size(rows: Sequence[Row]) -> list[Panel]:
    curve = [row for row in rows if row["kind"] == "curve"]
    same = [row for row in rows if row["kind"] == "same-context"]
    series = [
        *_three(curve, "multiple", "loss", f"convention {curve[0]['convention']}", 0),
        *_three(same, "multiple", "loss", "F's step, same context", 1),
    ]
    marks = [row for row in rows if row["kind"] == "choice"]
    choices = [Series(row["rule"], [i], [row["lost_share"]], "points", i) for i, row in enumerate(marks)]
    zero = Series("the best step", [0, len(marks) - 1], [0, 0], "dotted", 6)
    return [
        Panel("The loss as a function of the step", "step / best step", "loss / |b|²", series),
        Panel("What a rule for the step loses", "rule", "lost share of the improvement", [zero, *choices]),
    ]


def _three(rows: Sequence[Row], x: str, value: str, label: str, colour: int) -> list[Series]:
    """Return limit (dashed), exact law (line) and measurement (points) of `value` against `x`."""
    error = "stderr" if value == "loss" else "gain_stderr"
    bars = [_BARS * row[error] for row in rows]
    places = _column(rows, x)
    made = [
        Series(f"{label} limit".strip(), places, _column(rows, f"{value}_limit"), "dashed", colour),
        Series(f"{label} exact".strip(), places, _column(rows, f"{value}_exact"), "line", colour),
        Series(
            f"{label} measured".strip(), places, _column(rows, f"{value}_measured"), "points", colour, bars
        ),
    ]
    return [series for series in made if any(y is not None for y in series.y)]


def _column(rows: Sequence[Row], name: str) -> list[Any]:
    return [row.get(name) for row in rows]


def _values(rows: Sequence[Row], name: str) -> list[Any]:
    """Return the different values of a field in the order they come."""
    return list(dict.fromkeys(row[name] for row in rows))


FIGURES: dict[str, Callable[[Sequence[Row]], list[Panel]]] = {
    "phase": _phase,
    "samples": _samples,
    "context": _context,
    "alignment": _alignment,
    "steps": _steps,
    "noise": _noise,
    "step-size": _step_size,
}
