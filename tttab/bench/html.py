"""The report as one HTML file, and as Markdown: puts the sections, tables and charts in order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from tttab.bench import sections
from tttab.bench.charts import LEGEND
from tttab.bench.store import Contents
from tttab.bench.summary import Overall, Summary, summaries
from tttab.bench.tables import NAMES, count_text
from tttab.report import to_markdown
from tttab.report.page import page
from tttab.text import markdown_text

TITLE = "Context reduction by test-time training"
LEAD = (
    "Does a short context after one test-time training predict as well as a long one? icl is the pretrained "
    "model reading n rows. ttt is the same model trained on k further labelled rows, reading the same rows. "
    "For every error smaller is better. Errors are measured on test rows that had no part in any choice."
)


def html_report(contents: Contents) -> str:
    """Return the whole report as one self-contained HTML document; equal stores, equal bytes."""
    groups = [
        {"title": summary.group.title, "tiles": list(_headline(summary)), "summary": summary}
        for summary in summaries(contents)
    ]
    return page(
        "report.html.j2",
        title=TITLE,
        lead=LEAD,
        counts=_counts(contents),
        groups=groups,
        contents=contents,
        sections=sections.SECTIONS,
        store_sections=sections.STORE_SECTIONS,
        legend=LEGEND,
    )


def markdown_report(contents: Contents) -> str:
    """Return the whole report as Markdown, tables only."""
    parts = [f"# {TITLE}\n", LEAD + "\n"]
    for summary in summaries(contents):
        parts += [
            f"## {markdown_text(summary.group.title)}\n",
            *map(to_markdown, sections.tables_of(sections.SECTIONS, summary)),
        ]
    store_tables = sections.tables_of(sections.STORE_SECTIONS, contents)
    return "\n".join([*parts, "## The store\n", *map(to_markdown, store_tables)])


def _counts(contents: Contents) -> str:
    counts = f"{len(contents.done):,} finished cells, {len(contents.failed):,} failed"
    if contents.unavailable:
        counts += f", {len(contents.unavailable)} tables could not be read"
    return f"{counts}."


def _headline(summary: Summary) -> Iterator[tuple[str, str]]:
    for line in (o for o in summary.overall if o.n == summary.reference_n and o.metric in summary.drawn):
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
