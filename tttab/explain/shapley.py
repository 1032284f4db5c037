"""Explanations of a bundle's predictions, through shap and scikit-learn over the cached context.

The background is made of context rows: they replace a feature that counts as unknown.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from tttab.data.levels import coded, levels_of
from tttab.errors import MissingExtra, RequestError
from tttab.seeding import numpy_stream, stream_seed

if TYPE_CHECKING:
    import pandas as pd

    from tttab.bundle import Bundle

BATCH = 4_000
"""Rows that one call of the model predicts."""
GRID, CURVES = 20, 50
"""Values of a feature, and rows, that a partial dependence is computed for."""


@dataclass(frozen=True)
class Explanation:
    """Shapley values of rows: what each feature adds to the prediction, in its own unit."""

    features: tuple[str, ...]
    outputs: tuple[str, ...]
    """The classes, whose probability is explained; or the target alone."""
    values: np.ndarray
    """Shape (rows, features, outputs). With `base` they add up to the predictions."""
    base: np.ndarray
    """Shape (outputs,): the mean prediction over the background."""
    x: pd.DataFrame
    """The rows, in the bundle's form."""
    calls: int
    """Rows that the model predicted on the way."""

    @property
    def predictions(self) -> np.ndarray:
        """What the bundle predicts, shape (rows, outputs)."""
        return self.base + self.values.sum(axis=1)

    @property
    def importance(self) -> np.ndarray:
        """Mean size of each feature's value over rows, summed over outputs and halved for classes.

        A probability that one class gains the others lose, so half the sum is what moves between them. Shape
        (features,).
        """
        moved = np.abs(self.values).sum(axis=2) / (1 if len(self.outputs) == 1 else 2)
        return moved.mean(axis=0)


@dataclass(frozen=True)
class Dependence:
    """How the prediction goes with one feature."""

    feature: str
    grid: tuple[float | str, ...]
    mean: np.ndarray
    """Shape (outputs, grid): the mean over rows with the feature set to each value."""
    rows: np.ndarray
    """Shape (outputs, rows, grid): each row by itself (individual conditional expectation)."""


