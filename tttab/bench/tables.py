"""The summary as tables of plain data, for the terminal, Markdown and HTML alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from tttab.bench.grid import REFERENCE_N
from tttab.bench.records import Machine
from tttab.bench.statistics import EffectiveContext, Interval
from tttab.bench.store import Contents
from tttab.bench.summary import Arm, Overall, Pair, Summary
from tttab.evaluation.result import ICL, ICL_ALL, TTT
from tttab.report import ReportTable
from tttab.text import shown

CLOSE = 0.02
"""What counts as nearly as good, relative to the error."""
MOST_NAMED = 20
"""Damaged lines that a sentence names."""
NAMES = {
    "accuracy": "error rate",
    "log_loss": "log loss",
    "roc_auc": "1 - ROC AUC",
    "ece": "ECE",
    "rmse": "RMSE",
    "nll": "negative log likelihood",
}


def overall_table(summary: Summary) -> ReportTable:
    """One column per metric at the reference n: effective context, harm and mean difference."""
    lines = [line for line in summary.overall if line.n == summary.reference_n]
    figures = [dict(_overall_figures(line)) for line in lines]
    names = list(figures[0]) if figures else []
    notes = [
        "ttt - icl: mean over data sets of the error difference at the same n; negative is better. Brackets "
        "are 95 % bootstrap intervals over data sets. harmed, helped: the 95 % t interval over seeds of a "
        "data set's difference lies on one side of zero; a single seed decides nothing. Units are pairs of "
        "data set and seed, with their 95 % Wilson interval.",
        "n': where the monotone icl curve, interpolated in log n, reaches the error of ttt@n. Censored data "
        "sets enter at their bound (below: icl is already better at its smallest n; beyond: ttt is better "
        "than icl at its largest n, so the true ratio is larger). On saturated data sets icl gains nothing "
        f"beyond noise from n = {REFERENCE_N} (or its smallest n) to its largest. They are listed and left "
        "out of n'/n.",
    ]
    title = f"Overall, at n = {summary.reference_n}"
    columns = ("figure", *(NAMES[line.metric] for line in lines))
    rows = tuple((name, *(column[name] for column in figures)) for name in names)
    return ReportTable(title, columns, rows, left=("figure",), notes=tuple(notes))


def along_n_table(summary: Summary) -> ReportTable:
    """One line per metric and n: mean difference, harm and effective context over data sets."""
    columns = (
        "error", "n", "data sets", "ttt - icl", "harmed", "helped", "n'/n", "below", "beyond", "failed",
    )  # fmt: skip
    rows = tuple(
        (
            NAMES[line.metric],
            line.n,
            line.tables,
            interval_text(line.difference),
            _share(line.harmed, line.tables),
            line.helped,
            interval_text(line.ratio, digits=2, signed=False),
            line.below,
            line.beyond,
            line.failed,
        )
        for line in summary.overall
    )
    return ReportTable("Along n, all data sets", columns, rows, left=("error",))


def curves_table(summary: Summary, metric: str) -> ReportTable:
    """One line per table and n: icl against ttt with the interval of the difference."""
    columns = ("table", "n", "k", "icl", "ttt", "ttt - icl", "verdict", "n'", "n'/n", "seeds", "failed")
    effects = {(e.table, e.n): e for e in summary.effects[metric]}
    rows = []
    for line in (pair for pair in summary.pairs if pair.metric == metric):
        found = effects.get((line.table, line.n))
        reach = (context_text(found.context), ratio_text(found.ratio, found.context)) if found else ("-", "-")
        rows.append((*_pair_cells(summary, line), *reach, line.seeds, line.failed))
    note = (
        "ttt - icl: mean over seeds with a 95 % t interval. It is widened because splits of one table share "
        "rows (Nadeau and Bengio 2003), if the results say how many rows were tested."
    )
    title = f"icl and ttt along n: {NAMES[metric]}"
    return ReportTable(title, columns, tuple(rows), left=("table", "verdict"), notes=(note,))


def arms_table(summary: Summary, metric: str) -> ReportTable:
    """One line per arm at the reference n."""
    columns = (
        "arm", NAMES[metric], "arm - icl", "harmed", "data sets", "mean rank", "improvable by", "rows read",
        "adapt s", "ms / 1,000 rows", "failed",
    )  # fmt: skip
    note = (
        "Means over data sets of equal weight. Improvable by: by what share the best arm's error is smaller. "
        "It and the mean rank are only for arms tried on every data set; an arm with a failed seed is last."
    )
    title = f"Arms at n = {summary.reference_n}: {NAMES[metric]}"
    rows = tuple(_arm_row(arm) for arm in summary.arms[metric])
    return ReportTable(title, columns, rows, left=("arm",), notes=(note,))


def choice_table(summary: Summary) -> ReportTable:
    """One line per wish: the arm that meets it best at the reference n, and its error, per metric."""
    columns = ("wish", "error", "arm", "its error", "rows read", "ms / 1,000 rows", "adapt s")
    rows = []
    for metric in summary.metrics:
        arms = [arm for arm in summary.arms[metric] if arm.tables == len(summary.grid.tables)]
        for wish, chosen in _wishes(arms, summary.reference_n):
            costs = (f"{chosen.rows:,.0f}", chosen.predict_ms, chosen.adapt_seconds)
            rows.append((wish, NAMES[metric], chosen.name, chosen.error, *costs))
    note = (
        "Of the arms that were run on every data set. Fast: the fastest to predict with an error within "
        f"{CLOSE:.0%} of the best one. The lowest of several means is slightly too good."
    )
    title = f"Which arm, at n = {summary.reference_n}"
    return ReportTable(title, columns, tuple(rows), left=("wish", "error", "arm"), notes=(note,))


def _wishes(arms: Sequence[Arm], n: int) -> Iterator[tuple[str, Arm]]:
    """Yield (wish, arm) for every wish that an arm can meet."""
    known = [arm for arm in arms if not math.isnan(arm.error)]
    if not known:
        return

    def best(some: Sequence[Arm]) -> Arm:
        return min(some, key=lambda arm: arm.error)

    yield "the lowest error", best(known)
    if short := [arm for arm in known if 0 < arm.rows <= n]:
        yield f"the lowest error from {n:,} rows", best(short)
    if quick := [arm for arm in known if not arm.adapt_seconds and arm.rows]:
        yield "the lowest error without training", best(quick)
    near = [arm for arm in known if arm.error <= (1 + CLOSE) * best(known).error]
    if timed := [arm for arm in near if not math.isnan(arm.predict_ms)]:
        yield "fast and nearly as good", min(timed, key=lambda arm: arm.predict_ms)


def break_even_table(summary: Summary) -> ReportTable:
    """One line per table: after how many predictions adapting has paid for itself."""
    columns = ("table", "adapt s", "short: ms / 1,000", "long: ms / 1,000", "break-even predictions")
    rows = tuple(
        (line.table, line.adapt_seconds, line.short_ms, line.long_ms, count_text(line.predictions))
        for line in summary.break_even
    )
    note = (
        f"short: {TTT} predicting with n = {summary.reference_n} context rows; long: {ICL_ALL}, all labelled "
        "rows as context. never: the short context is not faster, so adapting cannot save time."
    )
    return ReportTable("Break-even", columns, rows, left=("table",), notes=(note,))


def failed_table(contents: Contents) -> ReportTable:
    """Every cell that never finished, and every table that could not be read, with the reason."""
    rows = [
        _texts(r.cell.table, r.cell.arm, r.cell.n, r.cell.seed, r.cell.budget or "any", r.row.error)
        for r in contents.failed.values()
    ]
    rows += [_texts(table, "all", "-", "-", "-", reason) for table, reason in contents.unavailable.items()]
    note = "These are left out of every mean. The same `tttab bench` command tries them again."
    notes = [note if rows else "No cell failed."]
    if contents.damaged:
        notes.append(damaged_text(contents))
    columns = ("table", "arm", "n", "seed", "budget", "reason")
    rows.sort(key=str)
    return ReportTable("Failed cells", columns, tuple(rows), left=columns, notes=tuple(notes))


def damaged_text(contents: Contents) -> str:
    """Return a sentence on the lines of a store that could not be used."""
    more = len(contents.damaged) - MOST_NAMED
    names = ", ".join([*map(shown, contents.damaged[:MOST_NAMED]), *[f"and {more:,} more"] * (more > 0)])
    return f"{len(contents.damaged):,} damaged lines were left out: {names}"


def machine_table(machines: Iterable[Machine]) -> ReportTable:
    """Where the rows were measured, with versions."""
    columns = ("machine", "cores", "memory GiB", "system", "Python", "accelerator", "versions")
    rows = tuple(
        _texts(
            machine.cpu,
            machine.cores,
            machine.memory_gib,
            machine.system,
            machine.python,
            machine.accelerator or "none",
            ", ".join(f"{name} {version}" for name, version in sorted(machine.versions.items())),
        )
        for machine in machines
    )
    return ReportTable(
        "Machines and versions",
        columns,
        rows,
        left=("machine", "system", "Python", "accelerator", "versions"),
    )


def interval_text(interval: Interval, *, digits: int = 4, signed: bool = True) -> str:
    """Return `+0.0123 [+0.0100, +0.0145]`; without brackets where noise is unknown."""
    if math.isnan(interval.estimate):
        return "-"
    sign = "+" if signed else ""
    one, low, high = (f"{x:{sign}.{digits}f}" for x in (interval.estimate, interval.low, interval.high))
    return one if math.isnan(interval.low) else f"{one} [{low}, {high}]"


def context_text(context: EffectiveContext) -> str:
    """Return n' with the sign of its censoring."""
    return f"{_bound(context)}{context.rows:,.0f}"


