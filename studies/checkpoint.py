"""A bundled model on real tables, against classical models on the same rows.

    python -m studies checkpoint --arms logistic,forest,gbt,icl
    python -m studies checkpoint --arms ttt,icl --sizes 200 --seeds 3 --out results/checkpoint/ttt
    python -m studies checkpoint --tables wooldridge --model FILE --arms ridge,forest,gbt,icl
    python -m studies checkpoint --summary [--by-kind]

`--tables` takes a suite (`keel`) or a folder of parquet files instead of the package's tables; all of a run
have one task, that of the model. Nothing is chosen on these tables: they are read here and nowhere in
`tttab.pretrain`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from studies.engine import Figures, Opened, Study, is_of, label_of, markdown, open_once
from tttab.bench.records import Cell
from tttab.bench.store import Contents
from tttab.core import Table
from tttab.data import load_table
from tttab.data.splits import Split, SplitRequest, split_rows
from tttab.evaluation.arms import run_arm
from tttab.evaluation.outcome import Outcome
from tttab.evaluation.trial import Trial
from tttab.metrics import figures

if TYPE_CHECKING:
    import pandas as pd

TEST_ROWS = 500
ARMS = ("icl", "logistic", "ridge", "forest", "gbt", "ttt")
OPEN_A_MODEL = ("icl", "ttt")
METRICS = ("accuracy", "roc_auc", "log_loss", "r2")
"""Those that a table's task has."""
Place = tuple[str, int, str]
"""Table, n, arm."""
Found = Mapping[Place, Mapping[int, list[float]]]
"""The metrics of every seed."""


@dataclass(frozen=True)
class Checkpoint(Study):
    """A model in context and trained, beside models that are fitted on the same context rows."""

    name: ClassVar[str] = "checkpoint"
    folder: ClassVar[str] = "checkpoint/packaged"
    tables: tuple[str, ...]
    """Known names or files, as `load_table` takes them."""
    sizes: tuple[int, ...]
    seeds: int
    arms: tuple[str, ...]
    model: Path
    by_kind: bool = False
    """Whether the summary is the means over the tables of each kind."""

    def cells(self) -> Iterator[Cell]:
        """Yield the cells, seed by seed; a table has those sizes that it has rows for."""
        label = label_of(self.model)
        for seed in range(self.seeds):
            for spec in self.tables:
                for n in self.sizes:
                    if split := split_for(spec, n, seed):
                        yield from (self._cell(spec, split, arm, label) for arm in self.arms)

    def _cell(self, spec: str, split: Split, arm: str, label: str) -> Cell:
        table, k = load(spec), split.k if arm == "ttt" else 0
        model = label if arm in OPEN_A_MODEL else ""
        return self.keyed(
            Cell(
                name_of(spec), split.seed, split.n, k, arm, "", table.fingerprint[:12], model,
                test_asked=TEST_ROWS, classes=len(table.classes),
            )
        )  # fmt: skip

    def rows_of(self, cell: Cell) -> str:
        """Return the hash of the context and test rows, for `ttt` of the queries too."""
        parts = ("context", "queries", "test") if cell.arm == "ttt" else ("context", "test")
        return self._split(cell).digest_of(*parts)

    def _split(self, cell: Cell) -> Split:
        split = split_for(self._spec(cell), cell.n, cell.seed)
        assert split is not None  # there would be no such cell
        return split

    def _spec(self, cell: Cell) -> str:
        return next(spec for spec in self.tables if name_of(spec) == cell.table)

    def open(self, cell: Cell) -> Opened:
        """Return the table under the cell's split, and the model."""
        return OnOneSplit(load(self._spec(cell)), self._split(cell), self.model)

    def summary(self, contents: Contents) -> str:
        """Return accuracy / AUC / log loss or R2 of each arm, means over the seeds that all arms have."""
        found: dict[Place, dict[int, list[float]]] = defaultdict(dict)
        for record in contents.done.values():
            cell = record.cell
            if is_of(cell, self.model):
                found[cell.table, cell.n, cell.arm][cell.seed] = _chosen(record.row.metrics)
        arms = [arm for arm in ARMS if any(place[2] == arm for place in found)]
        if self.by_kind:
            lines = [line for kind in KINDS for line in self._kind_lines(found, arms, kind)]
            return markdown(["kind", "n", "tables", *arms], lines)
        lines = [_line(found, arms, *place) for place in sorted({place[:2] for place in found})]
        return markdown(["table", "n", "seeds", *arms], lines)

    def _kind_lines(self, found: Found, arms: list[str], kind: str) -> Iterator[list[str]]:
        """Yield a line per n: means over the kind's tables that all arms have, seeds first."""
        tables = [name_of(spec) for spec in self.tables if KINDS[kind](load(spec))]
        for n in sorted({place[1] for place in found}):
            means = [
                [_means(found.get((table, n, arm), {}), _seeds(found, arms, table, n)) for arm in arms]
                for table in tables
            ]
            whole = [of_table for of_table in means if all(mean is not None for mean in of_table)]
            if whole:
                yield [kind, str(n), str(len(whole)), *map(_shown, np.mean(np.array(whole, float), axis=0))]


