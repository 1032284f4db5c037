"""The report's figures: curves per table, effective context, accuracy against log loss, cost against gain.

`tttab.report.figures` says how every figure looks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tttab.bench.grid import Grid
from tttab.bench.statistics import Interval, seed_interval
from tttab.bench.summary import Effect, Pair, Summary
from tttab.bench.tables import NAMES, context_text
from tttab.evaluation.result import ICL, ICL_ALL, TTT
from tttab.report.figures import COLOURS, SOFT, label_log_axis, on_page, text_of, tip

if TYPE_CHECKING:
    import numpy as np
    from markupsafe import Markup
    from matplotlib.axes import Axes

SERIES = {ICL: 0, TTT: 1, ICL_ALL: 2}
OTHER = 3
LEGEND = (
    (SERIES[ICL], False, f"{ICL}: pretrained model"),
    (SERIES[TTT], False, f"{TTT}: adapted, reading the same n rows"),
    (SERIES[ICL_ALL], True, f"{ICL_ALL}: pretrained, reading all labelled rows"),
    (OTHER, False, "other arms"),
    (6, False, "bands and upright lines: 95 % intervals"),
)
"""Number of the colour, whether dashed, words."""
Curve = dict[int, Interval]
Box = tuple[float, float, float]
Point = tuple[str, float, float]
"""Name, cost, error."""
_DOWN = (0, 12, -12, 24, -24, 36, -36, 48, -48)
"""How far below its point a label is tried, pixels, the nearest first."""
WIDE, TALL = 556, 340
LONGEST_NAME = 26
ROOM, WIDEST_TICK = 120, 44
"""Pixels for the words beside a line of the effective context, and for a tick's label."""


def effective_charts(summary: Summary) -> Iterator[Markup]:
    """Yield a chart per metric: n (plain) to n' (adapted) for every table at the reference n."""
    for metric in summary.drawn:
        effects = sorted(
            (e for e in summary.effects[metric] if e.n == summary.reference_n), key=lambda e: e.ratio
        )
        if effects:
            title = f"Effective context by {NAMES[metric]}, n = {summary.reference_n}"
            height = 96 + 26 * len(effects)
            yield on_page(title, WIDE, height, lambda axes, shown=effects: _effects(axes, shown), left=200)


def curve_charts(summary: Summary) -> Iterator[Markup]:
    """Yield a chart per table and metric: icl and ttt along n with 95 % intervals over seeds."""
    for table in summary.grid.tables:
        for metric in summary.drawn:
            yield _curve_chart(summary.grid, table, metric)


def arm_charts(summary: Summary) -> Iterator[Markup]:
    """Yield the change of the point error against the distribution's, then cost against gain per metric."""
    changes = [_changes(summary, metric) for metric in summary.drawn]
    if len(changes) == 2 and (tables := sorted(changes[0].keys() & changes[1].keys())):
        title = f"ttt - icl at n = {summary.reference_n}: lower left is better on both"
        points = [(table, changes[0][table], changes[1][table]) for table in tables]
        names = [f"change of {NAMES[metric]}" for metric in summary.drawn]
        yield on_page(title, WIDE, TALL, lambda axes: _trade(axes, points, names), left=64)
    yield from filter(None, (_cost_chart(summary, metric) for metric in summary.drawn))


def front_charts(summary: Summary) -> Iterator[Markup]:
    """Yield per metric the error against rows read and against latency: the front is a line."""
    for metric in summary.drawn:
        arms = [arm for arm in summary.arms[metric] if not math.isnan(arm.error)]
        n, curve = summary.reference_n, _mean_curve(summary, metric)
        rows: list[Point] = [(arm.name, arm.rows, arm.error) for arm in arms]
        rows += [(f"{ICL}, n = {size:,}", float(size), error) for size, error in curve.items() if size != n]
        times: list[Point] = [(arm.name, arm.predict_ms, arm.error) for arm in arms]
        for words, points in (("context rows read", rows), ("ms per 1,000 predictions", times)):
            known = [point for point in points if not math.isnan(point[1])]
            if len(known) > 1:
                title = f"{NAMES[metric].capitalize()} against {words}, arms at n = {n}"
                fill = partial(_front, points=known, label=f"{words}, mean over tables (log)")
                yield on_page(title, WIDE, TALL, fill, left=64)


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other has at most the cost and less of the error of, cheapest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point[1], point[2])):
        if not kept or point[2] < kept[-1][2]:
            kept.append(point)
    return kept


