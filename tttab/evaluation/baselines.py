"""The rivals that read no context: gradient-boosted trees and a linear model, from scikit-learn.

What does not belong here: how they are timed and compared (arms).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tttab.core import Task
from tttab.seeding import stream_seed

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
    present = [c for c in x.columns if x[c].notna().any()]
    categories = [c for c in present if x[c].dtype == "category"]
    numbers = [c for c in present if c not in categories]
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
    kind = HistGradientBoostingClassifier if task == "classification" else HistGradientBoostingRegressor
    return make_pipeline(
        columns, kind(categorical_features=list(range(len(categories))), random_state=random_state)
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
