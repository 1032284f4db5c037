"""Differences of low rank, as the rule `lora` makes them: their factors, and the matrix they predict.

The prediction adds products of single numbers in float64, one factor after the other. It uses no matrix
product, because its last bits differ between machines.
"""

from __future__ import annotations

import numpy as np

LARGEST_SHARE = 0.25
"""Of a matrix's full rank, the largest that counts as low."""
SMALLEST = 1e-4
"""Singular values below this share of the largest are rounding."""


def factors_of(adapted: np.ndarray, base: np.ndarray) -> np.ndarray | None:
    """Return the factors of the difference of two matrices; None where it is not of low rank.

    Args:
        mine: shape (rows, columns), float32.
        other: the same of the base.

    Returns:
        Shape (rank, rows + columns), float32: each row is a left factor and a right one.
    """
    difference = adapted.astype(np.float64) - base
    if not np.isfinite(difference).all() or not difference.any():
        return None
    left, sizes, right = np.linalg.svd(difference, full_matrices=False)
    rank = int((sizes > SMALLEST * sizes[0]).sum())
    if rank > LARGEST_SHARE * len(sizes):
        return None
    roots = np.sqrt(sizes[:rank, None])
    return np.hstack([left.T[:rank] * roots, right[:rank] * roots]).astype(np.float32)


def predicted(base: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return the base's matrix with the difference added, float32, equal on every machine.

    Raises:
        ValueError: the factors are not of such a matrix.
    """
    rows, columns = base.shape
    if factors.dtype != np.float32 or factors.ndim != 2 or factors.shape[1] != rows + columns:
        raise ValueError("factors of another matrix")
    total = base.astype(np.float64)
    for factor in factors[: min(rows, columns)].astype(np.float64):
        total += np.multiply.outer(factor[:rows], factor[rows:])
    return total.astype(np.float32)
