"""The papers' large-size approximations: the leading order of convention F for n^2 >> d, no noise.

Nothing here is exact at finite size; see `law` and `isotropic`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tttab.theory.linear_attention.problem import LinearProblem
from tttab.theory.linear_attention.settings import Convention

Noise = tuple[float, float]
"""The noise variances of contexts and of training rows."""


@dataclass(frozen=True)
class Alignment:
    """A and B of arXiv 2503.11842 for Sx = I: A = b'(I - nW)^2 b, B = n R2 |W|_F^2; A + B is the loss."""

    a: float
    b: float

    @property
    def loss(self) -> float:
        """The limit of the untrained loss, A + B."""
        return self.a + self.b

    @property
    def gain(self) -> float:
        """The limit of the improvement for k >> d, A^2 / (A + B)."""
        return self.a**2 / (self.a + self.b)


def alignment_terms(problem: LinearProblem) -> Alignment:
    """Return A and B for any W and Sx, in units of R2 = b'Sx b.

    For Sx other than the identity A and B are the Sx-weighted bias |b - nW Sx b|^2 and the variance
    n R2 tr(W'Sx W Sx), which is what they are for Sx = I.
    """
    sx, w, r2 = problem.covariance, problem.weights, problem.signal
    bias = problem.task - problem.n * w @ sx @ problem.task
    variance = problem.n * torch.trace(w.T @ sx @ w @ sx)
    return Alignment(float(bias @ sx @ bias) / r2, float(variance))


def papers_gain(problem: LinearProblem) -> float:
    """Return k/(k+d) A^2/(A+B) over R2, the improvement of arXiv 2503.11842, which is right for Sx = I."""
    return problem.k / (problem.k + problem.d) * alignment_terms(problem).gain


def general_gain(problem: LinearProblem) -> float:
    """Return the leading order of the improvement over R2, for any W and Sx.

    k |Sx v|^4 / (k E v'Sx^3 v + tr(Sx^2) E v'Sx v) / R2 with v = b - nW Sx b for the numerator; for
    Sx = I it is k/(k+d) A^2/(A+B) (arXiv 2503.11842, its general statement).
    """
    sx, w, r2, k = problem.covariance, problem.weights, problem.signal, problem.k
    bias = problem.task - problem.n * w @ sx @ problem.task

    def energy(form: torch.Tensor) -> float:
        return float(bias @ form @ bias + problem.n * r2 * torch.trace(w.T @ form @ w @ sx))

    top = k * float(bias @ sx @ sx @ bias) ** 2
    return top / (k * energy(sx @ sx @ sx) + float(torch.trace(sx @ sx)) * energy(sx)) / r2


def general_threshold(problem: LinearProblem) -> float | None:
    """Return gamma* = k/d beyond which the limit prefers W = 0, for Sx = I; None: it never does.

    (1 - s) s / (s^2 - A^2) with s = A + B, from 1/(1+g) = s - g/(1+g) A^2/s; isotropic it is
    (alpha+1)^2/(alpha+2).
    """
    terms = alignment_terms(problem)
    below = terms.loss**2 - terms.a**2
    gamma = (1 - terms.loss) * terms.loss / below if below > 0 else -1.0
    return gamma if gamma > 0 else None


def isotropic_loss(
    alpha: float, gamma: float, convention: Convention = "F", *, pretrained: bool, noise: Noise = (0.0, 0.0)
) -> float:
    """Return the limit of the loss after the best step over |b|^2, at alpha = n/d and gamma = k/d.

    Without noise 1/(1+alpha) - gamma/(1+gamma) (1+alpha)^-3 from W*, 1/(1+gamma) from zero (arXiv
    2503.11842). With noise s2 over |b|^2, (in contexts, in training rows), the same order of the same
    law: A + B + s2 - gamma A^2 / ((1+gamma)(A+B) + s2'). C and T share it; S has (A+B)^2 for A^2.
    """
    a, b = _isotropic_terms(alpha, noise[0]) if pretrained else (1.0, 0.0)
    top = (a + b) ** 2 if convention == "S" else a**2
    return a + b + noise[0] - gamma * top / ((1 + gamma) * (a + b) + noise[1])


def _isotropic_terms(alpha: float, noise: float) -> tuple[float, float]:
    """Return A and B at W*, in units of |b|^2."""
    below = (alpha + 1 + noise) ** 2
    return (1 + noise) ** 2 / below, alpha * (1 + noise) / below


def isotropic_threshold(alpha: float) -> float:
    """Return gamma* = (alpha+1)^2 / (alpha+2), beyond which W = 0 wins in the limit (arXiv 2503.11842)."""
    return (alpha + 1) ** 2 / (alpha + 2)


def isotropic_step(d: int, n: float, k: float, weight: float) -> float:
    """Return the leading order of the best step for |b| = 1: A / (2 n^2 (k+d) (A+B)), W = `weight` I."""
    a, b = (1 - n * weight) ** 2, n * d * weight**2
    return a / (2 * n**2 * (k + d) * (a + b))
