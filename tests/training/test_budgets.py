"""Budgets: as many steps as fit into a time, fewer members that train, an end on request."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.support.small_models import small_model
from tttab.cli import opening, run
from tttab.errors import ModelError, RequestError
from tttab.evaluation.arms import identity, run_arm
from tttab.evaluation.outcome import Outcome, Planned
from tttab.evaluation.trial import Trial
from tttab.rules import get_rule
from tttab.system.resources import format_seconds, parse_seconds
from tttab.testing import ToySession
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation

pytestmark = pytest.mark.usefixtures("measured_steps")

RNG = np.random.default_rng(3)
Y = RNG.integers(0, 2, 140)
X = pd.DataFrame({"a": Y + RNG.normal(0, 0.5, 140), "b": RNG.normal(size=140)})


class Slow(ToySession):
    """A toy whose steps take time; the first one takes `first`."""

    pause = 0.02
    first = 0.02
    taken = 0

    def accumulate_gradients(self, context, queries, rows, scale, how, *asked):
        time.sleep(self.pause if type(self).taken else self.first)
        type(self).taken += 1
        return super().accumulate_gradients(context, queries, rows, scale, how, *asked)


def adaptation(session=None, stop=str, rule="full", **schedule):
    session = session or ToySession()
    context = session.context(X[:40], Y[:40], 2)
    return Adaptation(
        session, get_rule(rule), context, (X[40:], Y[40:]), Schedule(lr=1e-2, **schedule), stop=stop
    )


def test_a_time_that_is_long_enough_changes_no_number():
    plain, timed = adaptation(steps=6), adaptation(steps=6, max_seconds=1000.0)
    assert [step.loss for step in plain] == [step.loss for step in timed]
    assert timed.result.estimate.steps == 6
    assert plain.result.estimate is None


def test_as_many_steps_as_fit_and_the_rate_ends_with_them():
    Slow.taken = 0
    timed = adaptation(Slow(), steps=500, max_seconds=0.6)
    start = time.perf_counter()
    history = list(timed)
    assert time.perf_counter() - start < 2.0
    estimate = timed.result.estimate
    assert estimate.step_seconds >= 0.02
    assert 1 <= len(history) <= estimate.steps <= 30
    assert timed.result.schedule == Schedule(steps=estimate.steps, lr=1e-2, max_seconds=0.6)
    assert {step.total for step in history} == {estimate.steps}, (
        "the cosine falls to zero over those that fit"
    )
    assert "steps in" in timed.result.plan_summary


def test_a_time_that_was_estimated_too_well_ends_training_all_the_same():
    Slow.taken, Slow.pause = 0, 0.3
    try:
        timed = adaptation(Slow(), steps=400, max_seconds=0.5)
        history = list(timed)
    finally:
        Slow.pause = 0.02
    assert len(history) <= 3
    assert timed.result.stopped == "the time, 0.5 s, was up"
    assert timed.result.after <= timed.result.before


def test_a_time_shorter_than_a_step_says_how_long_one_takes():
    Slow.taken, Slow.first = 0, 0.2
    try:
        with pytest.raises(
            RequestError, match=r"0.1 s is too short: a step takes about 0\.2\d? s here"
        ) as caught:
            list(adaptation(Slow(), max_seconds=0.1))
    finally:
        Slow.first = 0.02
    words = caught.value.hint.split()
    assert words[0] == "--time"
    assert float(words[1].rstrip("s,")) >= 2


def test_a_reason_ends_training_with_the_best_weights_so_far():
    asked = []

    def stop():
        asked.append(1)
        return "it was interrupted" if len(asked) == 4 else ""

    run_ = adaptation(steps=50, stop=stop)
    history = list(run_)
    assert len(history) == 4
    assert run_.result.stopped == "it was interrupted"
    assert run_.result.after == min([run_.result.before, *(step.held_out for step in history)])


def test_members_that_train_share_the_weights_and_all_members_judge():
    session = small_model(members=4)
    run_ = adaptation(session, steps=1, train_members=2, batch=16)
    run_.prepare()
    trains, judges, context = run_._labelled.session, run_._session, run_._context
    assert (trains.members, judges.members) == (2, 4)
    assert all(a is b for a, b in zip(trains.parameters("all"), judges.parameters("all"), strict=True))
    assert len(run_._labelled.context.members) == 2
    held = judges.row_scores(context, judges.queries(context, X[40:], Y[40:]), run_._held, run_._how)
    assert run_.result.before == pytest.approx(float(held.loss.mean()), abs=1e-6)
    list(run_)
    alone = session.with_members(2)
    narrow = alone.context(X[:40], Y[:40], 2)
    rows = run_._labelled.train[:5]
    ours = trains.row_scores(run_._labelled.context, run_._labelled.queries, rows, run_._how).loss
    queries = alone.queries(narrow, X[40:], Y[40:])
    assert not np.array_equal(ours, alone.row_scores(narrow, queries, rows, run_._how).loss), "it was trained"


def test_members_take_turns():
    session = small_model(members=4)

    def trained(members, **schedule):
        run_ = adaptation(members, steps=4, batch=16, **schedule)
        seen, own = [], type(session).accumulate_gradients

        def record(self, context, *rest):
            seen.append(
                {
                    call.context[:, b].numpy().tobytes()
                    for call in context.calls
                    for b in range(call.context.shape[1])
                }
            )
            return own(self, context, *rest)

        run_.prepare()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(session), "accumulate_gradients", record)
            return run_.result, seen, list(run_)

    everyone, seen, _ = trained(session, step_members=4)
    assert [len(one) for one in seen] == [4] * 4
    plan, seen, _ = trained(session, step_members=1)
    assert sorted(map(len, seen)) == [1] * 4 and len(set.union(*seen)) == 4
    assert plan.plan.needed < everyone.plan.needed
    _, seen, _ = trained(session)
    assert [len(one) for one in seen] == [2] * 4 and len(seen[0] | seen[1]) == len(seen[2] | seen[3]) == 4
    _, seen, _ = trained(session, train_members=3, step_members=2)
    assert sorted(map(len, seen[:2])) == [1, 2] and len(seen[0] | seen[1]) == 3


@pytest.mark.parametrize(
    ("members", "step_members", "held_out", "rule", "every"),
    # 40 context rows, 100 queries, a batch of 16: a score of h rows costs (40 + h) members, a step 3 * 56.
    [(1, None, 0.2, "full", 1), (4, 1, 0.2, "full", 3), (4, 2, 0.2, "full", 2), (4, 4, 0.2, "full", 1),
     (2, None, 0.8, "full", 2), (2, None, 0.8, "temperature", 1)],
)  # fmt: skip
def test_scores_take_at_most_half_the_time_of_the_steps(members, step_members, held_out, rule, every):
    schedule = {"steps": 6, "batch": 16, "evaluate_every": 1}
    run_ = adaptation(
        small_model(members=members), rule=rule, step_members=step_members, held_out=held_out, **schedule
    )
    scores = [step.held_out for step in run_]
    changes = [number for number in range(1, 6) if scores[number] != scores[number - 1]]
    expected = [number for number in range(2, 7) if number % every == 0 or number == 6]
    assert [number + 1 for number in changes] == expected


def test_the_gradient_of_a_single_step_is_that_of_all_members():
    run_ = adaptation(small_model(members=4), optimizer="sgd-1", step_members=1)
    run_.prepare()
    assert [len(batch.context.members) for batch in run_._source.whole()] == [4]
    assert run_.schedule.evaluate_every == Schedule().evaluate_every


@pytest.mark.parametrize("members", [1, 3])
def test_members_are_tabpfns_own(members):
    from tabpfn import TabPFNClassifier

    session = small_model(members=4)
    theirs = TabPFNClassifier(
        model_path=session.specs(), n_estimators=members, device="cpu", random_state=0,
        softmax_temperature=session.temperature, ignore_pretraining_limits=True,
    )  # fmt: skip
    context = session.with_members(members).context(X[:40], Y[:40], 2)
    ours = session.with_members(members).predict(context, X[40:])
    expected = theirs.fit(X[:40], Y[:40]).predict_proba(X[40:])
    assert np.abs(ours - expected).max() < 1e-5
    assert np.abs(ours - session.predict(session.context(X[:40], Y[:40], 2), X[40:])).max() > 1e-4


@pytest.mark.parametrize("members", [0, -1, 65])
def test_an_ensemble_that_cannot_be_is_refused(members, tiny_model):
    with pytest.raises(ModelError, match=f"an ensemble has 1 to 64 members, not {members}"):
        tiny_model.with_members(members)


def test_what_was_asked_for_is_in_a_rows_identity_and_nothing_else_is(tiny_model):
    from tttab.data import Origin, table_from_frame
    from tttab.data.splits import SplitRequest, split_rows

    table = table_from_frame(X.assign(y=Y), Origin("toy", "test"))
    split = split_rows(table.y, SplitRequest(n=30, k=60, test_size=40), 0, classes=2)
    plain = Trial(table, split, tiny_model, schedule=Schedule(steps=2))
    assert "members" not in identity(plain, "ttt@n+k")
    later = {"max_seconds", "train_members", "step_members", "loss"}
    assert not later & identity(plain, "ttt@n+k")["schedule"].keys()
    other = replace(plain, schedule=replace(plain.schedule, loss="members"))
    assert identity(other, "ttt@n+k")["schedule"] == {
        **identity(plain, "ttt@n+k")["schedule"],
        "loss": "members",
    }
    few = Trial(table, split, tiny_model.with_members(1), schedule=Schedule(steps=2), members=1)
    assert identity(few, "icl@n")["members"] == 1
    assert "members" not in identity(few, "gbt")
    timed = Trial(table, split, tiny_model, schedule=Schedule(steps=2, max_seconds=900.0), latency_calls=0)
    planned, *_, outcome = run_arm(timed, "ttt@n+k")
    assert isinstance(planned, Planned)
    assert isinstance(outcome, Outcome)
    assert outcome.row.identity["schedule"]["max_seconds"] == 900.0
    assert outcome.row.identity["schedule"]["steps"] == planned.estimate.steps == 2


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("120s", 120), ("10m", 600), ("1.5h", 5400), (2.5, 2.5)]
)
def test_times(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-3s", "0", "1d", "nan", "1e400s"])
def test_what_is_no_time(text):
    with pytest.raises(RequestError, match="is no time"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.25, "0.25 s"), (42, "42 s"), (420, "7 min"), (9000, "2.5 h")]
)
def test_times_in_words(seconds, words):
    assert format_seconds(seconds) == words


QUICK = ["run", "--n", "20", "--k", "40", "--test-size", "30", "--model", "tttab-tiny", "--device", "cpu"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--time", "soon"], "'soon' is no time"),
        (["--members", "0"], "an ensemble has 1 to 64 members, not 0"),
        (["--members", "many"], "Input should be a valid integer"),
        (["--train-members", "0"], "at least one member must train, got 0"),
        (["--step-members", "0"], "at least one member must train in a step, got 0"),
        (["--time", "0.001s"], "a step takes about"),
    ],
)
def test_budgets_that_cannot_be_are_one_line(arguments, message, capfd, tmp_path):
    assert run([*QUICK, *arguments, "--out", str(tmp_path / "kept")]) == 2
    told = capfd.readouterr().err
    assert message in told
    assert "hint: " in told
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("keep", "code"), [(["--keep-on-interrupt"], 0), ([], 130)], ids=["kept", "interrupted"]
)
def test_ctrl_c_keeps_the_best_weights_where_that_was_asked_for(monkeypatch, capfd, tmp_path, keep, code):
    seen = []

    def press(step, quiet):
        seen.append(step.number)
        if step.number == 3:
            os.kill(os.getpid(), signal.SIGINT)

    for module in ("commands.run", "opening"):
        monkeypatch.setattr(f"tttab.cli.{module}.warn_of_length", press)
    assert run([*QUICK, "--steps", "30", "--out", str(tmp_path / "kept"), *keep]) == code
    assert max(seen) == 3
    told = capfd.readouterr().err
    if keep:
        assert "training stopped early: it was interrupted" in told
        assert run(["inspect", str(tmp_path / "kept")]) == 0
    else:
        assert not (tmp_path / "kept").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_long_training_is_announced_where_somebody_waits(monkeypatch, capfd):
    from tttab.training.result import Step

    class Terminal:
        is_terminal = True

    monkeypatch.setattr(opening.output, "stderr", Terminal)
    said = []
    monkeypatch.setattr(opening.output, "note", lambda text, quiet: said.append(text))
    for number in (1, 2, 3):
        opening.warn_of_length(Step(number, 50, 1.0, 1.0, 1.0, 8.0 * number), False)
    opening.warn_of_length(Step(2, 50, 1.0, 1.0, 1.0, 1.0), False)
    assert len(said) == 1
    assert said[0].startswith("training will take up to 7 min; shorter with --time 2m")
