"""One linear-attention problem: sizes, task vector, covariance, noise and the weights before training.

SM(x, X, y; W) = x' W u with u = X'y (arXiv 2503.11842, section 2); rows x ~ N(0, Sx), labels y = x'b + noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tttab.errors import RequestError


@dataclass(frozen=True)
class LinearProblem:
    """A task, its sizes and the start of test-time training. Everything is float64 on the CPU."""

    task: Tensor
    """b, shape (d,)."""
    weights: Tensor
    """W before the step, shape (d, d); need not be symmetric."""
    covariance: Tensor
    """Sx, shape (d, d), symmetric positive definite."""
    n: int
    """Context rows."""
    k: int
    """Training rows (queries)."""
    noise: float = 0.0
    """s2, the variance of the label noise in contexts and test labels."""
    train_noise: float | None = None
    """The variance of the label noise in the training rows; None: `noise`."""

    @property
    def d(self) -> int:
        """Number of features."""
        return len(self.task)

    @property
    def training_noise(self) -> float:
        """The variance of the label noise in the training rows."""
        return self.noise if self.train_noise is None else self.train_noise

    @property
    def signal(self) -> float:
        """R2 = b' Sx b, the variance of the noiseless label; |b|^2 where Sx = I."""
        return float(self.task @ self.covariance @ self.task)

    def from_zero(self) -> LinearProblem:
        """Return the same problem with W = 0, the cold start."""
        return replace(self, weights=torch.zeros_like(self.weights))

    def with_rows(self, k: int) -> LinearProblem:
        """Return the same problem with `k` training rows."""
        return replace(self, k=k)


def whitened(problem: LinearProblem) -> LinearProblem:
    """Return the problem whose plain step is the whitened step of `problem`: Sx = I, b~ = Sx^1/2 b.

    Predictions and losses are the same: W~ = Sx^1/2 W Sx^1/2. Its step W~ + 2 eta g~ u~' is
    W + 2 eta Sx^-1 g u' Sx^-1 in the features' own coordinates.
    """
    root = matrix_root(problem.covariance)
    eye = torch.eye(problem.d, dtype=root.dtype)
    return replace(problem, task=root @ problem.task, weights=root @ problem.weights @ root, covariance=eye)


def matrix_root(covariance: Tensor) -> Tensor:
    """Return the symmetric square root of a positive semi-definite matrix, shape (d, d)."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T


def check_sizes(d: int, n: int, k: int) -> None:
    """Raise RequestError unless every size is at least 1."""
    for name, value in (("d", d), ("n", n), ("k", k)):
        if value < 1:
            raise RequestError(f"{name} must be at least 1, got {value}", f"--{name} {max(abs(value), 1)}")


def pretrained_weights(covariance: Tensor, prior: Tensor, n: int, noise: float = 0.0) -> Tensor:
    """Return the W that minimises the pre-training loss, shape (d, d).

    W* = [(n+1) Sx + (tr(Sb Sx) + s2) Sb^-1]^-1 for tasks of second moment Sb, written as
    Sb [(n+1) Sx Sb + (tr(Sb Sx) + s2) I]^-1 so that a singular Sb will do (arXiv 2503.11842, its
    statement on pre-trained weights, here without joint diagonalisability).

    Args:
        covariance: Sx, shape (d, d).
        prior: Sb, the second moment of the tasks, shape (d, d).
        n: context rows.
        noise: s2.
    """
    spread = torch.trace(prior @ covariance) + noise
    inner = (n + 1) * covariance @ prior + spread * torch.eye(len(prior), dtype=prior.dtype)
    return torch.linalg.solve(inner, prior, left=False)


def isotropic_weight(d: int, n: float, noise: float = 0.0) -> float:
    """Return w of W* = w I for Sx = I, |b| = 1 and Sb = I/d: 1 / (n + 1 + d (1 + s2)).

    `noise` is s2 relative to |b|^2, so this is the papers' 1/(n + d + 1 + s2) with |b|^2 = d.
    """
    return 1.0 / (n + 1 + d * (1 + noise))


def isotropic_problem(
    d: int, n: int, k: int, *, weight: float | None = None, noise: float = 0.0
) -> LinearProblem:
    """Return the problem with Sx = I, b = e1 and W = `weight` I (None: the pre-trained one)."""
    check_sizes(d, n, k)
    eye = torch.eye(d, dtype=torch.float64)
    w = isotropic_weight(d, n, noise) if weight is None else weight
    return LinearProblem(eye[0].clone(), w * eye, eye, n, k, noise)
