"""Trials of many steps: W_t = W + c_t u', so gradient descent is a walk of one vector c.

c_{t+1} = c_t + 2 eta_t [Z'(Z v + noise) - |u|^2 Z'Z c_t], loss on a fresh context |v|^2 - 2 c'Du + |c|^2
u'Mu. `banded` walks in the Krylov basis of v, where Z'Z is tridiagonal: T steps cost O(T^2) numbers. `dense`
draws every row and checks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tttab.theory.linear_attention.draws import Draws
from tttab.theory.linear_attention.isotropic import Isotropic
from tttab.theory.linear_attention.samplers import Trials
from tttab.theory.linear_attention.settings import Convention


@dataclass(frozen=True)
class Paths:
    """Trials of one start (Sx = I, W = w I) in a basis of `size` vectors; row shapes are (trials, size)."""

    hessian: Tensor
    """Z'Z: (trials, size, size), or where it is tridiagonal (trials, 2, size), diagonal and what is above."""
    aim: Tensor
    """v."""
    change: Tensor
    """Du."""
    first: Tensor
    """g = Z'(Z v + noise), minus half the gradient's factor at the start."""
    single: Trials
    """The single step's scalars, for the unit of step size."""

    def losses(self, convention: Convention, etas: Sequence[Tensor]) -> Tensor:
        """Return the loss after steps of sizes `etas`, shape (trials,), as each of them."""
        c = torch.zeros_like(self.aim)
        square = self.single.square[:, None]
        for eta in etas:
            c = c + 2 * eta[:, None] * (self.first - square * self._multiply(c))
        return self._loss(convention, c)

    def flow(self, convention: Convention, times: Sequence[float], unit: Tensor) -> Tensor:
        """Return the loss of gradient flow stopped at `times` x `unit`, shape (len(times), trials).

        Flow is the limit of many small steps, c(t) = sum_i [1 - exp(-2 |u|^2 h_i t)] / (|u|^2 h_i) g_i over
        the eigenvalues h_i of Z'Z.
        """
        values, vectors = torch.linalg.eigh(self._dense())
        first = torch.einsum("tij,ti->tj", vectors, self.first)
        rate = self.single.square[:, None] * values.clamp(min=0)
        found = []
        for time in times:
            span = 2 * time * unit[:, None]
            grown = torch.where(
                rate * span > 1e-12, -torch.expm1(-rate * span) / rate.clamp(min=1e-300), span
            )
            found.append(self._loss(convention, torch.einsum("tij,tj->ti", vectors, grown * first)))
        return torch.stack(found)

    def _loss(self, convention: Convention, c: Tensor) -> Tensor:
        if convention == "S":
            pull, reach = (c * self.aim).sum(-1) * self.single.square, self.single.square**2
        else:
            pull, reach = (c * self.change).sum(-1), self.single.reach
        return self.single.start - 2 * pull + (c * c).sum(-1) * reach

    def _multiply(self, c: Tensor) -> Tensor:
        if self.hessian.shape[1] != 2:
            return torch.bmm(self.hessian, c[:, :, None])[:, :, 0]
        diagonal, above = self.hessian[:, 0], self.hessian[:, 1, :-1]
        product = diagonal * c
        product[:, :-1] += above * c[:, 1:]
        product[:, 1:] += above * c[:, :-1]
        return product

    def _dense(self) -> Tensor:
        if self.hessian.shape[1] != 2:
            return self.hessian
        beside = self.hessian[:, 1, :-1]
        beside = torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
        return torch.diag_embed(self.hessian[:, 0]) + beside


