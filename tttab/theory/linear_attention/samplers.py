"""Trials of one step, drawn in three ways: from rows, from O(d) numbers, from seven numbers.

A trial is ten scalars, from which the loss follows for every eta and under every convention: neither W' nor a
test prompt is ever formed. `rows` draws every row and checks the others. `vectors` draws u and g from their
exact laws, for any W and Sx. `scalars` needs W = w I and Sx = I.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tttab.theory.linear_attention.draws import Draws
from tttab.theory.linear_attention.isotropic import Isotropic
from tttab.theory.linear_attention.law import context_moment, residual_moment
from tttab.theory.linear_attention.problem import LinearProblem, matrix_root
from tttab.theory.linear_attention.settings import Convention


@dataclass(frozen=True)
class Trials:
    """What a step of one start does, trial by trial; every field has shape (trials,)."""

    start: Tensor
    """v'Sx v + s2, the loss of the untouched weights on the trial's own context."""
    reach: Tensor
    """u'Mu with M = E[u u'] of a fresh context."""
    square: Tensor
    """|u|^2."""
    along: Tensor
    """g'Sx D u with D = E[v u'] of a fresh context."""
    along_mean: Tensor
    """E[along given u]."""
    size: Tensor
    """g'Sx g."""
    size_mean: Tensor
    """E[size given u]."""
    pull: Tensor
    """v'Sx g."""
    pull_mean: Tensor
    """E[pull given u]."""
    labels: Tensor
    """|y|^2 of the context."""

    def parabola(self, convention: Convention) -> tuple[Tensor, Tensor]:
        """Return (slope, curvature) of the trial's loss in eta, each of shape (trials,)."""
        if convention == "S":
            return 4 * self.pull * self.square, 4 * self.size * self.square**2
        return 4 * self.along, 4 * self.size * self.reach

    def steps(self, convention: Convention) -> Tensor:
        """Return the step that C, T or S takes, shape (trials,). F fixes its step without looking."""
        match convention:
            case "C":
                return self.along_mean / (2 * self.size_mean * self.reach)
            case "T":
                return self.along / (2 * self.size * self.reach)
            case "S":
                return self.pull_mean / (2 * self.size_mean * self.square)
        raise ValueError("convention F has one step for all trials")

    def losses(self, convention: Convention, eta: float | Tensor) -> Tensor:
        """Return the loss after a step of size `eta`, shape (trials,)."""
        slope, curvature = self.parabola(convention)
        return self.start - slope * eta + curvature * eta**2


class Sampler(Protocol):
    """Draws trials for several starts at once."""

    bytes_per_trial: int

    def draw(self, draws: Draws, trials: int) -> list[Trials]:
        """Return the trials of each start; all starts see the same rows."""
        ...


class ScalarSampler:
    """Seven random numbers per trial, O(1): W = w I, Sx = I, |b| = 1 (five where nothing is noisy).

    In the plane of b and u, u = (a, sqrt(t)); across v in that plane g is normal, and of the other
    d - 2 directions only the length of g matters, a chi-square.
    """

    bytes_per_trial = 8 * 24

    def __init__(self, starts: Sequence[Isotropic]) -> None:
        self._starts = starts

    def draw(self, draws: Draws, trials: int) -> list[Trials]:
        """Return the trials of each start."""
        p = self._starts[0]
        chi = draws.chi2(int(p.n), trials)
        # u = X'y. Given |y|^2 = (1 + s2) chi it is chi along b, noise aside, and normal across it.
        a = chi + (p.noise * chi).sqrt() * draws.normal(trials) if p.noise else chi
        t = p.power * chi * draws.chi2(p.d - 1, trials)
        train = draws.chi2(int(p.k), trials)
        shake = draws.normal(trials) if p.training_noise else None
        beside = draws.normal(trials) if p.d > 1 else torch.zeros_like(a)
        length = beside**2 + draws.chi2(p.d - 2, trials)
        plane = _Plane(a, t, p.power * chi, train, shake, beside, length)
        return [_scalar_trials(start, plane) for start in self._starts]


class _Start:
    """A start with its matrices, computed once."""

    def __init__(self, problem: LinearProblem) -> None:
        self.problem = problem
        self.moment = context_moment(problem)
        self.change = residual_moment(problem)
        self.trace = float(torch.trace(problem.covariance @ problem.covariance))


class VectorSampler:
    """O(d) random numbers per trial and matrix products: any W, Sx and noise, through whitening.

    In whitened space u = a e + sqrt(r) h given two numbers (see `law.expected_product`), and g
    has the same law with v for b and k for n.
    """

    def __init__(self, starts: Sequence[LinearProblem]) -> None:
        self._starts = [_Start(start) for start in starts]
        self._root = matrix_root(starts[0].covariance)
        self.bytes_per_trial = 8 * 12 * starts[0].d

    def draw(self, draws: Draws, trials: int) -> list[Trials]:
        """Return the trials of each start."""
        p = self._starts[0].problem
        train, shake = draws.chi2(p.k, trials), draws.normal(trials)
        side = draws.normal(trials, p.d)
        root, task = self._root.to(side), p.task.to(side)
        chi = draws.chi2(p.n, trials)
        aim = (root @ task).expand(trials, p.d)
        u = _moments_of_rows(aim, p.noise, chi, draws.normal(trials), draws.normal(trials, p.d)) @ root
        found = []
        for start in self._starts:
            v = task - u @ start.problem.weights.to(u).T
            g = _moments_of_rows(v @ root, p.training_noise, train, shake, side) @ root
            found.append(_trials(start, (p.signal + p.noise) * chi, u, v, g))
        return found


