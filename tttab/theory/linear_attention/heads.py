"""The limit laws of one step on softmax attention: d -> infinity at alpha = n/d and gamma = k/d, no noise.

One head is f(x) = c sum_i p_i y_i, p = softmax_i(x'W x_i), from W = (tau / sqrt d) I with c held; `pair` is
two heads (W, c/2) and (-W, -c/2). The error of f has the covariance (c^2/n) K(x.x'/d) over queries x, x' with
K(r) = exp(tau^2 r), for the pair sinh(tau^2 r).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, sinh

from tttab.theory.linear_attention.crossing import exact_crossing


@dataclass(frozen=True)
class Head:
    """The limit of a start with the best readout; its error is a bias A and noise in every degree of x."""

    alpha: float
    tau: float = 1.0
    opposite: bool = False
    """Two opposite heads, whose even degrees cancel."""

    @property
    def cost(self) -> float:
        """E, how many times the context of linear attention is needed for the same loss; e at best."""
        square = self.tau**2
        return (sinh(square) if self.opposite else exp(square)) / square

    @property
    def start(self) -> float:
        """L0 = E / (alpha + E) with kappa = c tau / sqrt d = alpha / (alpha + E)."""
        return self.cost / (self.alpha + self.cost)

    def gain(self, gamma: float, *, same: bool = False) -> float:
        """Return what the best step takes off, on fresh contexts or on the one that was trained on.

        Fresh: gamma A^2 / (gamma (A + B1) + A + BE): only degree 1 of the error can be repaired, all of it
        makes noise. Same: the step repairs the constant too, with t = tau^2/alpha; a = 1 + 1/alpha.
        """
        a, b0, b1, whole = self._parts
        if not same:
            return gamma * a**2 / (gamma * (a + b1) + a + whole)
        grown, t = 1 + 1 / self.alpha, self.tau**2 / self.alpha
        top = grown * (a + b1) + t * b0
        below = gamma * (grown**2 * (a + b1) + t**2 * b0) + grown**2 * (a + whole)
        return gamma * top**2 / below

    def after(self, gamma: float, *, same: bool = False) -> float:
        """Return the loss after the best step."""
        return self.start - self.gain(gamma, same=same)

    @property
    def _parts(self) -> tuple[float, float, float, float]:
        """Return A, B0, B1 and BE: the bias, and the noise in degree 0, in degree 1 and in all."""
        kappa = self.alpha / (self.alpha + self.cost)
        noise = kappa**2 / self.alpha
        return (1 - kappa) ** 2, 0.0 if self.opposite else noise / self.tau**2, noise, noise * self.cost

    def step(self, gamma: float, d: int, *, same: bool = False) -> float:
        """Return the best step in units of 1 / (2 c^2 d), to leading order."""
        a, _, b1, whole = self._parts
        pull = (a + b1) / (1 + 1 / self.alpha) if same else a
        return pull / (gamma * (a + b1) + a + whole) * d / (2 * self.readout(d) ** 2 * d**2)

    def readout(self, d: int) -> float:
        """Return c."""
        return self.alpha / (self.alpha + self.cost) * d**0.5 / self.tau

    def threshold(self) -> float | None:
        """Return the gamma from which a zero start, 1 / (1 + gamma), wins on fresh contexts."""
        return exact_crossing(lambda gamma: cold_loss(gamma) - self.after(gamma), 1e-3, 1e4)


def cold_loss(gamma: float) -> float:
    """Return the limit of the loss after the best step from W = 0, for any readout beyond sqrt 2."""
    return 1 / (1 + gamma)
