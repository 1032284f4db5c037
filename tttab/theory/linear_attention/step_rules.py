"""What other rules for the step size lose against the exact parabola: the limit's, estimates, line search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tttab.errors import RequestError
from tttab.theory.experiment import Row
from tttab.theory.linear_attention import limit
from tttab.theory.linear_attention.curves import best_step
from tttab.theory.linear_attention.draws import Draws
from tttab.theory.linear_attention.isotropic import (
    Isotropic,
    fixed_step,
    gain,
    initial_loss,
    same_context_loss,
)
from tttab.theory.linear_attention.measure import Measured, checked, reduce_trials, sampler_of
from tttab.theory.linear_attention.samplers import Trials
from tttab.theory.linear_attention.settings import Convention, Sampling, Simulation

HELD_OUT = 0.2
"""The share of the training rows that `tttab run` holds out."""
TRIAL_SIZES = tuple(2.0 ** (j / 2) for j in range(-23, 12))
"""The line search of `tttab run` (sgd-1) on a parabola: the best of these multiples of loss / |gradient|^2,
or no step. It tries sizes from 4^-5 to 4^2 in ratios of 4 and refines by 2, then by sqrt(2); on a parabola
that finds the best of all the sizes it can reach, 2^-11.5 to 2^5.5 in ratios of sqrt(2)."""


def step_rows(settings: Simulation, n: int, k: int, multiples: Sequence[float]) -> Iterator[Row]:
    """Yield the parabola (`kind: curve`), the same step on the same context, and the ways to choose it.

    The unit of `multiples` is the step of the convention; L = L0 - gain (2m - m^2) at m times it, under
    every convention. `kind: same-context` is the loss at the same multiples of F's step on the context
    that was trained on. `kind: choice` rows say what each rule to choose the step loses against the
    convention's own; `lost_share` is that loss over the convention's gain.

    Raises:
        RequestError: k < 2, which leaves nothing to hold out.
    """
    if k < 2:
        raise RequestError("a line search needs at least 2 training rows", "--k 100")
    p = Isotropic.pretrained(settings.d, n, k, settings.noise)
    yield from _curve(settings, p, multiples)
    yield from _same_context(settings, p, multiples)
    yield from _choices(settings, p)


def _curve(settings: Simulation, p: Isotropic, multiples: Sequence[float]) -> Iterator[Row]:
    convention, best = settings.convention, gain(p, settings.convention)
    exact = [initial_loss(p) - best * (2 * m - m**2) for m in multiples]
    unit = best_step(p)

    def value(starts: list[Trials], _: Draws) -> Tensor:
        step = unit if convention == "F" else starts[0].steps(convention)
        return torch.stack([starts[0].losses(convention, m * step) for m in multiples])

    for m, loss, (seen, agrees) in zip(
        multiples, exact, _look(settings, p, "curve", value, exact), strict=True
    ):
        yield _row(settings, p, "curve", convention) | {
            "multiple": m,
            "eta": m * unit if convention == "F" else None,
            "loss_exact": loss,
            "loss_measured": seen.mean,
            "stderr": seen.stderr,
            "agrees": agrees,
        }


def _same_context(settings: Simulation, p: Isotropic, multiples: Sequence[float]) -> Iterator[Row]:
    unit = best_step(p)
    exact = [same_context_loss(p, m * unit) for m in multiples]

    def value(starts: list[Trials], _: Draws) -> Tensor:
        return torch.stack([starts[0].losses("S", m * unit) for m in multiples])

    for m, loss, (seen, agrees) in zip(
        multiples, exact, _look(settings, p, "same", value, exact), strict=True
    ):
        yield _row(settings, p, "same-context", "S") | {
            "multiple": m,
            "eta": m * unit,
            "loss_exact": loss,
            "loss_measured": seen.mean,
            "stderr": seen.stderr,
            "agrees": agrees,
        }


def _choices(settings: Simulation, p: Isotropic) -> Iterator[Row]:
    convention = settings.convention
    best = initial_loss(p) - gain(p, convention)
    limit_step = limit.isotropic_step(p.d, p.n, p.k, p.weight)
    train = replace(p, k=p.k - _held_out(p))
    rules: list[tuple[str, Isotropic, Callable[[Trials, Draws], Tensor], float | None]] = [
        (
            "exact",
            p,
            lambda t, _: torch.full_like(t.start, best_step(p)),
            _fixed_loss(p, best_step(p), convention),
        ),
        (
            "limit",
            p,
            lambda t, _: torch.full_like(t.start, limit_step),
            _fixed_loss(p, limit_step, convention),
        ),
        ("estimated |b|^2", p, lambda t, _: _estimated_step(p, t), None),
        ("line search", train, lambda t, draws: _line_search(train, t, draws, _held_out(p)), None),
    ]
    for name, start, rule, exact in rules:

        def value(
            starts: list[Trials], draws: Draws, rule: Callable[[Trials, Draws], Tensor] = rule
        ) -> Tensor:
            eta = rule(starts[0], draws)
            return torch.stack([starts[0].losses(convention, eta), starts[0].losses("S", eta), eta])

        (seen, agrees), (same, _), (eta, _) = _look(settings, start, name, value, [exact, None, None])
        yield _row(settings, p, "choice", convention) | {
            "rule": name,
            "eta": eta.mean,
            "loss_exact": exact,
            "loss_measured": seen.mean,
            "stderr": seen.stderr,
            "lost": seen.mean - best,
            "lost_share": (seen.mean - best) / gain(p, convention) if gain(p, convention) else None,
            "loss_same_context": same.mean,
            "agrees": agrees,
        }


def _look(
    settings: Simulation,
    p: Isotropic,
    name: str,
    value: Callable[[list[Trials], Draws], Tensor],
    exact: Sequence[float | None],
) -> list[tuple[Measured, bool | None]]:
    def look(sampling: Sampling) -> list[Measured]:
        sampler = sampler_of([p], sampling.sampler)
        return reduce_trials(sampler, sampling, ["step-size", name, p.d, int(p.n), int(p.k)], value).measured

    return checked(look, settings.sampling, exact)


def _row(settings: Simulation, p: Isotropic, kind: str, convention: Convention) -> Row:
    return {
        "experiment": "step-size",
        "kind": kind,
        "convention": convention,
        "d": p.d,
        "n": int(p.n),
        "k": int(p.k),
        "alpha": p.n / p.d,
        "gamma": p.k / p.d,
        "noise": settings.noise,
    }


def _fixed_loss(p: Isotropic, eta: float, convention: Convention) -> float:
    """Return the exact loss after the fixed step `eta`: on a fresh context, under S on the same one."""
    return same_context_loss(p, eta) if convention == "S" else fixed_step(p).at(eta)


def _estimated_step(p: Isotropic, trials: Trials) -> Tensor:
    """Return the best step for |b|^2 as the context shows it, |y|^2 / n - s2 (s2 known, weights fixed).

    For |b|^2 = q the best step is that for |b| = 1 and noise s2/q, over q; it is read off a table in q.
    """
    q = np.geomspace(1e-2, 1e2, 400)
    step = [best_step(replace(p, noise=p.noise / x, train_noise=p.training_noise / x)) / x for x in q]
    seen = (trials.labels / p.n - p.noise).clamp(1e-2, 1e2).log().cpu().numpy()
    return torch.exp(torch.from_numpy(np.interp(seen, np.log(q), np.log(step)))).to(trials.start)


def _held_out(p: Isotropic) -> int:
    return max(1, min(int(p.k) - 1, round(HELD_OUT * p.k)))


def _line_search(p: Isotropic, trials: Trials, draws: Draws, rows: int) -> Tensor:
    """Return the step with the least loss on `rows` held-out rows, served from the same context.

    Given v and g the held-out rows matter through their inner products with v and g and their noise:
    three normal numbers each, so a 3 x 3 Wishart matrix (Bartlett's decomposition) stands for them all.
    """
    factor = _Factor.of(p, trials, draws, rows)
    before = factor.loss(torch.zeros_like(trials.start))
    unit = before * p.k / (4 * trials.size * trials.square)
    best, step = before, torch.zeros_like(before)
    for size in TRIAL_SIZES:
        loss = factor.loss(2 * size * unit * trials.square)
        better = loss < best
        best, step = torch.where(better, loss, best), torch.where(better, size * unit, step)
    return step


class _Factor:
    """A triangular factor of the held-out rows' Gram matrix, each entry of shape (trials,)."""

    def __init__(self, corner: list[Tensor], bartlett: list[Tensor], rows: int) -> None:
        self._corner, self._bartlett, self._rows = corner, bartlett, rows

    @classmethod
    def of(cls, p: Isotropic, trials: Trials, draws: Draws, rows: int) -> _Factor:
        count = len(trials.start)
        norm = (trials.start - p.noise).sqrt()
        along = trials.pull / norm
        across = (trials.size - along**2).clamp(min=0).sqrt()
        noise = torch.full_like(norm, p.training_noise**0.5)
        diagonal = [draws.chi2(rows - i, count).sqrt() for i in range(3)]
        below = [draws.normal(count), draws.normal(count), draws.normal(count) * float(rows > 1)]
        return cls([norm, along, across, noise], [*diagonal, *below], rows)

    def loss(self, kappa: Tensor) -> Tensor:
        """Return the mean squared residual of v - kappa g over the held-out rows, shape (trials,)."""
        norm, along, across, noise = self._corner
        x1, x2, x3 = norm - kappa * along, -kappa * across, noise
        a11, a22, a33, a21, a31, a32 = self._bartlett
        first, second = a11 * x1 + a21 * x2 + a31 * x3, a22 * x2 + a32 * x3
        return (first**2 + second**2 + (a33 * x3) ** 2) / self._rows
