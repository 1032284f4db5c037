"""Every family x every rule: it trains, leaves what it was given alone, repeats, comes back from a file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import tttab.models
from tests.support.small_models import small_model
from tests.support.small_tabicl import small_tabicl
from tttab.contracts import Execution, Rule, Session
from tttab.data.splits import SplitRequest, split_rows
from tttab.errors import ModelError, RuleError
from tttab.evaluation.arms import run_arm
from tttab.evaluation.outcome import Outcome
from tttab.evaluation.trial import Trial
from tttab.models import for_classes, open_model
from tttab.models.families import FAMILIES
from tttab.rules import RULES, get_rule
from tttab.testing import ToyFamily, ToySession
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation

OPENED = {
    "tabpfn": small_model,
    "tabicl": small_tabicl,
    "toy": ToySession,
    "coded": lambda: for_classes(ToySession(classes=2), 3),
}
"""`coded` is a toy of two outputs that tells three classes."""
PAIRS = [(family, rule) for family in OPENED for rule in RULES]
LACKING = {("toy", "attention"), ("coded", "attention")}
"""What a family has not; its rule says so."""


@pytest.fixture(scope="module")
def models():
    return {name: make() for name, make in OPENED.items()}


@pytest.fixture(scope="module")
def contexts(models, parts):
    return {name: session.context(*parts[:2], 3) for name, session in models.items()}


@pytest.fixture
def with_toys(monkeypatch):
    monkeypatch.setattr(tttab.models, "FAMILIES", (*FAMILIES, ToyFamily()))


def adapt(session, rule, parts, context=None):
    x, y, *queries = parts
    schedule = Schedule(steps=2, lr=1e-3, guard="off", batch=16, precision="fp32")
    run = Adaptation(session, get_rule(rule), context or session.context(x, y, 3), queries, schedule)
    return run, list(run)


def weights(session):
    named = [*session.parameters("all"), *session.parameters("temperature")]
    return torch.cat([parameter.detach().flatten().clone() for parameter in named])


def test_every_registered_family_is_held_by_these_tests(models):
    assert {family.name for family in FAMILIES} <= set(OPENED)
    assert all(isinstance(session, Session) for session in models.values())
    assert all(isinstance(rule, Rule) for rule in RULES.values())


@pytest.mark.parametrize(("family", "rule"), PAIRS)
def test_every_rule_trains_every_family_repeats_and_comes_back_from_a_file(
    models, contexts, parts, family, rule, tmp_path, with_toys
):
    given, context = models[family], contexts[family]
    if (family, rule) in LACKING:
        with pytest.raises(RuleError, match=given.info.name):
            adapt(given, rule, parts, context)
        return
    before = weights(given)
    (run, history), (again, repeated) = (adapt(given, rule, parts, context) for _ in range(2))
    session = run.result.session
    assert [step.loss for step in history] == [step.loss for step in repeated]
    assert torch.equal(weights(session), weights(again.result.session))
    assert torch.equal(weights(given), before) and not given.trainable() and not session.trainable()
    assert torch.equal(weights(session), before) == (rule == "none") == (history == [])
    x, y, x_query, _ = parts
    file = tmp_path / f"adapted.{session.suffix}"
    session.save(file)
    reopened = for_classes(open_model(str(file), device="cpu"), 3)
    assert type(reopened) is type(session)
    served, back = (
        one.serve(rows).predict(x_query)
        for one, rows in ((session, context), (reopened, reopened.context(x, y, 3)))
    )
    np.testing.assert_allclose(back, served, atol=1e-6)
    assert served.shape == (40, 3) and np.ptp(served, axis=0).max() > 1e-4


@pytest.mark.parametrize("family", OPENED)
def test_sessions_that_share_weights_answer_as_alone_and_change_none(models, parts, family):
    x, y, asked, _ = parts
    sessions = models[family].fork(), models[family].fork()
    for number, session in enumerate(sessions):
        session.parameters("temperature")[0].data.add_(0.1)
        session.parameters("head")[-1].data.add_(number)
    alone = [one.serve(one.context(x, y, 3)).predict(asked) for one in sessions]
    pool, before = {}, [weights(one) for one in sessions]
    for one in sessions:
        one.share_weights(pool)
    for one, expected in zip(sessions, alone, strict=True):
        assert np.array_equal(one.serve(one.context(x, y, 3)).predict(asked), expected)
        fork = one.fork()
        for weight in fork.parameters("all"):
            weight.data.zero_()
    assert all(map(torch.equal, map(weights, sessions), before))
    both = {weight.data_ptr() for one in sessions for weight in one.parameters("all")}
    assert family in ("toy", "coded") or len(both) == len(sessions[0].parameters("all")) + 1


@pytest.mark.parametrize("family", OPENED)
def test_how_a_step_runs_changes_no_gradient_beyond_rounding(models, contexts, parts, family):
    x_query, y_query = parts[2:]
    context = contexts[family]
    queries = models[family].queries(context, x_query, y_query)

    def gradient(how):
        fork = models[family].fork()
        for parameter in fork.parameters("all"):
            parameter.requires_grad_(True)
        loss = fork.accumulate_gradients(context, queries, np.arange(40), 0.1, how)
        scores = fork.row_scores(context, queries, np.arange(40), how)
        assert loss == pytest.approx(0.1 * scores.loss.sum(), rel=1e-4)
        np.testing.assert_allclose(-np.log(scores.predicted[np.arange(40), y_query]), scores.loss, rtol=1e-3)
        np.testing.assert_allclose(scores.predicted.sum(axis=1), 1, atol=1e-4)
        grads = [p.grad.flatten() for p in fork.trainable().values() if p.grad is not None]
        return torch.cat(grads)

    whole = gradient(Execution())
    for how in (Execution(7), Execution(None, True), Execution(11, False, True), Execution(5, True, True)):
        assert (gradient(how) - whole).norm() < 1e-4 * whole.norm()


def test_a_family_without_a_cost_model_trains_one_batch_at_a_time_without_a_plan(models, parts):
    run, _ = adapt(models["toy"], "full", parts)
    assert run.result.plan is None
    assert run.result.execution == Execution(16)
    assert run.result.plan_summary == "trained in fp32, 16 queries at a time"
    planned, _ = adapt(models["tabpfn"], "full", parts)
    assert planned.result.plan is not None and planned.result.execution == planned.result.plan.execution


def test_a_family_without_tabpfn_runs_through_a_trial(models, mixed_table):
    split = split_rows(mixed_table.y, SplitRequest(n=30, k=40, test_size=40), 0, classes=3)
    trial = Trial(mixed_table, split, models["toy"], schedule=Schedule(steps=40, lr=1e-2), latency_calls=0)
    outcomes = {arm: list(run_arm(trial, arm))[-1] for arm in ("icl@n", "ttt@n+k", "temperature@n")}
    assert all(isinstance(outcome, Outcome) for outcome in outcomes.values())
    rows = {arm: outcome.row for arm, outcome in outcomes.items()}
    assert rows["ttt@n+k"].accepted and rows["ttt@n+k"].steps > 0
    assert rows["ttt@n+k"].metrics["log_loss"] < rows["icl@n"].metrics["log_loss"]
    assert rows["icl@n"].cache_bytes is None and rows["icl@n"].n_context == 30


@dataclass(frozen=True)
class OneLayer(Rule):
    """A rule of a user's own, with an argument: the layer that moves."""

    name: str = "one-layer"
    number: int = 0

    def parameters(self, session):
        return list(session.layers[self.number].parameters())

    @classmethod
    def parse(cls, argument):
        return cls(name=f"one-layer:{int(argument)}", number=int(argument))


