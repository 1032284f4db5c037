"""Reading rows back for a report: which belong together, and the errors of one arm seed by seed.

A group is what may be compared: one model file, label budget, rule, recipe and test size. Rows
that no label budget changes (plain icl@n) stand in every group of their model. What does not belong
here: statistics over them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tttab.bench.records import Cell, Record
from tttab.core import Row

ICL, TTT, ICL_ALL = "icl@n", "ttt@n+k", "icl@n+k"
METRICS: Mapping[str, tuple[str, str]] = {
    "classification": ("accuracy", "log_loss"),
    "regression": ("rmse", "nll"),
}
"""Per task the metric of the point prediction and that of the predicted distribution."""
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
        mine, theirs = ((g.model, g.budget, g.rule, g.recipe) for g in (self, other))
        same = all(a in ("", b) for a, b in zip(mine, theirs, strict=True))
        return same and self.test_asked == other.test_asked

    @property
    def title(self) -> str:
        """The group in words."""
        test = f", {self.test_asked:,} test rows" if self.test_asked else ""
        budget, rule = f"label budget {self.budget}", f"rule {self.rule}"
        parts = [self.model, budget * bool(self.budget), rule * bool(self.rule), self.recipe]
        return " · ".join(filter(None, parts)) + test


class Grid:
    """The rows of one group by table, arm, n and seed."""

    def __init__(self, records: Iterable[Record], group: Group) -> None:
        """Sort `records`; those of other groups are left out."""
        self.group = group
        self.rows: dict[tuple[str, str, int], dict[int, Row]] = defaultdict(dict)
        self.failed: list[Record] = []
        self.tasks: dict[str, str] = {}
        for record in records:
            cell = record.cell
            if not Group.of(cell).part_of(group):
                continue
            self.tasks[cell.table] = cell.task
            if record.failed:
                self.failed.append(record)
            else:
                self.rows[cell.table, cell.arm, cell.n][cell.seed] = record.row

    @property
    def tables(self) -> list[str]:
        """Names of all tables that have a row, failed or not."""
        return sorted(self.tasks)

    @property
    def arms(self) -> list[str]:
        """Names of all arms, plain icl and ttt first."""
        found = {arm for _, arm, _ in self.rows} | {record.cell.arm for record in self.failed}
        first = [arm for arm in (ICL, TTT, ICL_ALL) if arm in found]
        return first + sorted(found.difference(first))

    def ns(self, table: str, arm: str) -> list[int]:
        """Context sizes at which `arm` has finished on `table`."""
        return sorted(n for name, a, n in self.rows if (name, a) == (table, arm))

    def failures(self, table: str, arm: str, n: int) -> int:
        """How many seeds of this place failed."""
        return sum((r.cell.table, r.cell.arm, r.cell.n) == (table, arm, n) for r in self.failed)

    def seeds(self, table: str, arm: str, n: int) -> dict[int, Row]:
        """The finished rows of one place by seed."""
        return self.rows.get((table, arm, n), {})

    def errors(self, table: str, arm: str, n: int, metric: str) -> dict[int, float]:
        """The errors by seed: `metric` itself, or one minus it where higher is better."""
        rows = self.seeds(table, arm, n)
        return {s: error_of(metric, row.metrics[metric]) for s, row in rows.items() if metric in row.metrics}


def error_of(metric: str, value: float) -> float:
    """Return a metric's value as an error: smaller is better."""
    return 1.0 - value if metric in HIGHER_IS_BETTER else value


def groups_of(records: Iterable[Record]) -> list[Group]:
    """Return the groups of a store: each label budget and recipe once, none that is part of another."""
    found = {Group.of(record.cell) for record in records}
    return sorted(one for one in found if not any(one != other and one.part_of(other) for other in found))
