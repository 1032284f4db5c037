"""The scikit-learn estimators: scikit-learn's own checks, its tools, and the tables people have."""

from __future__ import annotations

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

import tttab
from tests.support.small_models import small_model
from tttab import TTTClassifier, TTTRegressor
from tttab.bundle import load_bundle, save_bundle
from tttab.cli import run
from tttab.errors import BundleError, DataError, ModelError, RequestError, RuleError

SMALL = {"n_context": 12, "n_queries": 30, "steps": 1, "model": "tttab-tiny", "device": "cpu"}
CANNOT_HOLD = {
    "check_methods_subset_invariance": "the network computes in float32: a row's probability moves by "
    "rounding (3e-7) with the number of rows it is predicted with; the check allows 1e-7",
    "check_sample_weight_equivalence_on_dense_data": "the context rows are read, and count alike",
    "check_class_weight_classifiers": "only `balanced` is taken, and the context rows count alike",
}


@parametrize_with_checks([TTTClassifier(**SMALL)], expected_failed_checks=lambda estimator: CANNOT_HOLD)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def regressor(tmp_path_factory):
    """A regressor whose model file has random weights: all but its accuracy can be tested."""
    path = tmp_path_factory.mktemp("model") / "small-regressor.safetensors"
    small_model(task="regression", members=1).save(str(path))
    return TTTRegressor(**{**SMALL, "model": str(path)})


def test_scikit_learns_checks_of_the_regressor(regressor):
    cannot = CANNOT_HOLD | {"check_regressors_train": "random weights have learned nothing"}
    results = check_estimator(regressor, expected_failed_checks=cannot, on_skip=None, on_fail="raise")
    assert {r["check_name"] for r in results if r["status"] == "xfail"} <= cannot.keys()
    assert len([r for r in results if r["status"] == "passed"]) > 40


def test_the_regressor_predicts_means_and_quantiles_and_survives_saving(regressor, mixed_frame, tmp_path):
    frame, y = mixed_frame
    values = pd.Series(10.0 * y, name="price")
    fitted = clone(regressor).set_params(steps=2, guard="off").fit(frame, values)
    assert [step["number"] for step in fitted.history_] == [1, 2]
    mean, quantiles = fitted.predict(frame), fitted.predict_quantiles(frame, [0.1, 0.5, 0.9])
    assert mean.shape == (120,)
    assert (np.diff(quantiles, axis=1) >= 0).all()
    fitted.save(tmp_path)
    loaded = TTTRegressor.load(tmp_path, device="cpu")
    assert np.array_equal(loaded.predict(frame), mean)
    assert loaded.bundle_.schema.target == "price"
    with pytest.raises(BundleError, match="is for regression"):
        TTTClassifier.load(tmp_path, device="cpu")
    frame.to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "predictions.csv"
    assert (
        run(["predict", str(tmp_path), str(tmp_path / "new.csv"), "--out", str(out), "--device", "cpu"]) == 0
    )
    written = pd.read_csv(out)
    assert list(written.columns) == ["prediction", "q0.05", "q0.25", "q0.5", "q0.75", "q0.95"]
    assert np.allclose(written["prediction"], mean, rtol=1e-5)


