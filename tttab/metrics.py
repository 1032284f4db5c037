"""Figures of merit for predictions: pure functions of labels and predictions.

What does not belong here: anything that predicts.
"""

from __future__ import annotations

import numpy as np

ECE_BINS = 15
SMALLEST_PROBABILITY = 1e-12


def classification_metrics(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Return accuracy, roc_auc, log_loss (nats), brier and ece.

    Args:
        y: class codes, shape (rows,).
        p: probabilities, shape (rows, classes).
    """
    return {
        "accuracy": float(np.mean(p.argmax(axis=1) == y)),
        "roc_auc": roc_auc(y, p),
        "log_loss": log_loss(y, p),
        "brier": brier(y, p),
        "ece": expected_calibration_error(y, p),
    }


def log_loss(y: np.ndarray, p: np.ndarray) -> float:
    """Return the mean negative log probability of the true class, nats."""
    return float(-np.log(np.clip(p[np.arange(len(y)), y], SMALLEST_PROBABILITY, 1.0)).mean())


def brier(y: np.ndarray, p: np.ndarray) -> float:
    """Return the mean over rows of the squared distance between p and the one-hot label, in [0, 2]."""
    hot = np.eye(p.shape[1])[y]
    return float(((p - hot) ** 2).sum(axis=1).mean())


def roc_auc(y: np.ndarray, p: np.ndarray) -> float:
    """Return the area under the ROC curve; for many classes the mean of one against rest.

    Classes that the labels hold none or all of have no curve and are left out; NaN if none is left.
    """
    from sklearn.metrics import roc_auc_score

    columns = [1] if p.shape[1] == 2 else range(p.shape[1])
    areas = [roc_auc_score(y == c, p[:, c]) for c in columns if 0 < np.sum(y == c) < len(y)]
    return float(np.mean(areas)) if areas else float("nan")


def expected_calibration_error(y: np.ndarray, p: np.ndarray, bins: int = ECE_BINS) -> float:
    """Return the expected calibration error of the top label over equal-width bins of confidence.

    Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3.
    """
    return calibration_error(p.max(axis=1), p.argmax(axis=1) == y, bins)


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = ECE_BINS) -> float:
    """Return the expected calibration error of guesses, each with its confidence, both of shape (rows,)."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    weight = np.bincount(which, minlength=bins)
    gap = np.bincount(which, weights=correct - confidence, minlength=bins)
    return float(np.abs(gap[weight > 0]).sum() / len(correct))
