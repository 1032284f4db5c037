"""What the studies share: cells in a store of `tttab.bench`, run by its executors, never run twice.

A study says which cells there are, what one of them gives and which tables come of it. What does not belong
here: any one question.
"""

from __future__ import annotations

import lzma
import os
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from tttab.bench.executors import Engine, Work, end_with, execute
from tttab.bench.plan import units
from tttab.bench.records import Cell, Machine, Record, this_machine
from tttab.bench.store import Contents, Writer, read_store
from tttab.bench.work import failed_record, limit_threads
from tttab.core import Row, Task, identity_hash
from tttab.system.files import sha256_of

PACKED = "cells-*.jsonl.xz"
QUIET = {"TABPFN_DISABLE_TELEMETRY": "1", "TABPFN_NO_BROWSER": "1", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Figures:
    """What one cell gives."""

    metrics: Mapping[str, float]
    seconds: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0
    """The training step that was kept."""


class Opened(ABC):
    """One split of one table, ready: its arms share what is prepared."""

    device: str = "cpu"

    @abstractmethod
    def measure(self, arm: str) -> Figures:
        """Run one arm."""


class Study(ABC):
    """One question. Must be picklable: it travels to the processes."""

    name: ClassVar[str]
    folder: ClassVar[str]
    """Where its rows are committed, under `results/`."""
    apart: bool = False
    """A process for every cell: what memory it needs comes out clean."""

    @abstractmethod
    def cells(self) -> Iterator[Cell]:
        """Yield every cell, its key included; tables may be read, nothing is run."""

    @abstractmethod
    def rows_of(self, cell: Cell) -> str:
        """Return a hash of the rows that the cell reads, or of what they are made from."""

    def identity(self, cell: Cell) -> dict[str, Any]:
        """Return exactly what changes the cell's numbers; its hash is the key."""
        return {
            "study": self.name,
            "table": cell.fingerprint,
            "split": {"seed": cell.seed, "n": cell.n, "k": cell.k, "rows": self.rows_of(cell)},
            "model": cell.model.rpartition(" ")[2] or None,
            "arm": cell.arm,
            "recipe": cell.recipe,
        }

    def keyed(self, cell: Cell) -> Cell:
        """Return the cell with its key."""
        return replace(cell, key=identity_hash(self.identity(cell)))

    @abstractmethod
    def open(self, cell: Cell) -> Opened:
        """Return what the cell's split needs."""

    @abstractmethod
    def summary(self, contents: Contents) -> str:
        """Return Markdown: the tables of all that is there."""


def read(folder: Path) -> Contents:
    """Return what a store holds, packed files (`cells-….jsonl.xz`) included.

    Raises:
        StoreError: a file cannot be read.
    """
    with TemporaryDirectory() as scratch:
        for path in folder.glob("cells-*.jsonl"):
            (Path(scratch) / path.name).symlink_to(path.resolve())
        for path in folder.glob(PACKED):
            (Path(scratch) / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
        return read_store(scratch)


def run(study: Study, folder: Path, jobs: int = 1) -> Iterator[Record]:
    """Run the cells that the store lacks and yield each once it is on disk; failed ones are tried again.

    Raises:
        StoreError, BadAnswer: as `tttab.bench.executors.execute`.
    """
    done = read(folder).done
    missing = [cell for cell in study.cells() if cell.place not in done]
    if not missing:
        return
    Writer(folder).prove()
    start = time.monotonic()
    groups = [(cell,) for cell in missing] if study.apart else units(missing)
    work: Work = partial(run_unit, study=study)
    if study.apart:
        work = partial(in_a_process_of_its_own, work=work)
    for finished, record in enumerate(execute(groups, work, folder, Engine(jobs=jobs)), 1):
        spent = time.monotonic() - start
        left = spent / finished * (len(missing) - finished)
        print(f"{finished}/{len(missing)} cells, {spent:.0f} s, {left:.0f} s left", file=sys.stderr)
        yield record


def run_unit(cells: tuple[Cell, ...], study: Study) -> Iterator[tuple[Record, Machine]]:
    """Yield one record per cell of a split, on one thread; a cell that failed says why."""
    os.environ.update(QUIET)
    limit_threads(1)
    opened = None
    for cell in cells:
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                opened = opened or study.open(cell)
                figures = opened.measure(cell.arm)
        except Exception as error:
            yield failed_record(cell, error, time.perf_counter() - start), this_machine()
            continue
        machine = this_machine(opened.device)
        yield record_of(study, cell, figures, time.perf_counter() - start, machine.id), machine


def record_of(study: Study, cell: Cell, figures: Figures, wall_seconds: float, machine: str) -> Record:
    """Return the line of the store for what a cell gave."""
    row = Row(
        study.identity(cell), cell.arm, cell.n, cell.k, figures.metrics, figures.seconds, steps=figures.steps
    )
    return Record(cell, row, wall_seconds, datetime.now(UTC).isoformat(timespec="microseconds"), machine)


def in_a_process_of_its_own(cells: tuple[Cell, ...], work: Work) -> Iterator[tuple[Record, Machine]]:
    """Do `work` in a new process, which ends with it."""
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=end_with, initargs=(os.getpid(),)) as pool:
        yield from pool.submit(_collect, cells, work).result()


def _collect(cells: tuple[Cell, ...], work: Work) -> list[tuple[Record, Machine]]:
    return list(work(cells))


@lru_cache
def label_of(path: Path) -> str:
    """Return what a cell says of its model: the file's name and the beginning of its SHA-256."""
    return f"{path.name} {sha256_of(path)[:12]}"


def is_of(cell: Cell, path: Path) -> bool:
    """Tell whether a cell is of a file with this one's content, or of none."""
    return not cell.model or cell.model.endswith(label_of(path)[-12:])


@lru_cache(maxsize=1)
def open_once(model: str, device: str, task: Task = "classification") -> Any:
    """Return the opened model, kept for the next split of this process."""
    from tttab.models import open_model

    return open_model(model, task, device=device)


def markdown(names: list[str], lines: list[list[str]]) -> str:
    """Return a Markdown table."""
    head, *body = ("| " + " | ".join(cells) + " |" for cells in [names, *lines])
    return "\n".join([head, "|" + "---|" * len(names), *body])
