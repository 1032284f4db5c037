"""The exact losses for W = w I, Sx = I and |b| = 1 under every convention, with real-valued sizes.

F and the noiseless S are closed forms. C, T and the noisy S are expectations over two or three numbers of the
context, computed by Gauss rules. `law` holds other weights and covariances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial import Chebyshev

from tttab.theory.linear_attention.law import Parabola, context_power
from tttab.theory.linear_attention.problem import (
    LinearProblem,
    isotropic_problem,
    isotropic_weight,
)
from tttab.theory.linear_attention.quadrature import chi2_rule, exponential_rule, normal_rule
from tttab.theory.linear_attention.settings import Convention

NODES = 40
"""Nodes along each chi-square; half as many along the normal. Doubling moves no printed digit."""
DEGREE = 60
"""Degree of the polynomial that stands for E cos^2 as a function of the share of signal."""


@dataclass(frozen=True)
class Isotropic:
    """A problem with W = `weight` I, Sx = I, |b| = 1. Sizes may be real: laws are smooth in them."""

    d: int
    n: float
    k: float
    weight: float
    noise: float = 0.0
    """s2 over |b|^2, in contexts and test labels."""
    train_noise: float | None = None
    """s2 over |b|^2 in the training rows; None: `noise`."""

    @classmethod
    def pretrained(
        cls, d: int, n: float, k: float, noise: float = 0.0, train_noise: float | None = None
    ) -> Isotropic:
        """Return the problem that starts from W* of `problem.isotropic_weight`."""
        return cls(d, n, k, isotropic_weight(d, n, noise), noise, train_noise)

    @property
    def training_noise(self) -> float:
        """The variance of the label noise in the training rows."""
        return self.noise if self.train_noise is None else self.train_noise

    @property
    def power(self) -> float:
        """rho2 = |b|^2 + s2, the variance of a context label."""
        return 1 + self.noise

    def from_zero(self) -> Isotropic:
        """Return the same problem with w = 0, the cold start."""
        return replace(self, weight=0.0)

    def with_rows(self, k: float) -> Isotropic:
        """Return the same problem with `k` training rows."""
        return replace(self, k=k)

    def problem(self) -> LinearProblem:
        """Return the same problem as matrices, with b = e1; n and k must be whole."""
        matrices = isotropic_problem(self.d, int(self.n), int(self.k), weight=self.weight, noise=self.noise)
        return replace(matrices, train_noise=self.train_noise)


def initial_loss(p: Isotropic) -> float:
    """Return L(w I) over |b|^2: E|v|^2 + s2 with |v|^2 = 1 - 2 w a + w^2 |u|^2."""
    square = p.n * (p.n + 1) + p.n * p.power * p.d
    return 1 + p.noise - 2 * p.weight * p.n + p.weight**2 * square


def fixed_step(p: Isotropic) -> Parabola:
    """Return the loss as a parabola in eta (convention F), in closed form."""
    w, n, k = p.weight, p.n, p.k
    tilt, flat = n * (1 - w * (n + 1)), w * n * p.power
    slope = 4 * k * (tilt**2 - 2 * tilt * flat + flat**2 * p.d)
    spread = k * (k + p.d + 1)
    constant = spread + p.training_noise * k * p.d
    along, across = _reach_coefficients(p)
    # E (constant - 2 w a spread + w^2 spread (a^2 + t)) (along a^2 + across t), t = |u|^2 - a^2.
    mean = constant * (along * _power(p, 2, 0) + across * _power(p, 0, 1))
    mean -= 2 * w * spread * (along * _power(p, 3, 0) + across * _power(p, 1, 1))
    mean += w**2 * spread * along * _power(p, 4, 0)
    mean += w**2 * spread * ((along + across) * _power(p, 2, 1) + across * _power(p, 0, 2))
    return Parabola(initial_loss(p), slope, 4 * mean)


def gain(p: Isotropic, convention: Convention) -> float:
    """Return the exact improvement by one step under `convention`, over |b|^2.

    Noiseless S from any w: L0 k / (k + d + 1), so the loss becomes L0 (d+1)/(k+d+1).
    """
    match convention:
        case "F":
            return fixed_step(p).gain
        case "C":
            return _over_contexts(p, _gain_per_context)
        case "T":
            return _over_contexts(p, _gain_per_trial)
        case "S":
            if p.training_noise == 0:
                return (initial_loss(p) - p.noise) * p.k / (p.k + p.d + 1)
            return _over_contexts(p, _gain_on_same_context)


def best_loss(p: Isotropic, convention: Convention) -> float:
    """Return the exact loss after the step of `convention`, over |b|^2."""
    return initial_loss(p) - gain(p, convention)


def same_context_loss(p: Isotropic, eta: float) -> float:
    """Return the loss on the context that was trained on, after a step of the fixed size `eta`."""

    def change(p: Isotropic, c: _Contexts) -> np.ndarray:
        slope = 4 * p.k * c.residual * c.square
        return slope * eta - 4 * c.mean_size * c.square**2 * eta**2

    return initial_loss(p) - _over_contexts(p, change)


def squared_cosine(d: int, k: float, share: np.ndarray) -> np.ndarray:
    """Return E cos^2 of the angle between g and v, shape of `share` = |v|^2 / (|v|^2 + s2).

    From E[N/(N+C)] = -int (d/ds E e^(-sN)) E e^(-sC) ds with the Laplace transforms of the non-central
    and the central chi-square; k/(k+d-1) at share 1, 1/d at share 0.
    """
    share = np.asarray(share, dtype=float)[..., None]
    rest = 1 - share
    rate = (d + (k - 1) * share) / 2
    nodes, weights = exponential_rule(NODES)
    y = np.exp(-nodes / rate)
    mix = y + rest * (1 - y)
    log_value = (k - 1) / 2 * np.log(mix) - d / 2 * nodes / rate + nodes
    value = np.exp(log_value) * (k - (k - 1) * rest / mix)
    return (value * weights / (2 * rate)).sum(-1)


@dataclass(frozen=True)
class _Contexts:
    """Quadrature points of the context: u = (a, sqrt(t)) in the plane of b and u."""

    residual: np.ndarray
    """|v|^2."""
    pull: np.ndarray
    """v'Du."""
    change: np.ndarray
    """|Du|^2."""
    reach: np.ndarray
    """u'Mu."""
    square: np.ndarray
    """|u|^2."""
    mean_size: np.ndarray
    """E[|g|^2 given u]."""


