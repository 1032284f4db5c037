"""From a store to the figures of the protocol: per table, overall and per arm, for one group at a time.

`tables` and `charts` show them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tttab.bench import statistics as stats
from tttab.bench.grid import DRAWN, METRICS, REFERENCE_N, UNORDERED, Grid, Group, groups_of
from tttab.bench.statistics import EffectiveContext, Interval, Verdict
from tttab.bench.store import Contents
from tttab.core import Row
from tttab.evaluation.result import ICL, ICL_ALL, TTT
from tttab.metrics import break_even


@dataclass(frozen=True)
class Pair:
    """One arm against plain icl at the same n on one table, seeds averaged."""

    table: str
    arm: str
    n: int
    metric: str
    base: float
    """Mean icl error."""
    error: float
    """Mean error of the arm, over the same seeds."""
    difference: Interval
    """Arm minus icl, with the interval over seeds; negative is better."""
    verdict: Verdict
    seeds: int
    worse: int
    """Seeds on which the arm's error is the larger one."""
    failed: int
    """Seeds that the arm or icl failed on and that so are not in the means."""


@dataclass(frozen=True)
class Effect:
    """The effective context of ttt@n on one table."""

    table: str
    n: int
    context: EffectiveContext
    saturated: bool
    gaps: bool
    """Whether cells of the icl curve failed: then n' waits until they are run again."""

    @property
    def ratio(self) -> float:
        """n'/n; a bound where the context is censored."""
        return self.context.rows / self.n


@dataclass(frozen=True)
class Overall:
    """One metric over all data sets at one n; data sets weigh the same."""

    metric: str
    n: int
    tables: int
    difference: Interval
    """Mean error difference, ttt minus icl."""
    harmed: Interval
    """Share of data sets that ttt makes worse beyond noise."""
    units: Interval
    """Share of (data set, seed) units on which ttt has the larger error, however little."""
    helped: int
    undecided: int
    """Data sets with a single seed, where noise is unknown."""
    ratio: Interval
    """Geometric mean of n'/n over the data sets that are not saturated, censored ones at their bound."""
    median_ratio: Interval
    counted: int
    """Data sets in the ratio."""
    below: int
    beyond: int
    saturated: tuple[str, ...]
    gaps: tuple[str, ...]
    """Data sets left out of the ratio because cells of their icl curve failed."""
    failed: int
    """Seeds of icl or ttt at this n that failed, over all data sets."""
    lost: tuple[str, ...]
    """Data sets in no mean at all, because every seed failed."""


@dataclass(frozen=True)
class Arm:
    """One arm at the reference n, over all data sets that have both it and icl."""

    name: str
    error: float
    difference: Interval
    harmed: int
    tables: int
    rows: float
    """Context rows it reads at prediction time, mean over data sets."""
    improvability: float
    """Share by which the best arm's error is smaller, mean over data sets; NaN where not run on all."""
    rank: float
    """Mean rank among the arms, a failed arm last; NaN where the arm was not run on every table."""
    failed: int
    adapt_seconds: float
    predict_ms: float
    """Milliseconds per 1,000 predictions, mean over data sets."""


@dataclass(frozen=True)
class BreakEven:
    """The cost of adapting against serving on one table."""

    table: str
    adapt_seconds: float
    short_ms: float
    long_ms: float
    predictions: float


@dataclass(frozen=True)
class Summary:
    """Every figure of one group."""

    grid: Grid
    metrics: tuple[str, ...]
    pairs: tuple[Pair, ...]
    """ttt against icl at every n, per metric and table."""
    effects: dict[str, tuple[Effect, ...]]
    """Per metric, at every n of ttt."""
    overall: tuple[Overall, ...]
    arms: dict[str, tuple[Arm, ...]]
    """Per metric, at the reference n."""
    break_even: tuple[BreakEven, ...]
    reference_n: int

    @property
    def drawn(self) -> tuple[str, ...]:
        """The metrics that have figures."""
        return tuple(metric for metric in self.metrics if metric in DRAWN)

    @property
    def group(self) -> Group:
        """What the rows have in common."""
        return self.grid.group


def summaries(contents: Contents) -> list[Summary]:
    """Return one summary for each group of a store: label budgets are never mixed."""
    return [summarise(Grid(contents.records, group)) for group in groups_of(contents.records)]