@pytest.mark.parametrize("family", OPENED)
def test_a_rule_is_a_class_and_a_line_and_may_take_an_argument(models, parts, monkeypatch, family):
    monkeypatch.setitem(RULES, "one-layer", OneLayer())
    run, _ = adapt(models[family], "one-layer:1", parts)
    pairs = zip(run.result.session.layers, models[family].layers, strict=True)
    same = [all(map(torch.equal, a.parameters(), b.parameters())) for a, b in pairs]
    assert same == [number != 1 for number in range(len(same))]
    with pytest.raises(RuleError, match="no rule is called 'full:1'"):
        get_rule("full:1")


def test_a_file_that_no_family_knows_is_refused(tmp_path):
    ToySession().save(tmp_path / "toy.safetensors")
    with pytest.raises(ModelError):
        open_model(str(tmp_path / "toy.safetensors"), device="cpu")


def test_a_new_arm_is_a_function_and_a_line(tmp_path, monkeypatch):
    """The benchmark plans it, runs it, keeps it and reports it beside the others."""
    from tttab.bench import BenchRequest, Engine, markdown_report, plan_tables, read_store, start
    from tttab.evaluation import arms

    def halved(trial, arm):
        context = trial.model.context(*(part[: trial.split.n // 2] for part in trial.rows("context")), 3)
        yield arms._serve(trial, arm, trial.model, context, k=0)

    line = arms.Arm(halved, "in-context learning with half of the n rows", queries=False)
    monkeypatch.setitem(arms.ARMS, "half@n", line)
    request = BenchRequest(
        ("contraceptive",), ns=(60,), k=40, seeds=(0, 1), test_size=50, model="tttab-tiny", device="cpu",
        arms=("icl@n", "half@n"),
    )  # fmt: skip
    (plan,) = plan_tables(request)
    records = list(start(plan.cells, request, tmp_path / "store", Engine("local", jobs=1)))
    found = {record.cell.arm: record for record in records}
    assert found["half@n"].row.n_context == 30
    assert found["half@n"].row.key != found["icl@n"].row.key
    assert "half@n" in markdown_report(read_store(tmp_path / "store"))


@pytest.mark.parametrize("family", ["tabpfn", "tabicl"])
def test_a_familys_own_fine_tuner_is_an_arm(models, mixed_table, family):
    split = split_rows(mixed_table.y, SplitRequest(n=30, k=40, test_size=40), 0, classes=3)
    trial = Trial(mixed_table, split, models[family], schedule=Schedule(max_seconds=0.3), latency_calls=0)
    before = weights(models[family])
    (outcome,) = run_arm(trial, "finetuned@n+k")
    assert torch.equal(weights(models[family]), before)
    assert outcome.row.n_context == 70 and outcome.row.k == 40 and outcome.row.cache_bytes is None
    np.testing.assert_allclose(outcome.probabilities.sum(axis=1), 1, atol=1e-5)
    (untouched,) = run_arm(trial, "icl@n+k")
    assert np.abs(outcome.probabilities - untouched.probabilities).max() > 1e-6
    (short,), (plain,) = run_arm(trial, "finetuned@n"), run_arm(trial, "icl@n")
    assert short.row.n_context == 30 and short.row.cache_bytes > 0
    assert np.abs(short.probabilities - plain.probabilities).max() > 1e-6


@pytest.mark.parametrize("family", OPENED)
def test_vectors_of_rows_are_told_apart_by_their_cells_and_do_not_depend_on_each_other(models, parts, family):
    x, y, asked, _ = parts
    session = models[family]
    context = session.context(x, y, 3)
    vectors = session.row_vectors(context, asked)
    assert vectors.shape[0] == 40 and len(np.unique(vectors.round(4), axis=0)) == 40
    np.testing.assert_allclose(session.row_vectors(context, asked[5:9]), vectors[5:9], atol=1e-4)
