"""Figures of merit for predictions: pure functions of labels and predictions.

scikit-learn's areas and losses. Written by hand is what it lacks (calibration error, CRPS, break-even), or
what would raise if a class is absent from the test rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tttab.core import Task
from tttab.errors import RequestError

Weights = np.ndarray | None
"""How much each row counts, shape (rows,); None: all alike."""
METRICS: dict[str, tuple[Task, Callable[[np.ndarray, np.ndarray, Weights], float]]] = {
    "accuracy": ("classification", lambda y, p, w: accuracy(y, p, w)),
    "balanced_accuracy": ("classification", lambda y, p, w: balanced_accuracy(y, p, w)),
    "roc_auc": ("classification", lambda y, p, w: roc_auc(y, p, w)),
    "average_precision": ("classification", lambda y, p, w: average_precision(y, p, w)),
    "log_loss": ("classification", lambda y, p, w: -log_loss(y, p, w)),
    "neg_log_loss": ("classification", lambda y, p, w: -log_loss(y, p, w)),
    "neg_brier_score": ("classification", lambda y, p, w: -brier(y, p, w)),
    "neg_root_mean_squared_error": ("regression", lambda y, mean, w: -_errors(y, mean, w)["rmse"]),
    "neg_mean_absolute_error": ("regression", lambda y, mean, w: -_errors(y, mean, w)["mae"]),
    "r2": ("regression", lambda y, mean, w: _errors(y, mean, w)["r2"]),
}
"""What a step can be chosen by, under the names of scikit-learn's scorers: the task, and a function of
labels, predictions and weights. Its largest value is the best, so `log_loss` is `neg_log_loss`."""
ECE_BINS = 15
SMALLEST_PROBABILITY = 1e-12


def check_metric(name: str | None, task: Task | None = None) -> None:
    """Raise RequestError where there is no such metric, of a task if one is named; None is none."""
    if name is None:
        return
    known = [other for other, (kind, _) in METRICS.items() if task in (None, kind)]
    if name not in METRICS:
        raise RequestError(f"no metric is called {name!r}", f"--metric {'|'.join(known)}")
    if name not in known:
        raise RequestError(f"{name} is no metric of a {task}", f"--metric {'|'.join(known)}")


def classification_metrics(y: np.ndarray, p: np.ndarray, weights: Weights = None) -> dict[str, float]:
    """Return accuracy, balanced_accuracy, roc_auc, average_precision, log_loss (nats), brier and ece.

    Args:
        y: class codes, shape (rows,).
        p: probabilities, shape (rows, classes).
        weights: how much each row counts; the calibration error counts all alike.
    """
    return {
        "accuracy": accuracy(y, p, weights),
        "balanced_accuracy": balanced_accuracy(y, p, weights),
        "roc_auc": roc_auc(y, p, weights),
        "average_precision": average_precision(y, p, weights),
        "log_loss": log_loss(y, p, weights),
        "brier": brier(y, p, weights),
        "ece": expected_calibration_error(y, p),
    }


def figures(y: np.ndarray, predicted: np.ndarray, weights: Weights = None) -> dict[str, float]:
    """Return the figures of merit of probabilities, shape (rows, classes), or of means, shape (rows,)."""
    if predicted.ndim == 2:
        return classification_metrics(y, predicted, weights)
    return regression_metrics(y, predicted, weights=weights)


def accuracy(y: np.ndarray, p: np.ndarray, weights: Weights = None) -> float:
    """Return the share of the rows whose likeliest class is the true one."""
    return float(np.average(p.argmax(axis=1) == y, weights=weights))


def log_loss(y: np.ndarray, p: np.ndarray, weights: Weights = None) -> float:
    """Return the mean negative log probability of the true class, nats."""
    likelihood = np.clip(p[np.arange(len(y)), y], SMALLEST_PROBABILITY, 1.0)
    return float(np.average(-np.log(likelihood), weights=weights))


def brier(y: np.ndarray, p: np.ndarray, weights: Weights = None) -> float:
    """Return the mean over rows of the squared distance between p and the one-hot label, in [0, 2]."""
    hot = np.eye(p.shape[1])[y]
    return float(np.average(((p - hot) ** 2).sum(axis=1), weights=weights))


def roc_auc(y: np.ndarray, p: np.ndarray, weights: Weights = None) -> float:
    """Return the area under the ROC curve; for many classes the mean of one against rest.

    Classes that the labels hold none or all of have no curve and are left out; NaN if none is left.
    """
    from sklearn.metrics import roc_auc_score

    return _mean_over_classes(roc_auc_score, y, p, weights)


def average_precision(y: np.ndarray, p: np.ndarray, weights: Weights = None) -> float:
    """Return the area under the precision-recall curve, as a sum of steps; many classes as in `roc_auc`.

    Of two classes it is the second's; a guess has the share of its rows.
    """
    from sklearn.metrics import average_precision_score

    return _mean_over_classes(average_precision_score, y, p, weights)


def balanced_accuracy(y: np.ndarray, p: np.ndarray, weights: Weights = None) -> float:
    """Return the mean over the classes among the labels of the share of their rows that are found."""
    return _mean_recall(y, p.argmax(axis=1), weights)


def _mean_recall(y: np.ndarray, guess: np.ndarray, weights: Weights = None) -> float:
    known = y if weights is None else y[weights > 0]
    found = [np.average(guess == y, weights=(y == c) * _or_ones(y, weights)) for c in np.unique(known)]
    return float(np.mean(found))


def _or_ones(y: np.ndarray, weights: Weights) -> np.ndarray:
    return np.ones(len(y)) if weights is None else weights


def _mean_over_classes(area: Callable[..., float], y: np.ndarray, p: np.ndarray, weights: Weights) -> float:
    columns, known = [1] if p.shape[1] == 2 else range(p.shape[1]), y if weights is None else y[weights > 0]
    areas = [
        area(y == c, p[:, c], sample_weight=weights) for c in columns if 0 < np.sum(known == c) < len(known)
    ]
    return float(np.mean(areas)) if areas else float("nan")


def _f1(y: np.ndarray, guess: np.ndarray, weights: Weights = None) -> float:
    """Return the harmonic mean of precision and recall of class 1; 0 where it is not there nor guessed."""
    count = _or_ones(y, weights)
    both = (count * (y + guess)).sum()
    return float(2 * (count * (y & guess)).sum() / both) if both else 0.0


DECISIONS: dict[str, Callable[[np.ndarray, np.ndarray, Weights], float]] = {
    "balanced_accuracy": _mean_recall,
    "accuracy": lambda y, guess, weights: float(np.average(guess == y, weights=weights)),
    "f1": _f1,
}
"""What a decision threshold can be chosen by: functions of labels, guesses, 0 or 1, and how rows count."""
MOST_THRESHOLDS = 200


def check_threshold(metric: str | None, classes: int | None = None) -> None:
    """Raise RequestError where a threshold cannot be chosen by `metric`, or for so many classes."""
    if metric is not None and metric not in DECISIONS:
        raise RequestError(f"no threshold is chosen by {metric!r}", f"--threshold {'|'.join(DECISIONS)}")
    if metric is not None and classes not in (None, 2):
        what = f"{classes} classes" if classes else "a regression target"
        raise RequestError(f"a threshold divides two classes, not {what}", "leave out --threshold")


def best_threshold(y: np.ndarray, p: np.ndarray, metric: str, weights: Weights = None) -> float:
    """Return from which probability of the second class on a row should count as one.

    As scikit-learn's TunedThresholdClassifierCV, on rows that trained nothing. Candidates lie halfway
    between neighbouring probabilities, of quantiles where those are many; of equals the
    nearest to 1/2 wins.

    Args:
        y: class codes, shape (rows,).
        p: probabilities, shape (rows, 2).
        metric: one of `DECISIONS`.
        weights: how much each row counts, shape (rows,).
    """
    known = np.unique(p[:, 1].astype(np.float64))
    if len(known) > MOST_THRESHOLDS:
        known = np.unique(np.quantile(known, np.linspace(0, 1, MOST_THRESHOLDS)))
    tried = np.append((known[1:] + known[:-1]) / 2, 0.5)
    values = [DECISIONS[metric](y, decided(p, threshold), weights) for threshold in tried]
    return float(min(zip(np.negative(values), np.abs(tried - 0.5), tried, strict=True))[2])


def decided(p: np.ndarray, threshold: float | None = None) -> np.ndarray:
    """Return the classes that count as predicted, shape (rows,): the likeliest, or by a threshold of two."""
    return p.argmax(axis=1) if threshold is None else (p[:, 1] >= threshold).astype(np.int64)


def expected_calibration_error(y: np.ndarray, p: np.ndarray, bins: int = ECE_BINS) -> float:
    """Return the expected calibration error of the top label over equal-width bins of confidence.

    Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3.
    """
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == y
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    weight = np.bincount(which, minlength=bins)
    gap = np.bincount(which, weights=correct - confidence, minlength=bins)
    return float(np.abs(gap[weight > 0]).sum() / len(correct))


def regression_metrics(
    y: np.ndarray,
    mean: np.ndarray,
    nll: np.ndarray | None = None,
    crps: np.ndarray | None = None,
    weights: Weights = None,
) -> dict[str, float]:
    """Return rmse, mae and r2 of the means, and the means of nll (nats) and crps where there are any.

    Args:
        y: targets, shape (rows,).
        mean: predictions, shape (rows,).
        nll: negative log density of each target, per unit of the target, shape (rows,).
        crps: continuous ranked probability score of each row, in the target's unit, shape (rows,).
        weights: how much each row counts.
    """
    scores = {"nll": nll, "crps": crps}
    means = {name: float(np.average(x, weights=weights)) for name, x in scores.items() if x is not None}
    return _errors(y, mean, weights) | means


def _errors(y: np.ndarray, mean: np.ndarray, weights: Weights) -> dict[str, float]:
    error = mean - y
    count = _or_ones(y, weights)
    spread = float((count * (y - np.average(y, weights=weights)) ** 2).sum())
    return {
        "rmse": float(np.sqrt(np.average(error**2, weights=weights))),
        "mae": float(np.average(np.abs(error), weights=weights)),
        "r2": 1.0 - float((count * error**2).sum()) / spread if spread > 0 else float("nan"),
    }


def crps_of_bars(y: np.ndarray, mass: np.ndarray, borders: np.ndarray) -> np.ndarray:
    """Return the continuous ranked probability score of each row, exact for uniform bars.

    CRPS = integral of (F(t) - 1[t >= y])^2 dt (Gneiting and Raftery 2007, equation 20). The two outer
    bars count as uniform like the others; a target outside them adds its distance to the nearer border.

    Args:
        y: targets, shape (rows,).
        mass: probability of each bar, shape (rows, bars).
        borders: ascending, shape (bars + 1,).
    """
    inside = np.clip(y, borders[0], borders[-1])
    below = np.concatenate([np.zeros((len(y), 1)), np.cumsum(mass, axis=1)], axis=1)
    start, end, width = below[:, :-1], below[:, 1:], np.diff(borders)
    share = np.clip((inside[:, None] - borders[:-1]) / width, 0.0, 1.0)
    at = start + share * (end - start)
    left = share * _mean_square(start, at)
    right = (1 - share) * _mean_square(at - 1.0, end - 1.0)
    return ((left + right) * width).sum(axis=1) + np.abs(y - inside)


def break_even(adapt_seconds: float, short_ms: float, long_ms: float) -> float:
    """Return how many predictions make adapting once and serving the short context cheaper than the long one.

    Args:
        adapt_seconds: one test-time training.
        short_ms: milliseconds per 1,000 predictions with the adapted short context.
        long_ms: the same with all labelled rows as context.

    Returns:
        A number of predictions, infinite where the short context is not faster.
    """
    saved = (long_ms - short_ms) / 1e6
    return adapt_seconds / saved if saved > 0 else float("inf")


def _mean_square(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the mean of t^2 for t uniform between a and b."""
    return (a * a + a * b + b * b) / 3.0
