"""The models that read no context: boosted trees and a linear model, from scikit-learn and LightGBM.

`rivals` turns them into arms.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tttab.core import Task
from tttab.data.levels import coded, levels_of
from tttab.data.splits import strata_of, stratified_order
from tttab.errors import MissingExtra
from tttab.seeding import numpy_stream, stream_seed

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

MOST_LEVELS = 200
"""Rarer levels of a category are put together: the trees of scikit-learn take at most 255."""


def baseline(name: str, x: pd.DataFrame, task: Task, seed: int) -> Pipeline:
    """Return an unfitted scikit-learn model called `gbt` or `logistic` (ridge for regression).

    Args:
        name: which one.
        x: the training rows; columns without any value in them are left out.
        task: classification or regression.
        seed: names the model's random stream.
    """
    present = [column for column in x.columns if x[column].notna().any()]
    categories = [column for column in present if x[column].dtype == "category"]
    numbers = [column for column in present if column not in categories]
    random_state = stream_seed(seed, name) % 2**32
    if name == "gbt":
        return _trees(categories, numbers, task, random_state)
    return _linear(categories, numbers, task, random_state)


def _trees(categories: list[str], numbers: list[str], task: Task, random_state: int) -> Pipeline:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    encode = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        encoded_missing_value=np.nan,
        max_categories=MOST_LEVELS,
    )
    columns = ColumnTransformer([("categories", encode, categories), ("numbers", "passthrough", numbers)])
    model = HistGradientBoostingClassifier if task == "classification" else HistGradientBoostingRegressor
    return make_pipeline(
        columns, model(categorical_features=list(range(len(categories))), random_state=random_state)
    )


def _linear(categories: list[str], numbers: list[str], task: Task, random_state: int) -> Pipeline:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=MOST_LEVELS)
    scaled = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer([("categories", one_hot, categories), ("numbers", scaled, numbers)])
    if task == "regression":
        return make_pipeline(columns, Ridge())
    return make_pipeline(columns, LogisticRegression(max_iter=5000, random_state=random_state))


@dataclass
class BaggedTrees:
    """LightGBM as AutoGluon sets it up and TabArena runs it by default.

    Eight folds; each model is stopped early on its own fold, and their answers are averaged (Erickson et al.
    2025, arXiv 2506.16791). The log loss stops them here, also where TabArena's metric is the ROC AUC.
    """

    FOLDS, ROUNDS, PATIENCE = 8, 10_000, 300

    classes: int
    """0 for regression."""
    seed: int
    boosters: list[Any] = field(default_factory=list)
    levels: tuple[int, ...] = ()

    def fit(self, x: pd.DataFrame, y: np.ndarray) -> BaggedTrees:
        """Grow the trees of every fold.

        Raises:
            MissingExtra: lightgbm is not installed.
        """
        try:
            import lightgbm
        except ImportError as error:
            raise MissingExtra("lightgbm", "trees") from error
        self.levels = levels_of(x)
        cells, categories = coded(x, self.levels), [i for i, count in enumerate(self.levels) if count]
        codes, strata = strata_of(y, self.classes)
        order = stratified_order(codes, np.arange(len(y)), strata, numpy_stream(self.seed, "bagged"))

        def data(rows: np.ndarray, **more: Any) -> Any:
            return lightgbm.Dataset(cells[rows], y[rows], categorical_feature=categories, **more)

        for fold in range(self.FOLDS):
            train = data(np.delete(order, np.s_[fold :: self.FOLDS]))
            held = data(order[fold :: self.FOLDS], reference=train)
            stop = lightgbm.early_stopping(self.PATIENCE, verbose=False)
            grown = lightgbm.train(self._settings(), train, self.ROUNDS, valid_sets=[held], callbacks=[stop])
            kept = grown.model_to_string(num_iteration=grown.best_iteration)
            self.boosters.append(lightgbm.Booster(model_str=kept))
        return self

    def predict(self, x: pd.DataFrame) -> np.ndarray:
        """Return the mean answer of the folds' trees, as LightGBM shapes it."""
        cells = coded(x, self.levels)
        return np.mean([booster.predict(cells, num_threads=1) for booster in self.boosters], axis=0)

    def predict_proba(self, x: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, shape (rows, classes)."""
        p = self.predict(x)
        return np.stack([1.0 - p, p], axis=1) if p.ndim == 1 else p

    def _settings(self) -> dict[str, Any]:
        shared = {
            "learning_rate": 0.05,
            "seed": stream_seed(self.seed, "bagged") % 2**31,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        objective = {0: "regression", 2: "binary"}.get(self.classes, "multiclass")
        more = {"num_class": self.classes} if self.classes > 2 else {}
        return shared | more | {"objective": objective}
