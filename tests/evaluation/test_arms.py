"""Arms: which rows each reads, what it trains, what it is measured by, and an identity of its own."""

from __future__ import annotations

from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from tests.support.toys import WatchedSession
from tttab.core import identity_hash
from tttab.data.context_selection import choose_context
from tttab.data.splits import SplitRequest, split_rows
from tttab.errors import RequestError
from tttab.evaluation import arms, rivals, timing
from tttab.evaluation import trial as trials
from tttab.evaluation.arms import ARMS, identity, run_arm
from tttab.evaluation.baselines import BaggedTrees
from tttab.evaluation.outcome import Outcome, Progress
from tttab.evaluation.trial import Trial
from tttab.metrics import classification_metrics, regression_metrics
from tttab.testing import INFO, ToySession
from tttab.training.config import LATER, Schedule
from tttab.training.loop import Adaptation
from tttab.training.recipes import RECIPES

N, K, TEST = 30, 40, 40
WHOLE = {"icl@n+k", "redraw@n+k", "finetuned@n+k", "predictlm-ttt@n+k"}
RIVALS = {"gbt", "logistic", "lightgbm@n+k", "distilled-gbt@n+k"}
"""They serve without a context."""
TUNED = {arm for arm, about in ARMS.items() if about.tuning}
"""A toy has nothing that they could tune: `tests/models/test_tuned.py`."""


@pytest.fixture(scope="module")
def table(mixed_table):
    return mixed_table


@pytest.fixture(scope="module")
def split(table):
    return split_rows(table.y, SplitRequest(n=N, k=K, test_size=TEST), 0, classes=3)


@pytest.fixture(autouse=True)
def little_patience(monkeypatch):
    monkeypatch.setattr(BaggedTrees, "PATIENCE", 5)


@pytest.fixture
def unit(table, split):
    schedule = Schedule(steps=12, lr=1e-2, precision="fp32")
    return Trial(table, split, WatchedSession(), schedule=schedule, latency_calls=1, open_seconds=7.0)


def outcome(trial, arm):
    return list(run_arm(trial, arm))[-1]


@pytest.mark.parametrize("arm", sorted(ARMS.keys() - TUNED))
def test_every_arm_ends_with_one_outcome_on_the_test_rows_and_says_what_it_read(unit, arm):
    *progress, last = run_arm(unit, arm)
    trains = ARMS[arm].rule is not None
    steps = len(progress) if ARMS[arm].recipe else 12
    assert [event.step.number for event in progress] == list(range(1, steps + 1)) * trains
    assert all(isinstance(event, Progress) and event.arm == arm for event in progress)
    assert isinstance(last, Outcome)
    assert last.row.arm == arm and last.row.identity == identity(unit, arm)
    assert last.probabilities.shape == (TEST, 3)
    assert last.row.metrics == classification_metrics(unit.table.y[unit.split.test], last.probabilities)
    assert last.row.n_context == (N + K if arm in WHOLE else 0 if arm in RIVALS else N)
    assert last.row.k == (N + K if arm in RIVALS else K if trains or ARMS[arm].own_training else 0)
    assert (last.row.cache_bytes or 0) > 0 or arm not in RIVALS


def test_arms_are_shown_the_rows_of_the_split_and_never_a_test_row(table, split):
    number = {size: row for row, size in enumerate(table.x["size"])}
    labelled = [*split.context, *split.queries]
    for arm, about in ARMS.items():
        if arm in TUNED:
            continue
        session = WatchedSession()
        list(run_arm(Trial(table, split, session, schedule=Schedule(steps=1), latency_calls=0), arm))
        seen = [(part, [number[size] for size in sizes], labels) for part, sizes, labels in session.seen]
        assert not {row for _, rows, _ in seen for row in rows} & set(split.test)
        assert all(list(table.y[rows]) == labels for _, rows, labels in seen)
        contexts = [rows for part, rows, _ in seen if part == "context"]
        if arm in ("icl@n+k", "finetuned@n+k"):
            assert contexts == [labelled]
        elif arm == "finetuned@n":
            assert contexts == [list(split.context)]
        elif arm == "medoids@n":
            assert contexts[0] == list(split.context) and set(contexts[1]) < set(labelled)
        elif arm in ("predictlm-ttt@n+k", "distilled-gbt@n+k"):
            assert all(set(rows) <= set(labelled) for rows in contexts)
        elif about.choice:
            chosen = choose_context(split, about.choice, table.x, table.y, classes=3)
            assert contexts == [list(chosen.context)]
        elif about.model:
            assert contexts[0] == list(split.context)
        if about.rule is not None:
            assert next(rows for part, rows, _ in seen if part == "queries") == list(split.queries)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("arm", ["gbt", "logistic"])
