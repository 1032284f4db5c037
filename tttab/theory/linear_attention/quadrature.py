"""Gauss rules for the chi-square, normal and exponential laws, built from their recurrences."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=256)
def chi2_rule(freedom: float, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights, shape (nodes,), of E f(x), x ~ chi2 with `freedom` degrees, any size.

    Generalised Laguerre through its Jacobi matrix (Golub and Welsch 1969); no gamma function overflows.
    No freedom at all is the number 0.
    """
    if freedom <= 0:
        return np.zeros(1), np.ones(1)
    alpha, i = freedom / 2 - 1, np.arange(nodes)
    values, weights = _golub_welsch(2 * i + 1 + alpha, np.sqrt(i[1:] * (i[1:] + alpha)))
    return 2 * values, weights


@lru_cache(maxsize=16)
def normal_rule(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights, shape (nodes,), of E f(x), x ~ N(0, 1)."""
    return _golub_welsch(np.zeros(nodes), np.sqrt(np.arange(1, nodes)))


@lru_cache(maxsize=16)
def exponential_rule(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights, shape (nodes,), of the integral of exp(-x) f(x) over x > 0."""
    values, weights = chi2_rule(2.0, nodes)
    return values / 2, weights


def _golub_welsch(diagonal: np.ndarray, beside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    return values, vectors[0] ** 2
