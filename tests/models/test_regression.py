"""Regression: what is trained is what is served, in the target's own units."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tabpfn import TabPFNRegressor

from tests.support.small_models import small_model
from tttab.contracts import Execution
from tttab.core import Table
from tttab.data.splits import SplitRequest, split_rows
from tttab.errors import SplitError
from tttab.evaluation.arms import run_arm
from tttab.evaluation.trial import Trial
from tttab.models import open_model
from tttab.rules import RULES, get_rule
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation

MEMBERS = 4


@pytest.fixture(scope="module")
def given():
    return small_model(task="regression", members=MEMBERS)


@pytest.fixture(scope="module")
def parts(mixed_frame):
    x, codes = mixed_frame
    y = 50.0 + 20.0 * x["size"].to_numpy() + np.exp(codes)
    return x[:40], y[:40], x[40:90], y[40:90]


@pytest.fixture(scope="module")
def prepared(given, parts):
    x, y, x_query, y_query = parts
    context = given.context(x, y)
    return context, given.queries(context, x_query, y_query)


def served(session, context, x):
    fitted = session._estimator("fit_preprocessors", session.module).fit(context.x, context.y)
    return fitted.predict(x, output_type="full")


def adapt(given, parts, rule="full", **schedule):
    context = given.context(parts[0], parts[1])
    settings = {"steps": 3, "lr": 1e-3, "precision": "fp32", "batch": 20} | schedule
    return Adaptation(given, get_rule(rule), context, parts[2:], Schedule(**settings))


def test_the_training_loss_is_the_density_that_tabpfn_serves(given, parts, prepared):
    context, queries = prepared
    full = served(given, context, parts[2])
    theirs = full["criterion"](full["logits"].double(), torch.as_tensor(parts[3])).numpy()
    scores = given.row_scores(context, queries, np.arange(50))
    ours = scores.loss
    np.testing.assert_allclose(scores.predicted, given.predict(context, parts[2]), rtol=1e-4, atol=1e-4)
    assert np.abs(ours - theirs).max() < 1e-4
    with torch.no_grad():
        assert given.loss(context, queries, np.arange(50)).item() == pytest.approx(theirs.sum(), rel=1e-5)


def test_the_averaged_bars_are_those_served(given, parts, prepared):
    context, queries = prepared
    with torch.no_grad():
        ours = torch.stack(given._all_bars(context, queries, np.arange(50), Execution())).mean(dim=0)
    theirs = served(given, context, parts[2])["logits"].softmax(dim=-1)
    assert ours.shape == (50, 40)
    assert (ours - theirs).abs().max() < 1e-6


def test_members_are_found_with_their_own_borders(prepared):
    context, _ = prepared
    assert len(context.members) == MEMBERS
    assert len({(m.call, m.batch) for m in context.members}) == MEMBERS
    assert len({tuple(m.borders.tolist()) for m in context.members}) > 1, "some targets are transformed"


def test_one_member_at_a_time_gives_the_same_gradient(given, prepared):
    context, queries = prepared

    def gradient(by_member):
        fork = given.fork()
        fork.module.requires_grad_(True)
        loss = fork.accumulate_gradients(
            context, queries, np.arange(50), 0.02, Execution(by_member=by_member)
        )
        return loss, torch.cat([p.grad.flatten() for p in fork.module.parameters() if p.grad is not None])

    (loss, whole), (other, summed) = gradient(False), gradient(True)
    assert other == pytest.approx(loss, rel=1e-6)
    assert (whole - summed).abs().max() < 1e-4 * whole.abs().max()


def test_memory_cache_and_file_agree_after_adaptation(given, parts, tmp_path):
    run = adapt(given, parts, guard="off")
    list(run)
    session, context = run.result.session, run.result.context
    file = tmp_path / "adapted.safetensors"
    session.save(file)
    plain = TabPFNRegressor(
        model_path=file, device="cpu", inference_precision=torch.float32, random_state=0
    )  # fmt: skip
    expected = served(session, context, parts[2])["mean"]
    server = session.serve(context)
    reopened = open_model(str(file), "regression", device="cpu")
    others = (
        server.predict(parts[2]),
        plain.fit(parts[0], parts[1]).predict(parts[2]),
        reopened.predict(reopened.context(parts[0], parts[1]), parts[2]),
    )
    for other in others:
        assert np.abs(other - expected).max() < 1e-4 * np.std(parts[1])
    assert np.abs(given.predict(context, parts[2]) - expected).max() > 1e-3
    assert server.cache_bytes > 0


@pytest.mark.parametrize("rule", [name for name in RULES if name != "none"])
def test_every_rule_trains_and_leaves_the_given_model_alone(given, parts, rule):
    before = {name: tensor.clone() for name, tensor in given.module.state_dict().items()}
    run = adapt(given, parts, rule, guard="off")
    history = list(run)
    after = run.result.session
    assert len(history) == 3 and all(math.isfinite(step.held_out) for step in history)
    moved = [name for name, t in after.module.state_dict().items() if not torch.equal(t, before[name])]
    assert moved or after.temperature != given.temperature
    assert all(torch.equal(t, before[name]) for name, t in given.module.state_dict().items())


def test_training_lowers_the_held_out_loss_and_repeats(given, parts):
    runs = [adapt(given, parts, steps=10, lr=3e-3, guard="loss+ece") for _ in range(2)]
    losses = [[step.held_out for step in run] for run in runs]
    assert losses[0] == losses[1]
    assert runs[0].result.after < runs[0].result.before
    assert math.isnan(runs[0].result.ece_before)


def test_the_single_step_works_on_regression(given, parts):
    run = adapt(given, parts, optimizer="sgd-1")
    list(run)
    assert run.result.after <= run.result.before


def test_quantiles_ascend_and_scores_match_their_definitions(given, parts, prepared):
    server = given.serve(prepared[0])
    quantiles = server.predict_quantiles(parts[2], (0.05, 0.5, 0.95))
    assert quantiles.shape == (50, 3)
    assert (np.diff(quantiles, axis=1) >= 0).all()
    scores = server.score(parts[2], parts[3])
    assert np.abs(scores["mean"] - server.predict(parts[2])).max() < 1e-6
    assert np.abs(scores["nll"] - given.row_scores(*prepared, np.arange(50)).loss).max() < 1e-3
    many = np.linspace(0.005, 0.995, 100)
    pinball = server.predict_quantiles(parts[2], many) - parts[3][:, None]
    approximate = 2 * np.mean(np.where(pinball > 0, (1 - many) * pinball, -many * pinball), axis=1)
    assert np.abs(scores["crps"] - approximate).max() < 0.05 * np.std(parts[1])


def test_arms_compare_on_a_regression_table(given, parts):
    import pandas as pd

    x, y = pd.concat([parts[0], parts[2]], ignore_index=True), np.concatenate([parts[1], parts[3]])
    x["colour"] = x["colour"].astype("category")
    table = Table("made", "regression", x, y, (), "price", "0" * 64, "file")
    split = split_rows(y, SplitRequest(n=30, k=30, test_size=25), seed=1)
    unit = Trial(table, split, given, schedule=Schedule(steps=2, precision="fp32"), latency_calls=0)
    rows = {
        arm: list(run_arm(unit, arm))[-1].row for arm in ("icl@n", "ttt@n+k", "icl@n+k", "gbt", "logistic")
    }
    for arm, row in rows.items():
        reads = row.n_context > 0
        assert set(row.metrics) == {"rmse", "mae", "r2"} | ({"nll", "crps"} if reads else set()), arm
        assert all(map(math.isfinite, row.metrics.values()))
        assert row.metrics["mae"] <= row.metrics["rmse"]
    assert rows["ttt@n+k"].metrics["nll"] != rows["icl@n"].metrics["nll"]


def test_equal_targets_are_what_is_predicted(given, parts):
    x, _, x_queries, _ = parts
    run = Adaptation(
        given, get_rule("full"), given.context(x, np.full(40, 3.5)), (x_queries, np.full(50, 3.5)), Schedule()
    )
    assert list(run) == [] and run.result.accepted is None and "equal" in run.result.stopped
    server = run.result.session.serve(run.result.context)
    assert server.predict(x_queries).tolist() == [3.5] * 50
    assert (server.predict_quantiles(x_queries, [0.1, 0.9]) == 3.5).all()
    figures = server.metrics(x_queries, np.full(50, 3.5), server.predict(x_queries))
    assert (figures["rmse"], figures["mae"], figures["crps"]) == (0.0, 0.0, 0.0)
    with pytest.raises(SplitError, match="one row"):
        given.context(x[:1], np.array([3.5]))
