"""The benchmark while it runs: a table that fills in, a bar and the time left; in a pipe a line per cell.

Records pass through unchanged.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tttab.cli import output
from tttab.evaluation.result import ICL, TTT
from tttab.text import shown

if TYPE_CHECKING:
    from tttab.bench import Cell, Record

SHOWN = {"classification": "accuracy", "regression": "r2"}


def show(
    records: Iterable[Record],
    cells: Sequence[Cell],
    before: Sequence[Record],
    *,
    quiet: bool,
    as_json: bool,
) -> Iterator[Record]:
    """Pass records through while showing how far the run is."""
    if quiet or as_json or not cells:
        yield from records
    elif output.stderr().is_terminal:
        yield from _live(records, cells, before)
    else:
        yield from _lines(records, len(cells))


class Board:
    """Mean score so far of icl and ttt per table and n, in percent of accuracy (or of R2)."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._ns = sorted({cell.n for cell in cells})
        self._planned: dict[str, int] = defaultdict(int)
        for cell in cells:
            self._planned[cell.table] += 1
        self._finished: dict[str, int] = defaultdict(int)
        self._failed: dict[str, int] = defaultdict(int)
        self._scores: dict[tuple[str, str, int], list[float]] = defaultdict(list)

    def add(self, record: Record, *, now: bool) -> None:
        """Take in a record; `now`: it was made by this run."""
        cell = record.cell
        self._finished[cell.table] += now
        self._failed[cell.table] += record.failed
        score = record.row.metrics.get(SHOWN[cell.task])
        if score is not None and not math.isnan(score):
            self._scores[cell.table, cell.arm, cell.n].append(score)

    def table(self) -> Table:
        """Return the table as it stands."""
        table = Table(title="icl > ttt, mean accuracy or R2 in %", title_justify="left", header_style="bold")
        table.add_column("table")
        table.add_column("cells", justify="right", no_wrap=True)
        for n in self._ns:
            table.add_column(f"n={n}", justify="right", no_wrap=True)
        for name, planned in self._planned.items():
            failed = f" {self._failed[name]} failed" if self._failed[name] else ""
            counts = Text.assemble(f"{self._finished[name]}/{planned}", (failed, "red"))
            table.add_row(Text(shown(name)), counts, *(self._pair(name, n) for n in self._ns))
        return table

    def _pair(self, name: str, n: int) -> str:
        icl, ttt = (self._mean(name, arm, n) for arm in (ICL, TTT))
        return f"{icl} > {ttt}" if ttt else icl

    def _mean(self, name: str, arm: str, n: int) -> str:
        scores = self._scores.get((name, arm, n))
        return f"{100 * sum(scores) / len(scores):.1f}" if scores else ""


def _live(records: Iterable[Record], cells: Sequence[Cell], before: Sequence[Record]) -> Iterator[Record]:
    board = Board(cells)
    for record in before:
        board.add(record, now=False)
    bar = output.progress()
    task = bar.add_task("cells", total=len(cells), info="")
    with Live(Group(board.table(), bar), console=output.stderr(), refresh_per_second=4) as live:
        for record in records:
            board.add(record, now=True)
            bar.update(task, advance=1)
            last = Text(shown(f"last: {_described(record)}"), style="dim", no_wrap=True, overflow="ellipsis")
            live.update(Group(board.table(), bar, last))
            yield record


def _lines(records: Iterable[Record], total: int) -> Iterator[Record]:
    for number, record in enumerate(records, start=1):
        output.note(f"{number}/{total} {_described(record)}")
        yield record


def _described(record: Record) -> str:
    cell = record.cell
    where = f"{cell.table} n={cell.n} seed {cell.seed} {cell.arm}"
    if record.failed:
        return f"{where}: failed: {record.row.error}"
    scores = ", ".join(f"{name} {value:.4f}" for name, value in list(record.row.metrics.items())[:3])
    return f"{where}: {scores} ({record.wall_seconds:.1f} s)"
