"""Before any training: what a model could still learn from labelled rows.

Nothing is trained. If the model could learn more from the queries, a fit to some of them improves its
in-context predictions of the others. Three fits are tried: a regression on the network's own row vectors,
small boosted trees on the features, and a longer context. `studies.advice` measures how well that predicts
a gain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tttab.blend.blending import best_weight
from tttab.contracts import Execution
from tttab.data.splits import stratified_order
from tttab.errors import RequestError
from tttab.evaluation.baselines import baseline
from tttab.evaluation.result import setting
from tttab.metrics import log_loss
from tttab.seeding import numpy_stream
from tttab.training.context_policy import stacked

if TYPE_CHECKING:
    import pandas as pd

    from tttab.evaluation.trial import Trial

MOST_ROWS, FEWEST_ROWS = 1000, 20
"""Queries that are used."""
CHUNK = 256
"""Rows of one pass over the network."""
FOLDS = 5
"""Of the cross-fits; the first judges a longer context."""
SMALLEST = 1e-7
"""The least probability that a logarithm is taken of."""


@dataclass(frozen=True)
class Evidence:
    """What was found, losses in nats per row."""

    rows: int
    """Queries that were used."""
    loss: float
    """In-context log loss of the queries."""
    vectors: float
    """What a regression on the network's row vectors takes off it, on rows that it was not fitted to."""
    trees: float
    """What mixing in boosted trees takes off it, likewise."""
    longer: float
    """What four fifths of the queries in the context take off the loss of the last fifth."""


@dataclass(frozen=True)
class Advice:
    """What was found, in words and as data; a report, no verdict."""

    n: int
    evidence: Evidence
    seconds: float
    """What finding out took."""

    @property
    def sentence(self) -> str:
        """The figures, and what they are good for."""
        seen = self.evidence
        added = seen.rows * (FOLDS - 1) // FOLDS
        return (
            f"Of the log loss of {seen.loss:.3f} a regression on the network's row vectors takes"
            f" {seen.vectors:.3f} off, trees {seen.trees:.3f}, {added:,} more rows in context"
            f" {seen.longer:.3f}."
            " Such figures order the gains of training only loosely: no verdict; train, and let the held-out"
            " rows decide."
        )

    def lines(self) -> list[tuple[str, str, str]]:
        """Return name, figure and meaning of all that was found."""
        seen = self.evidence
        return [
            ("loss", f"{seen.loss:.4f}", f"log loss of {seen.rows:,} rows, from {self.n:,} in context"),
            ("vectors", f"{seen.vectors:.4f}", "what a regression on the network's row vectors takes off"),
            ("trees", f"{seen.trees:.4f}", "what small boosted trees take off"),
            ("longer", f"{seen.longer:.4f}", "what four fifths of the rows in context take off"),
        ]

    def to_dict(self, trial: Trial, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the document of `tttab advise --json`."""
        return {
            **setting(trial.table, trial.split, trial.model.info, str(trial.model.device), request),
            "evidence": asdict(self.evidence),
            "sentence": self.sentence,
            "seconds": self.seconds,
        }

    def __repr__(self) -> str:
        """Return the sentence."""
        return self.sentence


def advise(trial: Trial) -> Advice:
    """Return what the labelled rows of a trial say of training; the test rows are not read.

    Raises:
        RequestError: the target is a number, or there are too few queries.
    """
    start = time.perf_counter()
    found = gather(trial)
    return Advice(trial.split.n, found, time.perf_counter() - start)


def gather(trial: Trial) -> Evidence:
    """Return what the rows of a trial say; nothing is trained and the test rows are not read.

    Raises:
        RequestError: the target is a number, or there are too few queries.
    """
    x, y, classes = _queries_of(trial)
    order = stratified_order(y, np.arange(len(y)), classes, numpy_stream(trial.seed, "advice"))
    folds = [np.sort(order[fold::FOLDS]) for fold in range(FOLDS)]
    session, context = trial.model, trial.context
    queries = session.queries(context, x, y)
    predicted = session.row_scores(context, queries, np.arange(len(y)), Execution(CHUNK)).predicted
    assert predicted is not None, "a classifier predicts probabilities"
    known = np.maximum(predicted.astype(float), SMALLEST)
    loss = log_loss(y, known)
    from_vectors = by_vectors(known, session.row_vectors(context, x).astype(float), y, folds)
    from_trees = by_trees(known, x, y, folds, trial.seed)
    share = best_weight(known, from_trees, y)
    mixed = log_loss(y, (1 - share) * known + share * from_trees)
    return Evidence(
        len(y), loss, loss - log_loss(y, from_vectors), loss - mixed, _longer(trial, x, y, folds[0], known)
    )


def _queries_of(trial: Trial) -> tuple[pd.DataFrame, np.ndarray, int]:
    """Return at most `MOST_ROWS` queries, and the number of classes."""
    (x, y), classes = trial.rows("queries"), len(trial.table.classes)
    if not classes:
        raise RequestError("advice is for classes, this target is a number", "tttab run")
    if len(y) < FEWEST_ROWS:
        most = trial.split.n + len(y) - FEWEST_ROWS
        raise RequestError(
            f"advice needs {FEWEST_ROWS} rows beside the context, there are {len(y)}", f"--n {max(1, most)}"
        )
    if len(y) > MOST_ROWS:
        order = stratified_order(y, np.arange(len(y)), classes, numpy_stream(trial.seed, "advice rows"))
        kept = np.sort(order[:MOST_ROWS])
        x, y = x.iloc[kept], y[kept]
    return x, y, classes


def _crossed(y: np.ndarray, folds: Sequence[np.ndarray], known: np.ndarray, answer: Answer) -> np.ndarray:
    """Return cross-fitted probabilities; the known ones where the other folds have a single class."""
    p = known.copy()
    for fold in folds:
        train = np.setdiff1d(np.arange(len(y)), fold)
        if len(np.unique(y[train])) > 1:
            p[fold] = np.maximum(answer(train, fold), SMALLEST)
    return p


Answer = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Maps the numbers of training rows and of the fold's rows to probabilities of the latter."""
PENALTY = 0.03
"""Of the squared coefficients. The constants of the fits were fixed on the included tables alone."""


def by_vectors(
    known: np.ndarray, vectors: np.ndarray, y: np.ndarray, folds: Sequence[np.ndarray]
) -> np.ndarray:
    """Return cross-fitted probabilities of a multinomial regression that adds to the known ones' logarithms.

    Args:
        known: probabilities, shape (rows, classes).
        vectors: what the regression reads, shape (rows, width).
        y: class codes.
        folds: row numbers; each fold is predicted by a fit to the others.
    """
    from scipy.special import softmax

    logs = np.log(known)
    centred = logs - logs.mean(1, keepdims=True)
    scaled = (vectors - vectors.mean(0)) / (vectors.std(0) + 1e-6) * (3 / vectors.shape[1] ** 0.5)
    inputs = np.hstack([np.ones((len(y), 1)), centred / max(centred.std(), 1e-6), scaled])

    def answer(train: np.ndarray, fold: np.ndarray) -> np.ndarray:
        return softmax(logs[fold] + inputs[fold] @ coefficients(logs[train], inputs[train], y[train]), axis=1)

    return _crossed(y, folds, known, answer)


def coefficients(known: np.ndarray, inputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the regression's coefficients, shape (width, classes)."""
    from scipy.optimize import minimize
    from scipy.special import softmax

    rows, shape = np.arange(len(y)), (inputs.shape[1], known.shape[1])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        p = softmax(known + inputs @ weights, axis=1)
        value = log_loss(y, np.maximum(p, SMALLEST)) + PENALTY / 2 * (weights**2).sum()
        p[rows, y] -= 1.0
        return value, (inputs.T @ p / len(y) + PENALTY * weights).ravel()

    start = np.zeros(shape).ravel()
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 60}).x.reshape(shape)