def _mean_curve(summary: Summary, metric: str) -> dict[int, float]:
    """Return plain icl's error by n, mean over tables, where every table has it."""
    grid = summary.grid
    found: dict[int, float] = {}
    for n in sorted({n for table in grid.tables for n in grid.ns(table, ICL)}):
        errors = [list(grid.errors(table, ICL, n, metric).values()) for table in grid.tables]
        if all(errors):
            found[n] = sum(sum(values) / len(values) for values in errors) / len(errors)
    return found


def _front(axes: Axes, *, points: Sequence[Point], label: str) -> None:
    """Draw the points and, as a stair, those not beaten; what costs nothing stands leftmost."""
    costs = [cost for _, cost, _ in points if cost > 0] or [1.0]
    none = min(costs) / 3
    placed = [(name, cost if cost > 0 else none, error) for name, cost, error in points]
    free = any(cost == 0 for _, cost, _ in points)
    _log_x(axes, (none if free else min(costs)) / 1.6, max(costs) * 3, label)
    if free:
        axes.set_xticks(
            [none, *axes.get_xticks()], ["0", *(tick.get_text() for tick in axes.get_xticklabels())]
        )
    axes.set_ylim(*span([error for *_, error in points], share=0.12))
    axes.set_ylabel("error (lower is better)")
    best = front(placed)
    axes.step([cost for _, cost, _ in best], [error for *_, error in best], where="post", color=SOFT, lw=1.5)
    for name, cost, error in placed:
        arm = name.partition(",")[0]
        _dot(axes, cost, error, SERIES.get(arm, OTHER), f"{name}: {error:.4f}", size=5 if "," in name else 8)
    _spread_labels(axes, [point for point in placed if "," not in point[0]], line=None)


def _effects(axes: Axes, effects: Sequence[Effect]) -> None:
    """Draw a line per table; an arrow head marks a censored end."""
    low, high = _reach(axes, effects)
    _log_x(axes, low, high, "context rows (log)")
    names = [_with_mark(e.table, " (saturated)" * e.saturated) for e in effects]
    axes.set_yticks(range(len(effects)), names)
    axes.set_ylim(-0.7, len(effects) - 0.3)
    axes.tick_params(axis="y", length=0)
    for place, found in enumerate(effects):
        end, censored = found.context.rows, found.context.censored
        words = f"{context_text(found.context)} ({found.ratio:.1f}x)"
        axes.plot([found.n, end], [place, place], color=COLOURS[SERIES[TTT]], lw=2)
        _dot(axes, found.n, place, SERIES[ICL], f"{found.table}: n = {found.n}", size=7)
        _dot(axes, end, place, SERIES[TTT], f"{found.table}: n' = {words}", size=8)
        outwards = -1 if _leftwards(found) else 1
        if censored:
            _beside(axes, end, place, "◀" if outwards < 0 else "▶", 6 * outwards, color=COLOURS[SERIES[TTT]])
        _beside(axes, end, place, words, (17 if censored else 8) * outwards)


def _leftwards(found: Effect) -> bool:
    return found.context.rows < found.n or found.context.censored == "below"


def _reach(axes: Axes, effects: Sequence[Effect]) -> tuple[float, float]:
    """Return the ends of the x axis, with room for the words outside the lines."""
    ends = [bound for e in effects for bound in (e.context.rows, e.n)]
    left, right = (ROOM if any(_leftwards(e) == side for e in effects) else 24 for side in (True, False))
    per_pixel = (math.log(max(ends) / min(ends)) or 1.0) / (axes.bbox.width - left - right)
    return min(ends) * math.exp(-left * per_pixel), max(ends) * math.exp(right * per_pixel)


def _with_mark(name: str, mark: str) -> str:
    return text_of(name, LONGEST_NAME + 4 - len(mark)) + mark


