"""The options of a benchmark: tables, sizes, arms, seeds, model and training schedule.

`plan` derives the cells from it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Literal

from tttab.bench.grid import REFERENCE_N
from tttab.bench.records import LARGEST_WHOLE
from tttab.data.splits import LABELS_OF_EQUAL_BUDGET, Budget
from tttab.errors import RequestError
from tttab.evaluation.arms import ARMS
from tttab.evaluation.result import ICL, ICL_ALL, TTT
from tttab.report.tables import cell_text
from tttab.rules import get_rule
from tttab.training.checks import check_schedule
from tttab.training.config import Schedule
from tttab.training.memory_plan import DEFAULT_BUDGET
from tttab.training.recipes import schedule_of

NS = (50, 100, 200, 400, 600, 800, 1000)
STANDARD = Schedule(precision="fp32")


@dataclass(frozen=True)
class BenchRequest:
    """One benchmark. Equal requests give equal cells."""

    tables: tuple[str, ...]
    """Names, OpenML ids or files, as `tttab.data.load_table` takes them."""
    ns: tuple[int, ...] = NS
    k: int = 1000
    arms: tuple[str, ...] = (ICL, TTT, ICL_ALL)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Each names a split and its training streams."""
    controls_at: tuple[int, ...] = ()
    """Context sizes for arms other than icl@n and ttt@n+k; empty: 200, or the n next to it."""
    ttt_at: tuple[int, ...] = ()
    """Context sizes for ttt@n+k; empty: every n."""
    budget: Budget = "paper"
    test_size: int | None = None
    model: str = "auto"
    rule: str = "full"
    schedule: Schedule = field(default_factory=partial(schedule_of, "default", precision="fp32"))
    device: str = "auto"
    memory: int = DEFAULT_BUDGET
    """The most bytes one process may hold."""
    members: int | None = None
    """Ensemble members that serve; None: as many as the model's file says."""
    protocol: Literal["tttab", "reference"] = "tttab"
    """`reference`: tables and splits as `reference.FIGURES` were measured on; plain icl@n alone."""

    def check(self) -> None:
        """Raise RequestError where a value makes no sense, before anything is loaded."""
        if not self.tables:
            raise RequestError("no table to run on", "--suite smoke")
        lists = {"n": self.ns, "arms": self.arms, "seeds": self.seeds, "datasets": self.tables}
        for name, values in lists.items():
            if not values or len(set(values)) < len(values):
                raise RequestError(f"--{name} needs at least one value, and none twice", "tttab bench --help")
        for name, sizes in (("ttt-at", self.ttt_at), ("controls-at", self.controls_at)):
            if absent := sorted(set(sizes) - set(self.ns)):
                every = ",".join(map(str, sorted({*self.ns, *absent})))
                raise RequestError(
                    f"--{name} {absent[0]} is none of the context sizes of --n", f"--n {every}"
                )
        for arm in self.arms:
            if arm not in ARMS:
                raise RequestError(f"no arm is called {arm!r}", f"--arms {','.join(ARMS)}")
            if (check := ARMS[arm].check) is not None:
                check()
        if min(self.ns) < 1 or self.k < 1:
            raise RequestError("n and k must be at least 1", "--n 200 --k 1000")
        if max(map(abs, self.seeds)) > LARGEST_WHOLE:
            raise RequestError("a seed must be below 2^53", "--seeds 5")
        if self.protocol == "reference" and self.arms != (ICL,):
            raise RequestError(f"the reference table has figures for {ICL} alone", f"--arms {ICL}")
        check_schedule(self.schedule)
        if self.schedule.precision == "auto":
            # Chosen by a stopwatch, so the same cell could give two numbers.
            raise RequestError("a benchmark states its arithmetic", "--precision fp32, or --precision bf16")
        get_rule(self.rule)

    def arms_at(self, n: int) -> tuple[str, ...]:
        """Return the arms to run with n context rows.

        Under the equal budget n = 1,000 leaves no query row: only plain icl can run there.
        """
        if self.budget == "equal" and n >= LABELS_OF_EQUAL_BUDGET:
            return tuple(arm for arm in self.arms if arm == ICL)
        return tuple(arm for arm in self.arms if n in self._ns_of(arm))

    def _ns_of(self, arm: str) -> tuple[int, ...]:
        if arm == ICL:
            return self.ns
        if arm == TTT:
            return self.ttt_at or self.ns
        return self.controls_at or (min(self.ns, key=lambda n: abs(n - REFERENCE_N)),)

    @property
    def budget_label(self) -> str:
        """The label budget in words."""
        return f"paper k={self.k}" if self.budget == "paper" else "equal"

    @cached_property
    def recipe(self) -> str:
        """The schedule in words; equal words mean an equal schedule."""
        standard, schedule = asdict(STANDARD), asdict(self.schedule)
        always = ("steps",) if self.schedule.rates else ("steps", "lr")  # of a race `rates` are told
        names = [
            *always,
            *(name for name in schedule if name not in always and schedule[name] != standard[name]),
        ]
        return ", ".join(f"{name} {cell_text(schedule[name])}" for name in names)
