"""Rivals that use all labelled rows in their own way: each is fitted, then it predicts.

`arms` times and compares them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tttab.contracts import Predictor, Session
from tttab.core import Task
from tttab.data.context_selection import medoids_of
from tttab.data.splits import strata_of, stratified_order
from tttab.errors import ModelError, RequestError
from tttab.evaluation.baselines import BaggedTrees, baseline
from tttab.metrics import figures
from tttab.rules import get_rule
from tttab.seeding import numpy_stream
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation
from tttab.training.memory_plan import DEFAULT_BUDGET
from tttab.training.result import Adapted

if TYPE_CHECKING:
    import pandas as pd

MOST_REDRAWN = 384
REDRAWN = Schedule(steps=15, lr=1e-4, warmup=0, split="redraw", guard="off", precision="fp32")
"""PredictLM's settings, as far as a schedule says them."""
TEACHER_FOLDS = 5
LEAST_IN_LEAF = 20
"""Rows in a leaf of scikit-learn's boosted trees, by its default."""


@dataclass(frozen=True)
class RivalData:
    """What a rival is fitted to; it holds no test row."""

    session: Session | None
    """The foundation model; None for a rival that reads none."""
    x: pd.DataFrame
    y: np.ndarray
    """All n + k labelled rows, the n of the context first."""
    n: int
    task: Task
    classes: int
    """0 for regression."""
    seed: int
    table: str
    seconds: float | None = None
    """The most that training may take."""
    budget: int = DEFAULT_BUDGET
    stop: Callable[[], str] = str
    weights: np.ndarray | None = None
    """Shape (rows,): how much each row counts; None: all alike. Only `gbt` and `logistic` use them."""

    @property
    def model(self) -> Session:
        """The foundation model.

        Raises:
            RequestError: there is none.
        """
        if self.session is None:
            raise RequestError("this trial has no model", "Trial(table, split, open_model())")
        return self.session


@dataclass(frozen=True)
class Fitted:
    """A rival that has learned."""

    server: Predictor
    n_context: int
    """Rows it reads with every prediction."""
    k: int
    """Further rows it has been trained on."""
    adapted: Adapted | None = None


Fit = Callable[[RivalData], Fitted]


