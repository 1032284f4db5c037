"""Where two starts give the same loss: exactly, from the law, and measured, from simulation alone.

The measured threshold never reads the law, so the two can disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, log, sqrt

import numpy as np
import torch
from torch import Tensor

from tttab.theory.linear_attention.draws import Draws
from tttab.theory.linear_attention.measure import reduce_trials
from tttab.theory.linear_attention.samplers import Sampler, Trials
from tttab.theory.linear_attention.settings import Convention, Sampling

RATIO = 1.5
"""The scan for a sign change goes up in this ratio."""


def exact_crossing(difference: Callable[[float], float], low: float, high: float) -> float | None:
    """Return the first x in [low, high] where `difference` falls through zero; None: it does not.

    The scan goes up in ratios of `RATIO`, then false position narrows it to one number.
    """
    while low < high:
        up = min(low * RATIO, high)
        if difference(low) > 0 >= difference(up):
            return _false_position(difference, log(low), log(up))
        low = up
    return None


def _false_position(difference: Callable[[float], float], low: float, high: float) -> float:
    """Return exp of the zero between `low` and `high` (Illinois algorithm, Dowell and Jarratt 1971)."""
    f_low, f_high = difference(exp(low)), difference(exp(high))
    middle, side = high, 0
    for _ in range(100):
        middle, before = (f_low * high - f_high * low) / (f_low - f_high), middle
        value = difference(exp(middle))
        if value == 0 or abs(middle - before) < 1e-12:
            break
        if value > 0:
            low, f_low, f_high, side = middle, value, f_high / 2 if side == 1 else f_high, 1
        else:
            high, f_high, f_low, side = middle, value, f_low / 2 if side == -1 else f_low, -1
    return exp(middle)


@dataclass(frozen=True)
class Crossing:
    """Where two measured curves cross, with a 95 % interval."""

    at: float
    low: float
    high: float

    def agrees(self, exact: float, sigmas: float, slack: float) -> bool:
        """Return whether `exact` is within `sigmas` standard errors and the relative `slack`."""
        stderr = (self.high - self.low) / (2 * 1.96)
        return abs(self.at - exact) <= sigmas * stderr + slack * exact


BATCHES = 20
SCAN_BATCHES = 8
WINDOW = 0.2
"""The crossing is read off a fit over k within this share of the first guess."""
CERTAIN = 4.0
"""The scan believes that the second start is better at this many standard errors."""


def measured_crossing(
    starts: Callable[[int], Sampler],
    sampling: Sampling,
    names: Sequence[str | int],
    convention: Convention,
    limit: int,
) -> Crossing | None:
    """Return the k up to `limit` from which the second start beats the first, from simulation alone.

    Under F each start's step is the best of the measured parabola. A scan over k in ratios of `RATIO` looks
    for the first k where the second start is better beyond doubt, then a parabola in log k is fitted to the
    difference over a window around the change of sign; the interval is a jackknife over batches of trials.
    None: the scan saw no such k.
    """
    bracket = _scan(starts, sampling, names, convention, limit)
    if bracket is None:
        return None
    low, guess, high = bracket
    ks = np.unique(np.round(guess * np.linspace(1 - WINDOW, 1 + WINDOW, 9)).astype(int))
    ks = ks[ks >= 1]
    if len(ks) < 3:  # around a small k there are too few whole numbers for a parabola
        return Crossing(guess, low, high)
    parts = np.stack(
        [_batches(starts(int(k)), sampling, [*names, "fine", int(k)], convention, BATCHES) for k in ks]
    )
    full = _root(ks, _difference(parts.mean(1)), guess)
    replicas = [_root(ks, _difference(left), guess) for left in np.moveaxis(_leave_one_out(parts, 1), 1, 0)]
    if full is None or None in replicas:
        return Crossing(guess, low, high)
    spread = _jackknife(np.array(replicas, dtype=float))
    return Crossing(full, full - 1.96 * spread, full + 1.96 * spread)


def _scan(
    starts: Callable[[int], Sampler],
    sampling: Sampling,
    names: Sequence[str | int],
    convention: Convention,
    limit: int,
) -> tuple[float, float, float] | None:
    """Return the last k where the first start was better, a guess of the crossing, and the k beyond doubt."""
    rough = replace(sampling, trials=max(sampling.trials // 4, 1))
    k, before = 1, None
    while k <= limit:
        parts = _batches(starts(k), rough, [*names, "coarse", k], convention, SCAN_BATCHES)
        now = float(_difference(parts.mean(0)))
        if now > 0:
            before = (k, now)
        elif before is not None and now < -CERTAIN * _jackknife(_difference(_leave_one_out(parts, 0))):
            share = before[1] / (before[1] - now)
            return before[0], float(before[0] * (k / before[0]) ** share), k
        k = max(k + 1, round(k * RATIO))
    return None


def _leave_one_out(parts: np.ndarray, axis: int) -> np.ndarray:
    """Return the means over `axis` with each batch left out in turn, in the shape of `parts`."""
    return (parts.sum(axis, keepdims=True) - parts) / (parts.shape[axis] - 1)


def _jackknife(replicas: np.ndarray) -> float:
    count = len(replicas)
    return sqrt((count - 1) / count * float(((replicas - replicas.mean()) ** 2).sum()))


def _batches(
    sampler: Sampler, sampling: Sampling, names: Sequence[str | int], convention: Convention, count: int
) -> np.ndarray:
    """Return `_means` of `count` independent batches, shape (count, 2, 3)."""
    small = replace(sampling, trials=max(sampling.trials // count, 1))
    return np.stack([_means(sampler, small, [*names, "batch", i], convention) for i in range(count)])


def _means(
    sampler: Sampler, sampling: Sampling, names: Sequence[str | int], convention: Convention
) -> np.ndarray:
    """Return the means of (start, slope, curvature) of both starts, shape (2, 3).

    Conventions whose step is chosen trial by trial put their loss in `start` and no slope.
    """

    def value(starts: list[Trials], _: Draws) -> Tensor:
        return torch.cat([_parts(trials, convention) for trials in starts])

    return reduce_trials(sampler, sampling, names, value).mean.reshape(2, 3)


def _parts(trials: Trials, convention: Convention) -> Tensor:
    if convention == "F":
        slope, curvature = trials.parabola("F")
        return torch.stack([trials.start, slope, curvature])
    loss = trials.losses(convention, trials.steps(convention))
    # `_difference` subtracts slope^2 / (4 curvature): nothing, and no division by zero.
    return torch.stack([loss, torch.zeros_like(loss), torch.ones_like(loss)])


def _difference(parts: np.ndarray) -> np.ndarray:
    """Return the second start's best loss minus the first's, from parts of shape (..., 2, 3)."""
    best = parts[..., 0] - parts[..., 1] ** 2 / (4 * parts[..., 2])
    return best[..., 1] - best[..., 0]


def _root(ks: np.ndarray, differences: np.ndarray, guess: float) -> float | None:
    """Return the zero of a parabola in log k fitted to `differences`; None: none within twice the window."""
    x = np.log(ks / guess)
    zeros = np.roots(np.polyfit(x, differences, 2))
    real = zeros[(np.abs(zeros.imag) < 1e-9) & (np.abs(zeros.real) < 2 * WINDOW)].real
    return guess * float(np.exp(real[np.abs(real).argmin()])) if len(real) else None