def summarise(grid: Grid) -> Summary:
    """Compute all figures of one group."""
    metrics = _metrics(grid)
    ns = sorted({n for _, arm, n in grid.places if arm == TTT})
    reference = _reference_n(grid)
    pairs = tuple(
        found
        for metric in metrics
        for table in grid.tables
        for n in ns
        if (found := pair(grid, table, TTT, n, metric))
    )
    ordered = [m for m in metrics if m not in UNORDERED]
    effects = {m: tuple(e for t in grid.tables for n in ns if (e := effect(grid, t, n, m))) for m in ordered}
    effects |= {metric: () for metric in metrics if metric in UNORDERED}
    overall = tuple(_overall(grid, m, n, pairs, effects[m]) for m in metrics for n in ns)
    arms = {metric: arm_lines(grid, reference, metric) for metric in metrics}
    return Summary(grid, metrics, pairs, effects, overall, arms, _break_evens(grid, reference), reference)


def pair(grid: Grid, table: str, arm: str, n: int, metric: str) -> Pair | None:
    """Compare an arm with icl on one table over the seeds both have; None without one."""
    ours, base = grid.errors(table, arm, n, metric), grid.errors(table, ICL, n, metric)
    seeds = sorted(ours.keys() & base.keys())
    if not seeds:
        return None
    gaps = [ours[seed] - base[seed] for seed in seeds]
    overlap = grid.overlap(table, arm, n)
    return Pair(
        table,
        arm,
        n,
        metric,
        base=float(np.mean([base[seed] for seed in seeds])),
        error=float(np.mean([ours[seed] for seed in seeds])),
        difference=stats.seed_interval(gaps, overlap),
        verdict=stats.verdict(gaps, overlap),
        seeds=len(seeds),
        worse=sum(gap > 0 for gap in gaps),
        failed=len(_failed(grid, table, arm, n, metric)),
    )


def effect(grid: Grid, table: str, n: int, metric: str) -> Effect | None:
    """Return the effective context of ttt@n, over the seeds that the whole icl curve and ttt@n have."""
    adapted = grid.errors(table, TTT, n, metric)
    curve = {size: grid.errors(table, ICL, size, metric) for size in grid.ns(table, ICL)}
    seeds = sorted(adapted.keys() & set.intersection(*(set(e) for e in curve.values()))) if curve else []
    if not seeds or len(curve) < 2:
        return None
    ns = sorted(curve)
    errors = [float(np.mean([curve[size][seed] for seed in seeds])) for size in ns]
    target = float(np.mean([adapted[seed] for seed in seeds]))
    from_n = REFERENCE_N if REFERENCE_N in ns[:-1] else ns[0]
    flat = stats.saturated([curve[from_n][s] for s in seeds], [curve[ns[-1]][s] for s in seeds])
    gaps = any((name, arm) == (table, ICL) for name, arm, _ in grid.failed)
    return Effect(table, n, stats.effective_context(ns, errors, target), flat, gaps)


def arm_lines(grid: Grid, n: int, metric: str) -> tuple[Arm, ...]:
    """Compare every arm with icl at `n`, data sets averaged with equal weight."""
    found = {arm: {t: p for t in grid.tables if (p := pair(grid, t, arm, n, metric))} for arm in grid.arms}
    everywhere = _everywhere(grid, found, n, metric)
    ranks, lost = stats.mean_ranks(everywhere), stats.improvability(everywhere)
    return tuple(
        Arm(
            name=arm,
            error=float(np.mean([p.error for p in pairs.values()])) if pairs else math.nan,
            difference=stats.bootstrap([p.difference.estimate for p in pairs.values()], np.mean),
            harmed=sum(p.verdict == "harmed" for p in pairs.values()),
            tables=len(pairs),
            rows=_mean_of(grid, arm, n, "n_context"),
            improvability=lost.get(arm, math.nan),
            rank=ranks.get(arm, math.nan),
            failed=sum(len(_failed(grid, t, arm, n, metric)) for t in grid.tables),
            adapt_seconds=_mean_of(grid, arm, n, "adapt"),
            predict_ms=_mean_of(grid, arm, n, "ms_per_1000_rows"),
        )
        for arm, pairs in found.items()
    )


