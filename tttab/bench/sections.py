"""What a report consists of: sections on each group of rows, then on the whole store.

The terminal, JSON, Markdown and the page all follow from these two lists: a new section is a line here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tttab.bench.charts import arm_charts, curve_charts, effective_charts, front_charts
from tttab.bench.store import Contents
from tttab.bench.summary import Summary
from tttab.bench.tables import (
    along_n_table,
    arms_table,
    break_even_table,
    choice_table,
    curves_table,
    failed_table,
    machine_table,
    overall_table,
)
from tttab.report import ReportTable, Section
from tttab.report.section import Subject

SECTIONS: list[Section[Summary]] = [
    Section("Overall", lambda summary: [overall_table(summary)], effective_charts),
    Section("Error against cost", lambda summary: [choice_table(summary)], front_charts),
    Section("Along n", lambda summary: [along_n_table(summary)], curve_charts),
    Section("Arms", lambda summary: _per_metric(summary), arm_charts),
    Section("Break-even", lambda summary: [break_even_table(summary)]),
]
STORE_SECTIONS: list[Section[Contents]] = [
    Section("Failed cells", lambda contents: [failed_table(contents)]),
    Section("Machines and versions", lambda contents: [machine_table(contents.machines.values())]),
]


def tables_of(sections: Iterable[Section[Subject]], subject: Subject) -> list[ReportTable]:
    """Return the tables of all sections, in order."""
    return [table for section in sections for table in section.tables(subject)]


def _per_metric(summary: Summary) -> Iterator[ReportTable]:
    for metric in summary.metrics:
        yield from (arms_table(summary, metric), curves_table(summary, metric))
