"""Which candidate is kept: by held-out loss, with a veto on calibration, or the last."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.support.small_models import small_model
from tttab.errors import RequestError
from tttab.rules import get_rule
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation
from tttab.training.selection import ECE_ALLOWANCE, Score, Selector, check_guard

BEFORE = Score(1.0, 0.05, 100)
ALLOWED = 0.05 + ECE_ALLOWANCE / 10
CANDIDATES = [Score(0.8, ALLOWED + 0.001, 100), Score(0.9, ALLOWED - 0.001, 100), Score(1.2, 0.0, 100)]


def kept(guard, scores):
    choice = Selector(guard, BEFORE, {"w": 0})
    for number, score in enumerate(scores, start=1):
        choice.consider(number, 0.1, score, lambda number=number: {"w": number})
    return choice


@pytest.mark.parametrize(("guard", "step"), [("loss", 1), ("loss+ece", 2), ("off", 3)])
def test_each_guard_keeps_its_own_candidate(guard, step):
    choice = kept(guard, CANDIDATES)
    assert choice.step == choice.state["w"] == step
    assert choice.score == CANDIDATES[step - 1]
    assert choice.vetoed == ([1] if guard == "loss+ece" else [])


@pytest.mark.parametrize("guard", ["loss", "loss+ece"])
def test_worse_losses_keep_the_untouched_weights(guard):
    assert kept(guard, [Score(1.1, 0.0, 100), Score(1.0, 0.0, 100)]).state == {"w": 0}


@pytest.mark.parametrize("guard", ["loss", "loss+ece", "off"])
def test_a_score_that_is_no_number_is_no_candidate(guard):
    assert kept(guard, [Score(math.nan, 0.0, 100), Score(math.inf, 0.0, 100)]).step == 0


def test_regression_has_no_calibration_error_and_no_veto():
    choice = Selector("loss+ece", Score(1.0, math.nan, 100), {})
    choice.consider(1, 0.1, Score(0.5, math.nan, 100), dict)
    assert choice.step == 1


def test_unknown_guards_are_refused():
    with pytest.raises(RequestError) as caught:
        check_guard("ece")
    assert caught.value.hint == "--guard loss|loss+ece|off"


@pytest.fixture(scope="module")
def given():
    return small_model()


def start(given, mixed_frame, **settings):
    x, y = mixed_frame
    schedule = Schedule(**({"steps": 4, "evaluate_every": 1, "precision": "fp32", "batch": 32} | settings))
    context = given.context(x[:30], y[:30], 3)
    return Adaptation(
        given, get_rule("full"), context, (x[30:], y[30:]), schedule, others=("loss", "loss+ece", "off")
    )


def weights(session):
    return torch.cat([p.flatten() for p in session.module.parameters()])


def test_one_run_records_what_every_guard_would_keep(given, mixed_frame):
    run = start(given, mixed_frame, lr=0.3, clip=1e9, guard="loss")
    history = list(run)
    assert set(run.result.others) == {"loss+ece", "off"}
    losses = [run.result.before, *(step.held_out for step in history)]
    assert run.result.after == min(losses) < losses[-1]
    last = run.result.others["off"]
    queries = last.queries(run.result.context, *run._raw)
    assert last.row_scores(run.result.context, queries, run._held).loss.mean() == pytest.approx(losses[-1])
    assert not torch.equal(weights(last), weights(run.result.session))
    assert not last.trainable()


def test_the_veto_acts_inside_the_loop(given, mixed_frame, monkeypatch):
    errors = iter([0.1, 0.9, 0.9, 0.9, 0.9])
    monkeypatch.setattr("tttab.training.loop.calibration_error", lambda confidence, correct: next(errors))
    run = start(given, mixed_frame, lr=1e-3, guard="loss+ece")
    history = list(run)
    assert min(step.held_out for step in history) < run.result.before
    assert run.result.accepted is False and run.result.vetoed
    assert torch.equal(weights(run.result.session), weights(given))
    assert run.result.ece_after == 0.1


@pytest.mark.parametrize("optimizer", ["adamw", "sgd-1"])
@pytest.mark.parametrize("guard", ["loss", "loss+ece", "off"])
def test_a_gradient_that_is_no_number_stops_and_restores(given, mixed_frame, monkeypatch, optimizer, guard):
    run = start(given, mixed_frame, guard=guard, optimizer=optimizer, lr=1e-3)
    plain = type(given).accumulate_gradients

    def poisoned(self, *arguments):
        loss = plain(self, *arguments)
        if self is run._session and run._steps == (1 if optimizer == "sgd-1" else 2):
            next(self.module.parameters()).grad[0] = math.nan
        return loss

    monkeypatch.setattr(type(given), "accumulate_gradients", poisoned)
    history = list(run)
    assert len(history) == (0 if optimizer == "sgd-1" else 1)
    assert "not finite" in run.result.stopped
    assert torch.isfinite(weights(run.result.session)).all()


def test_a_held_out_loss_that_is_no_number_is_never_kept(given, mixed_frame, monkeypatch):
    run = start(given, mixed_frame, lr=1e-3)
    plain = type(given).row_scores
    seen = []

    def poisoned(self, *arguments):
        score = plain(self, *arguments)
        seen.append(1)
        return (
            score
            if len(seen) == 1
            else type(score)(score.loss + np.nan, score.confidence + np.nan, score.correct)
        )

    monkeypatch.setattr(type(given), "row_scores", poisoned)
    list(run)
    assert run.result.accepted is False
    assert torch.equal(weights(run.result.session), weights(given))
