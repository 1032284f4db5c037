"""What a request comes to: sizes, a schedule, a table, its split, a model; bad ones are refused first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import tttab.data
import tttab.models
from tttab.data import Origin, table_from_frame
from tttab.data.context_selection import choose_context
from tttab.data.narrow import keep_classes, keep_features
from tttab.data.splits import SplitRequest, split_rows
from tttab.errors import ModelError, RequestError, TttabError
from tttab.evaluation.setup import TrialRequest, draw_rows, open_trial
from tttab.testing import ToySession
from tttab.training.config import Schedule
from tttab.training.recipes import RECIPES

RNG = np.random.default_rng(1)
Y = RNG.integers(0, 3, 120)
FRAME = pd.DataFrame(
    {name: RNG.normal(size=120) + Y * shift for name, shift in zip("abcd", (0, 2, 0, 1), strict=True)}
)
TABLE = table_from_frame(FRAME.assign(y=np.array(["p", "q", "r"])[Y]), Origin("made", "file"))
REQUEST = TrialRequest(TABLE, n=12, k=40, test_size=20, seed=4)


def same(one, other):
    return all(
        np.array_equal(getattr(one, part), getattr(other, part)) for part in ("context", "queries", "test")
    )


def test_a_schedule_holds_every_choice_of_the_request():
    chosen = {"steps": 7, "lr": 0.1, "optimizer": "sgd-1", "init": "random", "split": "kfold", "guard": "off"}
    asked = TrialRequest(**chosen, recipe="single", precision="fp32").schedule
    assert asked == Schedule(**chosen, precision="fp32")
    assert TrialRequest().schedule == RECIPES["default"].schedule


def test_sizes_hold_every_choice_of_the_request():
    assert TrialRequest(n=3, k=5, test_size=7, strict=True).sizes == SplitRequest(3, 5, 7, strict=True)
    assert TrialRequest().sizes == SplitRequest()


def test_the_task_is_what_is_asked_for_or_guessed():
    tasks = [TrialRequest(regression=choice).stated_task for choice in (None, True, False)]
    assert tasks == [None, "regression", "classification"]


@pytest.mark.parametrize(
    ("bad", "about"),
    [
        ({"max_memory": "4 elephants"}, "not a size in bytes"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"rule": "no-such"}, "no rule is called"),
        ({"context": "no-such"}, "no choice of context"),
        ({"n": 0}, "n must be at least 1"),
        ({"seed": -1}, "the seed must be at least 0, got -1"),
        ({"task": 7, "regression": True}, "an OpenML task says itself what it is"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_before_the_table_is_read(monkeypatch, bad, about):
    monkeypatch.setattr(tttab.data, "load_table", lambda *a, **k: pytest.fail("was read"))
    monkeypatch.setattr(tttab.data, "load_task", lambda *a, **k: pytest.fail("was read"))
    with pytest.raises(TttabError, match=about) as caught:
        draw_rows(replace(REQUEST, dataset="31", **bad))
    assert caught.value.hint.startswith(("--", "leave out --regression"))


def test_rows_are_those_of_the_seed_and_sizes_and_the_table_is_the_one_in_memory():
    table, split = draw_rows(REQUEST)
    assert table is TABLE
    assert same(split, split_rows(TABLE.y, SplitRequest(12, 40, 20), 4, classes=3))


def test_without_a_test_every_row_is_context_or_query():
    _, split = draw_rows(replace(REQUEST, k=108), keep_test=False)
    assert len(split.test) == 0 and sorted([*split.context, *split.queries]) == list(range(120))


def test_an_official_split_is_kept_unless_no_test_is_wanted():
    table = replace(TABLE, official_split=(np.arange(90), np.arange(90, 120)))
    _, split = draw_rows(replace(REQUEST, dataset=table))
    assert split.test.tolist() == list(range(90, 120)) and split.context.max() < 90
    _, split = draw_rows(replace(REQUEST, dataset=table, k=108), keep_test=False)
    assert split.n + split.k == 120


@pytest.mark.parametrize("how", ["random", "kcenter"])
def test_the_context_is_chosen_as_asked_for(how):
    _, split = draw_rows(replace(REQUEST, context=how))
    plain = split_rows(TABLE.y, SplitRequest(12, 40, 20), 4, classes=3)
    assert same(split, choose_context(plain, how, TABLE.x, TABLE.y, classes=3)) and not same(split, plain)


def test_classes_are_kept_before_the_split_and_features_by_its_labelled_rows_alone():
    table, split = draw_rows(replace(REQUEST, top_classes=2, top_features=2))
    two = keep_classes(TABLE, 2)
    assert same(split, split_rows(two.y, SplitRequest(12, 40, 20), 4, classes=2))
    expected = keep_features(two, 2, np.concatenate([split.context, split.queries]))
    assert list(table.x.columns) == list(expected.x.columns) and table.classes == two.classes
    loud = two.x.copy()
    for name in "ac":  # they tell nothing on the labelled rows and all on the test rows
        loud.loc[split.test, name] = two.y[split.test] * 1e6
    loud.loc[split.test, ["b", "d"]] = 1e6 * (-1.0) ** np.arange(len(split.test))[:, None]
    with_loud_test, _ = draw_rows(replace(REQUEST, dataset=replace(two, x=loud), top_features=2))
    assert list(with_loud_test.x.columns) == list(table.x.columns)


def test_tables_and_tasks_are_loaded_as_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(tttab.data, "load_table", lambda *a, **k: asked.append((a, k)) or TABLE)
    monkeypatch.setattr(tttab.data, "load_task", lambda *a, **k: asked.append((a, k)) or TABLE)
    wanted = replace(REQUEST, dataset="x.csv", target="y", regression=False, columns={"a": "level"})
    assert draw_rows(wanted)[0] is TABLE
    assert draw_rows(replace(REQUEST, task=59, fold=3, columns={"a": "level"}))[0] is TABLE
    assert asked == [
        (("x.csv",), {"target": "y", "task": "classification", "columns": {"a": "level"}}),
        ((59, 3), {"columns": {"a": "level"}}),
    ]


def test_a_trial_holds_the_model_the_table_s_task_opens_and_everything_the_request_says(monkeypatch):
    asked = []
    monkeypatch.setattr(tttab.models, "open_model", lambda *a, **k: asked.append((a, k)) or ToySession())
    asks = {"rule": "head", "steps": 3, "seed": 9, "max_memory": "2G", "strict": True, "members": 3}
    request = replace(REQUEST, model="toy", device="cpu", **asks)
    table, split = draw_rows(request)
    trial = open_trial(request, table, split)
    assert asked == [(("toy", "classification"), {"device": "cpu", "strict": True, "members": 3})]
    assert trial.members == 3
    assert trial.table is table and trial.split is split and isinstance(trial.session, ToySession)
    assert (trial.rule, trial.schedule, trial.seed, trial.budget) == (
        "head",
        replace(RECIPES["default"].schedule, steps=3),
        9,
        2 * 1024**3,
    )
    assert 0 < trial.open_seconds < 60


@pytest.mark.parametrize(("classes", "features"), [(1001, 4), (3, 9)])
def test_a_table_beyond_the_model_s_limits_is_refused(monkeypatch, classes, features):
    monkeypatch.setattr(tttab.models, "open_model", lambda *a, **k: ToySession())
    x = pd.DataFrame({f"x{number}": FRAME["a"] for number in range(features)})
    table = replace(TABLE, x=x, classes=tuple(map(str, range(classes))))
    with pytest.raises(ModelError):
        open_trial(REQUEST, table, draw_rows(REQUEST)[1])


WHO, DAY = np.arange(120) // 4, np.arange(120) % 60
COLUMNS = TABLE.x.assign(who=WHO.astype(float), day=DAY.astype(float))
SIDED = replace(REQUEST, dataset=replace(TABLE, x=COLUMNS, columns=()))


@pytest.mark.parametrize("keep_test", [True, False])
def test_groups_and_times_divide_the_rows_and_are_no_features(keep_test):
    table, split = draw_rows(replace(SIDED, group="who"), keep_test=keep_test)
    held = split.queries[split.k - split.held :]
    sides = [set(WHO[rows]) for rows in (split.free, held, split.test)]
    assert split.held and sum(map(len, sides)) == len(set.union(*sides)), "no group on two sides"
    assert list(table.x.columns) == [*"abcd", "day"] and bool(sides[2]) is keep_test
    table, split = draw_rows(replace(SIDED, time_column="day", top_features=2), keep_test=keep_test)
    held = split.queries[split.k - split.held :]
    assert DAY[split.free].max() < DAY[held].min() and "day" not in table.x.columns
    assert (DAY[split.test] > DAY[held].max()).all() and bool(len(split.test)) is keep_test


def test_a_column_of_weights_counts_rows_and_is_no_feature():
    table, split = draw_rows(replace(SIDED, weights="day", balanced=True))
    assert table.weights.tolist() == DAY.tolist() and list(table.x.columns) == [*"abcd", "who"]
    assert same(split, draw_rows(SIDED)[1]) and replace(SIDED, balanced=True).schedule.balanced
    other = replace(SIDED, dataset=replace(SIDED.dataset, x=COLUMNS.assign(day=DAY + 1.0)))
    assert draw_rows(replace(other, weights="day"))[0].fingerprint != table.fingerprint
    assert "balanced" not in REQUEST.schedule.to_dict() and table.fingerprint != TABLE.fingerprint


@pytest.mark.parametrize(
    ("column", "about"),
    [
        ("text", "are texts"),
        ("less", "numbers from 0 on"),
        ("none", "numbers from 0 on"),
        ("wht", "nearest is"),
    ],
)
def test_what_are_no_weights_is_refused(column, about):
    text = pd.Categorical(np.where(DAY % 2, "a", "b"))
    x = COLUMNS.assign(text=text, less=DAY - 1.0, none=0.0)
    with pytest.raises(TttabError, match=about) as caught:
        draw_rows(replace(REQUEST, dataset=replace(TABLE, x=x, columns=()), weights=column))
    assert "--weights" in caught.value.hint


def test_rows_of_a_file_choose_the_step_and_all_k_train(tmp_path):
    path = tmp_path / "more.csv"
    FRAME[:7].assign(y="q").to_csv(path, index=False)
    request = replace(REQUEST, validation=str(path))
    table, split = draw_rows(request)
    plain = draw_rows(REQUEST)[1]
    assert len(table) == 127 and split.held == 7 and split.k == 47
    assert split.queries.tolist() == [*plain.queries, *range(120, 127)]
    assert split.context.tolist() == plain.context.tolist() and split.test.tolist() == plain.test.tolist()
    _, split = draw_rows(replace(request, k=200), keep_test=False)
    assert sorted([*split.context, *split.queries]) == list(range(127))


@pytest.mark.parametrize(
    ("bad", "about", "hint"),
    [
        ({"group": "who", "time_column": "day"}, "--group and --time-column both", "leave out --time-column"),
        ({"group": "who", "validation": "v.csv"}, "--validation and --group both", "leave out --group"),
        ({"group": "whom"}, "the nearest is 'who'", "--group who"),
        ({"time_column": "when"}, "has no feature 'when'", "--time-column "),
        ({"time_column": "text"}, "which have no order in time", "--column text=date:"),
        ({"validation": "no-such.csv"}, "no-such.csv", ""),
    ],
)
def test_rows_that_cannot_be_divided_so_are_refused(bad, about, hint):
    x = COLUMNS.assign(text=pd.Categorical(np.array(["early", "late"])[DAY // 30]))
    with pytest.raises(TttabError, match=about) as caught:
        draw_rows(replace(REQUEST, dataset=replace(TABLE, x=x, columns=()), **bad))
    assert caught.value.hint.startswith(hint) and caught.value.hint
    fixed = replace(TABLE, x=x, columns=(), official_split=(np.arange(90), np.arange(90, 120)))
    with pytest.raises(RequestError, match="says itself which rows are the test"):
        draw_rows(replace(REQUEST, dataset=fixed, group="who"))


def test_a_seed_of_zero_is_a_seed():
    TrialRequest(seed=0).check()
    with pytest.raises(RequestError) as caught:
        TrialRequest(seed=-1).check()
    assert caught.value.hint == "--seed 0"
