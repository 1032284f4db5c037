"""The loop: which rows train and which choose, what is kept and reported, and that it repeats exactly."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support.small_models import small_model
from tests.support.toys import WatchedSession
from tttab.contracts import Execution, Objective, Rule
from tttab.data.splits import hold_out
from tttab.data.weights import training_weights
from tttab.errors import DataError, MemoryPlanError, RequestError, RuleError
from tttab.metrics import METRICS, expected_calibration_error
from tttab.rules import get_rule
from tttab.testing import ToySession
from tttab.training import loop, selection
from tttab.training.config import LARGEST_RATE, Schedule
from tttab.training.loop import Adaptation, Adapted, check_schedule
from tttab.training.memory_plan import EXECUTION_MODES, RESERVE, MemoryPlan, StepRequirements

TOY = ToySession()
N, K = 40, 80
FP32 = {"precision": "fp32", "batch": 16, "evaluate_every": 1}


@pytest.fixture
def parts(mixed_frame):
    """A context of true labels, and queries of which a third are wrong: there is much to overfit."""
    x, y = mixed_frame
    wrong = np.where(np.random.default_rng(0).random(K) < 0.35, 1, 0)
    return x[:N], y[:N], x[N:], (y[N:] + wrong) % 3


@pytest.fixture
def adapt(parts):
    x, y, x_query, y_query = parts

    def start(rule="full", seed=0, session=TOY, budget=4 * 1024**3, others=(), queries=K, **schedule):
        context = session.context(x, y, 3)
        chosen = get_rule(rule) if isinstance(rule, str) else rule
        settings = Schedule(**(FP32 | schedule))
        rows = x_query[:queries], y_query[:queries]
        return Adaptation(session, chosen, context, rows, settings, seed, budget, others=others)

    return start


def weights(session):
    return torch.cat([p.detach().flatten().clone() for p in session.parameters("all")])


def held_out_score(session, parts, seed=0, rows=K):
    """Return loss and calibration error of the rows that `hold_out` sets aside."""
    x, y, x_query, y_query = parts
    context = session.context(x, y, 3)
    queries = session.queries(context, x_query[:rows], y_query[:rows])
    held = hold_out(y_query[:rows], 0.2, seed, classes=3)[1]
    scores = session.row_scores(context, queries, held, Execution())
    return scores.loss.mean(), expected_calibration_error(y_query[held], scores.predicted)


@pytest.mark.parametrize("split", ["fixed", "redraw"])
def test_rows_that_were_given_to_choose_by_do_and_train_nothing(parts, split):
    x, y, x_query, y_query = parts
    session = WatchedSession()
    context = session.context(x, y, 3)
    schedule = Schedule(**FP32, steps=3, lr=1e-2, split=split)
    run = Adaptation(session, get_rule("full"), context, (x_query, y_query), schedule, held=9)
    run.prepare()
    seen = session.seen[2:]
    list(run)
    held, rows = set(x_query.iloc[-9:, 0]), session.queries(context, x_query, y_query)
    scores = session.row_scores(context, rows, np.arange(K - 9, K), Execution())
    assert run.result.before == pytest.approx(float(scores.loss.mean()))
    trained = session.seen[2 + len(seen) : -1]
    assert not any(held & set(cells) for _, cells, _ in trained)
    assert bool(trained) is (split == "redraw")
    assert len(run._labelled.train) == K - 9


def test_rows_count_by_their_weights_in_the_score_and_classes_alike_where_asked_for(parts):
    x, y, x_query, y_query = parts
    context = TOY.context(x, y, 3)
    given = np.random.default_rng(0).random(K)
    for balanced in (False, True):
        schedule = Schedule(**FP32, steps=1, balanced=balanced)
        asked = Objective(weights=given)
        run = Adaptation(TOY, get_rule("head"), context, (x_query, y_query), schedule, objective=asked)
        run.prepare()
        count = training_weights(y_query, given, 3, balanced=balanced)
        scores = TOY.row_scores(context, TOY.queries(context, x_query, y_query), run._held, Execution())
        expected = np.average(scores.loss, weights=count[run._held])
        assert run.result.before == pytest.approx(expected) and count.mean() == pytest.approx(1)
        assert run._labelled.objective.weights.tolist() == count.tolist()
        mass = np.bincount(y_query, weights=count)
        assert bool(np.ptp(mass) < 1e-9) is balanced
    with pytest.raises(DataError, match="all training rows or all held-out rows have the weight 0"):
        held = np.isin(np.arange(K), run._held).astype(float)
        Adaptation(
            TOY, get_rule("head"), context, (x_query, y_query), schedule, objective=Objective(weights=held)
        ).prepare()
    with pytest.raises(RequestError, match="no classes to balance"):
        training_weights(given, None, 0, balanced=True)


def watch_weights(run):
    """Return the steps of a run, and the weights after each of them."""
    after = []
    return [(step, after.append(weights(run._session)))[0] for step in run], after


def test_the_best_held_out_step_is_kept_and_not_the_best_training_step(adapt, parts):
    run = adapt(steps=30, lr=3e-2)
    steps, after = watch_weights(run)
    held_out = [step.held_out for step in steps]
    best = int(np.argmin(held_out))
    assert best not in (int(np.argmin([step.loss for step in steps])), len(steps) - 1), (
        "the case tells them apart"
    )
    assert run.result.step == best + 1 and run.result.accepted is True
    assert torch.equal(weights(run.result.session), after[best])
    assert run.result.after == held_out[best] < run.result.before
    assert run.result.size == steps[best].size
    assert run.result.ece_after == steps[best].ece


@pytest.mark.parametrize("seed", [0, 3])
def test_scores_are_those_of_the_held_out_rows_of_the_seed(adapt, parts, seed):
    run = adapt(steps=3, lr=1e-2, guard="off", seed=seed)
    last = list(run)[-1]
    before, after = held_out_score(TOY, parts, seed), held_out_score(run.result.session, parts, seed)
    assert (run.result.before, run.result.ece_before) == pytest.approx(before, rel=1e-5)
    assert (run.result.after, run.result.ece_after) == pytest.approx(after, rel=1e-5)
    assert (last.held_out, last.ece) == pytest.approx(after, rel=1e-5)


@pytest.mark.parametrize("split", ["fixed", "redraw", "kfold"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd-1"])
def test_no_held_out_row_is_ever_trained_on(adapt, parts, split, optimizer):
    """Gradients are asked for rows of what was prepared: all of it is noted, cell by cell."""
    _, _, x_query, y_query = parts
    session, asked = WatchedSession(), []
    held = {x_query.iloc[row, 0] for row in hold_out(y_query, 0.2, 0, classes=3)[1]}

    class Noting(WatchedSession):
        def queries(self, context, x, y):
            queries = super().queries(context, x, y)
            queries.cells = list(x.iloc[:, 0])
            return queries

        def accumulate_gradients(self, context, queries, rows, scale, how, objective):
            asked.extend(queries.cells[row] for row in rows)
            asked.extend(context.x.iloc[:, 0])
            return super().accumulate_gradients(context, queries, rows, scale, how, objective)

    session.__class__ = Noting
    list(adapt(session=session, steps=6, split=split, optimizer=optimizer))
    assert len(set(asked)) > K / 2 and not set(asked) & held


@pytest.mark.parametrize(("optimizer", "rows"), [("adamw", [16] * 6), ("sgd-1", [64])])
def test_adamw_takes_a_batch_a_step_and_the_single_step_all_training_rows_once(
    adapt, monkeypatch, optimizer, rows
):
    asked, plain = [], ToySession.accumulate_gradients

    def noting(self, context, queries, numbers, scale, how, objective):
        asked.append(len(set(numbers.tolist())))
        assert scale == 1 / len(numbers) and objective.loss == "members"
        return plain(self, context, queries, numbers, scale, how)

    monkeypatch.setattr(ToySession, "accumulate_gradients", noting)
    list(adapt(steps=6, optimizer=optimizer, loss="members"))
    assert asked == rows


def test_what_a_step_reports(adapt, parts):
    run = adapt(steps=4, lr=1e-2, warmup=2, evaluate_every=2)
    started = time.perf_counter()
    steps = list(run)
    took = time.perf_counter() - started
    assert run.result.history == steps
    assert [(step.number, step.total) for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [step.size for step in steps] == pytest.approx(
        [1e-2 * rise * (1 + math.cos(math.pi * done / 4)) / 2 for done, rise in enumerate([0.5, 1, 1, 1])]
    )
    held_out = [step.held_out for step in steps]
    assert held_out[0] == run.result.before and held_out[1] == held_out[2] != held_out[3]
    assert [step.best for step in steps] == list(np.minimum.accumulate(held_out))
    seconds = [step.seconds for step in steps]
    assert seconds[0] > 0 and seconds == sorted(seconds) and seconds[-1] <= run.result.seconds <= took


def test_the_loss_of_a_step_is_the_mean_over_its_batch_before_it_moves(adapt, parts):
    x, y, x_query, y_query = parts
    run = adapt(steps=1, batch=1000)
    (step,) = run
    train = hold_out(y_query, 0.2, 0, classes=3)[0]
    context = TOY.context(x, y, 3)
    scores = TOY.row_scores(context, TOY.queries(context, x_query, y_query), train, Execution())
    assert step.loss == pytest.approx(scores.loss.mean(), rel=1e-5)


def test_a_gradient_over_several_contexts_is_that_of_the_mean_over_all_their_rows(adapt):
    """Two folds with other numbers of queries: the mean of their means would be another number."""
    run = adapt(steps=1, split="kfold", optimizer="sgd-1")
    next(iter(run))
    batches = run._source.whole()
    assert len({len(batch.rows) for batch in batches}) > 1, "the case tells them apart"
    fork = TOY.fork()
    for parameter in fork.parameters("all"):
        parameter.requires_grad_(True)
    log_p = [
        fork.log_probabilities(batch.context, batch.queries.inputs)[
            np.arange(len(batch.rows)), batch.queries.y
        ]
        for batch in batches
    ]
    mean = -torch.cat(log_p).mean()
    mean.backward()
    assert run.result.history[0].loss == pytest.approx(mean.item(), rel=1e-5)
    run._session.load_trainable({name: p.detach() for name, p in fork.trainable().items()})
    run.gradient(whole=True)
    for one, other in zip(run._session.parameters("all"), fork.parameters("all"), strict=True):
        assert (one.grad - other.grad).abs().max() < 1e-6


def test_the_pretrained_weights_win_when_training_only_hurts(adapt):
    run = adapt(steps=3, lr=900.0, clip=1e9)
    list(run)
    assert run.result.accepted is False and run.result.step == 0 and run.result.size == 0.0
    assert run.result.after == run.result.before and run.result.ece_after == run.result.ece_before
    assert torch.equal(weights(run.result.session), weights(TOY))
    assert run.result.session is not TOY, "who is handed it may change it"


def test_equal_seeds_repeat_exactly_and_other_seeds_do_not(adapt):
    runs = [adapt(steps=2, seed=seed) for seed in (5, 5, 6)]
    losses = [[step.loss for step in run] for run in runs]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(weights(runs[0].result.session), weights(runs[1].result.session))


def test_the_given_weights_never_move_and_the_result_no_longer_trains(adapt):
    before = weights(TOY)
    run = adapt(steps=3, lr=1e-2)
    list(run)
    assert torch.equal(weights(TOY), before) and not TOY.trainable()
    assert run.result.accepted and not run.result.session.trainable()
    assert all(p.grad is None for p in run.result.session.parameters("all"))


def test_only_the_rule_s_parameters_move_at_the_rule_s_own_rate(adapt):
    run = adapt("head", steps=1, lr=1e-3, warmup=1, guard="off")
    (step,) = run
    assert step.size == pytest.approx(1e-3 * get_rule("head").rate)
    moved = dict(run.result.session.module.named_parameters())
    for name, parameter in TOY.module.named_parameters():
        assert torch.equal(moved[name], parameter) != name.startswith("head.")


def test_a_rule_finishes_its_weights_where_it_is_kept_and_only_there(adapt):
    @dataclass(frozen=True)
    class Finished(Rule):
        name: str = "finished"

        def parameters(self, session):
            return session.parameters("head")

        def finish(self, session):
            session.finished = True

    for lr, finished in [(1e-2, True), (900.0, False)]:
        run = adapt(Finished(), steps=4, lr=lr)
        list(run)
        assert run.result.accepted is hasattr(run.result.session, "finished") is finished


def test_a_rule_that_selects_nothing_is_refused(adapt):
    with pytest.raises(RuleError, match="'nothing' selects no parameters") as caught:
        list(adapt(SimpleNamespace(name="nothing", rate=1.0, parameters=lambda session: [])))
    assert caught.value.hint == "--rule full"


def test_the_rule_none_trains_nothing(adapt):
    run = adapt("none", steps=0)
    assert list(run) == []
    assert run.result.session is TOY and run.result.accepted is None and run.result.stopped == ""
    assert run.result.step == 0
    assert math.isnan(run.result.before) and run.result.precision == "fp32"


def test_a_context_of_one_target_trains_nothing_and_says_why(adapt):
    run = adapt()
    run._context.constant = 2.5
    assert list(run) == []
    assert run.result.stopped == "all targets of the context are equal" and run.result.accepted is None


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_step_that_is_no_number_stops_and_keeps_the_best_before_it(adapt, monkeypatch, broken):
    run = adapt(steps=5, lr=1e-2)
    steps = iter(run)
    next(steps)
    after = weights(run._session)
    plain = ToySession.accumulate_gradients

    def poisoned(self, *arguments):
        loss = plain(self, *arguments)
        self.module["head"].bias.grad[0] = math.inf if broken == "gradient" else 0.0
        return math.nan if broken == "loss" else loss

    monkeypatch.setattr(ToySession, "accumulate_gradients", poisoned)
    assert list(steps) == []
    assert run.result.stopped == "the loss or its gradient was not finite at step 2"
    assert run.result.step == 1 and torch.equal(weights(run.result.session), after)
    assert not run.result.session.trainable()


@pytest.mark.parametrize("guard", ["loss", "off"])
def test_a_cold_start_has_to_beat_the_pretrained_weights(adapt, parts, guard):
    trained = adapt(steps=20, lr=1e-2)
    list(trained)
    pretrained = trained.result.session
    run = adapt(steps=1, lr=1e-9, init="random", guard=guard, seed=7, session=pretrained)
    (step,) = run
    assert run.result.before == pytest.approx(held_out_score(pretrained, parts, 7)[0], rel=1e-5)
    assert run.result.before < step.held_out
    assert run.result.accepted is (guard == "off")
    drawn = ToySession(seed=7) if guard == "off" else pretrained
    assert (weights(run.result.session) - weights(drawn)).abs().max() < 1e-6


def test_other_guards_keep_their_own_choice_in_the_same_run(adapt):
    run = adapt(steps=30, lr=3e-2, guard="loss", others=("off", "loss", "loss+ece"))
    _, after = watch_weights(run)
    assert list(run.result.others) == ["off", "loss+ece"]
    assert torch.equal(weights(run.result.others["off"]), after[-1])
    assert torch.equal(weights(run.result.session), after[run.result.step - 1])
    assert not run.result.others["off"].trainable()


def test_vetoed_steps_are_named(adapt, monkeypatch):
    errors = iter([0.1, *[0.9] * 30])
    monkeypatch.setattr(selection, "expected_calibration_error", lambda y, p: next(errors))
    run = adapt(steps=30, lr=3e-2, guard="loss+ece")
    better = tuple(step.number for step in run if step.held_out < run.result.before)
    assert run.result.vetoed == better != ()
    assert run.result.accepted is False and run.result.ece_after == run.result.ece_before == 0.1


@pytest.mark.parametrize("told", [None, np.nan])
def test_without_probabilities_there_is_no_calibration_error_and_no_metric(adapt, monkeypatch, told):
    plain = ToySession.row_scores

    def unsure(self, *arguments):
        scores = plain(self, *arguments)
        return replace(scores, predicted=told and scores.predicted * told)

    monkeypatch.setattr(ToySession, "row_scores", unsure)
    run = adapt(steps=2, lr=1e-3)
    assert all(math.isnan(step.ece) for step in run) and math.isnan(run.result.ece_before)
    with pytest.raises(RequestError, match="accuracy cannot be computed on 16 held-out rows"):
        adapt(metric="accuracy").prepare()


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc", "log_loss"])
def test_a_metric_chooses_in_the_place_of_the_loss(adapt, parts, metric):
    run = adapt(steps=25, lr=3e-2, metric=metric)
    steps, after = watch_weights(run)
    values = [run.result.metric_before, *(step.metric for step in steps)]
    losses = [run.result.before, *(step.held_out for step in steps)]
    best = min(range(26), key=lambda number: (-values[number], losses[number]))
    assert run.result.step == best and run.result.metric_after == values[best] == max(values)
    if best:
        assert torch.equal(weights(run.result.session), after[best - 1])
    _, _, x_query, y_query = parts
    held = hold_out(y_query, 0.2, 0, classes=3)[1]
    p = run.result.session.serve(run.result.context).predict(x_query.iloc[held])
    assert METRICS[metric][1](y_query[held], p, None) == pytest.approx(max(values), abs=1e-5)
    if metric == "log_loss":
        plain = adapt(steps=25, lr=3e-2)
        list(plain)
        assert plain.result.step == best and math.isnan(plain.result.metric_after)


def test_a_batch_is_at_most_what_may_train(adapt):
    for batch, rows in [(16, 16), (1000, 64)]:
        run = adapt(steps=1, batch=batch)
        list(run)
        assert run.result.execution == Execution(rows)


@pytest.mark.parametrize(
    ("bad", "about", "hint"),
    [
        ({"steps": 0}, "at least 1, got 0", "--steps 50, or --rule none"),
        ({"lr": 0.0}, "at most 1000, got 0.0", "--lr 3e-4"),
        ({"lr": float("nan")}, "at most 1000, got nan", "--lr 3e-4"),
        ({"lr": 1.5 * LARGEST_RATE}, "at most 1000, got 1500.0", "--lr 3e-4"),
        ({"init": "warm"}, "no start is called 'warm'", "--init pretrained|random"),
        ({"optimizer": "adam"}, "no optimiser is called 'adam'", "--optimizer adamw"),
        ({"split": "k-fold"}, "no split is called 'k-fold'", "--split fixed|redraw|kfold"),
        ({"guard": "ece"}, "no guard is called 'ece'", "--guard loss|loss+ece|off"),
        ({"loss": "member"}, "no loss is called 'member'", "--loss ensemble|members"),
        ({"precision": "fp16"}, "no precision is called 'fp16'", "--precision auto|fp32|bf16"),
    ],
)
def test_schedules_that_make_no_sense_are_refused_with_the_option_to_type(adapt, bad, about, hint):
    with pytest.raises(RequestError, match=about) as caught:
        list(adapt(**bad))
    assert caught.value.hint == hint
    check_schedule(Schedule(steps=1, lr=LARGEST_RATE))


OUT_OF_MEMORY = {
    "python": MemoryError(),
    "cuda": torch.OutOfMemoryError("CUDA out of memory"),
    "cpu": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
}


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
@pytest.mark.parametrize(
    ("plan", "hint"),
    [
        (None, "--n 20"),
        (MemoryPlan(16, EXECUTION_MODES[0], 3 * 2**20), "--max-memory 4M plans with half of it"),
    ],
)
def test_running_out_of_memory_in_a_step_names_half_of_it(adapt, monkeypatch, error, plan, hint):
    """Half of 40 context rows where nothing was planned; else half of 3 MiB planned and 5 MiB held."""
    monkeypatch.setattr("tttab.training.footprint.resident_bytes", lambda: 5 * 2**20)
    run = adapt(steps=3)
    steps = iter(run)
    next(steps)
    run.result.plan = plan

    def fail(*_):
        raise error

    monkeypatch.setattr(ToySession, "accumulate_gradients", fail)
    with pytest.raises(MemoryPlanError, match="ran out of memory in a step of 16 query rows") as caught:
        next(steps)
    assert caught.value.hint == hint and caught.value.__cause__ is error


def test_running_out_of_memory_before_the_first_step_is_the_same_error(adapt, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ToySession, "queries", fail)
    with pytest.raises(MemoryPlanError, match="ran out of memory before the first step") as caught:
        next(iter(adapt(steps=3)))
    assert caught.value.hint == "--n 20"


def test_other_runtime_errors_are_not_taken_for_memory(adapt, monkeypatch):
    def fail(*_):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(ToySession, "accumulate_gradients", fail)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        next(iter(adapt(steps=3)))


def test_what_training_was_is_told_in_words():
    nothing = Adapted(TOY, None, 0, None)
    assert (nothing.precision, nothing.before != nothing.before) == ("fp32", True)
    assert replace(nothing, execution=Execution(16, precision="bf16")).precision == "bf16"


class Costs:
    """A cost model that notes what it is asked and hands on the queries, or others in their place."""

    def __init__(self, others=None):
        self.others = others

    def preferred_chunk(self, context):
        return 33

    def frozen_features(self, context, queries, how):
        return self.others or queries


@pytest.fixture
def planned(monkeypatch):
    """A toy with a cost model, and what its plan is asked for."""
    session, asked = ToySession(), []

    def plan(demand, measure):
        asked.append((demand, measure(EXECUTION_MODES[1])))
        return MemoryPlan(5, EXECUTION_MODES[1], 1000)

    monkeypatch.setattr(loop, "plan_step", plan)
    monkeypatch.setattr("tttab.training.footprint.resident_bytes", lambda: 5 * 2**20)
    monkeypatch.setattr("tttab.training.footprint.measure_step", lambda *a: a)
    monkeypatch.setattr(loop, "choose_precision", lambda asked, *_: asked)
    session.cost_model = Costs()
    return session, asked


def test_a_plan_is_asked_for_with_what_is_held_what_trains_and_what_a_step_takes(adapt, planned):
    session, asked = planned
    run = adapt("head", session=session, budget=2**31, batch=16, steps=1, precision="bf16")
    list(run)
    ((demand, measured),) = asked
    head = sum(parameter.numel() for parameter in session.parameters("head"))
    assert demand == StepRequirements(2**31, 5 * 2**20, 4 * head, N, 16, 33)
    list(adapt("head", session=session, steps=6, optimizer="race", rates=(1e-4, 1e-3)))
    assert asked.pop()[0].copies == 3 + 4 * 2, "each lane holds weights, their mean and two moments"
    own = run._session
    assert measured == (own, own.cost_model, run._context, run._queries, EXECUTION_MODES[1].execution())
    assert run.result.execution == Execution(5, True, False, "bf16") and run.result.plan.chunk == 5


def test_a_step_on_frozen_features_reads_them_and_runs_in_float32(adapt, planned, parts):
    session, _ = planned
    x, y, x_query, y_query = parts
    session.cost_model = Costs(session.queries(session.context(x, y, 3), x_query, y_query))
    run = adapt("head", session=session, steps=1, precision="bf16")
    list(run)
    assert run._queries is run._session.cost_model.others
    assert run.result.execution == Execution(5, True, False, "fp32")


@pytest.mark.parametrize(("asked", "rows"), [(16, 16), (1000, 64)])
def test_the_arithmetic_is_tried_on_one_chunk_of_training_rows(adapt, monkeypatch, parts, asked, rows):
    seen = []
    monkeypatch.setattr(loop, "choose_precision", lambda *a: seen.append(a) or "fp32")
    run = adapt(batch=asked, steps=1, precision="auto")
    list(run)
    ((name, session, context, queries, tried, how),) = seen
    train = hold_out(parts[3], 0.2, 0, classes=3)[0]
    assert (name, tried.tolist(), how) == ("auto", train[:rows].tolist(), Execution(rows))
    assert session is run._session and context is run._context and queries is run._queries


# With a cost model: plans, chunks and arithmetic.


@pytest.fixture(scope="module")
def planned_model():
    return small_model(members=1)


@pytest.fixture
def adapt_planned(planned_model, mixed_frame):
    x, y = mixed_frame
    context = planned_model.context(x[:40], y[:40], 3)

    def start(rule="head", budget=4 * 1024**3, **schedule):
        return Adaptation(
            planned_model, get_rule(rule), context, (x[40:], y[40:]), Schedule(**schedule), 0, budget
        )

    return start


@pytest.mark.parametrize(("rule", "expected"), [("full", "bf16"), ("head", "fp32")])
def test_the_arithmetic_that_is_reported_is_that_of_the_steps(adapt_planned, monkeypatch, rule, expected):
    monkeypatch.setattr("tttab.training.precision.has_bfloat16", lambda device: True)
    run = adapt_planned(rule, steps=1, batch=4, precision="bf16")
    list(run)
    assert run.result.precision == expected


def test_small_memory_means_small_chunks_and_the_same_result(adapt_planned, monkeypatch):
    monkeypatch.setattr("tttab.training.footprint.resident_bytes", lambda: 0)
    free = adapt_planned("full", steps=2, batch=64)
    list(free)
    tight = adapt_planned("full", steps=2, batch=64, budget=RESERVE + free.result.plan.needed * 4 // 5)
    list(tight)
    assert free.result.plan.chunk == 64 > tight.result.plan.chunk
    assert (weights(free.result.session) - weights(tight.result.session)).abs().max() < 1e-4


def test_a_budget_that_cannot_hold_one_row_names_one_that_can(adapt_planned):
    with pytest.raises(MemoryPlanError) as caught:
        list(adapt_planned("full", budget=1024**2))
    assert caught.value.hint.startswith("--max-memory")