def _trade(axes: Axes, points: Sequence[tuple[str, float, float]], names: Sequence[str]) -> None:
    _plane(axes, [x for _, x, _ in points], [y for _, _, y in points])
    axes.axvline(0, color=SOFT, lw=1, ls="--")
    axes.set(xlabel=names[0], ylabel=names[1])
    for table, x, y in points:
        _dot(axes, x, y, SERIES[TTT], f"{table}: {x:+.4f}, {y:+.4f}")
    _spread_labels(axes, points)


def _cost_chart(summary: Summary, metric: str) -> Markup | None:
    """Return mean gain over icl against mean seconds to adapt, a dot per trained arm with its interval."""
    arms = [arm for arm in summary.arms[metric] if arm.adapt_seconds > 0 and not math.isnan(arm.error)]

    def fill(axes: Axes) -> None:
        bounds = [-bound for arm in arms for bound in (arm.difference.low, arm.difference.high)]
        seconds = [arm.adapt_seconds for arm in arms]
        _plane(axes, (), [*bounds, *(-arm.difference.estimate for arm in arms)])
        _log_x(axes, min(seconds) / 1.6, max(seconds) * 3, "seconds to adapt, mean over tables (log)")
        axes.set_ylabel("gain (higher is better)")
        for arm in arms:
            gap, series = arm.difference, SERIES.get(arm.name, OTHER)
            axes.plot([arm.adapt_seconds] * 2, [-gap.low, -gap.high], color=COLOURS[series], lw=1.5)
            _dot(axes, arm.adapt_seconds, -gap.estimate, series, f"{arm.name}: {-gap.estimate:+.4f}")
        _spread_labels(axes, [(arm.name, arm.adapt_seconds, -arm.difference.estimate) for arm in arms])

    title = f"Gain in {NAMES[metric]} over icl@{summary.reference_n} against cost"
    return on_page(title, WIDE, TALL, fill, left=64) if arms else None


def _curve_chart(grid: Grid, table: str, metric: str) -> Markup:
    curves = {arm: _curve(grid, table, arm, metric) for arm in SERIES}

    def fill(axes: Axes) -> None:
        ns = sorted({n for arm in (ICL, TTT) for n in curves[arm]}) or [1]
        shown = _shown([interval for curve in curves.values() for interval in curve.values()])
        low, high = span(shown)
        axes.set_ylim(low if low > 0 or min(shown, default=0) < 0 else 0.0, high)
        axes.set(xscale="log", xlim=(ns[0] / 1.15, ns[-1] * 1.15), xlabel="context rows n (log)")
        _label_x(axes, ns)
        for arm, series in SERIES.items():
            _draw_curve(axes, curves[arm], series, arm)

    return on_page(f"{table}: {NAMES[metric]}", WIDE, 260, fill)


def _draw_curve(axes: Axes, curve: Curve, series: int, arm: str) -> None:
    ns, colour, line = list(curve), COLOURS[series], "--" if arm == ICL_ALL else "-"
    if arm == ICL_ALL and len(ns) == 1:
        axes.axhline(curve[ns[0]].estimate, color=colour, lw=2, ls=line)
    known = [n for n in ns if not math.isnan(curve[n].low)]
    if len(known) > 1 and arm != ICL_ALL:
        lows, highs = [curve[n].low for n in known], [curve[n].high for n in known]
        axes.fill_between(known, lows, highs, color=colour, alpha=0.16, lw=0)
    axes.plot(ns, [curve[n].estimate for n in ns], color=colour, lw=2, ls=line)
    for n in ns:
        words = f"{arm}, n = {n:,}: {curve[n].estimate:.4f}"
        _dot(axes, n, curve[n].estimate, series, words, size=5 if len(ns) > 1 else 9)


def _curve(grid: Grid, table: str, arm: str, metric: str) -> Curve:
    found = {n: list(grid.errors(table, arm, n, metric).values()) for n in grid.ns(table, arm)}
    overlap = {n: grid.overlap(table, arm, n) for n in found}
    return {n: seed_interval(values, overlap[n]) for n, values in found.items() if values}