@pytest.fixture(scope="module")
def learnable():
    """90 rows, 2 columns, 2 classes that a line divides."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(90, 2))
    return x, (x[:, 0] + 0.2 * rng.normal(size=90) > 0).astype(int)


@pytest.fixture(scope="module")
def trained(mixed_frame):
    frame, y = mixed_frame
    colours = np.array(["low", "mid", "top"], dtype=object)[y]
    return TTTClassifier(n_context=40, steps=4, model="tttab-tiny", device="cpu").fit(frame, colours)


def test_fit_tells_what_it_did(trained, mixed_frame):
    frame, _ = mixed_frame
    assert list(trained.classes_) == ["low", "mid", "top"]
    assert trained.n_features_in_ == 4
    assert list(trained.feature_names_in_) == list(frame.columns)
    assert [step["number"] for step in trained.history_] == [1, 2, 3, 4]
    assert np.isfinite([step["held_out"] for step in trained.history_]).all()
    assert (trained.n_context_, trained.n_queries_) == (40, 80)
    assert trained.accepted_ in (True, False)


def test_it_learns(trained, mixed_frame):
    frame, y = mixed_frame
    assert trained.score(frame, np.array(["low", "mid", "top"])[y]) > 0.7


def test_training_moves_the_weights_and_the_guard_decides(mixed_frame, tiny_model):
    frame, y = mixed_frame
    settings = {"steps": 6, "lr": 3e-3, "loss": "members", "model": "tttab-tiny", "device": "cpu"}
    bold = TTTClassifier(n_context=40, **settings).fit(frame, y)
    assert bold.bundle_.record["adaptation"]["schedule"]["loss"] == "members"
    held = [bold.bundle_.record["adaptation"]["held_out_loss"][when] for when in ("before", "after")]
    assert held[1] <= held[0]
    moved = any(
        not np.array_equal(mine.numpy(), theirs.numpy())
        for mine, theirs in zip(
            bold.bundle_.session.module.state_dict().values(),
            tiny_model.module.state_dict().values(),
            strict=True,
        )
    )
    assert moved == bold.accepted_


def test_saved_and_loaded_it_predicts_the_same(trained, mixed_frame, tmp_path):
    frame, _ = mixed_frame
    trained.save(tmp_path)
    loaded = TTTClassifier.load(tmp_path, device="cpu")
    assert np.array_equal(loaded.predict_proba(frame), trained.predict_proba(frame))
    assert np.array_equal(loaded.predict(frame), trained.predict(frame))
    assert loaded.classes_.dtype == trained.classes_.dtype
    assert loaded.get_params() == trained.get_params()
    assert loaded.history_ == trained.history_
    assert list(loaded.feature_names_in_) == list(trained.feature_names_in_)
    live = trained.predict_proba(frame)
    assert np.abs(load_bundle(tmp_path, device="cpu").predict(frame) - live).max() < 1e-6


def test_labels_of_any_kind_survive_saving(learnable, tmp_path):
    x, y = learnable
    for number, labels in enumerate((y * 2.0, y.astype(bool), y - 1, np.where(y, "true", "True"))):
        folder = tmp_path / str(number)
        estimator = TTTClassifier(**{**SMALL, "rule": "none"}).fit(x, labels)
        estimator.save(folder)
        loaded = TTTClassifier.load(folder, device="cpu")
        assert loaded.classes_.dtype == labels.dtype
        assert np.array_equal(loaded.predict(x), estimator.predict(x))
        assert not hasattr(loaded, "feature_names_in_")


def test_a_bundle_from_elsewhere_loads_with_its_texts_as_classes(trained, mixed_frame, tmp_path):
    frame, _ = mixed_frame
    save_bundle(tmp_path, trained.bundle_)
    loaded = TTTClassifier.load(tmp_path, device="cpu")
    assert list(loaded.classes_) == ["low", "mid", "top"]
    assert np.array_equal(loaded.predict_proba(frame), trained.predict_proba(frame))


@pytest.mark.parametrize(
    "own",
    [
        {"dtype": "|V8"},
        {"dtype": 3},
        {"classes": ["a"], "dtype": "|O"},
        {"parameters": {"nonsense": 1}},
        {"parameters": 7},
    ],
)
def test_a_bundle_that_describes_no_estimator_is_refused(trained, tmp_path, own):
    from dataclasses import replace

    save_bundle(tmp_path, replace(trained.bundle_, record={"estimator": own}))
    with pytest.raises(BundleError, match=r"does not describe an estimator|record\.estimator"):
        TTTClassifier.load(tmp_path, device="cpu")


def test_loading_on_another_device_type_warns(trained, tmp_path, monkeypatch):
    trained.save(tmp_path)
    monkeypatch.setattr("tttab.bundle.bundle._mismatches", lambda manifest, session: ("another device",))
    with pytest.warns(UserWarning, match="another device"):
        TTTClassifier.load(tmp_path, device="cpu")


def test_pickle_and_joblib_keep_predictions(trained, mixed_frame, tmp_path):
    frame, _ = mixed_frame
    expected = trained.predict_proba(frame)
    assert np.array_equal(pickle.loads(pickle.dumps(trained)).predict_proba(frame), expected)
    joblib.dump(trained, tmp_path / "estimator.joblib")
    assert np.array_equal(joblib.load(tmp_path / "estimator.joblib").predict_proba(frame), expected)


def test_equal_seeds_give_equal_predictions(learnable):
    x, y = learnable
    first, second, third = (
        clone(TTTClassifier(**{**SMALL, "random_state": seed})).fit(x, y).predict_proba(x)
        for seed in (5, 5, np.random.RandomState(6))
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_context_and_optimiser_can_be_chosen(learnable):
    x, y = learnable
    chosen = TTTClassifier(**SMALL, context="kcenter", optimizer="sgd-1").fit(x, y)
    plain = TTTClassifier(**SMALL).fit(x, y)
    assert not chosen.bundle_.x.equals(plain.bundle_.x)
    assert chosen.predict_proba(x).shape == (90, 2)
    with pytest.raises(RequestError, match="no choice of context"):
        TTTClassifier(**SMALL, context="far").fit(x, y)


def test_cross_validation_pipelines_and_grid_search(learnable):
    x, y = learnable
    estimator = TTTClassifier(**SMALL)
    scores = cross_val_score(estimator, x, y, cv=3, scoring="roc_auc", error_score="raise")
    assert scores.shape == (3,)
    assert scores.mean() > 0.8
    search = GridSearchCV(
        make_pipeline(StandardScaler(), estimator),
        {"tttclassifier__rule": ["none", "head"]},
        cv=2,
        scoring="neg_log_loss",
        error_score="raise",
    ).fit(x, y)
    assert search.best_params_["tttclassifier__rule"] in ("none", "head")
    assert search.predict(x).shape == y.shape


def test_frames_with_text_dates_booleans_and_gaps(mixed_frame):
    frame, y = mixed_frame
    frame = frame.assign(
        text=np.where(y == 1, "yes", None),
        flag=y == 2,
        day=pd.Timestamp("2024-01-01") + pd.to_timedelta(y * 3, unit="D"),
        empty=np.nan,
        nullable=pd.array([None if v == 0 else v for v in y], dtype="Int64"),
    )
    estimator = TTTClassifier(**{**SMALL, "n_context": 40}).fit(frame, y)
    fresh = frame.iloc[::-1].assign(colour="never seen")
    with pytest.warns(UserWarning, match="column 'colour': 120 cells hold unknown texts"):
        p = estimator.predict_proba(fresh)
    assert p.shape == (120, 3)
    assert np.isfinite(p).all()
    assert (p.argmax(axis=1) == y[::-1]).mean() > 0.6


def test_few_rows_all_become_context(learnable):
    x, y = learnable
    estimator = TTTClassifier(n_context=200, model="tttab-tiny", device="cpu").fit(x, y)
    assert (estimator.n_context_, estimator.n_queries_) == (90, 0)
    assert estimator.history_ == []
    assert estimator.accepted_ is None
    tiny = TTTClassifier(n_context=200, model="tttab-tiny", device="cpu").fit(x[:4], [0, 1, 0, 1])
    assert tiny.predict_proba(x).shape == (90, 2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n_context": 0}, RequestError, "n_context must be a whole number, at least 1, got 0"),
        ({"n_context": 60.5}, RequestError, "n_context must be a whole number"),
        ({"n_queries": 0}, RequestError, "n_queries must be a whole number, at least 1, got 0"),
        ({"n_context": 1}, ValueError, "cannot hold all 2 classes; n_context=2$"),
        ({"random_state": -1}, RequestError, "random_state must be a whole number, at least 0"),
        ({"rule": "ful"}, RuleError, "no rule is called 'ful'; rule='full'$"),
        ({"context": "far"}, RequestError, "context='stratified' or context='random'"),
        ({"columns": {"x9": "level"}}, RequestError, "no column 'x9' to declare"),
        ({"columns": {"x0": "zip"}}, RequestError, "cannot be declared as 'zip'.*columns={'x0': 'number'}"),
        ({"steps": 0}, RequestError, "steps must be at least 1"),
        ({"model": "gone.ckpt"}, ModelError, "no model file"),
        ({"max_memory": "lots"}, RequestError, "not a size in bytes"),
    ],
)
def test_mistakes(learnable, change, error, message):
    x, y = learnable
    with pytest.raises(error, match=message):
        TTTClassifier(**{**SMALL, **change}).fit(x, y)


def test_infinite_values_in_a_frame_are_refused_as_in_an_array(trained, mixed_frame):
    frame, _ = mixed_frame
    with pytest.raises(ValueError, match="infinity in column 'weight'"):
        trained.predict(frame.assign(weight=np.inf))
    with pytest.raises(ValueError, match="infinity in column 'weight'"):
        trained.predict(frame.assign(weight=[None, *[np.inf] * (len(frame) - 1)]).astype({"weight": object}))


def test_labels_that_could_not_be_saved_are_refused(learnable):
    x, y = learnable
    days = np.array(["2020-01-01", "2021-01-01"], dtype="datetime64[D]")[y]
    with pytest.raises(DataError, match="texts or numbers, not date"):
        TTTClassifier(**SMALL).fit(x, days)


def test_other_columns_are_refused(trained, mixed_frame):
    frame, _ = mixed_frame
    with pytest.raises(ValueError, match="feature names"):
        trained.predict(frame.rename(columns={"size": "length"}))
    with pytest.raises(ValueError, match="not a number"):
        trained.predict(frame.assign(weight="heavy"))


def test_importing_tttab_loads_neither_torch_nor_sklearn():
    assert "TTTClassifier" in dir(tttab)
    with pytest.raises(AttributeError, match="TTTClassifer"):
        tttab.TTTClassifer
