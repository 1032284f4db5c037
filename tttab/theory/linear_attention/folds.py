"""The law of one step over the K folds of N labelled rows: exact at every size, and its limit.

Sx = I, |b| = 1, W = w I. In the usual scheme (`leave`) a fold's rows are the queries and all others the
context. In that of `tttab run --split kfold` (`inverse`) a fold is the context and all others are queries.
The folds' gradients depend on one another through shared rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from tttab.theory.linear_attention.crossing import exact_crossing
from tttab.theory.linear_attention.isotropic import Isotropic, best_loss, fixed_step, initial_loss
from tttab.theory.linear_attention.law import Parabola
from tttab.theory.linear_attention.limit import isotropic_loss
from tttab.theory.linear_attention.problem import isotropic_weight
from tttab.theory.linear_attention.wishart import Polynomial, any_of, expectation, one, residual

Scheme = Literal["leave", "inverse"]
Serve = Literal["fresh", "same"]


@dataclass(frozen=True)
class Folds:
    """A problem; `fold` may be a real number in the exact law."""

    d: int
    count: int
    """K."""
    fold: float
    """Rows of a fold; N = K x fold."""
    scheme: Scheme = "leave"
    noise: float = 0.0
    warm: bool = True
    """Start from the weights that were pre-trained for the context of a fold, or from 0."""

    @property
    def rows(self) -> float:
        """N."""
        return self.count * self.fold

    @property
    def context(self) -> float:
        """Rows of the context of a fold's step."""
        return self.fold if self.scheme == "inverse" else self.rows - self.fold

    @property
    def weight(self) -> float:
        """w."""
        return isotropic_weight(self.d, self.context, self.noise) if self.warm else 0.0


def one_step(p: Folds, serve: Serve) -> Parabola:
    """Return the loss after the summed step of all folds as a parabola in its size, fixed beforehand.

    `fresh`: on a new context as long as a fold's. `same`: on all N rows (`inverse`: on the first fold).
    """
    return _fresh(p) if serve == "fresh" else _same(p)


def _fresh(p: Folds) -> Parabola:
    alone = fixed_step(Isotropic(p.d, p.context, p.rows - p.context, p.weight, p.noise))
    square, plain = _off_fresh(p.scheme)
    n, others = p.context, {"J": p.fold, "L": p.fold, "O": p.rows - 2 * p.fold}
    # c2 = 4 sum E[(g_j.g_l)(u_j'M u_l)]: K terms with j = l, which are the paper's step, K (K - 1) others.
    off = n * (n + 1) * _at(p, square, others) + n * (1 + p.noise) * _at(p, plain, others)
    curvature = p.count * alone.curvature + 4 * p.count * (p.count - 1) * off
    return Parabola(alone.start, p.count * alone.slope, curvature)


def _same(p: Folds) -> Parabola:
    served = p.rows if p.scheme == "leave" else p.context
    start = initial_loss(Isotropic(p.d, served, 1, p.weight, p.noise))
    k, q = p.count, p.fold
    shared = {"F": q, "J": q, "L": q}
    terms = _same_leave() if p.scheme == "leave" else _same_inverse()
    slope = curvature = 0.0
    for term in terms:
        times = _copies(term.distinct, k)
        rows = shared | {"O": p.rows - term.folds * q}
        value = 4 * times * term.twice * _at(p, term.value, rows) if times else 0.0
        slope, curvature = (slope + value, curvature) if term.slope else (slope, curvature + value)
    return Parabola(start, slope, curvature)


def _copies(distinct: int, k: int) -> int:
    """Return k for 1, k - 1 for -1, k (k - 1) for 2 and (k - 1)(k - 2) for -2: see `_Term.distinct`."""
    return {0: 1, 1: k, 2: k * (k - 1), -1: k - 1, -2: (k - 1) * (k - 2)}[distinct]


def _at(p: Folds, polynomial: Polynomial, rows: dict[str, float]) -> float:
    return polynomial.at(rows, p.d, p.noise, p.weight)


@cache
def _off_fresh(scheme: Scheme) -> tuple[Polynomial, Polynomial]:
    """Return E[(g_j'g_l)(u_j'b)(u_l'b)] and E[(g_j'g_l)(u_j'u_l)] of folds J and L; O has the other rows."""
    # A list is one product b~' ... b~: first g_j'g_l, then u_j and u_l, joined (u_j'u_l) or each with b.
    if scheme == "leave":
        gradients = [residual("LP", "OP"), one("JPL"), residual("PJ", "PO")]
        left, right = any_of("L", "O"), any_of("J", "O")
    else:
        gradients = [residual("JP"), any_of("L", "O"), one("P"), any_of("J", "O"), residual("PL")]
        left, right = one("J"), one("L")
    square = expectation(gradients, [left, one("P")], [one("P"), right])
    return square, expectation(gradients, [left, one("P"), right])


@dataclass(frozen=True)
class _Term:
    """A part of slope or curvature on the context that was trained on."""

    slope: bool
    value: Polynomial
    distinct: int
    """Folds that are summed over: 1 and 2 of all K, -1 and -2 of those that are not served."""
    folds: int
    """Folds with a letter of their own; O has the rest."""
    twice: int = 1


@cache
def _same_leave() -> list[_Term]:
    """Return the terms where all rows are served: u = (J + L + O) b~, v = b - w u."""
    gradient, context = [one("J"), residual("PO")], [one("O"), one("P"), any_of("J", "O")]
    slope = expectation([residual("JP", "OP"), one("P"), *gradient], context)
    alone = expectation([residual("OP"), one("JPJ"), residual("PO")], context, context)
    pair = expectation(
        [residual("LP", "OP"), one("JPL"), residual("PJ", "PO")],
        [any_of("L", "O"), one("P"), any_of("J", "L", "O")],
        [any_of("J", "O"), one("P"), any_of("J", "L", "O")],
    )
    return [_Term(True, slope, 1, 1), _Term(False, alone, 1, 1), _Term(False, pair, 2, 2)]


