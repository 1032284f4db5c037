"""Figures of merit against numbers worked out by hand, brute force and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    get_scorer,
    log_loss,
    roc_auc_score,
)

from tttab.errors import RequestError
from tttab.metrics import (
    DECISIONS,
    METRICS,
    best_threshold,
    break_even,
    check_metric,
    check_threshold,
    classification_metrics,
    crps_of_bars,
    decided,
    expected_calibration_error,
    figures,
    regression_metrics,
    roc_auc,
)
from tttab.metrics import log_loss as mean_log_loss


def test_binary_figures_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    q = rng.random(500)
    y = (rng.random(500) < q).astype(int)
    p = np.column_stack([1 - q, q])
    assert classification_metrics(y, p) == pytest.approx(
        {
            "accuracy": np.mean((q > 0.5) == y),
            "balanced_accuracy": balanced_accuracy_score(y, q > 0.5),
            "average_precision": average_precision_score(y, q),
            "roc_auc": roc_auc_score(y, q),
            "log_loss": log_loss(y, p),
            "brier": 2 * brier_score_loss(y, q),
            "ece": binned(np.maximum(q, 1 - q), (q > 0.5) == y, 15),
        }
    )


def test_many_classes_average_one_against_rest():
    rng = np.random.default_rng(1)
    for classes in (3, 4):
        y = rng.integers(0, classes, 300)
        p = rng.dirichlet(np.ones(classes), 300)
        expected = roc_auc_score(y, p, multi_class="ovr", average="macro")
        assert roc_auc(y, p) == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_to_choose_by_are_scikit_learn_s_scorers_of_those_names(classes):
    rng = np.random.default_rng(2)
    y, p = rng.integers(0, classes, 200), rng.dirichlet(np.ones(classes), 200)
    table = {"classification": (y, Probabilities(p)), "regression": (p[:, 0], Means(p[:, 1]))}
    same = {"log_loss": "neg_log_loss", "roc_auc": "roc_auc_ovr"}
    for name, (task, score) in METRICS.items():
        truth, answers = table[task]
        expected = get_scorer(same.get(name, name))(answers, None, truth)
        if name == "neg_brier_score":  # sums the classes as ours does, which for two of them counts twice
            expected *= 1 if classes > 2 else 2
        assert score(truth, answers.given, None) == pytest.approx(expected), name


@pytest.mark.parametrize("classes", [2, 3])
def test_a_row_of_weight_two_is_two_rows_and_one_of_weight_zero_is_none(classes):
    rng = np.random.default_rng(4)
    y, p = rng.integers(0, classes, 60), rng.dirichlet(np.ones(classes), 60)
    count = rng.integers(0, 3, 60)
    count[y == classes - 1] = 0  # a class whose rows do not count is not there
    many = np.repeat(np.arange(60), count)
    data = {"classification": (y, p), "regression": (p[:, 0], p[:, 1])}
    for name, (task, score) in METRICS.items():
        truth, given = data[task]
        expected = score(truth[many], given[many], None)
        assert score(truth, given, count.astype(float)) == pytest.approx(expected, nan_ok=True), name
    for truth, given in data.values():
        expected, found = figures(truth[many], given[many]), figures(truth, given, count.astype(float))
        assert found.pop("ece", 0) == figures(truth, given).get("ece", 0), "counts all rows alike"
        assert found == pytest.approx({name: expected[name] for name in found}, nan_ok=True)


class Means(RegressorMixin, BaseEstimator):
    """An estimator that answers what it was given."""

    def __init__(self, given):
        self.given = given

    def __sklearn_is_fitted__(self):
        return True

    def predict(self, x):
        return self.given


class Probabilities(ClassifierMixin, Means):
    @property
    def classes_(self):
        return np.arange(self.given.shape[1])

    def predict_proba(self, x):
        return self.given

    def predict(self, x):
        return self.given.argmax(axis=1)


@pytest.mark.parametrize("metric", DECISIONS)
def test_a_threshold_is_the_best_of_all_and_the_nearest_to_one_half(metric):
    rng = np.random.default_rng(3)
    y = (rng.random(300) < 0.05).astype(int)
    p = np.clip(0.1 * y + rng.beta(1, 20, 300), 0, 1).astype(np.float32)
    both = np.column_stack([1 - p, p])
    score = {"f1": f1_score, "accuracy": lambda t, g: np.mean(t == g)}.get(metric, balanced_accuracy_score)
    found = best_threshold(y, both, metric)
    guess = decided(both, found)
    assert guess.tolist() == (p >= found).astype(int).tolist()
    assert score(y, guess) == pytest.approx(max(score(y, p >= one) for one in [*np.unique(p), 2]), abs=0.02)
    assert score(y, guess) >= score(y, decided(both)) and decided(both).tolist() == (p > 0.5).tolist()
    sure = np.array([0.1, 0.2, 0.8, 0.9])
    assert best_threshold(np.array([0, 0, 1, 1]), np.column_stack([1 - sure, sure]), metric) == 0.5
    often = rng.integers(0, 4, 300)
    repeated = best_threshold(np.repeat(y, often), np.repeat(both, often, axis=0), metric)
    counted = best_threshold(y[often > 0], both[often > 0], metric, often[often > 0].astype(float))
    assert counted == pytest.approx(repeated, abs=1e-9)
    with pytest.raises(RequestError, match="divides two classes, not 3 classes"):
        check_threshold(metric, 3)


def test_a_metric_is_refused_by_its_name_and_its_task():
    check_metric(None, "regression")
    check_metric("r2")
    with pytest.raises(RequestError, match="no metric is called 'auc'") as caught:
        check_metric("auc", "classification")
    assert "roc_auc" in caught.value.hint and "r2" not in caught.value.hint
    with pytest.raises(RequestError, match="accuracy is no metric of a regression") as caught:
        check_metric("accuracy", "regression")
    assert caught.value.hint == "--metric neg_root_mean_squared_error|neg_mean_absolute_error|r2"


def test_a_class_of_one_row_has_a_curve_and_a_class_without_rows_has_none():
    y = np.array([0, 0, 0, 1])
    p = np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.2, 0.4, 0.4], [0.4, 0.5, 0.1]])
    assert roc_auc(y, p) == pytest.approx((2 / 3 + 1) / 2), "pairs in order: two of three, three of three"
    assert np.isnan(roc_auc(np.zeros(4, int), p)), "class 0 holds all rows, the others none"
    assert np.isnan(roc_auc(np.zeros(4, int), p[:, :2]))


def test_a_class_thought_impossible_costs_a_finite_loss_and_a_sum_above_one_no_negative_loss():
    y = np.array([0, 1])
    assert mean_log_loss(y, np.array([[0.0, 1.0], [0.0, 1.0]])) == pytest.approx(-math.log(1e-12) / 2)
    assert mean_log_loss(y, np.array([[1.0 + 1e-7, 0.0], [0.0, 1.0 + 1e-7]])) == 0.0


def binned(confidence, correct, bins):
    """Return Guo et al.'s equation 3 as it is written: bin by bin, each gap with its share of the rows."""
    error = 0.0
    for number in range(bins):
        last = number == bins - 1
        inside = [
            i for i, c in enumerate(confidence) if number / bins <= c and (last or c < (number + 1) / bins)
        ]
        if inside:
            gap = abs(np.mean(correct[inside]) - np.mean(confidence[inside]))
            error += len(inside) / len(correct) * gap
    return error


