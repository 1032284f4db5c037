"""A table with 1 % positives: a threshold chosen on held-out rows, weights that count, figures that tell."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tttab
from tests.support.small_models import small_model
from tttab import TTTClassifier, TTTRegressor
from tttab.blend import blending
from tttab.cli import run as command
from tttab.data import Origin, table_from_frame
from tttab.errors import RequestError
from tttab.training.loop import Adaptation

RNG = np.random.default_rng(11)
ROWS = 1000
RARE = np.arange(ROWS) % 100 == 0
X = pd.DataFrame({"a": RNG.normal(size=ROWS) + 3 * RARE, "b": RNG.normal(size=ROWS)})
Y = np.where(RARE, "ill", "a well")


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """The parameters of a fit of two steps with the bundled model's smallest ensemble."""
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    small_model(members=1).save(str(path))
    return {"n_context": 100, "n_queries": 600, "steps": 1, "model": str(path), "device": "cpu"}


def test_an_estimator_decides_by_a_threshold_and_keeps_it(sizes, tmp_path):
    sizes = sizes | {"model": "tttab-tiny", "rule": "none", "n_members": 1}
    plain = TTTClassifier(**sizes).fit(X, Y)
    tuned = TTTClassifier(**sizes, threshold="balanced_accuracy").fit(X, Y)
    about = tuned.bundle_.record["threshold"]
    assert about["after"] >= about["before"] and about["rows"] == 120 and 0 < about["value"] < 0.5
    p = tuned.predict_proba(X)
    assert np.array_equal(p, plain.predict_proba(X)), "probabilities stay as they are"
    assert tuned.predict(X).tolist() == tuned.classes_[(p[:, 1] >= about["value"]).astype(int)].tolist()
    assert plain.predict(X).tolist() == plain.classes_[p.argmax(axis=1)].tolist()
    tuned.save(tmp_path)
    loaded = TTTClassifier.load(tmp_path, device="cpu")
    assert loaded.predict(X).tolist() == tuned.predict(X).tolist() != plain.predict(X).tolist()


def test_adapt_and_predict_decide_by_it_and_say_so(sizes, tmp_path, capsys):
    X.assign(y=Y).to_csv(tmp_path / "t.csv", index=False)
    words = ["adapt", str(tmp_path / "t.csv"), "--out", str(tmp_path / "b"), "--n", "100", "--k", "600"]
    words += ["--model", sizes["model"], "--device", "cpu", "--steps", "1", "--test-size", "200"]
    assert command([*words, "--threshold", "f1"]) == 0
    said = capsys.readouterr()
    assert "Rows count as 'ill' from a probability of 0." in said.err
    figures = dict(line.split("\t")[2:4] for line in said.out.splitlines()[1:])
    assert {"balanced_accuracy", "average_precision"} <= set(figures)
    assert command(["predict", str(tmp_path / "b"), str(tmp_path / "t.csv"), "--quiet"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    value = json.loads((tmp_path / "b" / "manifest.json").read_text())["record"]["threshold"]["value"]
    assert [line[0] for line in lines] == ["ill" if float(line[2]) >= value else "a well" for line in lines]


@pytest.mark.parametrize(
    ("estimator", "labels", "about"),
    [
        (TTTClassifier(threshold="recall"), Y, "no threshold is chosen by 'recall'; threshold='balanced_acc"),
        (TTTClassifier(threshold="f1"), np.arange(ROWS) % 3, "not 3 classes; leave out threshold"),
        (TTTRegressor(threshold="f1"), X["a"], "not a regression target; leave out threshold"),
    ],
)
def test_a_threshold_that_makes_no_sense_is_refused(estimator, labels, about):
    with pytest.raises(RequestError, match=about):
        estimator.fit(X, labels)
    table = tttab.data.table_from_frame(X.assign(y=np.arange(ROWS) % 3), tttab.data.Origin("made", "file"))
    with pytest.raises(RequestError, match="divides two classes"):
        tttab.run(table, threshold="f1")


def test_weights_count_in_an_estimator_and_are_routed_to_it(sizes, monkeypatch):
    seen = []
    plain = Adaptation.__init__

    def noted(self, *arguments, objective, **settings):
        seen.append((objective.weights, arguments[4].balanced))
        plain(self, *arguments, objective=objective, **settings)

    monkeypatch.setattr(Adaptation, "__init__", noted)
    sizes = sizes | {"n_queries": 60}
    count = np.where(RARE, 5.0, 1.0)[:300]
    with sklearn.config_context(enable_metadata_routing=True):
        model = TTTClassifier(**sizes, class_weight="balanced").set_fit_request(sample_weight=True)
        make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model).fit(
            X[:300], Y[:300], sample_weight=count
        )
    TTTClassifier(**sizes).fit(X[:300], Y[:300])
    assert sorted(set(seen[0][0])) in ([1.0], [1.0, 5.0]) and len(seen[0][0]) == 60 and seen[0][1] is True
    assert seen[1] == (None, False)


@pytest.mark.parametrize(
    ("parameters", "weights", "about"),
    [
        ({"class_weight": {"ill": 2}}, None, "class_weight must be None or 'balanced'"),
        (
            {},
            np.full(ROWS, -1.0),
            "sample_weight must be numbers from 0 on, not all zero; leave out sample_w",
        ),
        ({}, [1.0], "inconsistent numbers of samples"),
    ],
)
def test_weights_that_make_no_sense_are_refused(parameters, weights, about):
    with pytest.raises(ValueError, match=about):
        TTTClassifier(**parameters, model="never-opened").fit(X, Y, sample_weight=weights)


def test_the_threshold_and_the_share_of_trees_are_chosen_by_rows_as_they_count(sizes, tmp_path, monkeypatch):
    pytest.importorskip("lightgbm")
    count, seen = np.where(RARE, 40.0, 1.0), []
    monkeypatch.setattr(blending, "best_weight", lambda *given: seen.append(given[3]) or 0.0)
    fitted = TTTClassifier(**sizes, rule="none", blend="trees", threshold="accuracy")
    about = fitted.fit(X, Y, sample_weight=count).bundle_.record["threshold"]
    table = table_from_frame(X.assign(w=count, y=Y), Origin("rare", "file"))
    asked = {"model": sizes["model"], "device": "cpu", "n": 100, "k": 600, "rule": "none", "weights": "w"}
    made = tttab.adapt(table, threshold="accuracy", blend="trees", **asked).bundle.record["threshold"]
    assert [sorted(set(weights)) for weights in seen] == [[1.0, 40.0]] * 2
    rare = [weights[weights > 1].sum() / weights.sum() for weights in seen]
    for record, share in zip((about, made), rare, strict=True):
        assert min(abs(record["before"] - one) for one in (share, 1 - share)) < 0.25
