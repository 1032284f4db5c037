"""Reading rows back for a report: which belong together, and the errors of one arm seed by seed.

A group is what may be compared: one model file, label budget, rule, recipe and test size. Rows that no label
budget changes (plain icl@n), and rows of no model, are in every group that has a row of its own on their
table.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tttab.bench.records import Cell, Record
from tttab.core import Row
from tttab.evaluation.result import ICL, ICL_ALL, TTT
from tttab.text import shown

REFERENCE_N = 200
METRICS: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy", "log_loss", "roc_auc", "ece"),
    "regression": ("rmse", "nll"),
}
"""Per task the metric of the point prediction, that of the predicted distribution, and others. TabArena
compares by ROC AUC for two classes (only there is it reported), log loss for more, and RMSE."""
DRAWN = frozenset({"accuracy", "log_loss", "rmse", "nll"})
"""What has figures of its own on the page."""
UNORDERED = frozenset({"ece"})
"""What need not fall with more rows, so that there is no n' by it."""
HIGHER_IS_BETTER = frozenset({"accuracy", "roc_auc", "r2"})


@dataclass(frozen=True, order=True)
class Group:
    """Rows that may stand in one table."""

    model: str
    budget: str
    rule: str
    recipe: str
    test_asked: int

    @classmethod
    def of(cls, cell: Cell) -> Group:
        """Return the labels of one cell."""
        return cls(cell.model, cell.budget, cell.rule, cell.recipe, cell.test_asked)

    def part_of(self, other: Group) -> bool:
        """Whether each label equals the other's, or is empty because it changes nothing."""
        own, others = ((g.model, g.budget, g.rule, g.recipe) for g in (self, other))
        same = all(a in ("", b) for a, b in zip(own, others, strict=True))
        return same and self.test_asked == other.test_asked

    @property
    def title(self) -> str:
        """The group in words, fit to be shown."""
        test = f", {self.test_asked:,} test rows" if self.test_asked else ""
        budget, rule = f"label budget {self.budget}", f"rule {self.rule}"
        parts = [self.model, budget * bool(self.budget), rule * bool(self.rule), self.recipe]
        return shown(" · ".join(filter(None, parts)) + test)


class Grid:
    """The rows of one group by table, arm, n and seed; names are fit to be shown."""

    def __init__(self, records: Iterable[Record], group: Group) -> None:
        """Sort `records`; those of other groups are left out."""
        self.group = group
        self.rows: dict[tuple[str, str, int], dict[int, Row]] = defaultdict(dict)
        self.failed: dict[tuple[str, str, int], set[int]] = defaultdict(set)
        """Seeds by table, arm and n."""
        self.tasks: dict[str, str] = {}
        self._binary: set[str] = set()
        records = [record for record in records if Group.of(record.cell).part_of(group)]
        names = _names(record.cell for record in records if Group.of(record.cell) == group)
        for record in records:
            cell = record.cell
            name = names.get(cell.fingerprint)
            if name is None:
                continue
            self.tasks[name] = cell.task
            self._binary |= {name} if cell.classes == 2 else set()
            place = name, shown(cell.arm), cell.n
            if record.failed:
                self.failed[place].add(cell.seed)
            else:
                self.rows[place][cell.seed] = record.row

    @property
    def tables(self) -> list[str]:
        """Names of all tables that have a row, failed or not."""
        return sorted(self.tasks)

    @property
    def places(self) -> set[tuple[str, str, int]]:
        """Every (table, arm, n) that has a row, failed or not."""
        return {*self.rows, *self.failed}

    @property
    def arms(self) -> list[str]:
        """Names of all arms, plain icl and ttt first."""
        found = {arm for _, arm, _ in self.places}
        first = [arm for arm in (ICL, TTT, ICL_ALL) if arm in found]
        return first + sorted(found.difference(first))

    def reports(self, table: str, metric: str) -> bool:
        """Whether `metric` is reported for the table."""
        return metric in METRICS[self.tasks[table]] and (metric != "roc_auc" or table in self._binary)

    def ns(self, table: str, arm: str) -> list[int]:
        """Context sizes at which `arm` has finished on `table`."""
        return sorted(n for name, a, n in self.rows if (name, a) == (table, arm))

    def failures(self, table: str, arm: str, n: int, metric: str) -> set[int]:
        """The seeds of this place that failed, or on which `metric` is undefined, if it is reported."""
        if not self.reports(table, metric):
            return set()
        rows = self.seeds(table, arm, n)
        undefined = {seed for seed, row in rows.items() if math.isnan(row.metrics.get(metric, 0.0))}
        return undefined | self.failed.get((table, arm, n), set())

    def seeds(self, table: str, arm: str, n: int) -> dict[int, Row]:
        """The finished rows of one place by seed."""
        return self.rows.get((table, arm, n), {})

    def overlap(self, table: str, arm: str, n: int) -> float:
        """Test rows over labelled rows of one place; 0 where its rows do not tell how many were tested on."""
        rows = self.seeds(table, arm, n).values()
        shares = [row.test_rows / (row.n_context + row.k) for row in rows if row.n_context + row.k]
        return min(shares, default=0.0)

    def errors(self, table: str, arm: str, n: int, metric: str) -> dict[int, float]:
        """The errors by seed, where defined: `metric` itself, or one minus it where higher is better."""
        if not self.reports(table, metric):
            return {}
        values = {seed: row.metrics.get(metric, math.nan) for seed, row in self.seeds(table, arm, n).items()}
        return {seed: error_of(metric, value) for seed, value in values.items() if not math.isnan(value)}


def _names(cells: Iterable[Cell]) -> dict[str, str]:
    """Return a name for each content: contents with the same name get their fingerprint behind it."""
    first: dict[str, str] = {}
    for cell in sorted(cells, key=lambda cell: cell.table):
        first.setdefault(cell.fingerprint, shown(cell.table))
    names = list(first.values())
    return {mark: name if names.count(name) == 1 else shown(f"{name} {mark}") for mark, name in first.items()}


def error_of(metric: str, value: float) -> float:
    """Return a metric's value as an error: smaller is better."""
    return 1.0 - value if metric in HIGHER_IS_BETTER else value


def groups_of(records: Iterable[Record]) -> list[Group]:
    """Return the groups of a store: each label budget and recipe once, none that is part of another."""
    found = {Group.of(record.cell) for record in records}
    return sorted(one for one in found if not any(one != other and one.part_of(other) for other in found))
