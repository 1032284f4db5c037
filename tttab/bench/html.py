"""The report as one HTML file, and as Markdown.

What does not belong here: figures, tables or charts themselves; this module only puts them in order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from tttab.bench.charts import cost_chart, curve_charts, effective_chart, trade_chart
from tttab.bench.store import Contents
from tttab.bench.summary import Overall, Summary, summaries
from tttab.bench.tables import NAMES, count_text, report_tables, store_tables
from tttab.report import to_html, to_markdown
from tttab.report.page import charts, legend, page, tiles
from tttab.text import html_text as escape
from tttab.text import markdown_text

TITLE = "Context reduction by test-time training"
LEAD = (
    "Does a short context after one test-time training predict as well as a long one? icl is the untouched "
    "model reading n rows; ttt is the same model trained on k further labelled rows and reading the same n "
    "rows. For every error here smaller is better; it is measured on test rows that chose nothing."
)
COLOURS = (
    ("icl", "icl@n: untouched model"),
    ("ttt", "ttt@n+k: adapted, same n rows read"),
    ("all", "icl@n+k: untouched, all labelled rows read (dashed)"),
    ("other", "other arms"),
)


def html_report(contents: Contents) -> str:
    """Return the whole report as one self-contained HTML document."""
    return page(TITLE, _body(contents))


def markdown_report(contents: Contents) -> str:
    """Return the whole report as Markdown, tables only."""
    parts = [f"# {TITLE}\n", LEAD + "\n"]
    for summary in summaries(contents):
        parts += [f"## {markdown_text(summary.group.title)}\n", *map(to_markdown, report_tables(summary))]
    return "\n".join([*parts, "## The store\n", *map(to_markdown, store_tables(contents))])


def _body(contents: Contents) -> Iterator[str]:
    yield f"<h1>{TITLE}</h1><p class='lead'>{LEAD}</p>"
    counts = f"{len(contents.done):,} finished cells, {len(contents.failed):,} failed"
    if contents.unavailable:
        counts += f", {len(contents.unavailable)} tables could not be read"
    yield f"<p class='note'>{counts}.</p>"
    for summary in summaries(contents):
        yield from _group(summary)
    yield "<h2>The store</h2>"
    yield from map(to_html, store_tables(contents))


def _group(summary: Summary) -> Iterator[str]:
    yield f"<section><h2>{escape(summary.group.title)}</h2>"
    yield tiles(_headline(summary))
    yield legend(COLOURS)
    yield charts(effective_chart(summary, m) for m in summary.metrics if summary.effects[m])
    costs = [cost_chart(summary, metric) for metric in summary.metrics]
    yield charts(filter(None, [trade_chart(summary) if summary.pairs else None, *costs]))
    yield "<h3>icl and ttt along n, with 95 % intervals over seeds</h3>"
    yield charts(svg for table in summary.grid.tables for svg in curve_charts(summary, table))
    yield from map(to_html, report_tables(summary))
    yield "</section>"


def _headline(summary: Summary) -> Iterator[tuple[str, str]]:
    for line in (o for o in summary.overall if o.n == summary.reference_n):
        yield _ratio_tile(line)
        share = "-" if not line.tables else f"{round(line.harmed.estimate * line.tables)} of {line.tables}"
        rest = f"{line.helped} helped" + f", {line.undecided} undecided (one seed)" * bool(line.undecided)
        yield share, f"data sets harmed beyond noise on {NAMES[line.metric]}; {rest}"
    turns = [line.predictions for line in summary.break_even]
    if turns:
        words = "predictions to break even against all rows as context (median)"
        yield count_text(median(turns)), words


def _ratio_tile(line: Overall) -> tuple[str, str]:
    what = f"effective context n'/n by {NAMES[line.metric]} at n = {line.n}"
    if math.isnan(line.ratio.estimate):
        return "-", f"{what}: no data set to count, {len(line.saturated)} saturated"
    interval = "" if math.isnan(line.ratio.low) else f" [{line.ratio.low:.1f}, {line.ratio.high:.1f}]"
    where = f"{line.counted} data sets, {line.below} below and {line.beyond} beyond the curve"
    sign = "≥ " if line.beyond and not line.below else "≤ " if line.below and not line.beyond else ""
    return f"{sign}{line.ratio.estimate:.1f}x", f"{what}{interval}; {where}"
