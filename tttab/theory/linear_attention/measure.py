"""Averages over trials: measured losses with standard errors, in blocks of bounded memory.

Each block has its own random stream. A point far from its law is drawn once more (`checked`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tttab.errors import RequestError
from tttab.seeding import stream_seed
from tttab.theory.linear_attention.draws import Draws
from tttab.theory.linear_attention.isotropic import Isotropic
from tttab.theory.linear_attention.problem import LinearProblem
from tttab.theory.linear_attention.samplers import RowSampler, Sampler, ScalarSampler, Trials, VectorSampler
from tttab.theory.linear_attention.settings import Convention, Sampling

Value = Callable[[list[Trials], Draws], Tensor]
"""From the trials of each start, and the stream for further numbers, to numbers per trial."""
SIGMAS = 4.0
"""Standard errors between measurement and exact law beyond which a row is marked."""
ROUNDING = 1e-9
"""Relative slack of that comparison, for points without any spread."""
SECOND_LOOK = 4
"""A point beyond `SIGMAS` is drawn anew with this many times the trials, and the new draw decides."""


@dataclass(frozen=True)
class Measured:
    """A mean over trials."""

    mean: float
    stderr: float
    gain: float = 0.0
    """The mean of the untrained minus the trained loss, on the same trials."""
    gain_stderr: float = 0.0
    step: float = 0.0
    """The mean step taken."""

    @property
    def finite(self) -> bool:
        """Whether both the mean and its standard error are numbers."""
        return math.isfinite(self.mean) and math.isfinite(self.stderr)

    def differs(self, exact: float) -> bool:
        """Return whether `exact` is more than `SIGMAS` standard errors away, or what was seen not finite."""
        slack = SIGMAS * self.stderr + ROUNDING * abs(exact)
        return not (self.finite and abs(self.mean - exact) <= slack)


def checked(
    look: Callable[[Sampling], list[Measured]],
    sampling: Sampling,
    exact: Sequence[float | None],
    *,
    may_overflow: bool = False,
) -> list[tuple[Measured, bool | None]]:
    """Return `look(sampling)` with a verdict each: does it agree with `exact`? None where there is none.

    Where any differs, all are drawn anew with `SECOND_LOOK` times the trials and an independent seed,
    and the new draw decides: among hundreds of points one chance deviation is no disagreement. What is
    not finite differs from every law; with `may_overflow` it has no verdict instead.
    """

    def verdict(seen: Measured, wanted: float | None) -> bool | None:
        if wanted is None or (may_overflow and not seen.finite):
            return None
        return not seen.differs(wanted)

    seen = look(sampling)
    if any(verdict(m, e) is False for m, e in zip(seen, exact, strict=True)):
        seen = look(second_sampling(sampling))
    return [(m, verdict(m, e)) for m, e in zip(seen, exact, strict=True)]


def second_sampling(sampling: Sampling) -> Sampling:
    """Return `sampling` with an independent seed and `SECOND_LOOK` times the trials."""
    return replace(
        sampling, trials=SECOND_LOOK * sampling.trials, seed=stream_seed(sampling.seed, "second look")
    )


class Moments:
    """A running mean and variance of several numbers, merged block by block (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.count, self.mean, self._square = 0, np.zeros(1), np.zeros(1)

    def add(self, values: Tensor) -> None:
        """Add values of shape (numbers, trials); one that is not finite makes its moments so, silently."""
        block = values.double()
        size, mean = block.shape[1], block.mean(1)
        square = ((block - mean[:, None]) ** 2).sum(1).cpu().numpy()
        total = self.count + size
        with np.errstate(over="ignore", invalid="ignore"):
            delta = mean.cpu().numpy() - self.mean
            self._square = self._square + square + delta**2 * self.count * size / total
            self.mean = self.mean + delta * size / total
        self.count = total

    @property
    def stderr(self) -> np.ndarray:
        """The standard errors of the means."""
        return np.sqrt(self._square / max(self.count - 1, 1) / self.count)

    @property
    def measured(self) -> list[Measured]:
        """The means, each with its standard error."""
        return [Measured(float(m), float(s)) for m, s in zip(self.mean, self.stderr, strict=True)]


def sampler_of(starts: Sequence[Isotropic], name: str) -> Sampler:
    """Return the sampler called `name` for problems that differ in the weights alone.

    Raises:
        RequestError: no such sampler.
    """
    if name == "scalars":
        return ScalarSampler(starts)
    return matrix_sampler([start.problem() for start in starts], name)


def matrix_sampler(starts: Sequence[LinearProblem], name: str) -> Sampler:
    """Return the sampler called `name` for problems with any W and Sx that differ in the weights alone.

    Raises:
        RequestError: no such sampler, or one that needs W = w I.
    """
    if name == "vectors":
        return VectorSampler(starts)
    if name == "rows":
        return RowSampler(starts)
    raise RequestError(f"no sampler {name} here; there are vectors and rows", "--sampler vectors")


def reduce_trials(sampler: Sampler, sampling: Sampling, names: Sequence[str | int], value: Value) -> Moments:
    """Return the moments of `value`, which maps the starts' trials to shape (numbers, trials)."""
    return average(
        sampling,
        sampler.bytes_per_trial,
        ["linear", *names],
        lambda draws, size: value(sampler.draw(draws, size), draws),
    )


def average(
    sampling: Sampling, trial_bytes: int, names: Sequence[str | int], value: Callable[[Draws, int], Tensor]
) -> Moments:
    """Return the moments of `value`, of shape (numbers, trials) for a stream and a number of trials."""
    moments = Moments()
    block = sampling.backend.block(trial_bytes, sampling.trials)
    for number, first in enumerate(range(0, sampling.trials, block)):
        draws = Draws(sampling.backend, sampling.seed, *names, number)
        moments.add(value(draws, min(block, sampling.trials - first)))
    return moments


def measure(
    sampler: Sampler,
    sampling: Sampling,
    names: Sequence[str | int],
    convention: Convention,
    etas: Sequence[float],
) -> list[Measured]:
    """Return each start's measured loss; `etas` are the fixed steps of F, one per start."""

    def value(starts: list[Trials], _: Draws) -> Tensor:
        steps = [_steps(trials, convention, eta) for trials, eta in zip(starts, etas, strict=True)]
        losses = [t.losses(convention, step) for t, step in zip(starts, steps, strict=True)]
        gains = [t.start - loss for t, loss in zip(starts, losses, strict=True)]
        return torch.stack([*losses, *gains, *steps])

    moments = reduce_trials(sampler, sampling, names, value)
    mean, stderr = moments.mean.reshape(3, -1), moments.stderr.reshape(3, -1)
    return [
        Measured(
            float(mean[0, i]), float(stderr[0, i]), float(mean[1, i]), float(stderr[1, i]), float(mean[2, i])
        )
        for i in range(len(etas))
    ]


def _steps(trials: Trials, convention: Convention, eta: float) -> Tensor:
    if convention == "F":
        return torch.full_like(trials.start, eta)
    return trials.steps(convention)
