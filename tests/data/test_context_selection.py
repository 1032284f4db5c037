"""The choice of the n context rows: it divides the same labelled rows and never looks at the test."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tttab.data.context_selection import CHOICES, choose_context, point_cloud
from tttab.data.splits import SplitRequest, split_rows
from tttab.errors import RequestError

RNG = np.random.default_rng(3)
Y = np.concatenate([RNG.integers(0, 3, 197), [3, 3, 3]])
X = pd.DataFrame(
    {
        "a": RNG.normal(0, 1, 200) * 50,
        "b": np.where(RNG.random(200) < 0.2, np.nan, RNG.normal(0, 1, 200)),
        "c": pd.Categorical(RNG.choice(list("xyz"), 200)),
        "d": 1.0,
    }
)


@pytest.fixture
def split():
    return split_rows(Y, SplitRequest(n=20, k=100, test_size=40), seed=4, classes=4)


@pytest.mark.parametrize("how", CHOICES)
def test_a_choice_divides_the_same_labelled_rows_and_holds_every_class(split, how):
    chosen = choose_context(split, how, X, Y, classes=4)
    assert chosen.n == 20 and chosen.k == 100
    assert np.array_equal(chosen.test, split.test)
    both = np.concatenate([chosen.context, chosen.queries])
    assert sorted(both) == sorted(np.concatenate([split.context, split.queries]))
    assert set(Y[chosen.context]) == {0, 1, 2, 3}
    again = choose_context(split, how, X, Y, classes=4)
    assert np.array_equal(again.context, chosen.context) and np.array_equal(again.queries, chosen.queries)


def test_a_choice_never_looks_at_the_test_rows(split):
    blind, labels = X.copy(), Y.copy()
    blind.loc[split.test, ["a", "b"]], labels[split.test] = 1e6, 0
    for how in CHOICES:
        mine, theirs = choose_context(split, how, X, Y), choose_context(split, how, blind, labels)
        assert np.array_equal(mine.context, theirs.context)


def spread(rows):
    """Return the largest distance of a labelled point to its nearest context row."""
    cloud = point_cloud(X)
    return np.sqrt(((cloud[:, None] - cloud[rows]) ** 2).sum(axis=2)).min(axis=1).max()


def test_kcenter_covers_the_table_and_nearest_stays_in_the_middle(split):
    contexts = {how: choose_context(split, how, X, Y).context for how in CHOICES}
    assert spread(contexts["kcenter"]) < spread(contexts["random"]) < spread(contexts["nearest"])
    assert X["a"].iloc[contexts["nearest"]].std() < 0.5 * X["a"].iloc[contexts["random"]].std()


def test_numbers_are_standardised_and_categories_are_a_standard_deviation_apart():
    cloud = point_cloud(X)
    assert cloud.shape == (200, 2 + 3), "the constant column is left out"
    assert cloud[:, 0].std() == pytest.approx(1.0)
    assert (cloud[np.isnan(X["b"]), 1] == 0).all()
    x, y = (np.flatnonzero(X["c"] == letter)[0] for letter in "xy")
    assert np.linalg.norm(cloud[x, 2:] - cloud[y, 2:]) == pytest.approx(1.0)


def test_unknown_choices_are_refused(split):
    with pytest.raises(RequestError) as caught:
        choose_context(split, "k-center", X, Y)
    assert caught.value.hint == "--context stratified|random|kcenter|nearest"


@pytest.mark.parametrize("how", CHOICES)
def test_a_context_of_a_mostly_constant_target_holds_two_values(how):
    y = np.zeros(200)
    y[:6] = 5.0
    for seed in range(4):
        split = split_rows(y, SplitRequest(n=10, k=150, test_size=30), seed)
        chosen = choose_context(split, how, X, y)
        assert len(np.unique(y[chosen.context])) == 2 and chosen.n == 10
        both = np.concatenate([chosen.context, chosen.queries])
        assert sorted(both) == sorted(np.concatenate([split.context, split.queries]))