def test_calibration_error_by_hand_counts_bins_of_one_row_and_certainty_in_the_last_bin():
    confidence = np.array([0.55, 0.65, 0.9, 0.95, 1.0])
    p, y = np.stack([confidence, 1 - confidence], axis=1), np.array([0, 1, 0, 0, 1])
    # Bins of 1/15: 0.55, 0.65 and 0.9 alone, 0.95 and 1.0 together with a gap of 1.95 - 1.
    assert expected_calibration_error(y, p) == pytest.approx((0.45 + 0.65 + 0.1 + 0.95) / 5)
    # Two bins: all in the upper one, 4.05 expected and 3 correct.
    assert expected_calibration_error(y, p, bins=2) == pytest.approx((4.05 - 3) / 5)


@pytest.mark.parametrize("rows", [1, 7, 200])
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_agrees_with_its_definition(rows, bins):
    rng = np.random.default_rng(rows)
    y, p = rng.integers(0, 3, rows), rng.dirichlet(np.ones(3), rows)
    expected = binned(p.max(axis=1), p.argmax(axis=1) == y, bins)
    assert expected_calibration_error(y, p, bins) == pytest.approx(expected)


def test_regression_figures_by_hand():
    y, mean = np.array([1.0, 2.0, 4.0]), np.array([2.0, 2.0, 1.0])
    figures = {"rmse": math.sqrt(10 / 3), "mae": 4 / 3, "r2": 1 - 10 / (14 / 3)}
    assert regression_metrics(y, mean) == pytest.approx(figures)
    assert regression_metrics(y / 100, mean / 100)["r2"] == pytest.approx(figures["r2"]), "whatever the unit"
    scores = np.array([1.0, 3.0, 5.0])
    assert regression_metrics(y, mean, nll=scores) == pytest.approx(figures | {"nll": 3.0})
    assert regression_metrics(y, mean, crps=scores) == pytest.approx(figures | {"crps": 3.0})


def test_equal_targets_explain_no_variance():
    assert np.isnan(regression_metrics(np.full(3, 2.5), np.array([2.0, 2.5, 3.0]))["r2"])


def test_crps_of_two_bars_by_hand():
    borders, mass = np.array([0.0, 1.0, 3.0]), np.array([[0.25, 0.75]] * 3)
    # F is t/4 up to 1, then 1/4 + 3/8 (t - 1); the integrals of F^2 and (F - 1)^2 of each part, and the
    # distance to the nearer border where the target lies outside.
    inside = 1 / 48 + (0.0625 + 0.15625 + 0.390625) / 3 + 0.140625 / 3
    above = 1 / 48 + 2 * (0.0625 + 0.25 + 1) / 3 + 2.0
    below = (1 + 0.75 + 0.5625) / 3 + 2 * 0.5625 / 3 + 1.0
    found = crps_of_bars(np.array([2.0, 5.0, -1.0]), mass, borders)
    assert found == pytest.approx([inside, above, below])


def test_crps_of_bars_is_the_integral_it_stands_for():
    borders = np.array([-1.0, 0.0, 2.0, 3.0])
    mass = np.array([[0.2, 0.5, 0.3]] * 4)
    y = np.array([-2.0, 0.5, 2.9, 4.0])
    grid = np.linspace(-3, 5, 800001)
    cdf = np.interp(grid, borders, [0.0, 0.2, 0.7, 1.0])
    expected = [np.trapezoid((cdf - (grid >= value)) ** 2, grid) for value in y]
    assert np.allclose(crps_of_bars(y, mass, borders), expected, atol=1e-4)


def test_break_even_is_training_over_what_a_prediction_saves():
    """0.12 ms a row less 0.02 ms saves 0.1 ms: 10 s are earned back by 100,000 rows."""
    assert break_even(10.0, short_ms=20.0, long_ms=120.0) == 100_000
    for short in (50.0, 80.0):
        assert math.isinf(break_even(10.0, short_ms=short, long_ms=50.0))
