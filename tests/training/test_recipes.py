"""Recipes: schedules by name, and a race from end to end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tttab.errors import RequestError
from tttab.rules import get_rule
from tttab.testing import ToySession
from tttab.training.checks import check_schedule
from tttab.training.config import RACED, Schedule
from tttab.training.loop import Adaptation
from tttab.training.recipes import RECIPES, schedule_of


@pytest.fixture
def adapt(mixed_frame):
    x, y = mixed_frame
    session = ToySession()

    def run(rule="full", **schedule):
        context = session.context(x[:40], y[:40], 3)
        made = Adaptation(session, get_rule(rule), context, (x[40:], y[40:]), Schedule(**schedule))
        return made, list(made)

    return run


def test_what_is_given_takes_the_place_of_the_recipes_and_a_rate_does_not_race():
    assert schedule_of("single") == Schedule()
    assert schedule_of("single", steps=None, lr=1e-3) == Schedule(lr=1e-3)
    race = schedule_of("default")
    assert race.rates == RACED and schedule_of("default", steps=9).rates == RACED
    assert schedule_of("default", lr=1e-2) == replace(race, rates=(), lr=1e-2)
    assert schedule_of("default", optimizer="race") == race
    assert schedule_of("thorough", optimizer="adamw") == Schedule(loss="members")
    assert schedule_of("default", optimizer="sgd-1", lr=1e-2) == Schedule(
        loss="members", optimizer="sgd-1", lr=1e-2
    )
    assert schedule_of("fast").step_members == 1
    for name in RECIPES:
        check_schedule(schedule_of(name))
    with pytest.raises(RequestError, match="no recipe is called 'slow'") as caught:
        schedule_of("slow")
    assert caught.value.hint == f"--recipe {'|'.join(RECIPES)}"
    with pytest.raises(RequestError, match="at most 1000, got 0"):
        check_schedule(Schedule(rates=(1e-3, 0.0)))


def test_rates_are_in_an_identity_where_they_race():
    assert "rates" not in Schedule().to_dict()
    assert Schedule(rates=(1e-3,)).to_dict()["rates"] == (1e-3,)


def test_raced_rates_shrink_with_the_width_of_a_larger_network(mixed_frame, monkeypatch):
    x, y = mixed_frame
    session = ToySession()
    context = session.context(x[:40], y[:40], 3)

    def rates(**schedule):
        asked = (session, get_rule("head"), context, (x[40:], y[40:]), Schedule(**schedule))
        return list(Adaptation(*asked).rates)

    multiple = get_rule("head").rate
    assert rates(rates=(1e-3, 1e-2)) == [1e-3 * multiple, 1e-2 * multiple]
    weights = sum(parameter.numel() for parameter in session.parameters("all"))
    monkeypatch.setattr("tttab.training.loop.RACED_WEIGHTS", weights / 16)
    assert rates(rates=(1e-3, 1e-2)) == pytest.approx([2.5e-4 * multiple, 2.5e-3 * multiple])
    assert rates(lr=1e-3) == [1e-3 * multiple]


@pytest.mark.parametrize("rule", ["full", "head"])
def test_a_race_keeps_the_best_mean_of_a_lane_and_says_which(adapt, rule):
    run, history = adapt(rule, steps=60, optimizer="race", rates=(1e-4, 1e-2), precision="fp32")
    result, multiple = run.result, get_rule(rule).rate
    assert result.accepted and result.size in (1e-4 * multiple, 1e-2 * multiple)
    assert result.after == min(step.held_out for step in history) < result.before
    assert f"{result.step} steps at {result.size:g} won" in result.plan_summary
    held = run._held
    served = result.session.row_scores(result.context, run._queries, held, result.execution).loss.mean()
    assert served == pytest.approx(result.after, abs=1e-6), "what was scored is what is kept"


def test_a_race_keeps_its_time(adapt, monkeypatch):
    run, history = adapt(steps=10**6, optimizer="race", rates=(1e-4, 1e-3), max_seconds=0.3, evaluate_every=4)
    assert run.result.schedule.steps < 10**6
    assert len(history) <= run.result.schedule.steps
    assert np.isfinite(run.result.after)