def _everywhere(grid: Grid, found: dict[str, dict[str, Pair]], n: int, metric: str) -> dict[str, list[float]]:
    """Return the errors, table by table, of the arms that were tried, with or without success, on every one.

    NaN where a seed failed: a mean over the seeds that an arm got through would flatter it.
    """

    def tried(arm: str, table: str) -> bool:
        return table in found[arm] or bool(grid.failures(table, arm, n, metric))

    def error(arm: str, table: str) -> float:
        return math.nan if grid.failures(table, arm, n, metric) else found[arm][table].error

    tables = sorted({table for pairs in found.values() for table in pairs})
    if not tables:
        return {}
    everywhere = [arm for arm in found if all(tried(arm, table) for table in tables)]
    return {arm: [error(arm, table) for table in tables] for arm in everywhere}


def _failed(grid: Grid, table: str, arm: str, n: int, metric: str) -> set[int]:
    """Return the seeds on which the arm cannot be compared with icl because one of the two failed."""
    return grid.failures(table, arm, n, metric) | grid.failures(table, ICL, n, metric)


def _reference_n(grid: Grid) -> int:
    """Return the n with the most arms; of several, 200 or else the smallest."""
    arms: dict[int, set[str]] = defaultdict(set)
    for _, arm, n in grid.places:
        arms[n].add(arm)
    return max(sorted(arms), key=lambda n: (len(arms[n]), n == REFERENCE_N), default=REFERENCE_N)


def _overall(grid: Grid, metric: str, n: int, pairs: Sequence[Pair], effects: Sequence[Effect]) -> Overall:
    here = [p for p in pairs if p.metric == metric and p.n == n]
    at_n = [e for e in effects if e.n == n]
    used = [e for e in at_n if not e.saturated and not e.gaps]
    tables = [table for table in grid.tables if grid.reports(table, metric)]
    failed = {table: _failed(grid, table, TTT, n, metric) for table in tables}
    ratios = [e.ratio for e in used]
    return Overall(
        metric=metric,
        n=n,
        tables=len(here),
        difference=stats.bootstrap([p.difference.estimate for p in here], np.mean),
        harmed=stats.bootstrap([float(p.verdict == "harmed") for p in here], np.mean),
        units=stats.share(sum(p.worse for p in here), sum(p.seeds for p in here)),
        helped=sum(p.verdict == "helped" for p in here),
        undecided=sum(p.verdict == "unknown" for p in here),
        ratio=stats.bootstrap(ratios, stats.geometric_mean),
        median_ratio=stats.bootstrap(ratios, np.median),
        counted=len(used),
        below=sum(e.context.censored == "below" for e in used),
        beyond=sum(e.context.censored == "beyond" for e in used),
        saturated=tuple(e.table for e in at_n if e.saturated),
        gaps=tuple(e.table for e in at_n if e.gaps),
        failed=sum(map(len, failed.values())),
        lost=tuple(sorted({table for table in failed if failed[table]} - {p.table for p in here})),
    )


def _break_evens(grid: Grid, n: int) -> tuple[BreakEven, ...]:
    lines = []
    for table in grid.tables:
        short, long = grid.seeds(table, TTT, n), grid.seeds(table, ICL_ALL, n)
        costs = [_cost(short[seed], long[seed]) for seed in sorted(short.keys() & long.keys())]
        known = [cost for cost in costs if None not in cost]
        if known:
            adapt, short_ms, long_ms = (float(x) for x in np.mean(np.array(known, dtype=float), axis=0))
            turn = break_even(adapt, short_ms, long_ms)
            lines.append(BreakEven(table, adapt, short_ms, long_ms, turn))
    return tuple(lines)


def _cost(short: Row, long: Row) -> tuple[float | None, float | None, float | None]:
    return short.seconds.get("adapt"), short.ms_per_1000_rows, long.ms_per_1000_rows


def _mean_of(grid: Grid, arm: str, n: int, what: str) -> float:
    """Average a cost over seeds, then over tables; NaN where no row has it."""
    per_table = []
    for table in grid.tables:
        rows = grid.seeds(table, arm, n).values()
        values = [row.seconds.get(what) if what in row.seconds else getattr(row, what, None) for row in rows]
        known = [value for value in values if value is not None]
        if known:
            per_table.append(float(np.mean(known)))
    return float(np.mean(per_table)) if per_table else math.nan


def _metrics(grid: Grid) -> tuple[str, ...]:
    wanted = dict.fromkeys(metric for task in grid.tasks.values() for metric in METRICS.get(task, ()))
    have = {metric for rows in grid.rows.values() for row in rows.values() for metric in row.metrics}
    return tuple(metric for metric in wanted if metric in have)
