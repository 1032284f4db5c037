"""Your own validation rows, groups and times, in `adapt`, on the command line and in the estimators."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import tttab
from tests.support.small_models import small_model
from tttab import TTTClassifier, TTTRegressor
from tttab.cli import run as command
from tttab.data.splits import hold_out
from tttab.errors import TttabError

RNG = np.random.default_rng(5)
ROWS, OWN = 96, 14
X = pd.DataFrame({"a": RNG.normal(size=ROWS), "c": RNG.choice(list("xyz"), ROWS)})
Y = np.where(X["a"] + 0.3 * RNG.normal(size=ROWS) > 0, "yes", "no")
WHO = np.arange(ROWS) // 4
X_VAL, Y_VAL = X[:OWN].assign(a=3.0, c="new"), Y[:OWN]


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """The parameters of a fit of one step with a network of random weights."""
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    small_model(members=1).save(str(path))
    return {"n_context": 12, "n_queries": 40, "steps": 1, "model": str(path), "device": "cpu"}


def loss_of(estimator, x, labels):
    """Return the log loss of the untouched model with the context that the estimator serves from."""
    plain = TTTClassifier(**estimator.get_params() | {"rule": "none"}).fit(X, Y, X_VAL, Y_VAL)
    assert plain.bundle_.x.equals(estimator.bundle_.x)
    p = plain.predict_proba(x)[np.arange(len(x)), np.searchsorted(plain.classes_, labels)]
    return -np.log(p).mean()


@pytest.mark.filterwarnings("ignore:column 'c'")
def test_an_estimator_chooses_its_step_on_the_rows_that_are_given(sizes):
    fitted = TTTClassifier(**sizes).fit(X, Y, X_VAL, Y_VAL)
    about = fitted.bundle_.record
    assert (about["split"]["held"], fitted.n_queries_) == (OWN, 40 + OWN)
    assert about["adaptation"]["held_out_loss"]["before"] == pytest.approx(
        loss_of(fitted, X_VAL, Y_VAL), 1e-4
    )
    again = TTTClassifier(**sizes).fit(X, Y, X_VAL, Y_VAL)
    assert np.array_equal(again.predict_proba(X), fitted.predict_proba(X))


def test_an_estimator_keeps_groups_and_times_apart(sizes, monkeypatch):
    seen = []

    def noted(y, *args, held=0, **kwargs):
        seen.append(held)
        return hold_out(y, *args, held=held, **kwargs)

    monkeypatch.setattr("tttab.training.loop.hold_out", noted)
    splits = []
    divided = tttab.api.fitting.divide
    monkeypatch.setattr("tttab.api.fitting.divide", lambda *a: splits.append(divided(*a)) or splits[-1])
    TTTClassifier(**sizes).fit(X, Y, groups=[f"p{who}" for who in WHO])
    TTTClassifier(**sizes).fit(X, Y, times=pd.Timestamp("2024-01-01") + pd.to_timedelta(WHO[::-1], "D"))
    by_group, by_time = splits
    assert seen == [by_group.held, by_time.held] and min(seen) > 0
    held = [split.queries[split.k - split.held :] for split in splits]
    assert not set(WHO[by_group.free]) & set(WHO[held[0]])
    assert WHO[by_time.free].min() > WHO[held[1]].max(), "the smaller, the later"


@pytest.mark.parametrize(
    ("given", "about"),
    [
        ({"X_val": X_VAL}, r"need both X_val and y_val; try fit\(X, y, X_val, y_val\)"),
        ({"X_val": X_VAL[["a"]], "y_val": Y_VAL}, "feature"),
        ({"X_val": X_VAL.assign(c="x"), "y_val": Y_VAL[:3]}, "inconsistent numbers of samples"),
        ({"X_val": X_VAL.assign(c="x"), "y_val": ["maybe"] * OWN}, "'maybe', which is no label of y"),
        ({"X_val": X_VAL.assign(c="x"), "y_val": Y_VAL, "groups": WHO}, "which rows are held out; try fit"),
        ({"groups": WHO[:5]}, "inconsistent numbers of samples"),
        ({"groups": np.zeros(ROWS)}, "1 of the groups cannot be divided; leave out groups$"),
        ({"groups": WHO, "times": WHO}, "not by both; leave out times$"),
        ({"times": ["early"] * ROWS}, "could not convert"),
    ],
)
def test_rows_that_do_not_fit_are_refused_in_a_line(sizes, given, about):
    with pytest.raises(ValueError, match=about):
        TTTClassifier(**sizes | {"model": "never-opened"}).fit(X, Y, **given)


def test_a_regressor_takes_validation_values(sizes, tmp_path):
    path = tmp_path / "regressor.safetensors"
    small_model(task="regression", members=1).save(str(path))
    values = X["a"] * 2.0
    fitted = TTTRegressor(**sizes | {"model": str(path)}).fit(X, values, X[:OWN], values[:OWN])
    assert fitted.bundle_.record["split"]["held"] == OWN
    with pytest.raises(TttabError, match="y_val"):
        TTTRegressor(**sizes).fit(X, values, X[:OWN], np.full(OWN, 1e40))


def test_adapt_measures_on_the_rows_of_the_file_and_says_what_they_are(sizes, tmp_path, capsys):
    X.assign(y=Y, who=WHO)[["who", "a", "c", "y"]].to_csv(tmp_path / "t.csv", index=False)
    X_VAL.assign(y=Y_VAL, who=1).to_csv(tmp_path / "v.csv", index=False)
    small = ["--n", "12", "--k", "40", "--steps", "1", "--device", "cpu", "--model", sizes["model"]]
    words = ["adapt", str(tmp_path / "t.csv"), "--out", str(tmp_path / "b"), *small]
    assert command([*words, "--validation", str(tmp_path / "v.csv")]) == 0
    said = capsys.readouterr()
    assert "54 the training queries, the last 14 of them choose the step, 44 are not used" in said.err
    assert "'c': 14 cells hold unknown texts" in said.err
    assert said.out.splitlines()[1].split("\t")[:2] == ["held-out queries (they chose the step)", str(OWN)]
    assert command([*words, "--group", "who"]) == 0
    assert "'who' divides the rows and is no feature" in capsys.readouterr().err
    assert [column.name for column in tttab.load_bundle(tmp_path / "b").schema.columns] == ["a", "c"]
    assert command(["predict", str(tmp_path / "b"), str(tmp_path / "t.csv"), "--quiet"]) == 0


def test_a_metric_that_chooses_is_told(sizes, tmp_path, capsys):
    fitted = TTTClassifier(**sizes | {"steps": 3, "lr": 0.1}, metric="balanced_accuracy").fit(X, Y)
    told = fitted.bundle_.record["adaptation"]["held_out_metric"]
    assert told["name"] == "balanced_accuracy" and fitted.history_[-1]["metric"] <= told["after"]
    assert told["before"] <= told["after"] <= 1
    with pytest.raises(ValueError, match="r2 is no metric of a classification; metric='accuracy' or metric="):
        TTTClassifier(**sizes, metric="r2").fit(X, Y)


@pytest.mark.parametrize(
    ("more", "about", "hint"),
    [
        (["--group", "whom"], "has no feature 'whom'", "--group who"),
        (
            ["--validation", "v.csv", "--group", "who"],
            "both say which rows are held out",
            "leave out --group",
        ),
        (["--time-column", "c"], "no order in time", "--column c=date:%d.%m.%Y"),
        (["--validation", "odd.csv"], "the new rows lack 1 of 3 columns: a", "their header must hold"),
        (["--metric", "auc"], "no metric is called 'auc'", "--metric accuracy|"),
        (["--metric", "r2"], "r2 is no metric of a classification", "--metric accuracy|"),
        (["--group", "same"], "1 of the groups cannot be divided", "leave out --group"),
    ],
)
def test_a_division_that_cannot_be_is_one_line_with_what_to_type(
    sizes, tmp_path, monkeypatch, capsys, more, about, hint
):
    monkeypatch.chdir(tmp_path)
    frame = X.assign(who=WHO, y=Y) if "same" not in more else X.assign(same=1, y=Y)
    frame.to_csv("t.csv", index=False)
    frame.drop(columns="a").to_csv("odd.csv", index=False)
    frame.to_csv("v.csv", index=False)
    for words in (["run", "--dataset", "t.csv", "--n", "12"], ["adapt", "t.csv", "--n", "12"]):
        assert command([*words, "--out", "kept", "--quiet", *more]) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 2 and about in said[0] and hint in said[1]
        assert not (tmp_path / "kept" / "manifest.json").exists()
