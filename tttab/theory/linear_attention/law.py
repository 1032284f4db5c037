"""The exact loss of linear attention before and after one step, for any W, Sx and noise at every size.

Convention F of `settings.CONVENTIONS`. With v = b - W u and g the sum of training rows times residuals, one
step gives W' = W + 2 eta g u', so the loss is a parabola in eta. `isotropic` has the other conventions for W
= w I.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tttab.theory.linear_attention.problem import LinearProblem, matrix_root


@dataclass(frozen=True)
class Parabola:
    """L(eta) = start - slope eta + curvature eta^2."""

    start: float
    """The loss of the untouched weights."""
    slope: float
    curvature: float

    @property
    def best_step(self) -> float:
        """eta* = slope / (2 curvature)."""
        return self.slope / (2 * self.curvature)

    @property
    def gain(self) -> float:
        """What the best step takes off the loss: slope^2 / (4 curvature)."""
        return self.slope**2 / (4 * self.curvature)

    @property
    def best(self) -> float:
        """The loss after the best step."""
        return self.start - self.gain

    def at(self, eta: float) -> float:
        """Return the loss after a step of size `eta`."""
        return self.start - self.slope * eta + self.curvature * eta**2


def context_moment(problem: LinearProblem) -> Tensor:
    """Return M = E[u u'] = n(n+1) Sx b b' Sx + n (b'Sx b + s2) Sx, shape (d, d)."""
    mean = problem.covariance @ problem.task
    n = problem.n
    return n * (n + 1) * torch.outer(mean, mean) + n * (problem.signal + problem.noise) * problem.covariance


def residual_moment(problem: LinearProblem) -> Tensor:
    """Return D = E[v u'] = n b b' Sx - W M, shape (d, d)."""
    mean = problem.n * problem.covariance @ problem.task
    return torch.outer(problem.task, mean) - problem.weights @ context_moment(problem)


def gradient(problem: LinearProblem) -> Tensor:
    """Return the gradient of the loss at W, -2 Sx E[v u'], shape (d, d)."""
    return -2 * problem.covariance @ residual_moment(problem)


def loss(problem: LinearProblem) -> float:
    """Return L(W) = E (y - x'W u)^2 for this b, the noise of the test label included.

    For Sx = I it is R2 - 2n b'Wb + n(n+1) b'W'Wb + n rho2 |W|_F^2 + s2 (arXiv 2503.11842, population loss).
    """
    sx, w = problem.covariance, problem.weights
    cross = problem.n * problem.task @ sx @ w @ sx @ problem.task
    square = torch.trace(w.T @ sx @ w @ context_moment(problem))
    return problem.signal + problem.noise - 2 * float(cross) + float(square)


def one_step(problem: LinearProblem) -> Parabola:
    """Return the loss after one step as a parabola in its size (convention F).

    The slope is k |grad L(W)|_F^2. The curvature is 4 E[(g'Sx g)(u'Mu)], where, given u,
    E[g'Sx g] = k(k+1) v'Sx^3 v + k tr(Sx^2) (v'Sx v + s2): for Sx = I the (k+d+1) of arXiv 2503.11842.
    """
    grad = gradient(problem)
    sx, k = problem.covariance, problem.k
    trace = float(torch.trace(sx @ sx))
    inner = k * (k + 1) * sx @ sx @ sx + k * trace * sx
    moment = context_moment(problem)
    offset = k * trace * problem.training_noise
    curvature = 4 * expected_product(problem, inner, offset, moment)
    return Parabola(loss(problem), k * float((grad**2).sum()), curvature)


def expected_product(problem: LinearProblem, inner: Tensor, offset: float, outer: Tensor) -> float:
    """Return E[(v'Av + c)(u'Bu)] over the context, for symmetric A (`inner`) and B (`outer`).

    Whitened, u = Sx^(1/2) (a e + sqrt(r) h) with e the direction of Sx^(1/2) b, R its length,
    r = (R^2 + s2) p, p ~ chi2_n, a = R p + sqrt(s2 p) N(0, 1) and h ~ N(0, I - e e'), so the product
    is a polynomial in a, r and h; h is integrated first, then a and r by `context_power`.
    """
    root = matrix_root(problem.covariance)
    beta = root @ problem.task
    e = beta / torch.linalg.norm(beta)
    across = torch.eye(problem.d, dtype=e.dtype) - torch.outer(e, e)
    change = problem.weights @ root
    first = _Quadratic.of(change.T @ inner @ change, -2 * change.T @ inner @ problem.task, e, across)
    constant = float(problem.task @ inner @ problem.task) + offset
    second = _Quadratic.of(root @ outer @ root, torch.zeros_like(e), e, across)
    t1, t2 = torch.trace(first.across), torch.trace(second.across)
    both = torch.sum(first.across * second.across)
    terms = {
        (2, 0): constant * second.along,
        (3, 0): first.linear * second.along,
        (4, 0): first.along * second.along,
        (0, 1): constant * t2,
        (1, 1): first.linear * t2 + 2 * first.linear_across @ second.mixed,
        (2, 1): first.along * t2 + 4 * first.mixed @ second.mixed + t1 * second.along,
        (0, 2): t1 * t2 + 2 * both,
    }
    radius = float(torch.linalg.norm(beta))
    return sum(
        float(value) * context_power(i, j, problem.n, radius, problem.noise)
        for (i, j), value in terms.items()
    )


def context_power(i: int, j: int, n: float, radius: float, noise: float) -> float:
    """Return E[a^i r^j] of the context's law (see `expected_product`), i at most 4."""
    r2 = radius**2
    # Each entry is (coefficient, power of p) of E[a^i | p].
    terms = {
        0: [(1.0, 0)],
        1: [(radius, 1)],
        2: [(r2, 2), (noise, 1)],
        3: [(radius**3, 3), (3 * radius * noise, 2)],
        4: [(r2**2, 4), (6 * r2 * noise, 3), (3 * noise**2, 2)],
    }[i]
    return (r2 + noise) ** j * sum(value * chi2_moment(n, power + j) for value, power in terms)


def chi2_moment(n: float, power: int) -> float:
    """Return E[p^power] = n (n+2) ... (n + 2 power - 2) for p ~ chi2_n; n may be any positive number."""
    product = 1.0
    for step in range(power):
        product *= n + 2 * step
    return product


@dataclass(frozen=True)
class _Quadratic:
    """x'Px + l'x split along e and across it."""

    along: Tensor
    mixed: Tensor
    across: Tensor
    linear: Tensor
    linear_across: Tensor

    @classmethod
    def of(cls, form: Tensor, linear: Tensor, e: Tensor, across: Tensor) -> _Quadratic:
        form = (form + form.T) / 2
        return cls(e @ form @ e, across @ form @ e, across @ form @ across, linear @ e, across @ linear)