SMALL_TREES = {"max_iter": 40, "learning_rate": 0.05, "max_leaf_nodes": 8}


def by_trees(
    known: np.ndarray, x: pd.DataFrame, y: np.ndarray, folds: Sequence[np.ndarray], seed: int
) -> np.ndarray:
    """Return cross-fitted probabilities of boosted trees that read the features and the known logarithms.

    Args:
        known: probabilities, shape (rows, classes).
        x: features.
        y: class codes.
        folds: as for `by_vectors`.
        seed: names the trees' random stream.
    """
    names = [f"x{place}" for place in range(x.shape[1])]
    logs = {f"p{place}": column for place, column in enumerate(np.log(known).T)}
    wide = x.set_axis(names, axis=1).assign(**logs)
    settings = {f"histgradientboostingclassifier__{name}": value for name, value in SMALL_TREES.items()}

    def answer(train: np.ndarray, fold: np.ndarray) -> np.ndarray:
        trees = baseline("gbt", wide.iloc[train], "classification", seed).set_params(**settings)
        p = np.zeros((len(fold), known.shape[1]))
        trees.fit(wide.iloc[train], y[train])
        p[:, trees.classes_] = trees.predict_proba(wide.iloc[fold])
        return p

    return _crossed(y, folds, known, answer)


def _longer(trial: Trial, x: pd.DataFrame, y: np.ndarray, judged: np.ndarray, known: np.ndarray) -> float:
    """Return by how much the loss of the judged queries falls with all others in the context."""
    session, context = trial.model, trial.context
    added = np.setdiff1d(np.arange(len(y)), judged)
    labelled = stacked(context.x, x.iloc[added]), np.concatenate([context.y, y[added]])
    longer = session.context(*labelled, context.classes)
    queries = session.queries(longer, x.iloc[judged], y[judged])
    after = session.row_scores(longer, queries, np.arange(len(judged)), Execution(CHUNK)).loss
    return log_loss(y[judged], known[judged]) - float(after.mean())
