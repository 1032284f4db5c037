"""The report's charts: curves per table, effective context, accuracy against log loss, cost against gain.

What does not belong here: how SVG is written (see `tttab.report.svg`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tttab.bench.grid import ICL, ICL_ALL, TTT, Grid
from tttab.bench.statistics import Interval, seed_interval
from tttab.bench.summary import Effect, Pair, Summary
from tttab.bench.tables import NAMES, context_text
from tttab.report.svg import Axis, Chart, span

KINDS = {ICL: "icl", TTT: "ttt", ICL_ALL: "all"}
Curve = dict[int, Interval]
WIDE, TALL = 556, 340


def curve_charts(summary: Summary, table: str) -> list[str]:
    """Return one chart per metric: icl and ttt along n with 95 % intervals over seeds."""
    return [_curve_chart(summary.grid, table, metric) for metric in summary.metrics]


def effective_chart(summary: Summary, metric: str) -> str:
    """Return n (plain) to n' (adapted) for every table at the reference n; an arrow marks a censored end."""
    effects = sorted(
        (e for e in summary.effects[metric] if e.n == summary.reference_n), key=lambda e: e.ratio
    )
    reach = [e.context.rows for e in effects] + [float(summary.reference_n)]
    ticks = tuple(n for n in (10, 20, 50, 100, 200, 400, 1000, 2000, 5000, 10_000) if n <= 1.5 * max(reach))
    chart = Chart(
        f"Effective context by {NAMES[metric]}, n = {summary.reference_n}",
        Axis("context rows (log)", min(reach) / 2.2, max(reach) * 2.5, "log", ticks),
        Axis("", -0.7, len(effects) - 0.3, ticks=tuple(range(len(effects)))),
        width=WIDE,
        height=90 + 26 * len(effects),
        left=170,
        names=[e.table + (" (saturated)" if e.saturated else "") for e in effects],
    )
    for place, found in enumerate(effects):
        _draw_effect(chart, place, found)
    return chart.svg()


def trade_chart(summary: Summary) -> str | None:
    """Return change of point error against change of the distribution's, a dot per table."""
    if len(summary.metrics) != 2:
        return None
    changes = {m: {p.table: p for p in _at_reference(summary, m)} for m in summary.metrics}
    first, second = (changes[m] for m in summary.metrics)
    tables = sorted(first.keys() & second.keys())
    xs, ys = ([side[t].difference.estimate for t in tables] for side in (first, second))
    chart = _plane(
        f"ttt - icl at n = {summary.reference_n}: lower left is better on both",
        (f"change of {NAMES[summary.metrics[0]]}", xs),
        (f"change of {NAMES[summary.metrics[1]]}", ys),
    )
    for table, x, y in zip(tables, xs, ys, strict=True):
        chart.point(x, y, "ttt", f"{table}: {x:+.4f}, {y:+.4f}", radius=4.5)
    _spread_labels(chart, list(zip(tables, xs, ys, strict=True)))
    return chart.svg()


def cost_chart(summary: Summary, metric: str) -> str | None:
    """Return mean gain over icl against mean seconds to adapt, a dot per trained arm with its interval."""
    arms = [arm for arm in summary.arms[metric] if arm.adapt_seconds > 0 and not math.isnan(arm.error)]
    if not arms:
        return None
    seconds = [arm.adapt_seconds for arm in arms]
    gains = [bound for arm in arms for bound in (-arm.difference.low, -arm.difference.high)]
    low, high = span([*gains, *(-arm.difference.estimate for arm in arms)], around=0.0)
    chart = Chart(
        f"Gain in {NAMES[metric]} over icl@{summary.reference_n} against cost",
        Axis("seconds to adapt, mean over tables (log)", min(seconds) / 1.6, max(seconds) * 3, "log"),
        Axis("gain (higher is better)", low, high),
        width=WIDE,
        height=TALL,
        left=64,
    )
    chart.line([chart.x.low, chart.x.high], [0, 0], "zero")
    for arm in arms:
        gap, kind = arm.difference, KINDS.get(arm.name, "other")
        if not math.isnan(gap.low):
            chart.line([arm.adapt_seconds] * 2, [-gap.low, -gap.high], kind)
        chart.point(arm.adapt_seconds, -gap.estimate, kind, f"{arm.name}: {-gap.estimate:+.4f}", radius=4.5)
    _spread_labels(chart, [(arm.name, arm.adapt_seconds, -arm.difference.estimate) for arm in arms])
    return chart.svg()


