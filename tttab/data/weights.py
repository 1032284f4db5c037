"""Row weights: from a column or an array, and balanced classes."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from tttab.core import Table
from tttab.data.apart import take_column
from tttab.errors import DataError, RequestError


def check_weights(values: np.ndarray, what: str) -> np.ndarray:
    """Return weights as float64, shape (rows,).

    Args:
        values: one number per row.
        what: whose they are, for the message.

    Raises:
        DataError: one is negative or no finite number, or all are 0.
    """
    weights = np.asarray(values, dtype=np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise DataError(f"{what} must be numbers from 0 on, not all zero", "leave out --weights")
    return weights


def take_weights(table: Table, name: str) -> Table:
    """Return the table with a column as the weights of its rows, and no longer a feature.

    Raises:
        DataError: there is no such feature, or it holds texts, missing, negative or no positive numbers.
    """
    rest, values = take_column(table, name, "--weights")
    if values.dtype.kind != "f":
        raise DataError(f"the weights in {name!r} are texts", "leave out --weights")
    weights = check_weights(values.to_numpy(), f"the weights in {name!r}")
    mark = hashlib.sha256(rest.fingerprint.encode() + weights.tobytes()).hexdigest()
    notes = (*table.notes, f"{name!r} says how much each row counts and is no feature")
    return replace(rest, weights=weights, fingerprint=mark, notes=notes)


def training_weights(
    y: np.ndarray, row_weights: np.ndarray | None, classes: int, *, balanced: bool
) -> np.ndarray | None:
    """Return how much each row counts in training, 1 on average, shape (rows,); None: all alike.

    Args:
        y: labels, shape (rows,): class codes, or values.
        row_weights: weights of the rows, shape (rows,).
        classes: number of classes; 0 for regression.
        balanced: make every class count alike, as scikit-learn's `class_weight="balanced"`.

    Raises:
        RequestError: classes are to count alike and there are none.
    """
    if balanced and not classes:
        raise RequestError("a regression target has no classes to balance", "leave out --balanced")
    if len(y) == 0 or (row_weights is None and not balanced):
        return None
    weights = np.ones(len(y)) if row_weights is None else row_weights.astype(np.float64)
    if balanced:
        mass = np.bincount(y, weights=weights, minlength=classes)
        weights = weights / np.where(mass > 0, mass, 1.0)[y]
    return weights / max(weights.mean(), np.finfo(np.float64).tiny)


def check_counts(weights: np.ndarray | None, *parts: np.ndarray) -> None:
    """Raise DataError where all rows of a part, numbered as the weights are, have weight 0."""
    if weights is not None and not all(weights[part].any() for part in parts):
        raise DataError("all training rows or all held-out rows have the weight 0", "leave out --weights")
