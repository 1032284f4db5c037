"""What rows say of training before it: every figure against hand-made values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.support.toys import WatchedSession
from tttab.core import Table
from tttab.data.splits import SplitRequest, split_rows
from tttab.errors import RequestError
from tttab.evaluation import advice
from tttab.evaluation.trial import Trial
from tttab.metrics import log_loss
from tttab.testing import ToySession


def table(rows=120, task="classification"):
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, rows)
    x = pd.DataFrame({"a": y + rng.normal(0, 0.7, rows), "b": rng.normal(0, 1, rows)})
    known = ("no", "yes") if task == "classification" else ()
    return Table("toy", task, x, y if known else y.astype(float), known, "y", "0" * 64, "memory")


def trial_of(found, n=30, session=None):
    split = split_rows(found.y, SplitRequest(n, 1000), 0, classes=len(found.classes))
    return Trial(found, split, session or ToySession())


def folds(rows, parts=5):
    return [np.arange(rows)[part::parts] for part in range(parts)]


def coins(rows=200):
    """Return labels that nothing is known of: half and half."""
    y = np.random.default_rng(0).integers(0, 2, rows)
    return y, np.full((rows, 2), 0.5)


def test_the_regression_finds_what_vectors_know_and_the_probabilities_do_not():
    y, known = coins()
    telling = np.stack([y, np.arange(200) % 7], 1).astype(float)
    assert log_loss(y, advice.by_vectors(known, telling, y, folds(200))) < 0.3
    silent = advice.by_vectors(known, np.zeros((200, 3)), y, folds(200))
    assert log_loss(y, silent) == pytest.approx(np.log(2), abs=0.02)


def test_trees_find_what_features_know_and_the_probabilities_do_not():
    y, known = coins()
    x = pd.DataFrame({"a": y + 0.0, "b": pd.Categorical(np.array(["u", "v"])[np.arange(200) % 2])})
    assert log_loss(y, advice.by_trees(known, x, y, folds(200), 0)) < 0.2


def test_no_row_is_told_by_a_fit_that_has_seen_it():
    y, known = coins(40)
    ids = pd.DataFrame({"id": pd.Categorical([f"row {row}" for row in range(40)])})
    one_hot = np.eye(40)
    for p in (advice.by_vectors(known, one_hot, y, folds(40)), advice.by_trees(known, ids, y, folds(40), 0)):
        assert log_loss(y, p) > 0.6


def test_the_regression_keeps_what_the_probabilities_know():
    y, _ = coins()
    right = np.where(y[:, None] == np.arange(2), 0.9, 0.1)
    noise = np.random.default_rng(0).normal(0, 1, (200, 2))
    assert log_loss(y, advice.by_vectors(right, noise, y, folds(200))) < -np.log(0.9) + 0.01


def test_the_coefficients_are_where_the_penalised_loss_is_flat():
    rng = np.random.default_rng(1)
    read, y, known = rng.normal(0, 1, (50, 2)), rng.integers(0, 3, 50), np.log(rng.dirichlet(np.ones(3), 50))
    weights = advice.coefficients(known, read, y)
    p = np.exp(known + read @ weights)
    p /= p.sum(1, keepdims=True)
    slope = read.T @ (p - np.eye(3)[y]) / 50 + advice.PENALTY * weights
    assert np.abs(slope).max() < 1e-4


def test_a_fold_whose_others_have_one_class_stays_as_known():
    y, known = np.array([1, 0, 0, 0]), np.full((4, 2), 0.5)
    p = advice.by_vectors(known, np.arange(4.0)[:, None], y, [np.array([0]), np.array([1, 2, 3])])
    assert p[0] == pytest.approx(known[0]) and len(np.unique(y[1:])) == 1


def test_the_sentence_holds_the_figures_and_gives_no_verdict():
    told = advice.Advice(30, advice.Evidence(100, 0.5, 0.04, 0.03, 0.02), 1.0).sentence
    assert told.startswith(
        "Of the log loss of 0.500 a regression on the network's row vectors takes 0.040 off, trees"
    )
    assert "trees 0.030, 80 more rows in context 0.020" in told and "no verdict" in told


def test_the_loss_and_a_longer_contexts_gain_are_those_of_the_model_as_it_serves():
    trial = trial_of(table())
    x, y = trial.rows("queries")
    found = advice.gather(trial)
    p = trial.model.serve(trial.context).predict(x)
    assert (found.rows, found.loss) == (
        len(y),
        pytest.approx(-np.log(p[np.arange(len(y)), y]).mean(), rel=1e-5),
    )
    assert abs(found.longer) < found.loss


def test_neither_test_rows_nor_training_are_asked():
    watched = WatchedSession()
    trial = trial_of(table(), session=watched)
    before = [p.detach().clone() for p in watched.parameters("all")]
    advice.gather(trial)
    test = set(trial.rows("test")[0].iloc[:, 0])
    assert watched.seen and not any(test & set(cells) for _, cells, _ in watched.seen)
    assert all((a == b).all() for a, b in zip(before, watched.parameters("all"), strict=True))


def test_more_queries_than_are_looked_at_are_sampled(monkeypatch):
    monkeypatch.setattr(advice, "MOST_ROWS", 40)
    assert advice.gather(trial_of(table())).rows == 40


@pytest.mark.parametrize(("found", "n", "message"), [
    (table(task="regression"), 30, "advice is for classes"),
    (table(50), 30, "advice needs 20 rows beside the context, there are 8"),
])  # fmt: skip
def test_what_cannot_be_advised_says_so(found, n, message):
    with pytest.raises(RequestError, match=message):
        advice.gather(trial_of(found, n))