def _curve_chart(grid: Grid, table: str, metric: str) -> str:
    curves = {arm: _curve(grid, table, arm, metric) for arm in KINDS}
    shown = _shown([interval for curve in curves.values() for interval in curve.values()])
    ns = sorted({n for arm in (ICL, TTT) for n in curves[arm]}) or [1]
    low, high = span(shown)
    chart = Chart(
        f"{table}: {NAMES[metric]}",
        Axis("context rows n (log)", ns[0] / 1.15, ns[-1] * 1.15, "log", tuple(ns)),
        Axis("", low if low > 0 or min(shown, default=0) < 0 else 0.0, high),
        width=WIDE,
        height=250,
    )
    for arm, kind in KINDS.items():
        _draw_curve(chart, curves[arm], kind, arm)
    return chart.svg()


def _shown(intervals: Sequence[Interval]) -> list[float]:
    """Return what the y axis must hold: estimates, and bounds as far as the estimates spread twice."""
    estimates = [interval.estimate for interval in intervals]
    low, high = min(estimates, default=0.0), max(estimates, default=1.0)
    reach = 0.5 * (high - low) or 0.1 * high
    bounds = [bound for i in intervals for bound in (i.low, i.high) if not math.isnan(bound)]
    return estimates + [min(max(bound, low - reach), high + reach) for bound in bounds]


def _curve(grid: Grid, table: str, arm: str, metric: str) -> Curve:
    found = {n: list(grid.errors(table, arm, n, metric).values()) for n in grid.ns(table, arm)}
    return {n: seed_interval(values) for n, values in found.items() if values}


def _draw_curve(chart: Chart, curve: Curve, kind: str, arm: str) -> None:
    ns = list(curve)
    if arm == ICL_ALL and len(ns) == 1:
        level = curve[ns[0]].estimate
        chart.line([chart.x.low, chart.x.high], [level, level], kind)
    known = [n for n in ns if not math.isnan(curve[n].low)]
    if len(known) > 1 and kind != "all":
        lows, highs = ([_clip(chart, getattr(curve[n], side)) for n in known] for side in ("low", "high"))
        chart.band(known, lows, highs, kind)
    chart.line(ns, [curve[n].estimate for n in ns], kind)
    for n in ns:
        tip = f"{arm}, n = {n:,}: {curve[n].estimate:.4f}"
        chart.point(n, curve[n].estimate, kind, tip, radius=2.5 if len(ns) > 1 else 5)


def _clip(chart: Chart, value: float) -> float:
    return min(max(value, chart.y.low), chart.y.high)


def _draw_effect(chart: Chart, place: int, found: Effect) -> None:
    end = found.context.rows
    chart.line([found.n, end], [place, place], "ttt")
    chart.point(found.n, place, "icl", f"{found.table}: n = {found.n}", radius=4)
    words = f"{context_text(found.context)} ({found.ratio:.1f}x)"
    chart.point(end, place, "ttt", f"{found.table}: n' = {words}", radius=4.5)
    if found.context.censored:
        chart.arrow(end, place, "ttt", to_left=found.context.censored == "below")
    away = 14 if found.context.censored else 8
    chart.text(end, place, words, dx=-away if end < found.n else away)


def _at_reference(summary: Summary, metric: str) -> list[Pair]:
    return [p for p in summary.pairs if p.metric == metric and p.n == summary.reference_n]


def _plane(title: str, x: tuple[str, Sequence[float]], y: tuple[str, Sequence[float]]) -> Chart:
    (x_low, x_high), (y_low, y_high) = span(x[1], around=0.0, share=0.12), span(y[1], around=0.0, share=0.12)
    chart = Chart(
        title, Axis(x[0], x_low, x_high), Axis(y[0], y_low, y_high), width=WIDE, height=TALL, left=64
    )
    chart.line([0, 0], [y_low, y_high], "zero")
    chart.line([x_low, x_high], [0, 0], "zero")
    return chart


def _spread_labels(chart: Chart, points: Sequence[tuple[str, float, float]]) -> None:
    """Label points so that names do not cover each other: the later of two close ones moves down."""
    taken: list[tuple[float, float]] = []
    for name, x, y in sorted(points, key=lambda p: -p[2]):
        a, b = chart.at(x, y)
        to_left = a > chart.width - 130
        down = 3.0
        while any(abs(b + down - other) < 11 and abs(a - across) < 90 for across, other in taken):
            down += 4
        taken.append((a, b + down))
        chart.text(x, y, name, dx=-8 if to_left else 8, dy=down)
