"""The context-reduction benchmark: plan cells, run them, keep them, say what they mean.

In order of use: `BenchRequest` (what is asked), `plan_tables` (which cells), `start` (run what is missing),
`read_store` (all rows), `summaries` (figures), `html_report`, `markdown_report`, `export`. The arms are in
`tttab.evaluation.arms`.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from functools import partial

from tttab.bench.executors import Engine, execute
from tttab.bench.export import export
from tttab.bench.html import html_report, markdown_report
from tttab.bench.output import write_output
from tttab.bench.plan import Plan, TablePlan, estimate_seconds, plan_tables, units
from tttab.bench.records import Cell, Machine, Record, this_machine
from tttab.bench.request import BenchRequest
from tttab.bench.store import Contents, Writer, read_store
from tttab.bench.summary import Summary, summaries
from tttab.bench.work import run_unit
from tttab.evaluation.arms import ARMS

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
    "write_output",
]

ALL_ARMS = tuple(name for name, arm in ARMS.items() if not arm.opt_in)


def start(
    cells: Iterable[Cell],
    request: BenchRequest,
    folder: str | os.PathLike[str],
    engine: Engine,
    *,
    threads: int = 1,
) -> Generator[Record]:
    """Run `cells` on `engine` and yield each record once it is in the store `folder`.

    A number that several labels ask for, or that the store holds under another one, is computed once and
    copied.

    Args:
        cells: what is missing, see `Plan.missing`.
        request: the request the cells were planned from.
        folder: the store.
        engine: where.
        threads: per process; equal numbers need equal threads.

    Raises:
        StoreError, BadAnswer, MissingExtra: as `execute`; before anything is run where the store cannot be
            written.
    """
    cells = tuple(cells)
    if cells:
        Writer(folder).prove()
    known = read_store(folder).known
    once: dict[str, Cell] = {}
    for cell in cells:
        if cell.key not in known:
            once.setdefault(cell.key, cell)
    work = partial(run_unit, request=request, threads=threads)
    yield from execute(units(once.values()), work, folder, engine)
    if others := [cell for cell in cells if once.get(cell.key) is not cell]:
        yield from _relabelled(others, folder)


def _relabelled(cells: Iterable[Cell], folder: str | os.PathLike[str]) -> Iterator[Record]:
    """Copy numbers of the store to `cells`, which were not run themselves."""
    contents = read_store(folder)
    numbers = contents.numbers
    with Writer(folder) as writer:
        for cell in cells:
            record = replace(numbers[cell.key], cell=cell)
            writer.append(record, contents.machines.get(record.machine) or this_machine())
            yield record