def _shown(intervals: Sequence[Interval]) -> list[float]:
    """Return what the y axis must hold: estimates, and bounds as far as the estimates spread twice."""
    estimates = [interval.estimate for interval in intervals]
    low, high = min(estimates, default=0.0), max(estimates, default=1.0)
    reach = 0.5 * (high - low) or 0.1 * high
    bounds = [bound for i in intervals for bound in (i.low, i.high) if not math.isnan(bound)]
    return estimates + [min(max(bound, low - reach), high + reach) for bound in bounds]


def _changes(summary: Summary, metric: str) -> dict[str, float]:
    pairs: list[Pair] = [p for p in summary.pairs if (p.metric, p.n) == (metric, summary.reference_n)]
    return {pair.table: pair.difference.estimate for pair in pairs}


def _plane(axes: Axes, xs: Sequence[float], ys: Sequence[float]) -> None:
    """Show all points and zero."""
    if len(xs):
        axes.set_xlim(*span(xs, around=0.0, share=0.12))
    axes.set_ylim(*span(ys, around=0.0, share=0.12))
    axes.axhline(0, color=SOFT, lw=1, ls="--")


def _log_x(axes: Axes, low: float, high: float, label: str) -> None:
    """Make x logarithmic, with labels at 1, 2 and 5 times powers of ten."""
    axes.set(xscale="log", xlim=(low, high), xlabel=label)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    places = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    _label_x(axes, places if len(powers) < 7 else places[::3])


def _label_x(axes: Axes, places: Sequence[float]) -> None:
    label_log_axis(axes, places, apart=WIDEST_TICK / axes.bbox.width, form=",g")


def span(values: Sequence[float], *, around: float | None = None, share: float = 0.06) -> tuple[float, float]:
    """Return a range that holds all finite values (and `around`) with a margin on both sides."""
    finite = [value for value in values if math.isfinite(value)] + ([] if around is None else [around])
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    margin = share * (high - low) or max(abs(high) * share, 1e-3)
    return low - margin, high + margin


def _dot(axes: Axes, x: float, y: float, series: int, words: str, *, size: float = 8) -> None:
    (dot,) = axes.plot([x], [y], "o", ms=size, mew=0, color=COLOURS[series], clip_on=False)
    tip(dot, words)


def _beside(axes: Axes, x: float, y: float, words: str, across: float, down: float = 0, **style: Any) -> None:
    """Write to the right of a point, with a negative `across` to its left."""
    axes.annotate(
        words,
        (x, y),
        (across, -down),
        textcoords="offset points",
        ha="right" if across < 0 else "left",
        va="center",
        **style,
    )


def _spread_labels(
    axes: Axes, points: Sequence[tuple[str, float, float]], *, line: float | None = 0.0
) -> None:
    """Label points where a name covers no dot, no other name and not the line at `line`, if there is room."""
    frame, pixels = axes.bbox, axes.transData.transform([(x, y) for _, x, y in points])
    level = math.inf if line is None else axes.transData.transform((points[0][1], line))[1]
    taken: list[Box] = [(x - 4, x + 4, y) for x, y in pixels]

    def free(spot: Box) -> bool:
        left, right, y = spot
        inside = frame.x0 <= left and right <= frame.x1 and frame.y0 + 6 <= y <= frame.y1 - 6
        apart = (abs(y - other) >= 11 or right < start or end < left for start, end, other in taken)
        return inside and abs(y - level) >= 8 and all(apart)

    for name, x, y in points:
        words, at = text_of(name, LONGEST_NAME), axes.transData.transform((x, y))
        spots = [((side, down), _box(at, words, side, down)) for down in _DOWN for side in (8, -8)]
        shift, spot = next((found for found in spots if free(found[1])), spots[0])
        taken.append(spot)
        _beside(axes, x, y, words, *shift)


def _box(at: np.ndarray, words: str, side: float, down: float) -> Box:
    """Return left, right and middle of words beside a place, pixels."""
    width = 6.5 * len(words)  # about what a character takes at the page's font size
    left = at[0] + side - width * (side < 0)
    return left, left + width, at[1] - down
