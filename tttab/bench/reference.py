"""A public table of in-context results, to compare with ours if you have the official file.

Figures: the repository kami3kardes/subsample-tabpfn-v2 (results/experiment_1_summary.csv and
experiment_2_summary.csv). TabPFN v2 in tabpfn's default classifier file, one ensemble member, 80/20 split
with random_state 42, at most 10,000 test rows, ordinal codes, median imputation, random contexts, macro ROC
AUC, seeds 1 to 4.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from tttab.bench.records import Record
from tttab.core import Table, identity_hash
from tttab.data.splits import Split
from tttab.errors import SplitError
from tttab.seeding import numpy_stream

MODEL = "tabpfn-v2-finetuned"
"""tabpfn's own default classifier file."""
SPLIT_SEED = 42
TEST_SHARE, MOST_TEST = 0.2, 10_000
TOLERANCE = 0.01
NS = (1000, 2500, 5000, 10_000)
FIGURES: dict[str, tuple[float, float, float, float]] = {
    "adult": (0.9035, 0.9095, 0.9124, 0.9149),
    "bank-marketing": (0.9046, 0.9197, 0.9260, 0.9305),
    "jannis": (0.8181, 0.8436, 0.8534, 0.8605),
    "volkert": (0.8687, 0.8899, 0.9030, 0.9114),
    "connect-4": (0.7906, 0.8308, 0.8529, 0.8636),
    "covertype": (0.9371, 0.9538, 0.9687, 0.9780),
    "higgs": (0.7475, 0.7685, 0.7800, 0.7871),
    "mozilla4": (0.9609, 0.9693, 0.9726, 0.9773),
}
"""Macro ROC AUC, mean over the seeds, by table and context size of `NS`."""


@dataclass(frozen=True)
class Comparison:
    """One figure of the table, and ours."""

    table: str
    n: int
    published: float
    ours: float | None
    """Mean over `seeds` splits; None where none is in the store."""
    seeds: int

    @property
    def passes(self) -> bool:
        """Whether ours, to the four digits that are published, is within `TOLERANCE`."""
        return self.ours is not None and round(abs(self.ours - self.published), 4) <= TOLERANCE


def compare(records: Iterable[Record], tables: Iterable[str], ns: Iterable[int]) -> Iterator[Comparison]:
    """Yield a comparison for every published figure of `tables` and `ns`.

    Args:
        records: finished cells of this suite.
        tables: names of `FIGURES`; others have no figure.
        ns: context sizes of `NS`; others have no figure.
    """
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for record in records:
        if not record.failed:
            found[record.cell.table, record.cell.n].append(record.row.metrics["roc_auc"])
    wanted = sorted(set(ns) & set(NS))
    for table in tables:
        for n in wanted if table in FIGURES else ():
            areas = found[table, n]
            published = FIGURES[table][NS.index(n)]
            yield Comparison(table, n, published, fmean(areas) if areas else None, len(areas))


def coded(table: Table) -> Table:
    """Return a table as the figures' author fed it: categories as ordinal codes, medians for missing cells.

    Medians and codes are those of the training part. The fingerprint is another than the table's own.
    """
    train, _ = _halves(len(table))
    columns = {}
    for name in table.x.columns:
        values = table.x[name]
        if values.dtype != np.float64:
            # Alphabetical, as scikit-learn's encoder has them; -1 is a missing cell.
            values = values.cat.codes.astype(np.float64)
        median = values.iloc[train].median()
        columns[name] = values.fillna(0.0 if np.isnan(median) else median)
    x = table.x.iloc[:, :0].assign(**columns)
    marks = {"table": table.fingerprint, "codes": "ordinal", "missing": "median", "seed": SPLIT_SEED}
    return replace(table, x=x, columns=(), fingerprint=identity_hash(marks))


def reference_split(y: np.ndarray, n: int, seed: int, classes: int) -> Split:
    """Return n random rows of the training part as context, and the test rows; nothing trains.

    A class that no context row has takes the place of the last rows: the model reads no other classes.

    Raises:
        SplitError: the training part has fewer than n rows.
    """
    train, test = _halves(len(y))
    if len(train) < n:
        raise SplitError(f"{len(train):,} rows are left to draw {n:,} context rows from", f"--n {len(train)}")
    context = numpy_stream(seed, "reference context").permutation(train)[:n]
    absent = [code for code in range(classes) if not (y[context] == code).any() and (y[train] == code).any()]
    for place, code in enumerate(absent, start=1):
        context[-place] = train[y[train] == code][0]
    return Split(context, context[:0], test[:MOST_TEST], seed)


def _halves(rows: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(np.arange(rows), test_size=TEST_SHARE, random_state=SPLIT_SEED)
    return train, test
