"""The contexts that training sees: which rows each policy shows, in which order, and none held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.support.toys import WatchedSession
from tttab.core import Objective
from tttab.data.splits import SplitRequest, hold_out, split_rows, strata_of, stratified_order
from tttab.errors import RequestError
from tttab.rules import get_rule
from tttab.seeding import numpy_stream
from tttab.training.config import Schedule
from tttab.training.context_policy import (
    CONTEXT_POLICIES,
    Fixed,
    Folds,
    Labelled,
    Redraw,
    get_context_policy,
    stacked,
)
from tttab.training.loop import Adaptation

RNG = np.random.default_rng(3)
Y = np.concatenate([RNG.choice([0, 2, 3], 197), [1, 1, 1]])
"""A rare class between two others: strata by value would put it together with one of them."""
X = pd.DataFrame(
    {
        "a": RNG.normal(0, 1, 200) * 50,
        "b": np.where(RNG.random(200) < 0.2, np.nan, RNG.normal(0, 1, 200)),
        "c": pd.Categorical(RNG.choice(list("xyz"), 200)),
        "d": 1.0,
    }
)
NUMBER = {value: row for row, value in enumerate(X["a"])}
"""The number of a row by its first cell."""
N, K, SEED = 20, 100, 11


@pytest.fixture(scope="module")
def split():
    return split_rows(Y, SplitRequest(n=N, k=K, test_size=40), seed=4, classes=4)


@pytest.fixture
def labelled(split):
    session = WatchedSession()
    context = session.context(X.iloc[split.context], Y[split.context], 4)
    x, y = X.iloc[split.queries], Y[split.queries]
    train, _ = hold_out(y, 0.2, SEED, classes=4)
    return Labelled(session, context, session.queries(context, x, y), x, y, train, SEED)


@pytest.fixture
def pool(labelled, split):
    """The rows that may train, by their numbers in the table: the context, then the training queries."""
    return np.concatenate([split.context, split.queries[labelled.train]])


def shown(session):
    """Return the (context rows, query rows) prepared after the first, by their numbers in the table."""
    calls = [[NUMBER[value] for value in cells] for _, cells, _ in session.seen[2:]]
    for _, cells, labels in session.seen:
        assert list(Y[[NUMBER[value] for value in cells]]) == labels
    return list(zip(calls[::2], calls[1::2], strict=True))


def test_a_fixed_context_takes_the_training_rows_in_orders_of_the_stream_batches(labelled):
    source = Fixed(labelled)
    batches = [source.batch(30) for _ in range(6)]
    assert all(batch.context is labelled.context and batch.queries is labelled.queries for batch in batches)
    rng = numpy_stream(SEED, "batches")
    rounds = np.concatenate([rng.permutation(labelled.train) for _ in range(3)])
    assert np.concatenate([batch.rows for batch in batches]).tolist() == rounds[:180].tolist()
    assert len(Fixed(labelled).batch(1000).rows) == 80, "no row twice in a batch"
    (whole,) = source.whole()
    assert whole.context is labelled.context and whole.rows.tolist() == labelled.train.tolist()
    assert shown(labelled.session) == [], "nothing is prepared anew"


def test_redrawn_contexts_hold_every_class_and_never_a_held_out_row(labelled, split, pool):
    source = Redraw(labelled)
    batches = [source.batch(30) for _ in range(3)]
    drawn = shown(labelled.session)
    assert len({frozenset(context) for context, _ in drawn}) == 3
    for batch, (context, queries) in zip(batches, drawn, strict=True):
        assert len(context) == batch.context.n == N and len(queries) == 30
        assert batch.rows.tolist() == list(range(30))
        assert set(Y[context]) == {0, 1, 2, 3}
        assert not set(context) & set(queries) and {*context, *queries} <= set(pool)
    (whole,) = source.whole()
    context, queries = shown(labelled.session)[-1]
    assert sorted([*context, *queries]) == sorted(pool) and len(whole.rows) == 80


def test_redrawn_contexts_follow_the_stream_redraw_in_the_order_context_then_queries(labelled, pool):
    Redraw(labelled).batch(30)
    ((context, queries),) = shown(labelled.session)
    rng = numpy_stream(SEED, "redraw")
    order = pool[stratified_order(Y[pool], np.arange(100), 4, rng)]
    assert context == order[:N].tolist()
    assert queries == rng.permutation(order[N:])[:30].tolist()


def test_folds_divide_all_rows_that_may_train_and_each_serves_all_others(labelled, pool):
    source = Folds(labelled)
    order = pool[stratified_order(Y[pool], np.arange(100), 4, numpy_stream(SEED, "folds"))]
    drawn = shown(labelled.session)
    assert len(drawn) == 5, "100 rows in folds of about 20"
    for number, (context, queries) in enumerate(drawn):
        fold = order[number::5].tolist()
        assert context[: len(fold)] == fold
        missing = sorted({0, 1, 2, 3} - set(Y[fold]))
        assert context[len(fold) :] == [order[Y[order] == label][0] for label in missing]
        assert sorted([*context, *queries]) == sorted(pool)
    assert any(len(context) > N for context, _ in drawn), "three rows of a class cannot stand in five folds"
    assert [len(part.rows) for part in source.whole()] == [len(queries) for _, queries in drawn]


def test_folds_take_turns_and_each_goes_through_its_own_queries(labelled):
    source = Folds(labelled)
    parts = source.whole()
    turns = [source.batch(60) for _ in range(10)]
    assert [turn.context for turn in turns] == [part.context for part in parts] * 2
    for first, second, part in zip(turns[:5], turns[5:], parts, strict=True):
        assert first.queries is part.queries
        assert len(set(first.rows)) == 60, "no row twice before all have been seen"
        assert set(first.rows) | set(second.rows) == set(range(len(part.queries)))
    assert len(source.batch(1000).rows) == len(parts[0].queries)


@pytest.mark.parametrize(("n", "count"), [(30, 3), (41, 2), (70, 2), (90, 2)])
def test_there_are_at_least_two_folds_and_as_many_as_the_context_fits_into_the_rows(n, count):
    session = WatchedSession()
    labels = np.arange(100) % 3
    context = session.context(X[:n], labels[:n], 3)
    x, y = X[n:100], labels[n:]
    rows = Labelled(session, context, session.queries(context, x, y), x, y, np.arange(100 - n), 0)
    assert len(Folds(rows).whole()) == count


def test_a_class_that_no_row_has_is_in_no_fold():
    session, labels = WatchedSession(), np.array([0, 2, 3])[np.arange(60) % 3]
    context = session.context(X[:20], labels[:20], 4)
    x, y = X[20:60], labels[20:]
    rows = Labelled(session, context, session.queries(context, x, y), x, y, np.arange(40), 0)
    assert [set(part.context.y) for part in Folds(rows).whole()] == [{0, 2, 3}] * 3


@pytest.mark.parametrize("policy", [Redraw, Folds])
def test_a_regression_context_holds_each_tenth_of_the_targets(policy):
    session = WatchedSession()
    target = X["a"].to_numpy()
    context = session.context(X[:20], target[:20], 0)
    train = np.arange(80)
    queries = WatchedSession.queries(session, context, X[20:100], np.zeros(80))
    rows = Labelled(session, context, queries, X[20:100], target[20:100], train, 0)
    session.queries = lambda context, x, y: x
    source = policy(rows)
    codes, count = strata_of(target[:100], 0)
    of = dict(zip(target[:100], codes, strict=True))
    for batch in source.whole():
        assert {of[value] for value in batch.context.y} == set(range(count))


@pytest.mark.parametrize("policy", CONTEXT_POLICIES.values())
def test_weights_and_targets_stay_with_their_rows(labelled, split, policy):
    """Every query weighs its number in the table; context rows that become queries count as labelled."""
    weights, targets = split.queries.astype(float), RNG.dirichlet(np.ones(4), K)
    of_row = dict(zip(split.queries.tolist(), targets, strict=True))
    labelled.session.queries = lambda context, x, y: x
    asked = Objective("members", weights, targets)
    source = policy(replace(labelled, queries=labelled.x, objective=asked))
    for batch in [source.batch(9), source.batch(9), *source.whole()]:
        assert batch.objective.loss == "members" and len(batch.rows)
        for row in batch.rows:
            number = NUMBER[batch.queries["a"].iloc[row]]
            new = number in of_row
            assert batch.objective.weights[row] == (number if new else 1.0)
            expected = of_row[number] if new else np.eye(4)[Y[number]]
            assert np.array_equal(batch.objective.targets[row], expected)


def test_stacked_rows_keep_their_order_and_all_categories_of_both():
    first = pd.DataFrame({"c": pd.Categorical(["m", None]), "a": [1.0, np.nan]})
    second = pd.DataFrame({"c": pd.Categorical(["z", "b"]), "a": [3.0, 4.0]}, index=[7, 9])
    both = stacked(first, second)
    assert both["c"].astype(object).fillna("-").tolist() == ["m", "-", "z", "b"]
    assert list(both["c"].cat.categories) == ["b", "m", "z"]
    assert both["a"].tolist()[0::2] == [1.0, 3.0] and both.index.tolist() == [0, 1, 2, 3]


def test_policies_are_found_by_name_and_others_refused():
    assert [get_context_policy(name) for name in CONTEXT_POLICIES] == [Fixed, Redraw, Folds]
    with pytest.raises(RequestError, match="no split is called 'k-fold'") as caught:
        get_context_policy("k-fold")
    assert caught.value.hint == "--split fixed|redraw|kfold"


@pytest.mark.parametrize("split_name", CONTEXT_POLICIES)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd-1"])
def test_every_split_trains_with_every_optimiser_repeats_and_serves_the_original_context(
    mixed_frame, split_name, optimizer
):
    x, y = mixed_frame
    session = WatchedSession()
    context = session.context(x[:30], y[:30], 3)
    schedule = Schedule(steps=8, batch=16, lr=1e-2, split=split_name, optimizer=optimizer, precision="fp32")
    runs = [Adaptation(session, get_rule("full"), context, (x[30:], y[30:]), schedule) for _ in range(2)]
    losses = [[(step.loss, step.held_out) for step in run] for run in runs]
    assert losses[0] == losses[1]
    assert runs[0].result.context is context
    assert runs[0].result.after < runs[0].result.before


def test_a_fixed_context_is_prepared_once_and_its_queries_once(split):
    session = WatchedSession()
    context = session.context(X.iloc[split.context], Y[split.context], 4)
    queries = X.iloc[split.queries], Y[split.queries]
    list(Adaptation(session, get_rule("head"), context, queries, Schedule(steps=4, precision="fp32")))
    assert [part for part, _, _ in session.seen] == ["context", "queries"]