class EstimatorServer:
    """A fitted scikit-learn model as a predictor: what it keeps is itself."""

    def __init__(self, model: Any, task: Task) -> None:
        self._model, self._task = model, task

    @property
    def cache_bytes(self) -> int:
        """Size of the model, bytes, as it is pickled."""
        return kept_bytes(self._model)

    def predict(self, x: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, shape (rows, classes), or means, shape (rows,)."""
        return self._model.predict_proba(x) if self._task == "classification" else self._model.predict(x)

    def predict_quantiles(self, x: pd.DataFrame, quantiles: Sequence[float]) -> np.ndarray:
        """Raise ModelError: it predicts means and classes alone."""
        raise ModelError("this model predicts no quantiles", "--arms icl@n")

    def metrics(
        self, x: pd.DataFrame, y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None
    ) -> dict[str, float]:
        """Return the figures of merit of `predicted` against the labels."""
        return figures(y, predicted, weights)


def kept_bytes(model: Any) -> int:
    """Return how much a fitted model takes, bytes, as it is pickled."""
    return len(pickle.dumps(model))


def fit_gbt(data: RivalData) -> Fitted:
    """Gradient-boosted trees: scikit-learn's `HistGradientBoosting`, its defaults."""
    return _baseline("gbt", data)


def fit_logistic(data: RivalData) -> Fitted:
    """Logistic regression on standardised numbers and one-hot categories; ridge regression for a number."""
    return _baseline("logistic", data)


def fit_lightgbm(data: RivalData) -> Fitted:
    """LightGBM's default as TabArena runs it (Erickson et al. 2025, arXiv 2506.16791): see `BaggedTrees`.

    Raises:
        MissingExtra: lightgbm is not installed.
    """
    model = BaggedTrees(data.classes, data.seed).fit(data.x, data.y)
    return Fitted(EstimatorServer(model, data.task), 0, len(data.y))


def fit_distilled(data: RivalData) -> Fitted:
    """The trees of `gbt`, trained on what plain in-context learning predicts for the labelled rows.

    Distillation (Hinton et al. 2015, arXiv 1503.02531) of the foundation model into trees that serve without
    it. A row's soft label comes from a context of the other four fifths of the rows, so no row stands in its
    own teacher's context. Every row counts once per class, by the class's probability: that is the expected
    cross-entropy, which scikit-learn's trees do not take as such.
    """
    import pandas as pd

    p = teach(data)
    model = baseline("gbt", data.x, data.task, data.seed)
    if not data.classes:
        return Fitted(EstimatorServer(model.fit(data.x, p), data.task), 0, len(data.y))
    name = model.steps[-1][0]
    # A row's copies go through a tree together; beyond 10,000 rows scikit-learn would stop early.
    leaf = LEAST_IN_LEAF * data.classes
    model.set_params(**{f"{name}__min_samples_leaf": leaf, f"{name}__early_stopping": False})
    copies = pd.concat([data.x] * data.classes)
    labels = np.repeat(np.arange(data.classes), len(data.y))
    model.fit(copies, labels, **{f"{name}__sample_weight": p.T.ravel()})
    return Fitted(EstimatorServer(model, data.task), 0, len(data.y))


def teach(data: RivalData) -> np.ndarray:
    """Return out-of-fold predictions of in-context learning: (rows, classes), or means (rows,)."""
    codes, strata = strata_of(data.y, data.classes)
    rng = numpy_stream(data.seed, "distil")
    order = stratified_order(codes, np.arange(len(data.y)), strata, rng)
    found = np.zeros((len(data.y), data.classes) if data.classes else len(data.y))
    for fold in range(TEACHER_FOLDS):
        own, rest = order[fold::TEACHER_FOLDS], np.delete(order, np.s_[fold::TEACHER_FOLDS])
        # A class whose only row is in this fold is one that its teacher does not know.
        known, labels = np.unique(data.y[rest], return_inverse=True) if data.classes else ([], data.y[rest])
        context = data.model.context(data.x.iloc[rest], labels, len(known))
        place = np.ix_(own, known) if data.classes else own
        found[place] = data.model.serve(context).predict(data.x.iloc[own])
    return found


def fit_finetuned(data: RivalData) -> Fitted:
    """What the model's own package makes of all n + k rows by its own fine-tuning, predicting with all.

    `FinetunedTabPFNClassifier` (tabpfn, Prior Labs 2025) or `FinetunedTabICLClassifier` (tabicl 2, Qu et al.
    2026), their defaults.

    Raises:
        RequestError: it has none for this model and table.
    """
    return _finetuned(data, None)


def fit_finetuned_short(data: RivalData) -> Fitted:
    """The same, predicting with the n rows of the context alone, as test-time training does.

    Raises:
        RequestError: the package has no fine-tuning for this model and table.
    """
    return _finetuned(data, data.n)


def fit_redrawn(data: RivalData) -> Fitted:
    """Fine-tuning as PredictLM does it (predictlm 11.1, ZeroOne Research 2026): its recipe, on this model.

    Fifteen steps at a rate of 1e-4; each draws four fifths of all n + k rows, 384 at most, as its context and
    all others as its queries. What comes out last is served, from all rows. Here a fiftieth of the rows is
    measured on instead, and the rate falls.
    """
    n, rows = min(int(0.8 * len(data.y)), MOST_REDRAWN), len(data.y)
    held = max(1, rows // 50) / (rows - n)
    schedule = replace(REDRAWN, batch=rows, held_out=held, max_seconds=data.seconds)
    context = data.model.context(data.x.iloc[:n], data.y[:n], data.classes)
    queries = data.x.iloc[n:], data.y[n:]
    inputs = get_rule("full"), context, queries, schedule, data.seed, data.budget
    for _ in (run := Adaptation(data.model, *inputs, stop=data.stop)):
        pass
    whole = data.model.context(data.x, data.y, data.classes)
    return Fitted(run.result.session.serve(whole), rows, rows - data.n, run.result)


def fit_medoids(data: RivalData) -> Fitted:
    """Plain in-context learning from the n of all n + k rows that stand for the others.

    Medoids (Kaufman and Rousseeuw 1987) of the model's own vectors of the rows, each a query under the
    first n: a coreset by the network's distances instead of the features'.
    """
    model, x, y = data.model, data.x, data.y
    first = model.context(x.iloc[: data.n], y[: data.n], data.classes)
    chosen = medoids_of(model.row_vectors(first, x), y, data.n, classes=data.classes)
    return Fitted(model.serve(model.context(x.iloc[chosen], y[chosen], data.classes)), data.n, 0)


def _finetuned(data: RivalData, rows: int | None) -> Fitted:
    model = data.model
    server = model.finetuned(data.x, data.y, data.classes, data.seed, data.seconds, rows)
    if server is None:
        message = f"{model.package} has no fine-tuning of its own for {model.info.name} on {data.table}"
        raise RequestError(message, "--arms ttt@n+k,redraw@n+k")
    return Fitted(server, rows or len(data.y), len(data.y) - data.n)


def _baseline(name: str, data: RivalData) -> Fitted:
    model = baseline(name, data.x, data.task, data.seed)
    weights = {} if data.weights is None else {f"{model.steps[-1][0]}__sample_weight": data.weights}
    model.fit(data.x, data.y, **weights)
    return Fitted(EstimatorServer(model, data.task), 0, len(data.y))
