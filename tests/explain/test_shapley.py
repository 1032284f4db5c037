"""Shapley values that are known beforehand, and that they add up to what the bundle predicts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tttab.bundle import Bundle
from tttab.data import Origin, schema_of, table_from_frame
from tttab.errors import RequestError
from tttab.explain.shapley import dependence, explain, fitted, importance
from tttab.testing import ToySession


def rows(count=60, seed=0):
    rng = np.random.default_rng(seed)
    number = rng.normal(size=count)
    number[::9] = np.nan
    return pd.DataFrame({
        "number": number, "level": rng.choice(["a", "b", "c"], count), "other": rng.normal(size=count),
    })  # fmt: skip


class Known:
    """A predictor whose effects are known: a sum of one function per column."""

    def __init__(self, classes):
        self._classes = classes

    def predict(self, x):
        part = np.nan_to_num(x["number"].to_numpy(float)) * 0.05 + np.where(x["level"] == "a", 0.2, 0.0)
        if not self._classes:
            return part
        p = 0.4 + np.clip(part, -0.3, 0.5)
        return np.stack([1 - p, p], axis=1)


def bundle_of(classes=("no", "yes")):
    frame = rows()
    target = np.array(classes)[np.arange(60) % 2] if classes else np.arange(60.0)
    table = table_from_frame(frame.assign(y=target), Origin("known", "file"))
    bundle = Bundle(ToySession(), table.x, table.y, schema_of(table))
    bundle._server = Known(classes)
    return bundle


def run(steps):
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


@pytest.mark.parametrize("classes", [(), ("no", "yes")])
def test_the_values_of_a_sum_are_its_parts(classes):
    bundle = bundle_of(classes)
    x = bundle.schema.apply(rows(8, seed=1))
    seen, found = run(explain(bundle, x, background=60))
    assert seen == list(range(1, 9))
    values = found.values[:, :, -1]
    known = np.nan_to_num(bundle.x["number"].to_numpy(float)) * 0.05
    assert np.allclose(values[:, 0], np.nan_to_num(x["number"].to_numpy(float)) * 0.05 - known.mean())
    share = np.mean(bundle.x["level"] == "a")
    assert np.allclose(values[:, 1], 0.2 * ((x["level"] == "a") - share))
    assert np.allclose(values[:, 2], 0)
    predicted = bundle.server.predict(x).reshape(8, -1)
    assert np.allclose(found.predictions, predicted)
    assert found.importance.argmax() in (0, 1) and found.importance[2] == pytest.approx(0, abs=1e-12)


def test_values_of_classes_cancel_and_equal_seeds_are_equal():
    bundle = bundle_of()
    x = bundle.schema.apply(rows(3, seed=2))
    one, other = (run(explain(bundle, x, background=5, seed=4))[1] for _ in range(2))
    assert np.array_equal(one.values, other.values)
    assert np.allclose(one.values.sum(axis=2), 0)
    assert one.calls <= 5 + 3 * (2 * 3 + 2) * 5


def test_a_text_that_the_table_never_had_is_explained_as_missing():
    bundle = bundle_of()
    late = bundle.schema.apply(rows(2).assign(level="unheard of"))
    gone = bundle.schema.apply(rows(2).assign(level=None))
    one, other = (run(explain(bundle, x, background=5))[1].values for x in (late, gone))
    assert np.array_equal(one, other)


def test_a_feature_that_says_nothing_has_no_importance():
    bundle = bundle_of()
    p = bundle.server.predict(bundle.x)[:, 1]
    y = (p > np.median(p)).astype(int)
    found = importance(bundle, bundle.x, y)
    assert found.shape == (3, 5)
    assert found[0].mean() > 0 and found[1].mean() > 0 and np.allclose(found[2], 0)


def test_two_rows_are_not_taken_for_two_classes():
    bundle = bundle_of(classes=("no", "yes"))
    known = bundle.x.dropna(subset=["number"])
    short, long = (dependence(bundle, known[:rows], "number") for rows in (2, 3))
    assert short.rows.shape[:2] == (2, 2) and long.rows.shape[:2] == (2, 3)
    np.testing.assert_allclose(short.mean, short.rows.mean(axis=1), atol=1e-9)


def test_the_dependence_follows_the_function():
    bundle = bundle_of(())
    curve = dependence(bundle, bundle.x, "number")
    slope = np.diff(curve.mean[0]) / np.diff(np.array(curve.grid))
    assert np.allclose(slope, 0.05)
    assert np.allclose(curve.rows.mean(axis=1), curve.mean)
    levels = dependence(bundle_of(), bundle_of().x, "level")
    assert levels.grid == ("a", "b", "c") and levels.mean.shape == (2, 3)
    assert levels.mean[1, 0] - levels.mean[1, 1] == pytest.approx(0.2)


def test_a_bundle_is_an_estimator_of_scikit_learns():
    bundle = bundle_of()
    model = fitted(bundle)
    assert model.predict(bundle.x).tolist() == bundle.server.predict(bundle.x).argmax(axis=1).tolist()


@pytest.mark.parametrize(("count", "background"), [(0, 5), (2, 0)])
def test_nothing_to_explain_is_said(count, background):
    bundle = bundle_of()
    with pytest.raises(RequestError):
        next(explain(bundle, bundle.x.head(count), background=background))
