"""The rivals without a context are scikit-learn's models, on columns prepared as a careful user would."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from tttab.evaluation.baselines import MOST_LEVELS, baseline
from tttab.seeding import stream_seed

RNG = np.random.default_rng(2)
ROWS = 160
X = pd.DataFrame(
    {
        "size": RNG.normal(size=ROWS) * 40 + 7,
        "colour": pd.Categorical(RNG.choice(["blue", "green", "red"], ROWS)),
        "weight": RNG.normal(size=ROWS),
    }
)
NUMBER = X["size"].to_numpy() / 40 + X["colour"].cat.codes.to_numpy() + RNG.normal(size=ROWS) * 0.3
LABEL = (np.median(NUMBER) < NUMBER).astype(int)
TRAIN, TEST = np.arange(120), np.arange(120, ROWS)


def by_hand(x):
    """Return the linear model's columns: one per colour, then numbers in standard deviations of training."""
    hot = np.stack([x["colour"] == colour for colour in ("blue", "green", "red")], axis=1)
    known = X.iloc[TRAIN][["size", "weight"]]
    return np.hstack([hot, (x[["size", "weight"]] - known.mean()) / known.std(ddof=0)])


def test_logistic_regression_reads_one_hot_categories_and_standardised_numbers():
    model = baseline("logistic", X.iloc[TRAIN], "classification", 3).fit(X.iloc[TRAIN], LABEL[TRAIN])
    plain = LogisticRegression(max_iter=5000).fit(by_hand(X.iloc[TRAIN]), LABEL[TRAIN])
    expected = plain.predict_proba(by_hand(X.iloc[TEST]))
    assert np.allclose(model.predict_proba(X.iloc[TEST]), expected, atol=1e-6)


def test_its_regression_is_ridge_on_the_same_columns():
    model = baseline("logistic", X.iloc[TRAIN], "regression", 3).fit(X.iloc[TRAIN], NUMBER[TRAIN])
    plain = Ridge().fit(by_hand(X.iloc[TRAIN]), NUMBER[TRAIN])
    assert np.allclose(model.predict(X.iloc[TEST]), plain.predict(by_hand(X.iloc[TEST])))


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_trees_know_categories_as_such_and_take_numbers_as_they_are(task):
    y = LABEL if task == "classification" else NUMBER
    kind = HistGradientBoostingClassifier if task == "classification" else HistGradientBoostingRegressor
    columns = np.column_stack([X["colour"].cat.codes, X["size"], X["weight"]]).astype(float)
    plain = kind(categorical_features=[0]).fit(columns[TRAIN], y[TRAIN])
    model = baseline("gbt", X.iloc[TRAIN], task, 3).fit(X.iloc[TRAIN], y[TRAIN])
    predict = "predict_proba" if task == "classification" else "predict"
    assert np.array_equal(getattr(model, predict)(X.iloc[TEST]), getattr(plain, predict)(columns[TEST]))


@pytest.mark.parametrize("name", ["gbt", "logistic"])
def test_each_rival_has_a_random_stream_of_its_own_name(name):
    last = baseline(name, X, "classification", 3)[-1]
    assert last.random_state == stream_seed(3, name) % 2**32


@pytest.mark.parametrize("name", ["gbt", "logistic"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_missing_cells_columns_without_a_value_and_unseen_or_many_levels_are_no_obstacle(name, task):
    levels = [f"v{number % (MOST_LEVELS + 90)}" for number in range(600)]
    x = pd.DataFrame(
        {
            "gone": np.full(600, np.nan),
            "gaps": np.where(np.arange(600) % 3 == 0, np.nan, np.arange(600.0)),
            "many": pd.Categorical(levels, categories=[*sorted(set(levels)), "unseen"]),
            "empty": pd.Categorical([None] * 600),
        }
    )
    x.loc[5, "many"] = None
    y = (np.arange(600) // 300).astype(int if task == "classification" else float)
    model = baseline(name, x, task, 0).fit(x, y)
    asked = x.iloc[[1, 2, 598]].assign(many=pd.Categorical(["unseen", None, "v9"], x["many"].cat.categories))
    found = model.predict_proba(asked)[:, 1] if task == "classification" else model.predict(asked)
    assert found[0] < 0.5 < found[2], "rows 1 and 598 are told apart by their number"
    if name == "logistic":
        assert model[:-1].transform(x).shape[1] == MOST_LEVELS + 1, "rare levels are one, and a number"
