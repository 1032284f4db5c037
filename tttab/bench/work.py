"""Running the cells of one unit in this process: table, split, model and context are shared.

`executors` decides which unit runs where and when.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from tttab.bench.plan import split_of, table_of
from tttab.bench.records import Cell, Machine, Record, this_machine
from tttab.bench.request import BenchRequest
from tttab.core import Row, Task
from tttab.errors import DataError, TttabError
from tttab.evaluation.arms import ARMS, run_arm
from tttab.evaluation.outcome import Outcome
from tttab.evaluation.trial import Trial
from tttab.text import shown

if TYPE_CHECKING:
    from tttab.contracts import Session


def limit_threads(threads: int) -> None:
    """Let this process compute with `threads` threads, whatever engine started it.

    Sums depend on how many threads share them: equal numbers from every engine need equal threads.
    """
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    threadpool_limits(limits=threads)


def run_unit(
    cells: tuple[Cell, ...], request: BenchRequest, threads: int
) -> Iterator[tuple[Record, Machine]]:
    """Yield one record per cell, finished or failed with its reason.

    A failure of one arm leaves the others; a failure before any arm (the model does not open) fails all.
    """
    limit_threads(threads)
    try:
        trial, machine = _open_trial(request, cells)
    except Exception as error:
        yield from ((failed_record(cell, error), this_machine()) for cell in cells)
        return
    for cell in cells:
        yield _run_cell(trial, cell, machine), machine


def failed_record(cell: Cell, error: BaseException, wall_seconds: float = 0.0) -> Record:
    """Return the record of a cell that ended in `error`; its identity is the planned key alone."""
    reason = error.message if isinstance(error, TttabError) else f"{type(error).__name__}: {error}"
    row = Row({}, cell.arm, cell.n, cell.k, metrics={}, error=shown(" ".join(reason.split()), 300))
    return Record(cell, row, wall_seconds, _now(), this_machine().id)


def _open_trial(request: BenchRequest, cells: tuple[Cell, ...]) -> tuple[Trial, Machine]:
    first = cells[0]
    table = table_of(request, first.table)
    split = split_of(request, table, first.n, first.seed)
    session, seconds, device = None, 0.0, "cpu"
    if any(ARMS[cell.arm].model for cell in cells):
        from tttab.models import for_classes

        session, seconds = _open_model(request.model, table.task, request.device, request.members)
        session = for_classes(session, len(table.classes))
        session.check_fits(len(table.classes), table.x.shape[1])
        device = str(session.device)
    inputs = request.rule, request.schedule, first.seed, request.memory
    trial = Trial(table, split, session, *inputs, seconds, members=request.members)
    trial.latency_calls = 0  # many seeds are averaged: extra calls would cost more than they tell
    return trial, this_machine(device)


@lru_cache(maxsize=2)
def _open_model(model: str, task: Task, device: str, members: int | None) -> tuple[Session, float]:
    """Open a model once per process; return it with the seconds that took."""
    from tttab.models import open_model

    start = time.perf_counter()
    return open_model(model, task, device=device, members=members), time.perf_counter() - start


def _run_cell(trial: Trial, cell: Cell, machine: Machine) -> Record:
    start = time.perf_counter()
    try:
        row = next(event.row for event in run_arm(trial, cell.arm) if isinstance(event, Outcome))
        if row.key != cell.key:
            raise DataError("the table or the model file has changed since the plan was made")
    except Exception as error:
        return failed_record(cell, error, time.perf_counter() - start)
    return Record(cell, row, time.perf_counter() - start, _now(), machine.id)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