class RowSampler:
    """Every context and training row, O((n + k) d) numbers per trial: the witness of the other two."""

    def __init__(self, starts: Sequence[LinearProblem]) -> None:
        self._starts = [_Start(start) for start in starts]
        p = starts[0]
        self._root = matrix_root(p.covariance)
        self._white = bool(torch.equal(p.covariance, torch.eye(p.d, dtype=p.covariance.dtype)))
        self.bytes_per_trial = 8 * p.d * (p.n + p.k + 8)

    def draw(self, draws: Draws, trials: int) -> list[Trials]:
        """Return the trials of each start."""
        p = self._starts[0].problem
        x = self._rows(draws, trials, p.n)
        task = p.task.to(x)
        y = x @ task
        if p.noise:
            y = y + p.noise**0.5 * draws.normal(trials, p.n)
        u, labels = _sum_of_rows(x, y), _dot(y, y)
        del x
        z = self._rows(draws, trials, p.k)
        shake = p.training_noise**0.5 * draws.normal(trials, p.k) if p.training_noise else 0.0
        found = []
        for start in self._starts:
            v = task - u @ start.problem.weights.to(u).T
            residual = torch.bmm(z, v.unsqueeze(-1)).squeeze(-1) + shake
            found.append(_trials(start, labels, u, v, _sum_of_rows(z, residual)))
        return found

    def _rows(self, draws: Draws, trials: int, rows: int) -> Tensor:
        x = draws.normal(trials, rows, self._starts[0].problem.d)
        return x if self._white else x @ self._root.to(x)


def _trials(start: _Start, labels: Tensor, u: Tensor, v: Tensor, g: Tensor) -> Trials:
    """Return the scalars of trials from |y|^2, shape (trials,), and u, v and g, each of shape (trials, d)."""
    p, trace = start.problem, start.trace
    sx, change = p.covariance.to(u), u @ start.change.to(u).T
    v1, g1 = v @ sx, g @ sx
    v2 = v1 @ sx
    energy = _dot(v1, v)
    return Trials(
        start=energy + p.noise,
        reach=_dot(u @ start.moment.to(u), u),
        square=_dot(u, u),
        along=_dot(g1, change),
        along_mean=p.k * _dot(v2, change),
        size=_dot(g1, g),
        size_mean=p.k * (p.k + 1) * _dot(v2, v1) + p.k * trace * (energy + p.training_noise),
        pull=_dot(v1, g),
        pull_mean=p.k * _dot(v2, v),
        labels=labels,
    )


@dataclass(frozen=True)
class _Plane:
    """The random numbers of trials, each of shape (trials,)."""

    a: Tensor
    """u along b."""
    t: Tensor
    """|u|^2 - a^2."""
    labels: Tensor
    train: Tensor
    """chi2_k: the training rows along v."""
    shake: Tensor | None
    """Training noise; None where there is none."""
    beside: Tensor
    """g across v in the plane, in its own unit."""
    length: Tensor
    """|g|^2 across v, in its own unit."""


def _scalar_trials(p: Isotropic, plane: _Plane) -> Trials:
    a, t, train = plane.a, plane.t, plane.train
    w, flat = p.weight, p.weight * p.n * p.power
    # D = E[v u'] is diagonal: `turn` along b, -`flat` across it.
    turn = p.n * (1 - w * (p.n + 1)) - flat
    side = t.sqrt()
    v1, v2 = 1 - w * a, -w * side
    energy = v1**2 + v2**2
    norm = energy.sqrt()
    change1, change2 = turn * a, -flat * side
    # g = Z'(Z v + noise) is norm * chi2_k along v, noise aside, and normal across it.
    g_along = norm * train
    if plane.shake is not None:
        g_along = g_along + (p.training_noise * train).sqrt() * plane.shake
    spread = (energy + p.training_noise) * train
    g_beside = spread.sqrt() * plane.beside
    with_v = v1 * change1 + v2 * change2
    return Trials(
        start=energy + p.noise,
        reach=(p.n * (p.n + 1) + p.n * p.power) * a**2 + p.n * p.power * t,
        square=a**2 + t,
        along=(g_along * with_v + g_beside * (v1 * change2 - v2 * change1)) / norm,
        along_mean=p.k * with_v,
        size=g_along**2 + spread * plane.length,
        size_mean=p.k * (p.k + p.d + 1) * energy + p.training_noise * p.k * p.d,
        pull=norm * g_along,
        pull_mean=p.k * energy,
        labels=plane.labels,
    )


def _moments_of_rows(aim: Tensor, noise: float, chi: Tensor, shake: Tensor, side: Tensor) -> Tensor:
    """Return X'(X aim + noise) of white rows from its exact law, shape (trials, d)."""
    norm = _dot(aim, aim).sqrt()
    e = aim / norm.unsqueeze(-1)
    a = norm * chi + (noise * chi).sqrt() * shake
    across = side - _dot(side, e).unsqueeze(-1) * e
    return a.unsqueeze(-1) * e + ((norm**2 + noise) * chi).sqrt().unsqueeze(-1) * across


def _sum_of_rows(x: Tensor, y: Tensor) -> Tensor:
    """Return sum_i y_i x_i, shape (trials, d), of rows (trials, rows, d) and labels (trials, rows)."""
    return torch.bmm(y.unsqueeze(1), x).squeeze(1)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1)