def test_trees_and_the_linear_model_are_fitted_on_all_n_plus_k_rows(table, split, monkeypatch, arm, task):
    y = table.y if task == "classification" else table.y * 1.5
    p = np.eye(3)[table.y[split.test]] * 0.4 + 0.2
    fitted = []

    class Rival:
        def fit(self, x, y):
            fitted.append((list(x.index), list(y)))

        def predict_proba(self, x):
            return p if len(x) == TEST else None

        def predict(self, x):
            return y[split.test] + 1.0 if len(x) == TEST else None

    asked = []
    monkeypatch.setattr(rivals, "baseline", lambda *a: asked.append(a) or Rival())
    monkeypatch.setattr(rivals, "kept_bytes", lambda model: 77)
    trial = Trial(replace(table, y=y, task=task), split, None, seed=5)
    (last,) = run_arm(trial, arm)
    labelled = [*split.context, *split.queries]
    assert fitted == [(labelled, list(y[labelled]))]
    ((name, x, asked_task, seed),) = asked
    assert (name, list(x.index), asked_task, seed) == (arm, labelled, task, 5)
    expected = classification_metrics(y[split.test], p) if task == "classification" else {
        **regression_metrics(y[split.test], y[split.test] + 1.0)
    }  # fmt: skip
    assert last.row.metrics == expected
    assert last.row.seconds["open"] == 0.0 and last.row.cache_bytes == 77


def test_training_is_asked_for_with_the_arm_s_rule_and_the_trial_s_schedule_seed_and_budget(
    unit, monkeypatch
):
    asked = []

    class Watched(Adaptation):
        def __init__(self, session, rule, context, queries, schedule, seed, budget, **more):
            asked.append((rule.name, schedule, seed, budget, list(queries[0].index)))
            super().__init__(session, rule, context, queries, schedule, seed, budget, **more)

    monkeypatch.setattr(trials, "Adaptation", Watched)
    schedule = Schedule(steps=1, split="kfold")
    trial = replace(unit, rule="last-layers:1", schedule=schedule, seed=9, budget=2**31, trained={})
    for arm in ("ttt@n+k", "redraw@n", "temperature@n", "head@n"):
        list(run_arm(trial, arm))
    redrawn, rows = replace(schedule, split="redraw"), list(unit.split.queries)
    assert asked == [
        ("last-layers:1", schedule, 9, 2**31, rows),
        ("last-layers:1", redrawn, 9, 2**31, rows),
        ("temperature", schedule, 9, 2**31, rows),
        ("head", schedule, 9, 2**31, rows),
    ]


def test_redrawn_training_is_done_once_for_both_arms(unit):
    *steps, short = run_arm(unit, "redraw@n")
    (whole,) = run_arm(unit, "redraw@n+k")
    assert len(steps) == 12 and short.adapted is whole.adapted
    assert not np.array_equal(short.probabilities, whole.probabilities)
    server = whole.adapted.session.serve(unit.whole_context)
    assert np.array_equal(whole.probabilities, server.predict(unit.rows("test")[0]))


@pytest.mark.parametrize("arm", ["ttt@n+k", "head@n"])
def test_trained_arms_predict_with_the_chosen_weights_and_say_which_step(unit, arm):
    last, plain = outcome(unit, arm), outcome(unit, "icl@n")
    server = last.adapted.session.serve(unit.context)
    assert np.array_equal(last.probabilities, server.predict(unit.rows("test")[0]))
    assert last.row.accepted is True and last.row.steps == last.adapted.step > 0
    assert last.row.seconds["adapt"] == last.adapted.seconds > 0
    assert last.row.metrics["log_loss"] < plain.row.metrics["log_loss"]
    assert (plain.row.steps, plain.row.accepted, plain.adapted) == (0, None, None)


def test_temperature_moves_probabilities_and_no_weights(unit):
    adapted = outcome(unit, "temperature@n").adapted
    for name, parameter in unit.session.module.named_parameters():
        assert torch.equal(parameter, adapted.session.module.get_parameter(name))
    assert adapted.session.log_temperature != 0


