"""The choice of the n context rows, and the contexts that training sees."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.support.small_models import small_model
from tttab.data.context_selection import CHOICES, choose_context, point_cloud
from tttab.data.splits import SplitRequest, hold_out, split_rows
from tttab.errors import RequestError
from tttab.rules import get_rule
from tttab.training.config import Schedule
from tttab.training.context_policy import Folds, Labelled, Redraw
from tttab.training.loop import Adaptation

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


@pytest.fixture(scope="module")
def given():
    return small_model(members=1)


@pytest.fixture
def labelled(given, split):
    context = given.context(X.iloc[split.context], Y[split.context], 4)
    x, y = X.iloc[split.queries], Y[split.queries]
    train, held = hold_out(y, 0.2, 0, classes=4)
    queries = given.queries(context, x, y)
    return (
        Labelled(given, context, queries, x, y, train, seed=0),
        set(x.iloc[held]["a"]),
        set(X["a"].iloc[split.test]),
    )


def values(batch):
    return set(batch.context.x["a"])


def test_redrawn_contexts_differ_hold_every_class_and_never_a_held_out_row(labelled):
    given, held, test = labelled
    source = Redraw(given)
    batches = [source.batch(30) for _ in range(3)]
    contexts = [frozenset(values(batch)) for batch in batches]
    assert len(set(contexts)) == 3
    for batch, seen in zip(batches, contexts, strict=True):
        assert batch.context.n == 20 and len(batch.rows) == len(batch.queries) == 30
        assert set(batch.context.y) == {0, 1, 2, 3}
        assert not seen & (held | test)
    assert len(source.whole()[0].rows) == 20 + 80 - 20


def test_folds_take_turns_and_cover_all_labelled_rows_that_may_train(labelled):
    given, held, test = labelled
    source = Folds(given)
    parts = source.whole()
    assert len(parts) == 5
    for part in parts:
        assert set(part.context.y) == {0, 1, 2, 3}
        assert 20 <= part.context.n <= 22 and part.context.n + len(part.queries) == 100
        assert not values(part) & (held | test)
    assert len(set.union(*map(values, parts))) == 100
    turns = [source.batch(10).context for _ in range(6)]
    assert turns[0] is turns[5] and len({id(turn) for turn in turns}) == 5


@pytest.mark.parametrize("split_name", ["fixed", "redraw", "kfold"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd-1"])
def test_every_split_trains_with_every_optimiser_repeats_and_serves_the_original_context(
    given, split, split_name, optimizer
):
    context = given.context(X.iloc[split.context], Y[split.context], 4)
    queries = X.iloc[split.queries], Y[split.queries]
    schedule = Schedule(steps=2, batch=16, lr=1e-3, split=split_name, optimizer=optimizer, precision="fp32")
    runs = [Adaptation(given, get_rule("head"), context, queries, schedule) for _ in range(2)]
    losses = [[(step.loss, step.held_out) for step in run] for run in runs]
    assert losses[0] == losses[1]
    assert runs[0].result.context is context
    assert runs[0].result.after <= runs[0].result.before


def test_a_fixed_context_is_prepared_once_and_its_queries_once(given, split, monkeypatch):
    context = given.context(X.iloc[split.context], Y[split.context], 4)
    calls = []
    for name in ("context", "queries"):
        plain = getattr(type(given), name)
        monkeypatch.setattr(
            type(given), name, lambda self, *a, plain=plain, name=name: calls.append(name) or plain(self, *a)
        )
    queries = X.iloc[split.queries], Y[split.queries]
    list(Adaptation(given, get_rule("head"), context, queries, Schedule(steps=4, precision="fp32")))
    assert calls == ["queries"]


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
