"""Predictions averaged from an adapted model and boosted trees; held-out rows choose the weight.

A pretrained model and trees fitted on these rows alone err in different places, so their mean is often better
than either. It is a stacked generalisation with one weight (Wolpert 1992, Breiman 1996). Trees that get no
weight on the held-out rows are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from tttab.blend.trees import Trees
from tttab.contracts import Predictor
from tttab.errors import MissingExtra, RequestError
from tttab.metrics import figures

if TYPE_CHECKING:
    import pandas as pd

WEIGHTS = np.linspace(0.0, 1.0, 21)
"""Shares of the trees that are tried; 0 is the model alone."""
BLENDS = ("trees",)


@dataclass(frozen=True)
class Blend:
    """What is mixed into a model's predictions."""

    trees: Trees
    weight: float
    """Share of the trees, 0 to 1."""

    def mix(self, predicted: np.ndarray, x: pd.DataFrame) -> np.ndarray:
        """Return the weighted mean of the model's predictions for `x` and the trees'."""
        if self.weight == 0.0:
            return predicted
        return (1.0 - self.weight) * predicted + self.weight * self.trees.predict(x)


class BlendedPredictor:
    """A predictor whose answers are mixed with those of trees."""

    def __init__(self, model: Predictor, blend: Blend) -> None:
        self._model, self._blend = model, blend

    @property
    def cache_bytes(self) -> int | None:
        """Size of what the model keeps of the context, bytes."""
        return self._model.cache_bytes

    def predict(self, x: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, shape (rows, classes), or means, shape (rows,)."""
        return self._blend.mix(self._model.predict(x), x)

    def predict_quantiles(self, x: pd.DataFrame, quantiles: Sequence[float]) -> np.ndarray:
        """Return the model's quantiles, moved by as much as the trees move its mean."""
        found, mean = self._model.predict_quantiles(x, quantiles), self._model.predict(x)
        return found + (self._blend.mix(mean, x) - mean)[:, None]

    def metrics(
        self, x: pd.DataFrame, y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None
    ) -> dict[str, float]:
        """Return the figures of merit of `predicted`; a density's are left out, since trees have none."""
        return figures(y, predicted, weights)


def check_blend(blend: str | None) -> None:
    """Check what is to be blended with.

    Raises:
        RequestError: there is nothing of that name.
        MissingExtra: lightgbm is not installed.
    """
    if blend is None:
        return
    if blend not in BLENDS:
        raise RequestError(f"nothing called {blend!r} can be blended with", f"--blend {'|'.join(BLENDS)}")
    if find_spec("lightgbm") is None:
        raise MissingExtra("lightgbm", "trees")


def fit_blend(
    model: Predictor,
    context: tuple[pd.DataFrame, np.ndarray],
    queries: tuple[pd.DataFrame, np.ndarray],
    classes: int,
    held: np.ndarray,
    seed: int,
    weights: np.ndarray | None = None,
) -> Blend:
    """Fit trees to the rows that the model has, and weigh them.

    The weight is chosen on the query rows that training held out, with trees that have not seen them; what
    is served are trees of all n + k rows.

    Args:
        model: the adapted model, as it serves.
        context: x and y of the n rows it reads.
        queries: x and y of the k query rows, in the same columns and categories.
        classes: 0 for regression.
        held: the numbers of those that training held out.
        seed: of the training.
        weights: how much each row counts, the context first, shape (n + k,); None: all alike.

    Raises:
        MissingExtra: lightgbm is not installed.
    """
    import pandas as pd

    x, y = pd.concat([context[0], queries[0]]), np.concatenate([context[1], queries[1]])
    judging = len(context[1]) + held

    def trees(rows: np.ndarray) -> Trees:
        return Trees.fit(x.iloc[rows], y[rows], classes, seed, None if weights is None else weights[rows])

    every, judged = np.arange(len(y)), x.iloc[judging]
    likely = model.predict(judged), trees(np.setdiff1d(every, judging)).predict(judged)
    weight = best_weight(*likely, y[judging], None if weights is None else weights[judging])
    return Blend(trees(every), weight)


def best_weight(
    model: np.ndarray, trees: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Return the share of the trees with the smallest loss: log loss, or squared error for means.

    Args:
        model: shape (rows, classes) or (rows,).
        trees: the same shape.
        y: shape (rows,): class codes, or targets. Of equal losses the smallest share wins.
        weights: how much each row counts, shape (rows,); None: all alike.
    """
    losses = [_loss((1.0 - share) * model + share * trees, y, weights) for share in WEIGHTS]
    # Rounded, because losses that are equal may differ in their last bits.
    return float(WEIGHTS[int(np.argmin(np.round(losses, 12)))])


def _loss(predicted: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> float:
    if predicted.ndim == 1:
        return float(np.average((predicted - y) ** 2, weights=weights))
    likelihood = np.maximum(predicted[np.arange(len(y)), y], np.finfo(float).tiny)
    return float(np.average(-np.log(likelihood), weights=weights))
