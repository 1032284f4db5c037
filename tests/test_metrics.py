"""Figures of merit against hand-made numbers and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from tttab.metrics import classification_metrics, expected_calibration_error, roc_auc


def test_binary_figures_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    q = rng.random(500)
    y = (rng.random(500) < q).astype(int)
    p = np.column_stack([1 - q, q])
    ours = classification_metrics(y, p)
    assert ours["log_loss"] == pytest.approx(log_loss(y, p))
    assert ours["roc_auc"] == pytest.approx(roc_auc_score(y, q))
    assert ours["brier"] == pytest.approx(2 * brier_score_loss(y, q))
    assert ours["accuracy"] == pytest.approx(np.mean((q > 0.5) == y))


def test_many_classes_average_one_against_rest():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 4, 300)
    p = rng.dirichlet(np.ones(4), 300)
    expected = roc_auc_score(y, p, multi_class="ovr", average="macro")
    assert roc_auc(y, p) == pytest.approx(expected)


def test_calibration_error_of_known_cases():
    y = np.array([0] * 8 + [1] * 2)
    sure = np.tile([1.0, 0.0], (10, 1))
    honest = np.tile([0.8, 0.2], (10, 1))
    assert expected_calibration_error(y, sure) == pytest.approx(0.2)
    assert expected_calibration_error(y, honest) == pytest.approx(0.0)


def test_one_class_in_the_test_rows_has_no_curve():
    assert np.isnan(roc_auc(np.zeros(5, int), np.tile([0.5, 0.5], (5, 1))))
