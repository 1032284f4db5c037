"""The bundled regressor against ridge regression and a random forest on the same rows.

    python -m studies regression

Data: scikit-learn's diabetes table (442 rows, Efron et al. 2004) and Friedman's three functions
(Friedman 1991; noise 1, 1 and 0.1 standard deviations as scikit-learn scales them). R2 on 150 test rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from studies.engine import Figures, Opened, Study, is_of, label_of, markdown
from tttab.bench.records import Cell
from tttab.bench.store import Contents
from tttab.core import identity_hash
from tttab.seeding import numpy_stream

TEST_ROWS, SIZES = 150, (50, 200)
ARMS = ("icl", "ridge", "forest")
Rows = tuple[np.ndarray, np.ndarray]


SOURCES = {"diabetes": 0.0, "friedman1": 1.0, "friedman2": 1.0, "friedman3": 0.1}
"""Names of tables, and the noise of those that are drawn."""


def drawn(table: str, seed: int) -> Rows:
    """Return x, shape (rows, columns), and y, shape (rows,)."""
    from sklearn import datasets

    if table == "diabetes":
        return datasets.load_diabetes(return_X_y=True)  # one table: seeds name its splits alone
    return getattr(datasets, f"make_{table}")(500, noise=SOURCES[table], random_state=seed)


@dataclass(frozen=True)
class Regression(Study):
    """A regressor in context beside models that are fitted on the same context rows."""

    name: ClassVar[str] = "regression"
    folder: ClassVar[str] = "checkpoint/regression"
    sizes: tuple[int, ...]
    seeds: int
    model: Path

    def cells(self) -> Iterator[Cell]:
        """Yield the cells, seed by seed."""
        label = label_of(self.model)
        for seed in range(self.seeds):
            for table in SOURCES:
                for n in self.sizes:
                    for arm in ARMS:
                        model = label if arm == "icl" else ""
                        yield self.keyed(Cell(table, seed, n, 0, arm, "", "", model, test_asked=TEST_ROWS))

    def rows_of(self, cell: Cell) -> str:
        """Return the hash of what names the rows: they are drawn, not read."""
        return identity_hash({"source": cell.table, "seed": cell.seed, "test": TEST_ROWS})

    def open(self, cell: Cell) -> Opened:
        """Return the rows under the cell's split."""
        x, y = drawn(cell.table, cell.seed)
        order = numpy_stream(cell.seed, "regression", cell.table).permutation(len(y))
        return OnOneSplit(x, y, order[TEST_ROWS : TEST_ROWS + cell.n], order[:TEST_ROWS], self.model)

    def summary(self, contents: Contents) -> str:
        """Return mean R2 by table, n and arm."""
        cells = defaultdict(list)
        for record in contents.done.values():
            at = record.cell
            if is_of(at, self.model):
                cells[at.table, at.n, at.arm].append(record.row.metrics["r2"])
        lines = [
            [table, str(n), *(f"{np.mean(cells[table, n, arm]):.3f}" for arm in ARMS)]
            for table in SOURCES
            for n in sorted({place[1] for place in cells})
        ]
        return markdown(["table", "n", *ARMS], lines)


@dataclass
class OnOneSplit(Opened):
    """Rows of one source: what is fitted on, and what is predicted."""

    x: np.ndarray
    y: np.ndarray
    context: np.ndarray
    test: np.ndarray
    model: Path

    def measure(self, arm: str) -> Figures:
        """Return R2 on the test rows."""
        from sklearn.metrics import r2_score

        fitted = model_of(arm, self.model).fit(self.x[self.context], self.y[self.context])
        return Figures({"r2": float(r2_score(self.y[self.test], fitted.predict(self.x[self.test])))})


def model_of(arm: str, path: Path) -> Any:
    """Return an unfitted model."""
    import torch
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from tabpfn import TabPFNRegressor

    if arm == "ridge":
        return make_pipeline(StandardScaler(), Ridge())
    if arm == "forest":
        return RandomForestRegressor(300, random_state=0)
    return TabPFNRegressor(model_path=path, device="cpu", inference_precision=torch.float32, random_state=0)
