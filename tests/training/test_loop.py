"""The loop: it keeps the best step, never ends worse than it began, and repeats exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tttab.errors import MemoryPlanError, RequestError
from tttab.rules import get_rule
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation
from tttab.training.memory_plan import RESERVE


@pytest.fixture
def adapt(tiny_model, mixed_frame):
    x, y = mixed_frame
    context = tiny_model.context(x[:40], y[:40], 3)

    def start(rule="full", y_query=y[40:], budget=4 * 1024**3, seed=0, session=tiny_model, **schedule):
        return Adaptation(
            session, get_rule(rule), context, (x[40:], y_query), Schedule(**schedule), seed, budget
        )

    return start


def weights(session):
    return torch.cat([p.flatten() for p in session.module.parameters()])


def test_the_best_held_out_step_is_kept(adapt):
    run = adapt(steps=8, lr=1e-4, evaluate_every=1)
    history = list(run)
    losses = [run.result.before, *(step.held_out for step in history)]
    assert run.result.step == int(np.argmin(losses))
    assert run.result.after == min(losses) < run.result.before


def test_the_pretrained_weights_win_when_training_only_hurts(adapt, tiny_model):
    run = adapt(steps=3, lr=5.0, evaluate_every=1, clip=1e9)
    list(run)
    assert run.result.accepted is False
    assert run.result.step == 0
    assert torch.equal(weights(run.result.session), weights(tiny_model))


def test_equal_seeds_repeat_exactly_and_other_seeds_do_not(adapt):
    runs = [adapt(steps=2, seed=seed) for seed in (5, 5, 6)]
    losses = [[step.loss for step in run] for run in runs]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(weights(runs[0].result.session), weights(runs[1].result.session))


def test_the_rule_none_trains_nothing(adapt, tiny_model):
    run = adapt("none")
    assert list(run) == []
    assert run.result.session is tiny_model
    assert run.result.accepted is None


@pytest.mark.parametrize(("rule", "expected"), [("full", "bf16"), ("head", "fp32")])
def test_the_arithmetic_that_is_reported_is_that_of_the_steps(adapt, monkeypatch, rule, expected):
    monkeypatch.setattr("tttab.training.precision.has_bfloat16", lambda device: True)
    run = adapt(rule, steps=1, precision="bf16")
    list(run)
    assert run.result.precision == expected


def test_a_non_finite_loss_stops_and_restores(adapt, tiny_model, monkeypatch):
    run = adapt(steps=5, lr=1e-3, evaluate_every=1)
    steps = iter(run)
    next(steps)
    monkeypatch.setattr(type(run._session), "loss", lambda *a: torch.tensor(float("nan"), requires_grad=True))
    assert list(steps) == []
    assert "not finite at step 2" in run.result.stopped
    assert not run.result.session.trainable()
    assert torch.isfinite(weights(run.result.session)).all()
    assert run.result.step in (0, 1)


@pytest.mark.parametrize("guard", ["loss", "off"])
def test_a_cold_start_has_to_beat_the_pretrained_weights(adapt, tiny_model, guard):
    run = adapt(steps=1, lr=1e-9, init="random", guard=guard)
    (step,) = run
    warm = adapt(steps=1, lr=1e-9)
    list(warm)
    assert run.result.before == pytest.approx(warm.result.before, rel=1e-5)
    assert run.result.before < step.held_out
    assert run.result.accepted is (guard == "off")
    assert torch.equal(weights(run.result.session), weights(tiny_model)) is (guard == "loss")


def test_small_memory_means_small_chunks_and_the_same_result(adapt, monkeypatch):
    monkeypatch.setattr("tttab.training.footprint.resident_bytes", lambda: 0)
    free = adapt(steps=2, batch=64)
    list(free)
    tight = adapt(steps=2, batch=64, budget=RESERVE + free.result.plan.needed * 4 // 5)
    list(tight)
    assert free.result.plan.chunk == 64 > tight.result.plan.chunk
    assert (weights(free.result.session) - weights(tight.result.session)).abs().max() < 1e-4


def test_a_budget_that_cannot_hold_one_row_names_one_that_can(adapt):
    with pytest.raises(MemoryPlanError) as caught:
        list(adapt(budget=1024**2))
    assert caught.value.hint.startswith("--max-memory")


@pytest.mark.parametrize("bad", [{"steps": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"lr": 1e30}])
def test_schedules_that_make_no_sense_are_refused(adapt, bad):
    with pytest.raises(RequestError):
        list(adapt(**bad))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
    ],
    ids=["python", "cuda", "cpu"],
)
def test_running_out_of_memory_names_a_plan_that_takes_half(adapt, monkeypatch, error):
    run = adapt(steps=3)
    steps = iter(run)
    next(steps)

    def fail(*_):
        raise error

    monkeypatch.setattr(type(run._session), "accumulate_gradients", fail)
    with pytest.raises(MemoryPlanError, match="ran out of memory") as caught:
        next(steps)
    assert caught.value.hint.startswith("--max-memory")


def test_running_out_of_memory_before_the_first_step_is_the_same_error(adapt, tiny_model, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(tiny_model), "row_scores", fail)
    with pytest.raises(MemoryPlanError, match="ran out of memory"):
        next(iter(adapt(steps=3)))


def test_other_runtime_errors_are_not_taken_for_memory(adapt, monkeypatch):
    run = adapt(steps=3)
    steps = iter(run)
    next(steps)

    def fail(*_):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(type(run._session), "accumulate_gradients", fail)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        next(steps)
