"""What trains while every weight is frozen: it starts as the model is, moves alone, and is what is served."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.small_models import small_model
from tests.support.small_tabicl import small_tabicl
from tttab.contracts import Execution
from tttab.data.splits import SplitRequest, split_rows
from tttab.evaluation.arms import ARMS, run_arm
from tttab.evaluation.trial import Trial
from tttab.training.config import Schedule

N, K = 30, 40
TUNED = sorted(arm for arm, about in ARMS.items() if about.tuning)


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture
def unit(model, mixed_table):
    split = split_rows(mixed_table.y, SplitRequest(n=N, k=K, test_size=40), 0, classes=3)
    schedule = Schedule(steps=8, lr=1e-3, precision="fp32")
    return Trial(mixed_table, split, model, schedule=schedule, latency_calls=0)


@pytest.mark.parametrize("what", ["cache", "inputs"])
def test_before_training_the_model_answers_as_it_is(model, parts, what):
    x, y, asked, _ = parts
    context = model.context(x, y, 3)
    tuned = model.tuned(what, context)
    np.testing.assert_allclose(
        tuned.serve(context).predict(asked), model.serve(context).predict(asked), atol=1e-5
    )


@pytest.mark.parametrize(("what", "rows"), [("cache", 0), ("prompt", 4), ("inputs", 0)])
def test_the_gradient_in_what_trains_is_that_of_the_served_loss(model, parts, what, rows):
    x, y, asked, labels = parts
    context = model.context(x, y, 3)
    tuned = model.tuned(what, context, rows)
    queries, every = tuned.queries(context, asked, labels), np.arange(K)
    for leaf in tuned.parameters("all"):
        leaf.requires_grad_(True)
    tuned.accumulate_gradients(context, queries, every, 1 / K, Execution(16))
    assert all(p.grad is None for p in tuned.module.parameters())
    steps = [leaf.grad / leaf.grad.norm() for leaf in tuned.parameters("all") if leaf.grad.norm() > 0]
    assert steps
    slope = sum(leaf.grad.norm().item() for leaf in tuned.parameters("all"))
    losses = []
    for size in (0.01, -0.01):
        moved = tuned.fork()
        for leaf, own in zip(moved.parameters("all"), tuned.parameters("all"), strict=True):
            leaf.data += size * torch.nan_to_num(own.grad / own.grad.norm())
        losses.append(moved.row_scores(context, queries, every, Execution()).loss.mean())
        served = moved.serve(context).predict(asked)[every, labels]
        np.testing.assert_allclose(-np.log(served).mean(), losses[-1], rtol=1e-5)
    assert (losses[0] - losses[1]) / 0.02 == pytest.approx(slope, rel=0.02)


@pytest.mark.parametrize("arm", TUNED)
def test_it_alone_moves_and_is_served_with_its_own_rows_and_bytes(unit, arm):
    before = [parameter.clone() for parameter in unit.model.module.parameters()]
    *steps, last = run_arm(unit, arm)
    assert last.row.accepted and len(steps) == 8 and last.row.k == K
    assert last.row.n_context == N + ARMS[arm].extra_rows
    session, plain = last.adapted.session, unit.model.serve(unit.context)
    for own, other, was in zip(
        session.module.parameters(), unit.model.module.parameters(), before, strict=True
    ):
        assert torch.equal(own, was) and torch.equal(other, was)
    assert not session.trainable() and unit.model.tuning is None
    assert np.abs(last.probabilities - plain.predict(unit.rows("test")[0])).max() > 1e-4
    members, columns, width = 2, 4, 12
    cells = members * (2 * columns + 1)  # of three layers, in the last of which the target's alone is read
    assert last.row.cache_bytes == 2 * 4 * cells * last.row.n_context * width


@pytest.mark.parametrize("arm", TUNED)
def test_where_nothing_helps_the_model_answers_as_it_is(unit, arm, monkeypatch):
    monkeypatch.setattr("tttab.training.selection.Selector.consider", lambda *candidate, **more: None)
    unit.schedule = Schedule(steps=1, precision="fp32")
    last = list(run_arm(unit, arm))[-1]
    plain = list(run_arm(unit, "icl@n"))[-1]
    assert last.row.accepted is False and last.row.n_context == N
    assert np.array_equal(last.probabilities, plain.probabilities)


def test_other_models_have_nothing_to_tune(parts):
    for session in (small_model("tabpfn_v2_5"), small_model(task="regression"), small_tabicl()):
        assert session.tuned("inputs", None) is None
