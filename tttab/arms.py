"""The arms of a comparison: what is predicted with what, on one unit (table, split, model).

Arms of one unit share the split, the opened model and the prepared context. Each arm is one
function and one line in `ARMS`. What does not belong here: many units (bench), printing (cli).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tttab.adapt import Adaptation, Adapted, Schedule, Step
from tttab.baselines import baseline
from tttab.core import Row, Table
from tttab.errors import RequestError
from tttab.memory import DEFAULT_BUDGET
from tttab.metrics import classification_metrics
from tttab.rules import get_rule
from tttab.splits import Split

if TYPE_CHECKING:
    import pandas as pd

LATENCY_ROWS = 1000
LATENCY_REPEATS = 3


@dataclass(frozen=True)
class Progress:
    """An arm is at work: the step it has reached."""

    arm: str
    step: Step


@dataclass
class Outcome:
    """An arm is done."""

    row: Row
    probabilities: np.ndarray
    """Predictions on the test rows, shape (test, classes)."""
    adapted: Adapted | None = None


@dataclass
class Unit:
    """One (table, split, model), with what its arms share."""

    table: Table
    split: Split
    session: Any
    """An opened model, or None where only arms without one are run."""
    rule: str = "full"
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0
    """Names the training streams; the split carries its own seed."""
    budget: int = DEFAULT_BUDGET
    open_seconds: float = 0.0

    def run(self, arm: str) -> Iterator[Progress | Outcome]:
        """Yield the arm's progress and, last, its outcome.

        Raises:
            RequestError: there is no such arm.
        """
        if arm not in ARMS:
            raise RequestError(f"no arm is called {arm!r}", f"--arms {','.join(ARMS)}")
        yield from ARMS[arm].run(self, arm)

    def identity(self, arm: str) -> dict[str, Any]:
        """Return exactly what changes the arm's numbers."""
        about = ARMS[arm]
        trained = about.rule is not None
        return {
            "table": self.table.fingerprint,
            "split": {
                "seed": self.split.seed,
                "n": self.split.n,
                "k": self.split.k,
                "rows": self.split.digest,
            },
            "model": self.session.info.sha256 if about.model else None,
            "arm": arm,
            "rule": (about.rule or self.rule) if trained else None,
            "schedule": asdict(self.schedule) if trained else None,
            "seed": self.seed if trained or not about.model else None,
        }

    def rows(self, part: str) -> tuple[pd.DataFrame, np.ndarray]:
        """Return x and y of a part of the split: `context`, `queries`, `test` or `labelled` (n + k)."""
        if part == "labelled":
            which = np.concatenate([self.split.context, self.split.queries])
        else:
            which = getattr(self.split, part)
        return self.table.x.iloc[which], self.table.y[which]

    @cached_property
    def context(self) -> Any:
        """The n context rows, prepared."""
        return self.session.context(*self.rows("context"), len(self.table.classes))


@dataclass(frozen=True)
class Arm:
    """How an arm runs, whether it reads the model, and which rule it trains (`""`: the unit's own)."""

    run: Callable[[Unit, str], Iterator[Progress | Outcome]]
    about: str
    model: bool = True
    rule: str | None = None


def run_icl(unit: Unit, arm: str) -> Iterator[Outcome]:
    """Plain in-context learning with the n context rows."""
    yield _serve(unit, arm, unit.session, unit.context, k=0)


def run_icl_all(unit: Unit, arm: str) -> Iterator[Outcome]:
    """Plain in-context learning with all n + k labelled rows: the honest rival of the same budget."""
    context = unit.session.context(*unit.rows("labelled"), len(unit.table.classes))
    yield _serve(unit, arm, unit.session, context, k=0)


def run_ttt(unit: Unit, arm: str) -> Iterator[Progress | Outcome]:
    """Test-time training: context of n rows, the k rows as queries."""
    rule = get_rule(ARMS[arm].rule or unit.rule)
    adaptation = Adaptation(
        unit.session, rule, unit.context, unit.rows("queries"), unit.schedule, unit.seed, unit.budget
    )
    for step in adaptation:
        yield Progress(arm, step)
    adapted = adaptation.result
    yield _serve(unit, arm, adapted.session, adapted.context, k=unit.split.k, adapted=adapted)


def run_estimator(unit: Unit, arm: str) -> Iterator[Outcome]:
    """A scikit-learn classifier on all n + k labelled rows."""
    x, y = unit.rows("labelled")
    model = baseline(arm, x, unit.table.task, unit.seed)
    start = time.perf_counter()
    model.fit(x, y)
    fitted = time.perf_counter() - start
    x_test, y_test = unit.rows("test")
    start = time.perf_counter()
    p = model.predict_proba(x_test)
    seconds = {"open": 0.0, "adapt": fitted, "predict": time.perf_counter() - start}
    row = Row(
        identity=unit.identity(arm),
        arm=arm,
        n_context=0,
        k=len(y),
        metrics=classification_metrics(y_test, p),
        seconds=seconds,
        ms_per_1000_rows=_latency(model.predict_proba, x_test),
    )
    yield Outcome(row, p)


ARMS: dict[str, Arm] = {
    "icl@n": Arm(run_icl, "in-context learning, n rows"),
    "ttt@n+k": Arm(run_ttt, "test-time training on k rows, context of n", rule=""),
    "icl@n+k": Arm(run_icl_all, "in-context learning, all n + k rows"),
    "gbt": Arm(run_estimator, "gradient-boosted trees on n + k rows", model=False),
    "logistic": Arm(run_estimator, "logistic regression on n + k rows", model=False),
}
"""`rule=""` means the rule the unit was asked for."""


def _serve(
    unit: Unit, arm: str, session: Any, context: Any, *, k: int, adapted: Adapted | None = None
) -> Outcome:
    """Predict the test rows from `context` with a key-value cache, and time it."""
    x_test, y_test = unit.rows("test")
    start = time.perf_counter()
    server = session.serve(context)
    p = server.predict(x_test)
    seconds = {
        "open": unit.open_seconds,
        "adapt": adapted.seconds if adapted else 0.0,
        "predict": time.perf_counter() - start,
    }
    row = Row(
        identity=unit.identity(arm),
        arm=arm,
        n_context=context.n,
        k=k,
        metrics=classification_metrics(y_test, p),
        seconds=seconds,
        ms_per_1000_rows=_latency(server.predict, x_test),
        cache_bytes=server.cache_bytes,
        steps=adapted.step if adapted else 0,
        accepted=adapted.accepted if adapted else None,
    )
    return Outcome(row, p, adapted)


def _latency(predict: Callable[[Any], np.ndarray], x: pd.DataFrame) -> float:
    """Return milliseconds per 1,000 rows: the fastest of a few calls on 1,000 rows of `x`, repeated."""
    rows = x.iloc[np.resize(np.arange(len(x)), LATENCY_ROWS)].reset_index(drop=True)
    best = float("inf")
    for _ in range(LATENCY_REPEATS):
        start = time.perf_counter()
        predict(rows)
        best = min(best, time.perf_counter() - start)
    return 1000 * best
