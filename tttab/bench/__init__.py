"""The context-reduction benchmark: plan cells, run them, keep them, say what they mean.

In order of use: `BenchRequest` (what is asked), `plan_tables` (which cells), `start` (run what is
missing), `read_store` (all rows), `summaries` (figures), `html_report`, `markdown_report`, `export`.
What does not belong here: the arms (`tttab.arms`) and the terminal.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from functools import partial

from tttab.arms import ARMS
from tttab.bench.executors import Engine, execute
from tttab.bench.export import export
from tttab.bench.html import html_report, markdown_report
from tttab.bench.plan import Plan, TablePlan, estimate_seconds, plan_tables, units
from tttab.bench.records import Cell, Machine, Record
from tttab.bench.request import BenchRequest
from tttab.bench.store import Contents, Writer, read_store
from tttab.bench.summary import Summary, summaries
from tttab.bench.work import run_unit

__all__ = [
    "ALL_ARMS",
    "BenchRequest",
    "Cell",
    "Contents",
    "Engine",
    "Machine",
    "Plan",
    "Record",
    "Summary",
    "TablePlan",
    "Writer",
    "estimate_seconds",
    "export",
    "html_report",
    "markdown_report",
    "plan_tables",
    "read_store",
    "start",
    "summaries",
]

ALL_ARMS = tuple(ARMS)


def start(
    cells: Iterable[Cell],
    request: BenchRequest,
    folder: str | os.PathLike[str],
    engine: Engine,
    *,
    threads: int = 1,
) -> Generator[Record]:
    """Run `cells` on `engine` and yield each record once it is in the store `folder`.

    Args:
        cells: what is missing, see `Plan.missing`.
        request: the request the cells were planned from.
        folder: the store.
        engine: where.
        threads: per process; equal numbers need equal threads.

    Raises:
        StoreError, BadAnswer, MissingExtra: as `execute`.
    """
    yield from execute(units(cells), partial(run_unit, request=request, threads=threads), folder, engine)