def ratio_text(ratio: float, context: EffectiveContext) -> str:
    """Return n'/n with the sign of its censoring."""
    return f"{_bound(context)}{ratio:.2f}"


def count_text(predictions: float) -> str:
    """Return a number of predictions, or `never`."""
    return "never" if math.isinf(predictions) else f"{predictions:,.0f}"


def _texts(*cells: str | int | float) -> tuple[str | int | float, ...]:
    """Return a row's cells, texts of the store fit to be shown."""
    return tuple(shown(cell) if isinstance(cell, str) else cell for cell in cells)


def _bound(context: EffectiveContext) -> str:
    return {"": "", "below": "≤ ", "beyond": "≥ "}[context.censored]


def _pair_cells(summary: Summary, line: Pair) -> tuple[str | int | float, ...]:
    rows = summary.grid.seeds(line.table, TTT, line.n).values()
    ks = sorted({row.k for row in rows})
    k = f"{ks[0]:,}" if len(ks) == 1 else f"{ks[0]:,}-{ks[-1]:,}"
    return line.table, line.n, k, line.base, line.error, interval_text(line.difference), line.verdict


def _overall_figures(line: Overall) -> list[tuple[str, str]]:
    return [
        ("data sets", str(line.tables)),
        ("mean ttt - icl", interval_text(line.difference)),
        ("harmed", _share(line.harmed, line.tables)),
        ("share harmed", interval_text(line.harmed, digits=2, signed=False)),
        ("units with a larger error", interval_text(line.units, digits=3, signed=False)),
        ("helped", f"{line.helped} of {line.tables}"),
        ("undecided, one seed", f"{line.undecided} of {line.tables}"),
        ("n'/n, geometric mean", interval_text(line.ratio, digits=2, signed=False)),
        ("n'/n, median", interval_text(line.median_ratio, digits=2, signed=False)),
        ("data sets in n'/n", str(line.counted)),
        ("censored below", f"{line.below} of {line.counted}"),
        ("censored beyond", f"{line.beyond} of {line.counted}"),
        ("saturated", ", ".join(line.saturated) or "none"),
        ("failed seeds", str(line.failed)),
        ("in no mean, every seed failed", ", ".join(line.lost) or "none"),
        ("not in n'/n, icl failed", ", ".join(line.gaps) or "none"),
    ]


def _share(share: Interval, of: int) -> str:
    return f"{round(share.estimate * of)} of {of}" if of else "-"


def _arm_row(arm: Arm) -> tuple[str | int | float, ...]:
    gap = "baseline" if arm.name == ICL else interval_text(arm.difference)
    lost = "-" if math.isnan(arm.improvability) else f"{arm.improvability:.1%}"
    costs = (f"{arm.rows:,.0f}", arm.adapt_seconds, arm.predict_ms)
    return arm.name, arm.error, gap, arm.harmed, arm.tables, arm.rank, lost, *costs, arm.failed