def explain(
    bundle: Bundle, x: pd.DataFrame, *, background: int = 20, seed: int = 0
) -> Generator[int, None, Explanation]:
    """Compute Shapley values row by row; yields how many are done, returns the explanation.

    Each feature's value is its mean effect over two orders of all features, one the other's reverse, and over
    the background (Lundberg and Lee 2017; the permutation explainer of shap). They add up exactly.

    Args:
        bundle: what predicts.
        x: rows that `bundle.schema.read` gave.
        background: context rows that stand for the unknown.
        seed: names the draw of them and the orders.

    Raises:
        MissingExtra: shap is not installed.
        BundleError: the bundle keeps no rows.
        RequestError: there are no rows, or no background.
    """
    if not len(x) or background < 1:
        raise RequestError("at least one row and one background row are needed", "--rows 100 --background 20")
    bundle.check_rows("an explanation")
    shap = _library()
    codes = _Codes(bundle)
    rng = numpy_stream(seed, "background")
    drawn = rng.permutation(len(bundle.x))[:background]
    background_cells = codes.encode(bundle.x.iloc[np.sort(drawn)])
    masker = shap.maskers.Independent(background_cells, max_samples=len(background_cells))
    explainer = shap.explainers.Permutation(codes.predict, masker, seed=stream_seed(seed, "shap") % 2**31)
    width = x.shape[1]
    cells, parts = codes.encode(x), []
    for row in range(len(cells)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = explainer(
                cells[row : row + 1],
                max_evals=2 * width + 1,  # one order, forwards and backwards
                batch_size=max(1, BATCH // len(background_cells)),
                silent=True,
            )
        parts.append(found.values.reshape(1, width, -1))
        yield row + 1
    base = codes.predict(background_cells).mean(axis=0)
    outputs = bundle.schema.classes or (bundle.schema.target,)
    return Explanation(tuple(x.columns), outputs, np.concatenate(parts), base, x, codes.calls)


def importance(
    bundle: Bundle, x: pd.DataFrame, y: np.ndarray, *, repeats: int = 5, seed: int = 0
) -> np.ndarray:
    """Return how much the loss rises where a feature's cells are shuffled, shape (features, repeats).

    Log loss in nats, for regression the mean squared error: permutation importance (Breiman 2001).
    """
    from sklearn.inspection import permutation_importance
    from sklearn.metrics import log_loss, mean_squared_error

    def score(model: Any, rows: pd.DataFrame, labels: np.ndarray) -> float:
        if not bundle.schema.classes:
            return -float(mean_squared_error(labels, model.predict(rows)))
        return -float(log_loss(labels, model.predict_proba(rows), labels=model.classes_))

    state = stream_seed(seed, "importance") % 2**32
    found = permutation_importance(
        fitted(bundle), x, y, scoring=score, n_repeats=repeats, random_state=state, max_samples=1.0
    )
    return found.importances


def dependence(bundle: Bundle, x: pd.DataFrame, feature: str, seed: int = 0) -> Dependence:
    """Return partial dependence and individual curves of one feature, scikit-learn's (Friedman 2001).

    Over rows that have a value there; at least two different ones are needed.
    """
    import pandas as pd
    from sklearn.inspection import partial_dependence

    known = np.flatnonzero(x[feature].notna())
    rows = x.iloc[np.sort(numpy_stream(seed, "curves").permutation(known)[:CURVES])]
    # scikit-learn takes the answers for two rows for those of two classes.
    shown = pd.concat([rows, rows]) if len(rows) == 2 else rows
    categories = [name for name in x.columns if isinstance(x[name].dtype, pd.CategoricalDtype)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of grids that fall between whole numbers
        found = partial_dependence(
            fitted(bundle), shown, [feature], kind="both", response_method="auto", method="brute",
            grid_resolution=GRID, percentiles=(0.02, 0.98), categorical_features=categories or None,
        )  # fmt: skip
    grid = tuple(value if isinstance(value, str) else float(value) for value in found["grid_values"][0])
    mean, single = found["average"], found["individual"][:, : len(rows)]
    if len(bundle.schema.classes) == 2:  # scikit-learn gives the second class alone
        mean, single = np.concatenate([1 - mean, mean]), np.concatenate([1 - single, single])
    return Dependence(feature, grid, mean, single)


def fitted(bundle: Bundle) -> BaseEstimator:
    """Return the bundle as an estimator of scikit-learn's over rows in its own form."""
    return _Classifier(bundle) if bundle.schema.classes else _Regressor(bundle)


class _Served(BaseEstimator):
    def __init__(self, bundle: Bundle | None = None) -> None:
        self.bundle = bundle

    def fit(self, x: Any, y: Any) -> Any:
        """Return the estimator: it has been fitted."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True


class _Classifier(ClassifierMixin, _Served):
    @property
    def classes_(self) -> np.ndarray:
        """Return the class codes."""
        return np.arange(len(self.bundle.schema.classes)) if self.bundle else np.arange(0)

    def predict_proba(self, x: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, shape (rows, classes)."""
        assert self.bundle is not None, "made with one"
        p = self.bundle.server.predict(x).astype(float)
        return p / p.sum(axis=1, keepdims=True)

    def predict(self, x: pd.DataFrame) -> np.ndarray:
        """Return class codes, shape (rows,)."""
        return self.predict_proba(x).argmax(axis=1)


class _Regressor(RegressorMixin, _Served):
    def predict(self, x: pd.DataFrame) -> np.ndarray:
        """Return means, shape (rows,)."""
        assert self.bundle is not None, "made with one"
        return self.bundle.server.predict(x).astype(float)


class _Codes:
    """Rows as shap wants them, matrices of numbers: a category is its code."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._dtypes: Mapping[str, Any] = dict(bundle.x.dtypes)
        self._levels = levels_of(bundle.x)
        self.calls = 0

    def encode(self, x: pd.DataFrame) -> np.ndarray:
        """Return the rows as numbers, shape (rows, features); texts that the table never had are missing."""
        return coded(x, self._levels)

    def predict(self, cells: np.ndarray) -> np.ndarray:
        """Return what the bundle predicts for a matrix of `encode`'s, shape (rows, outputs)."""
        import pandas as pd

        columns = {}
        for place, (name, dtype) in enumerate(self._dtypes.items()):
            column = cells[:, place]
            if dtype == "category":
                codes = np.where(np.isnan(column), -1, column).astype(int)
                columns[name] = pd.Categorical.from_codes(codes, dtype=dtype)
            else:
                columns[name] = column
        self.calls += len(cells)
        found = self._bundle.server.predict(pd.DataFrame(columns))
        return found.reshape(len(cells), -1).astype(float)


def _library() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import shap
    except ImportError as error:
        raise MissingExtra("shap", "explain") from error
    return shap
