"""Trials of one step on softmax attention: one head, two opposite heads, two layers; every row is drawn.

Each trial has its own weights, stacked along the first axis; autograd computes the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from tttab.theory.linear_attention.draws import Draws
from tttab.theory.linear_attention.heads import Head
from tttab.theory.linear_attention.measure import Measured, Moments, average
from tttab.theory.linear_attention.settings import Sampling

Model = Literal["head", "pair", "layers"]
SIZES = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Steps that are tried, in units of the limit's; the best on separate trials is measured."""
COLD_READOUT = 3.0
QUERIES, FRESH = 32, 3
"""Test rows and fresh contexts of a trial."""
TUNING = 0.5
"""Trials on which the step is chosen, over those that measure."""


@dataclass(frozen=True)
class Case:
    """A model at its start, and its sizes."""

    model: Model
    head: Head
    d: int
    gamma: float
    warm: bool = True

    @property
    def n(self) -> int:
        """Context rows."""
        return max(2, round(self.head.alpha * self.d))

    @property
    def k(self) -> int:
        """Training rows."""
        return max(1, round(self.gamma * self.d))

    @property
    def readouts(self) -> tuple[float, ...]:
        """c of each head."""
        c = self.head.readout(self.d) if self.warm else COLD_READOUT
        return {"head": (c,), "pair": (c / 2, -c / 2), "layers": (c, c)}[self.model]

    def start(self, trials: int) -> Tensor:
        """Return W of each head, shape (trials, heads, d, d)."""
        signs = torch.tensor([1.0, -1.0 if self.model == "pair" else 1.0])[: len(self.readouts)]
        scale = self.head.tau / self.d**0.5 if self.warm else 0.0
        eye = scale * signs[:, None, None] * torch.eye(self.d)
        return eye.expand(trials, -1, -1, -1).clone()

    def step(self, *, same: bool) -> float:
        """Return the unit of the steps that are tried."""
        if not self.warm:
            c2 = sum(c**2 for c in self.readouts)
            return 1 / ((1 + self.gamma) * 2 * c2 * self.d)
        share = {"head": 1.0, "pair": 2.0, "layers": 0.5}[self.model]
        return share * self.head.step(self.gamma, self.d, same=same)


def predictions(case: Case, weights: Tensor, x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
    """Return f at queries (trials, q, d) of contexts (trials, n, d), (trials, n), shape (trials, q)."""
    if case.model != "layers":
        heads = [c * _attend(weights[:, h], x, y, queries) for h, c in enumerate(case.readouts)]
        return torch.stack(heads).sum(0)
    first, second = case.readouts
    left = y - first * _attend(weights[:, 0], x, y, x, others=True)
    return first * _attend(weights[:, 0], x, y, queries) + second * _attend(weights[:, 1], x, left, queries)


def _attend(weights: Tensor, x: Tensor, y: Tensor, queries: Tensor, *, others: bool = False) -> Tensor:
    """Return sum_i p_i y_i; with `others` the queries are the rows, and none reads itself."""
    scores = queries @ weights @ x.mT
    if others:
        scores = scores.masked_fill(torch.eye(x.shape[1], dtype=torch.bool), -torch.inf)
    return (scores.softmax(-1) @ y[..., None])[..., 0]


@dataclass(frozen=True)
class Seen:
    """What was measured of a case."""

    start: Measured
    fresh: Measured
    same: Measured


def measure_case(case: Case, sampling: Sampling) -> Seen:
    """Return the losses before and after one step; its size is the best of `SIZES` on trials of their own."""
    # Sizes are chosen on trials of their own, or the best of several would flatter the step.
    tried = _losses(case, sampling, "tune", TUNING, SIZES, SIZES).mean
    count = len(SIZES)
    fresh, same = (SIZES[int(part.argmin())] for part in (tried[1 : 1 + count], tried[1 + count :]))
    moments = _losses(case, sampling, "measure", 1.0, (fresh,), (same,))
    start, after, own = moments.measured
    return Seen(start, after, own)


def _losses(
    case: Case, sampling: Sampling, stage: str, share: float, fresh: Sequence[float], same: Sequence[float]
) -> Moments:
    """Return the moments of the untrained loss, of steps on fresh contexts and of steps on the same one."""
    sampling = replace(sampling, trials=max(8, int(share * sampling.trials)))
    heads = len(case.readouts)
    numbers = case.n * (4 * case.n + case.d) + (case.k + QUERIES * FRESH) * (case.d + 3 * heads * case.n)
    return average(
        sampling,
        4 * (2 * numbers + 6 * heads * case.d**2),
        ["softmax", stage, case.d, case.n, case.k, case.model],
        lambda draws, size: _trials(case, draws, size, fresh, same),
    )


def _trials(case: Case, draws: Draws, size: int, fresh: Sequence[float], same: Sequence[float]) -> Tensor:
    d = case.d
    x, z = draws.normal(size, case.n, d), draws.normal(size, case.k, d)
    others, test = draws.normal(FRESH, size, case.n, d), draws.normal(size, QUERIES, d)
    start = case.start(size)
    weights = start.requires_grad_(True)
    # With c held, -dLoss/dW is 2 c sum r x s', summed over the training rows as in the linear model.
    loss = (z[..., 0] - predictions(case, weights, x, x[..., 0], z)).square().sum()
    (gradient,) = torch.autograd.grad(loss, weights)

    def after(step: float, contexts: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            moved = start - step * gradient
            errors = [
                (test[..., 0] - predictions(case, moved, one, one[..., 0], test)).square().mean(-1)
                for one in contexts
            ]
        return torch.stack(errors).mean(0)

    contexts = list(others)
    rows = [after(0.0, contexts)]
    rows += [after(m * case.step(same=False), contexts) for m in fresh]
    rows += [after(m * case.step(same=True), [x]) for m in same]
    return torch.stack(rows)