@cache
def _same_inverse() -> list[_Term]:
    """Return the terms where fold F is served: u = F b~, v = b - w u."""
    aim, own, cross = [residual("FP"), one("P")], [one("FPF")], [one("JPF")]
    first = expectation([*aim, one("O"), residual("PF")], own)
    other = expectation([*aim, any_of("F", "O"), residual("PJ")], cross)
    served = expectation([residual("FP"), one("OPO"), residual("PF")], own, own)
    mixed = expectation(
        [residual("FP"), any_of("J", "O"), one("P"), any_of("F", "O"), residual("PJ")], own, cross
    )
    alone = expectation(
        [residual("JP"), any_of("F", "O"), one("P"), any_of("F", "O"), residual("PJ")], cross, cross
    )
    pair = expectation(
        [residual("JP"), any_of("F", "L", "O"), one("P"), any_of("F", "J", "O"), residual("PL")],
        cross,
        [one("LPF")],
    )
    return [
        _Term(True, first, 0, 1),
        _Term(True, other, -1, 2),
        _Term(False, served, 0, 1),
        _Term(False, mixed, -1, 2, twice=2),
        _Term(False, alone, -1, 2),
        _Term(False, pair, -2, 3),
    ]


def limit(p: Folds, serve: Serve) -> float | None:
    """Return the limit d -> infinity at N/d and K, without noise; None with noise."""
    if p.noise:
        return None
    gamma, k = p.rows / p.d, p.count
    if not p.warm:
        return _cold_limit(gamma, k, p.scheme, serve)
    return _leave_limit(gamma, k, serve) if p.scheme == "leave" else _inverse_limit(gamma, k, serve)


def _cold_limit(gamma: float, k: int, scheme: Scheme, serve: Serve) -> float:
    if scheme == "leave" or serve == "fresh":
        return 1 / (1 + gamma)
    square = (k - 1) ** 2 * (gamma**2 + 3 * gamma + 3) + (k - 1) * k / gamma
    return 1 - (k - 1) ** 2 * (gamma + 1) ** 2 / square


def _leave_limit(gamma: float, k: int, serve: Serve) -> float:
    a, d = (k - 1) * gamma + k, (k - 1) ** 2 * gamma**2 + gamma * k + k**2
    if serve == "fresh":
        return k / a - gamma * k**4 / (a**2 * d)
    start = (gamma**2 + gamma * k**2 - 2 * gamma * k + k**2) / a**2
    return start - gamma**3 * k**2 * (k - 2) ** 2 / (a**2 * d)


def _inverse_limit(gamma: float, k: int, serve: Serve) -> float:
    phi = gamma / k
    t, rest = 1 / (1 + phi), gamma - phi
    size = gamma * (k - 1) / (gamma + k) ** 2
    size *= gamma**2 * (k - 1) + gamma * (k**3 - 3 * k**2 + 3 * k) + k**3 - k**2
    if serve == "fresh":
        return t - ((k - 1) * gamma) ** 2 * t**4 / size
    # docs/theory-open.md calls rest, far, own, mixed and pull: rho, tau, r, e and h.
    own = rest**2 + rest
    far = gamma - 2 * phi
    mixed = own * t + (k - 1) * t**2 * (far**2 + far - phi**2)
    pull = rest * t * (1 + 1 / phi) + (k - 1) * far * t**2
    return t - pull**2 / (size + 2 * mixed / phi + own * t / phi**2)


def threshold_limit(k: int) -> float:
    """Return the N/d from which zero wins in the limit (`leave`, fresh).

    It solves G^2 [(K-1)^2 G + K^2] = K^3 (G + 1): 2 at K = 2, and close to sqrt(K) for many folds.
    """

    def difference(gamma: float) -> float:
        return k**3 * (gamma + 1) - gamma**2 * ((k - 1) ** 2 * gamma + k**2)

    found = exact_crossing(difference, 1e-3, 1e6)
    assert found is not None
    return found


def threshold(p: Folds, furthest: float = 64.0) -> float | None:
    """Return the exact N/d from which zero wins on fresh contexts at this d; None: not up to `furthest`."""

    def difference(gamma: float) -> float:
        here = replace(p, fold=gamma * p.d / p.count)
        warm, cold = (one_step(replace(here, warm=warm), "fresh").best for warm in (True, False))
        return cold - warm

    return exact_crossing(difference, max(0.05, p.count / p.d), furthest)


def best_split(d: int, rows: int, noise: float, serve: Serve) -> tuple[int, float]:
    """Return n and the exact loss of the best single split of N rows into n context and N - n query rows."""
    convention = "F" if serve == "fresh" else "S"
    losses = {
        n: best_loss(Isotropic.pretrained(d, n, rows - n, noise), convention)
        for n in sorted({max(1, min(rows - 1, round(rows * i / 60))) for i in range(1, 60)})
    }
    best = min(losses, key=losses.__getitem__)
    return best, losses[best]


def best_split_limit(gamma: float, serve: Serve) -> float:
    """Return the same in the limit."""
    convention = "F" if serve == "fresh" else "S"
    shares = [i / 2000 for i in range(1, 2000)]
    return min(isotropic_loss(gamma * s, gamma * (1 - s), convention, pretrained=True) for s in shares)