def banded(p: Isotropic, steps: int, draws: Draws, trials: int) -> Paths:
    """Return noiseless trials whose first `steps` steps are exact; `steps` >= min(d, k) is exact for ever.

    Golub-Kahan bidiagonalisation of a Gaussian Z started at v: the diagonal is chi_k, chi_(k-1), ..., what
    is above it chi_(d-1), chi_(d-2), ..., all independent (Trotter 1984; Edelman 1989); across v the basis
    is uniform, so Du's part across v has the coordinates of a uniform unit vector.
    """
    a = draws.chi2(int(p.n), trials)
    side = (p.power * a * draws.chi2(p.d - 1, trials)).sqrt()
    size = max(2, min(steps + 1, p.d))  # at least 2, so that a band is not taken for a dense matrix
    down = [draws.chi2(int(p.k) - i, trials) for i in range(size)]
    beside = [draws.chi2(p.d - 1 - i, trials) for i in range(size)]
    diagonal = torch.stack([down[0], *[down[i] + beside[i - 1] for i in range(1, size)]], 1)
    above = torch.stack([(x * y).sqrt() for x, y in zip(down, beside, strict=True)], 1)
    hessian = torch.stack([diagonal, above], 1)
    norm, with_v, across = _in_plane(p, a, side)
    compass = draws.normal(trials, size - 1)
    if p.d - size <= 0:
        compass = compass[:, : p.d - 1]
    rest = draws.chi2(p.d - size, trials)
    compass = compass / ((compass**2).sum(1) + rest).sqrt()[:, None]
    change = torch.zeros_like(diagonal)
    change[:, 0], change[:, 1 : 1 + compass.shape[1]] = with_v / norm, across[:, None] * compass
    aim = torch.zeros_like(diagonal)
    aim[:, 0] = norm
    first = torch.zeros_like(diagonal)
    first[:, 0], first[:, 1] = diagonal[:, 0] * norm, above[:, 0] * norm
    return _paths(p, hessian, (aim, change, first), (a**2 + side**2, a))


def dense(p: Isotropic, draws: Draws, trials: int) -> Paths:
    """Return trials from every row, with noise where there is any; the basis is the features' own."""
    n, k = int(p.n), int(p.k)
    x, z = draws.normal(trials, n, p.d), draws.normal(trials, k, p.d)
    y = x[:, :, 0] + (p.noise**0.5 * draws.normal(trials, n) if p.noise else 0.0)
    u = torch.bmm(y[:, None], x)[:, 0]
    aim = -p.weight * u
    aim[:, 0] += 1
    flat = p.weight * p.n * p.power
    change = -flat * u
    change[:, 0] = (p.n * (1 - p.weight * (p.n + 1)) - flat) * u[:, 0]
    residual = torch.bmm(z, aim[:, :, None])
    if p.training_noise:
        residual = residual + p.training_noise**0.5 * draws.normal(trials, k, 1)
    transposed = z.transpose(1, 2)
    first = torch.bmm(transposed, residual)[:, :, 0]
    return _paths(p, torch.bmm(transposed, z), (aim, change, first), ((u * u).sum(-1), u[:, 0]))


def _in_plane(p: Isotropic, a: Tensor, side: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return |v|, v'Du and the part of Du across v, in the plane of b and u = (a, side)."""
    flat = p.weight * p.n * p.power
    turn = p.n * (1 - p.weight * (p.n + 1)) - flat
    v1, v2 = 1 - p.weight * a, -p.weight * side
    norm = (v1**2 + v2**2).sqrt()
    change1, change2 = turn * a, -flat * side
    return norm, v1 * change1 + v2 * change2, (v1 * change2 - v2 * change1) / norm


def _paths(
    p: Isotropic, hessian: Tensor, vectors: tuple[Tensor, Tensor, Tensor], context: tuple[Tensor, Tensor]
) -> Paths:
    """Return the paths of v, Du and g in `vectors` and of |u|^2 and u along b in `context`."""
    aim, change, first = vectors
    square, a = context
    energy, with_v = (aim * aim).sum(-1), (aim * change).sum(-1)
    single = Trials(
        start=energy + p.noise,
        reach=p.n * (p.n + 1) * a**2 + p.n * p.power * square,
        square=square,
        along=(first * change).sum(-1),
        along_mean=p.k * with_v,
        size=(first * first).sum(-1),
        size_mean=p.k * (p.k + p.d + 1) * energy + p.training_noise * p.k * p.d,
        pull=(aim * first).sum(-1),
        pull_mean=p.k * energy,
        labels=torch.zeros_like(energy),
    )
    return Paths(hessian, aim, change, first, single)
