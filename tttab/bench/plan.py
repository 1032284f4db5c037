"""Which cells a request asks for: their identities are known before anything runs.

Tables are loaded and splits drawn (cheap); the model file is hashed, not opened. So the same request after an
interruption finds what is missing by comparing keys. `work` runs the cells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import groupby
from statistics import median

from tttab.bench.records import Cell, Record
from tttab.bench.reference import coded, reference_split
from tttab.bench.request import BenchRequest
from tttab.bench.store import Place
from tttab.core import Table, Task, identity_hash
from tttab.data.splits import LABELS_OF_EQUAL_BUDGET, Split, SplitRequest, split_rows
from tttab.errors import DataError, SplitError
from tttab.evaluation.arms import ARMS, identity
from tttab.evaluation.result import ICL
from tttab.evaluation.trial import Trial
from tttab.system.files import sha256_of


@dataclass(frozen=True)
class TablePlan:
    """The cells of one table, with what could not be had."""

    table: str
    cells: tuple[Cell, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences: k shrunk, an n that the table is too small for."""
    unavailable: str = ""
    """Why the table could not be read; empty if it could."""


@dataclass(frozen=True)
class Plan:
    """Everything a request asks for."""

    tables: tuple[TablePlan, ...] = field(default_factory=tuple)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Each cell once, seed by seed so that every table has something to show early."""
        unique = {cell.place: cell for table in self.tables for cell in table.cells}
        return tuple(sorted(unique.values(), key=lambda cell: cell.seed))

    def missing(self, done: Container[Place]) -> tuple[Cell, ...]:
        """Return the cells that `done` does not hold; failed ones are not done."""
        return tuple(cell for cell in self.cells if cell.place not in done)


def plan_tables(request: BenchRequest) -> Iterator[TablePlan]:
    """Yield the plan of one table after the other; loading may take a while.

    Raises:
        RequestError: the request makes no sense.
        ModelError: the model file is not there.
    """
    request.check()
    for name in request.tables:
        try:
            table = table_of(request, name)
        except DataError as error:
            yield TablePlan(name, unavailable=error.message)
            continue
        yield _plan_table(request, name, table)


def units(cells: Iterable[Cell]) -> list[tuple[Cell, ...]]:
    """Return the cells grouped by split: what shares a split runs in one place, one after the other."""

    def place(cell: Cell) -> tuple[int, str, int, int]:
        return cell.seed, cell.table, cell.n, cell.k

    return [tuple(group) for _, group in groupby(sorted(cells, key=place), key=place)]


def split_of(request: BenchRequest, table: Table, n: int, seed: int) -> Split:
    """Return the split of one unit.

    Raises:
        SplitError: the table is too small.
    """
    if request.protocol == "reference":
        return reference_split(table.y, n, seed, len(table.classes))
    budget, k = request.budget, request.k
    if budget == "equal" and n >= LABELS_OF_EQUAL_BUDGET:
        budget, k = "paper", 1  # plain icl reads no query row, but a split has at least one
    sizes = SplitRequest(n, k, request.test_size, budget)
    return split_rows(table.y, sizes, seed, classes=len(table.classes))


def table_of(request: BenchRequest, name: str) -> Table:
    """Return a table as the request's protocol reads it.

    Raises:
        DataError: it cannot be read.
    """
    return _load_coded(name) if request.protocol == "reference" else load(name)


@lru_cache(maxsize=2)
def _load_coded(name: str) -> Table:
    return coded(load(name))


@lru_cache(maxsize=8)
def load(name: str) -> Table:
    """Return a table by name, id or file, kept for the next unit of this process.

    Raises:
        DataError: it cannot be read.
    """
    from tttab.data import load_table

    return load_table(name)


def estimate_seconds(cells: Sequence[Cell], measured: Iterable[Record]) -> tuple[float, int]:
    """Return (seconds the cells take one after the other, cells of which nothing is known).

    A cell takes what finished cells of its arm took on the same table, or else on any table; of several
    sizes n the nearest counts.
    """
    known: dict[tuple[str, ...], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in measured:
        cell = record.cell
        for pool in ((cell.arm, cell.table), (cell.arm,)):
            if not record.failed:
                known[pool][cell.n].append(record.wall_seconds)

    @cache
    def guess(arm: str, table: str, n: int) -> float | None:
        sizes = known.get((arm, table)) or known.get((arm,))
        if not sizes:
            return None
        nearest = min(abs(other - n) for other in sizes)
        return median(one for other, some in sizes.items() if abs(other - n) == nearest for one in some)

    guesses = [guess(cell.arm, cell.table, cell.n) for cell in cells]
    return sum(one for one in guesses if one is not None), sum(one is None for one in guesses)


def _plan_table(request: BenchRequest, name: str, table: Table) -> TablePlan:
    sha256, label = _model_of(request, table)
    cells: list[Cell] = []
    notes: list[str] = []
    for seed in request.seeds:
        for n in request.ns:
            try:
                split = split_of(request, table, n, seed)
            except SplitError as error:
                notes.append(f"{name}: n = {n:,} cannot be had: {error.message}")
                continue
            arms = request.arms_at(n)
            if any(arm != ICL for arm in arms):
                notes += [f"{name}: {note}" for note in split.notes]
            inputs = request.rule, request.schedule, seed
            trial = Trial(table, split, None, *inputs, members=request.members, planned_model=sha256)
            cells += [_cell(request, name, trial, arm, label) for arm in arms]
    return TablePlan(name, tuple(cells), tuple(dict.fromkeys(notes)))


def _cell(request: BenchRequest, name: str, trial: Trial, arm: str, label: str) -> Cell:
    spec = ARMS[arm]
    return Cell(
        table=name,
        seed=trial.split.seed,
        n=trial.split.n,
        k=trial.split.k,
        arm=arm,
        key=identity_hash(identity(trial, arm)),
        fingerprint=trial.table.fingerprint[:12],
        model=label if spec.model else "",
        budget="" if arm == ICL else request.budget_label,
        rule=request.rule if spec.rule == "" else "",
        recipe=spec.recipe or (request.recipe if spec.rule is not None else ""),
        test_asked=request.test_size or 0,
        classes=len(trial.table.classes),
    )


def _model_of(request: BenchRequest, table: Table) -> tuple[str, str]:
    """Return the SHA-256 of the model file and its label; nothing where no arm reads a model."""
    if not any(ARMS[arm].model for arm in request.arms):
        return "", ""
    sha256, file = _digest(request.model, table.task)
    return sha256, f"{file} {sha256[:12]}"


@lru_cache
def _digest(model: str, task: Task) -> tuple[str, str]:
    from tttab.models import resolve

    path = resolve(model, task).path
    return sha256_of(path), path.name