@dataclass
class OnOneSplit(Opened):
    """One table under one split."""

    table: Table
    split: Split
    model: Path

    def measure(self, arm: str) -> Figures:
        """Return the figures of merit on the test rows."""
        found = figures(self.table.y[self.split.test], self._predict(arm))
        return Figures({name: found[name] for name in METRICS if name in found})

    def _predict(self, arm: str) -> np.ndarray:
        """Return probabilities or means for the test rows, from the context's (and for `ttt` the queries)."""
        test, context = self.table.x.iloc[self.split.test], self.table.x.iloc[self.split.context]
        labels, classes = self.table.y[self.split.context], len(self.table.classes)
        if arm in OPEN_A_MODEL:
            session = open_once(str(self.model), "cpu", self.table.task)
            if arm == "icl":
                return session.predict(session.context(context, labels, classes), test)
            trial = Trial(self.table, self.split, session, seed=self.split.seed)
            *_, last = run_arm(trial, "ttt@n+k")
            assert isinstance(last, Outcome), "it comes last"
            return last.probabilities
        model = classical(arm, context, classes).fit(context, labels)
        if not classes:
            return model.predict(test)
        p = np.zeros((len(test), classes))
        p[:, model.classes_] = model.predict_proba(test)
        return p


def classical(arm: str, x: pd.DataFrame, classes: int) -> Any:
    """Return an unfitted scikit-learn pipeline for the columns of `x`; classes is 0 for regression."""
    from sklearn import ensemble
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    named = [c for c in x.columns if x[c].dtype == "category"]
    numbers = [c for c in x.columns if c not in named]
    kind = "Classifier" if classes else "Regressor"
    if arm in ("logistic", "ridge"):
        scaled = make_pipeline(SimpleImputer(), StandardScaler())
        columns = [("n", scaled, numbers), ("c", OneHotEncoder(handle_unknown="ignore"), named)]
        linear = LogisticRegression(max_iter=2000) if classes else Ridge()
        return make_pipeline(ColumnTransformer(columns), linear)
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    prepared = ColumnTransformer([("n", SimpleImputer(), numbers), ("c", codes, named)])
    if arm == "forest":
        return make_pipeline(prepared, getattr(ensemble, f"RandomForest{kind}")(300, random_state=0))
    return make_pipeline(prepared, getattr(ensemble, f"HistGradientBoosting{kind}")(random_state=0))


def _chosen(metrics: Mapping[str, float]) -> list[float]:
    return [metrics[name] for name in METRICS if name in metrics]


def _named_share(table: Table) -> float:
    return float(np.mean([dtype == "category" for dtype in table.x.dtypes]))


KINDS: Mapping[str, Callable[[Table], bool]] = {
    "numbers": lambda table: _named_share(table) == 0.0,
    "mixed": lambda table: 0.0 < _named_share(table) < 1.0,
    "categories": lambda table: _named_share(table) == 1.0,
    "wide": lambda table: table.x.shape[1] >= 40,
    "many classes": lambda table: len(table.classes) >= 5,
    "all": lambda table: True,
}
"""Which tables are of a kind; a table may be of several."""


def name_of(spec: str) -> str:
    """Return what a table is called in the store: a known name, or a file's without its ending."""
    return spec.removesuffix(".parquet").rpartition("/")[2]


@lru_cache(maxsize=64)
def load(spec: str) -> Table:
    """Return a table, kept for the next split of this process."""
    return load_table(spec)


@lru_cache(maxsize=512)
def split_for(spec: str, n: int, seed: int) -> Split | None:
    """Return the split: the same test rows for every n, contexts that are prefixes of each other."""
    table = load(spec)
    test = min(TEST_ROWS, len(table) // 4)
    if len(table) - test <= n:
        return None
    request = SplitRequest(n=n, k=1000, test_size=test)
    return split_rows(table.y, request, seed, classes=len(table.classes))


def _line(found: Found, arms: list[str], table: str, n: int) -> list[str]:
    seeds = _seeds(found, arms, table, n)
    means = [_means(found.get((table, n, arm), {}), seeds) for arm in arms]
    return [table, str(n), str(len(seeds)), *map(_shown, means)]


def _seeds(found: Found, arms: list[str], table: str, n: int) -> set[int]:
    """Return the seeds that every arm has that was run on this table at all."""
    seeds = [set(values) for arm in arms if (values := found.get((table, n, arm)))]
    return set.intersection(*seeds) if seeds else set()


def _means(values: Mapping[int, list[float]], seeds: set[int]) -> np.ndarray | None:
    return np.mean([values[seed] for seed in seeds], axis=0) if values and seeds else None


def _shown(means: np.ndarray | None) -> str:
    return "" if means is None else " / ".join(f"{mean:.3f}" for mean in means)