def _over_contexts(p: Isotropic, value: Callable[[Isotropic, _Contexts], np.ndarray]) -> float:
    chi, chi_weights = chi2_rule(p.n, NODES)
    side, side_weights = chi2_rule(p.d - 1, NODES)
    e, e_weights = normal_rule(NODES // 2) if p.noise else (np.zeros(1), np.ones(1))
    chi, e, side = np.meshgrid(chi, e, side, indexing="ij", sparse=True)
    weights = chi_weights[:, None, None] * e_weights[None, :, None] * side_weights[None, None, :]
    a, t = chi + np.sqrt(p.noise * chi) * e, p.power * chi * side
    return float((weights * value(p, _contexts(p, a, t))).sum())


def _contexts(p: Isotropic, a: np.ndarray, t: np.ndarray) -> _Contexts:
    w = p.weight
    turn = p.n * (1 - w * (p.n + 1)) - w * p.n * p.power
    flat = -w * p.n * p.power
    residual = (1 - w * a) ** 2 + w**2 * t
    along, across = _reach_coefficients(p)
    return _Contexts(
        residual=residual,
        pull=(1 - w * a) * turn * a - w * flat * t,
        change=(turn * a) ** 2 + flat**2 * t,
        reach=along * a**2 + across * t,
        square=a**2 + t,
        mean_size=p.k * (p.k + p.d + 1) * residual + p.training_noise * p.k * p.d,
    )


def _gain_per_context(p: Isotropic, c: _Contexts) -> np.ndarray:
    return p.k**2 * c.pull**2 / (c.mean_size * c.reach)


def _gain_per_trial(p: Isotropic, c: _Contexts) -> np.ndarray:
    share = c.residual / (c.residual + p.training_noise)
    cosine = Chebyshev.interpolate(lambda x: squared_cosine(p.d, p.k, x), DEGREE, [0, 1])(share)
    # g is symmetric around v: what it does not put along v it shares among the other d - 1 directions.
    along = c.pull**2 / c.residual
    across = np.maximum(c.change - along, 0.0)
    return (cosine * along + (1 - cosine) / max(p.d - 1, 1) * across) / c.reach


def _gain_on_same_context(p: Isotropic, c: _Contexts) -> np.ndarray:
    return p.k**2 * c.residual**2 / c.mean_size


def _reach_coefficients(p: Isotropic) -> tuple[float, float]:
    """Return (x, y) of u'Mu = x a^2 + y t."""
    return p.n * (p.n + 1) + p.n * p.power, p.n * p.power


def _power(p: Isotropic, i: int, j: int) -> float:
    """Return E[a^i t^j], t = r chi2_(d-1)."""
    side = 1.0
    for step in range(j):
        side *= p.d - 1 + 2 * step
    return side * context_power(i, j, p.n, 1.0, p.noise)