class Clock:
    """Time that only what is measured moves on."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now

    def spend(self, seconds, answer):
        self.now += seconds
        return answer


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(arms, "time", clock)
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(timing, "LATENCY_ROWS", 1000)
    monkeypatch.setattr(timing, "LATENCY_SECONDS", 1.0)
    return clock


def test_latency_is_that_of_the_fastest_call_on_a_thousand_rows_repeated_as_needed(clock):
    spent = iter([0.3, 0.05, 0.2, 3.0])
    x = pd.DataFrame({"a": np.arange(300.0)}, index=np.arange(300)[::-1])
    seen = []
    took = timing.latency(lambda rows: clock.spend(next(spent), seen.append(rows)), x, 3, 0.001)
    assert took == pytest.approx(50.0)
    assert all(rows.index.equals(pd.RangeIndex(1000)) for rows in seen)
    assert all(list(rows["a"]) == [*range(300)] * 3 + [*range(100)] for rows in seen)
    long = timing.latency(lambda rows: clock.spend(next(spent), None), x, 3, 0.001)
    assert long == pytest.approx(3000.0) and next(spent, None) is None, "one long call says enough"


def test_latency_without_calls_follows_from_the_prediction_of_the_test_rows(clock):
    assert timing.latency(None, pd.DataFrame({"a": np.arange(40.0)}), 0, 0.2) == pytest.approx(5000.0)


def test_seconds_are_opening_training_and_serving_with_its_cache(unit, clock, monkeypatch):
    p, measured = np.full((TEST, 3), 1 / 3), []
    server = SimpleNamespace(
        predict=lambda x: clock.spend(4.0, p),
        metrics=lambda *asked: measured.append(asked) or {"accuracy": 1.0},
        cache_bytes=77,
    )
    session = SimpleNamespace(serve=lambda context: clock.spend(2.0, server), info=INFO)
    row = arms._serve(replace(unit, latency_calls=0), "icl@n", session, unit.context, k=0).row
    assert row.seconds == {"open": 7.0, "adapt": 0.0, "predict": 6.0}
    assert row.ms_per_1000_rows == pytest.approx(4.0 * 1000 / TEST * 1000)
    assert (row.cache_bytes, row.metrics) == (77, {"accuracy": 1.0})
    x, y = unit.rows("test")
    assert measured[0][0].equals(x) and np.array_equal(measured[0][1], y) and measured[0][2] is p
    adapted = SimpleNamespace(seconds=11.0, step=3, accepted=True, estimate=None)
    row = arms._serve(unit, "ttt@n+k", session, unit.context, k=K, adapted=adapted).row
    assert row.seconds["adapt"] == 11.0 and row.ms_per_1000_rows == 4000.0


def test_the_seconds_of_a_rival_are_those_of_its_fit_and_of_its_prediction(unit, clock, monkeypatch):
    p = np.full((TEST, 3), 1 / 3)
    rival = SimpleNamespace(
        fit=lambda x, y: clock.spend(5.0, None), predict_proba=lambda x: clock.spend(2.0, p)
    )
    monkeypatch.setattr(rivals, "baseline", lambda *a: rival)
    monkeypatch.setattr(rivals, "kept_bytes", lambda model: 77)
    row = outcome(replace(unit, latency_calls=0), "gbt").row
    assert row.seconds == {"open": 0.0, "adapt": 5.0, "predict": 2.0}
    assert row.ms_per_1000_rows == pytest.approx(2.0 * 1000 / TEST * 1000)


def test_identities_differ_by_arm_and_by_what_changes_the_number(unit):
    keys = {identity_hash(identity(unit, arm)) for arm in ARMS}
    assert len(keys) == len(ARMS)
    other = replace(unit, schedule=replace(unit.schedule, steps=3))
    changed = {arm for arm in ARMS if identity(other, arm) != identity(unit, arm)}
    assert changed == {arm for arm, about in ARMS.items() if about.rule is not None and not about.recipe}
    seeded = {arm for arm in ARMS if identity(replace(unit, seed=1), arm) != identity(unit, arm)}
    assert seeded == changed | RIVALS | {"finetuned@n", "finetuned@n+k", "predictlm-ttt@n+k", "ttt+@n+k"}
    timed = replace(unit, schedule=replace(unit.schedule, max_seconds=9.0))
    assert identity(timed, "finetuned@n+k") == identity(unit, "finetuned@n+k") | {"seconds": 9.0}
    assert identity(timed, "icl@n+k") == identity(unit, "icl@n+k")


def test_a_model_without_a_fine_tuner_says_so_and_one_is_given_all_rows_seed_and_time(table, split):
    with pytest.raises(RequestError, match="torch has no fine-tuning of its own for toy on ") as caught:
        list(run_arm(Trial(table, split, ToySession()), "finetuned@n+k"))
    assert caught.value.hint == "--arms ttt@n+k,redraw@n+k"
    asked = []

    class Given(WatchedSession):
        def finetuned(self, x, y, *more):
            asked.append((list(x.index), list(y), *more))
            return super().finetuned(x, y, *more)

    trial = Trial(table, split, Given(), schedule=Schedule(max_seconds=9.0), seed=5, latency_calls=0)
    row = outcome(trial, "finetuned@n+k").row
    labelled = [*split.context, *split.queries]
    assert row.identity["schedule"] is None and row.seconds["adapt"] > 0
    outcome(trial, "finetuned@n")
    given = labelled, list(table.y[labelled]), 3, 5, 9.0
    assert asked == [(*given, None), (*given, N)]


def test_an_identity_names_exactly_what_changes_the_number(unit, split):
    """Stored results are found by these words: another word would measure everything anew."""
    trained = {
        "table": unit.table.fingerprint,
        "split": {"seed": 0, "n": N, "k": K, "rows": split.digest},
        "model": INFO.sha256,
        "arm": "ttt@n+k",
        "rule": "full",
        "schedule": {name: value for name, value in asdict(unit.schedule).items() if name not in LATER},
        "seed": 0,
    }
    assert identity(unit, "ttt@n+k") == trained
    assert identity(unit, "head@n") == trained | {"arm": "head@n", "rule": "head"}
    thorough = replace(RECIPES["thorough"].schedule, precision=unit.schedule.precision).to_dict()
    assert identity(unit, "ttt+@n+k") == trained | {"arm": "ttt+@n+k", "schedule": thorough}
    untrained = trained | {"rule": None, "schedule": None}
    assert identity(unit, "gbt") == untrained | {"arm": "gbt", "model": None}
    assert identity(unit, "icl@n+k") == untrained | {"arm": "icl@n+k", "seed": None}
    short = {"seed": 0, "n": N, "k": None, "rows": split.digest_of("context", "test")}
    assert identity(unit, "icl@n") == untrained | {"arm": "icl@n", "seed": None, "split": short}
    planned = replace(unit, session=None, planned_model=INFO.sha256)
    assert all(identity(planned, arm) == identity(unit, arm) for arm in ARMS)


def test_what_a_model_cannot_tune_is_refused_with_a_way_on(unit):
    for arm in sorted(TUNED):
        with pytest.raises(RequestError, match="is for classifiers of TabPFN v2, not for toy") as caught:
            list(run_arm(unit, arm))
        assert caught.value.hint == "--arms ttt@n+k,redraw@n+k"


def test_an_unknown_arm_and_an_arm_without_its_model_are_refused(unit):
    with pytest.raises(RequestError, match="no arm is called 'ttt'") as caught:
        list(run_arm(unit, "ttt"))
    assert caught.value.hint == f"--arms {','.join(ARMS)}"
    with pytest.raises(RequestError, match="this trial has no model"):
        list(run_arm(replace(unit, session=None, trained={}), "icl@n"))


def test_rows_given_to_choose_by_choose_and_stand_in_the_identity(unit):
    given = replace(unit, split=replace(unit.split, held=11), trained={})
    adapted = outcome(given, "ttt@n+k").adapted
    x, y = unit.rows("queries")
    context = unit.session.context(*unit.rows("context"), 3)
    scores = unit.session.row_scores(context, unit.session.queries(context, x, y), np.arange(K - 11, K), None)
    assert adapted.before == pytest.approx(float(scores.loss.mean()))
    assert identity(given, "ttt@n+k") != identity(unit, "ttt@n+k")
    assert identity(given, "icl@n") == identity(unit, "icl@n"), "no query changes it"


def test_the_thorough_arm_trains_on_what_teachers_say_beside_the_labels(unit, monkeypatch):
    """Six lanes, of which half ask for labels; the held-out rows choose as ever."""
    asked, plain = [], ToySession.accumulate_gradients

    def noting(self, context, queries, rows, scale, how, objective):
        asked.append(objective.targets is None)
        return plain(self, context, queries, rows, scale, how, objective)

    monkeypatch.setattr(ToySession, "accumulate_gradients", noting)
    row = outcome(replace(unit, trained={}), "ttt+@n+k").row
    assert asked[:6] == [True, False] * 3
    assert row.identity["schedule"]["taught"] and row.n_context == N


def test_rows_that_count_twice_count_in_training_in_rivals_and_in_figures(unit, monkeypatch):
    count = np.random.default_rng(0).integers(1, 4, len(unit.table)).astype(float)
    weighted = replace(unit, table=replace(unit.table, weights=count), trained={})
    asked = []
    plain = Adaptation.__init__

    def noted(self, *arguments, objective, **settings):
        asked.append(objective.weights)
        plain(self, *arguments, objective=objective, **settings)

    monkeypatch.setattr(Adaptation, "__init__", noted)
    y = unit.rows("test")[1]
    for arm in ("icl@n", "ttt@n+k", "gbt"):
        last = outcome(weighted, arm)
        expected = classification_metrics(y, last.probabilities, count[unit.split.test])
        assert last.row.metrics == pytest.approx(expected)
        assert np.array_equal(last.probabilities, outcome(unit, arm).probabilities) == (arm == "icl@n")
    assert asked[0].tolist() == count[unit.split.queries].tolist() and asked[1] is None
