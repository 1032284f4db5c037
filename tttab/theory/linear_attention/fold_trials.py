"""Trials of one step over the K folds of N rows, with every row drawn: the check of `folds`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tttab.theory.linear_attention.draws import Draws
from tttab.theory.linear_attention.folds import Folds, Serve, one_step
from tttab.theory.linear_attention.measure import Measured, average
from tttab.theory.linear_attention.settings import Sampling

Case = tuple[Folds, Serve]


def measure_folds(cases: Sequence[Case], sampling: Sampling) -> list[Measured]:
    """Return each case's mean loss after the exact law's best step; all cases see the same rows."""
    p = cases[0][0]
    shape = (p.count, int(p.fold), p.d)
    laws = [one_step(*case) for case in cases]

    def trials(draws: Draws, size: int) -> Tensor:
        x = draws.normal(size, *shape)
        y = x[..., 0] + p.noise**0.5 * draws.normal(*x.shape[:3])
        parts = [_parabola(case, x, y) for case in cases]
        losses = [
            start - slope * law.best_step + curvature * law.best_step**2
            for (start, slope, curvature), law in zip(parts, laws, strict=True)
        ]
        return torch.stack(losses)

    trial_bytes = 8 * 6 * p.count * (int(p.fold) + 2) * p.d
    return average(sampling, trial_bytes, ["kfold", p.d, *shape[:2], str(p.noise)], trials).measured


def _parabola(case: Case, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return start, slope and curvature of trials with rows (trials, K, fold, d), each of shape (trials,)."""
    p, serve = case
    contexts, gradients = _folds(p, x, y)
    if serve == "fresh":
        return _on_fresh(p, contexts, gradients)
    u = contexts[:, 0] if p.scheme == "inverse" else contexts.sum(1) / (p.count - 1)
    aim = -p.weight * u
    aim[:, 0] += 1
    moved = torch.einsum("tkd,tke,te->td", gradients, contexts, u)
    return (aim * aim).sum(1) + p.noise, 4 * (aim * moved).sum(1), 4 * (moved * moved).sum(1)


def _folds(p: Folds, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return u_j and g_j of every fold's step, each of shape (trials, K, d)."""
    own = torch.einsum("tkqd,tkq->tkd", x, y)
    others = own.sum(1, keepdim=True) - own
    contexts, answers = (own, others) if p.scheme == "inverse" else (others, own)
    moved = torch.einsum("tkqd,tkqe,tke->tkd", x, x, contexts)
    if p.scheme == "inverse":
        rows = x.flatten(1, 2)
        moved = torch.einsum("tnd,tne,tke->tkd", rows, rows, contexts) - moved
    return contexts, answers - p.weight * moved


def _on_fresh(p: Folds, contexts: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parabola on a fresh context of as many rows as a fold's step has, from M and D."""
    n, power, w = p.context, 1 + p.noise, p.weight
    along = contexts[..., 0]
    change = -w * n * power * contexts
    change[..., 0] += n * (1 - w * (n + 1)) * along
    inner = torch.einsum("tkd,tld->tkl", gradients, gradients)
    outer = n * (n + 1) * along[:, :, None] * along[:, None] + n * power * torch.einsum(
        "tkd,tld->tkl", contexts, contexts
    )
    slope = 4 * (gradients * change).sum((1, 2))
    start = torch.full_like(slope, one_step(p, "fresh").start)
    return start, slope, 4 * (inner * outer).sum((1, 2))
