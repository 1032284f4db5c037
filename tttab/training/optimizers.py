"""Optimisers: how far the trained weights move. One class and one registry line each.

An optimiser is a generator of updates. It yields after each one and is sent the held-out score where it
asked for one. What does not belong here: which weights move (rules), which candidate is kept (guards).
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol

from tttab.errors import RequestError
from tttab.training.config import Schedule
from tttab.training.selection import Score

if TYPE_CHECKING:
    import torch

COARSE = tuple(4.0**power for power in range(-5, 3))
"""First trial sizes of the line search, as the decrease of the loss, relative to the loss, that the gradient
promises. On a quadratic the best step keeps half of what the gradient promises."""
REFINEMENTS = (2.0, math.sqrt(2.0))
"""Ratios of the further trials on both sides of the best size so far."""
PATIENCE = 2
"""The coarse search ends after this many sizes in a row that are worse than the best."""

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class NotFinite(Exception):
    """The loss or its gradient is infinite or no number."""


class Training(Protocol):
    """What an optimiser may ask of the loop."""

    parameters: list[torch.nn.Parameter]
    schedule: Schedule
    rate: float
    """Learning rate of the rule."""

    def gradient(self, *, whole: bool) -> float:
        """Put the gradient of the mean loss of a batch, or of all training queries, into the parameters.

        Returns the mean loss, nats. Raises NotFinite.
        """
        ...


@dataclass(frozen=True)
class Update:
    """The weights have moved."""

    number: int
    """The step: 1 for every trial of a line search."""
    done: int
    total: int
    loss: float
    """Mean training loss before the move, nats."""
    size: float
    """Learning rate, or step size."""
    evaluate: bool
    """Whether a held-out score is asked for."""


Updates = Generator[Update, "Score | None", None]


class Optimiser(Protocol):
    """How far the weights move."""

    @property
    def name(self) -> str:
        """What it is called in a schedule."""
        ...

    @property
    def in_turns(self) -> bool:
        """Whether ensemble members may take turns: no where one gradient is all there is."""
        ...

    def updates(self, training: Training, before: Score) -> Updates:
        """Update the weights; yield after each move."""
        ...


@dataclass(frozen=True)
class SingleStep:
    """The papers' single step of gradient descent on the mean loss of all training queries.

    arXiv 2503.11842, equation 5, and 2509.25741, stage I: W' = W - eta grad L. The gradient is computed
    once; eta comes from a line search on the held-out rows, geometric with refinement, eta = 0 a
    candidate. Trial sizes cost a forward pass over the held-out rows each.
    """

    name: str = "sgd-1"
    in_turns: bool = False

    def updates(self, training: Training, before: Score) -> Updates:
        """Yield one move per trial size, and a last one to the best size tried."""
        loss = training.gradient(whole=True)
        ray = _Ray(training.parameters)
        if ray.square == 0.0:
            return
        unit = abs(before.loss) / ray.square
        tried: dict[float, float] = {}
        total = len(COARSE) + 2 * len(REFINEMENTS) + 1
        for size in self._sizes(tried):
            ray.move(size * unit)
            score = yield Update(1, len(tried), total, loss, size * unit, True)
            assert score is not None, "every size asks for a score"
            tried[size] = score.loss if math.isfinite(score.loss) else math.inf
        best = min(tried, key=tried.__getitem__)
        ray.move(best * unit)
        yield Update(1, total, total, loss, best * unit, True)

    def _sizes(self, tried: dict[float, float]) -> Generator[float, None, None]:
        worse = 0
        for size in COARSE:
            yield size
            worse = 0 if tried[size] == min(tried.values()) else worse + 1
            if worse == PATIENCE:
                break
        for ratio in REFINEMENTS:
            best = min(tried, key=tried.__getitem__)
            yield best / ratio
            yield best * ratio


class _Ray:
    """The half line of weights from the starting point down the gradient."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        import torch

        self._parts = [
            (p, p.detach().clone(), p.grad.detach().clone()) for p in parameters if p.grad is not None
        ]
        self.square = float(
            sum((gradient.to("cpu", torch.float64) ** 2).sum() for _, _, gradient in self._parts)
        )

    def move(self, eta: float) -> None:
        """Set the weights to start - eta · gradient."""
        for parameter, start, gradient in self._parts:
            parameter.data.copy_(start - eta * gradient)


@dataclass(frozen=True)
class AdamW:
    """Several steps of AdamW (Loshchilov and Hutter 2019) on batches of training queries.

    The rate rises linearly and then falls as a cosine to zero; gradients are clipped by norm.
    """

    name: str = "adamw"
    in_turns: bool = True

    def updates(self, training: Training, before: Score) -> Updates:
        """Yield one move per step; every `evaluate_every`-th and the last ask for a score."""
        import torch

        schedule, parameters = training.schedule, training.parameters
        moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
        for number in range(1, schedule.steps + 1):
            loss = training.gradient(whole=False)
            torch.nn.utils.clip_grad_norm_(parameters, schedule.clip)
            rate = training.rate * _rise_and_fall(number - 1, schedule.warmup, schedule.steps)
            for parameter, (mean, square) in zip(parameters, moments, strict=True):
                if parameter.grad is not None:
                    _update(parameter, mean, square, number, rate, schedule.weight_decay)
            evaluate = number == schedule.steps or number % schedule.evaluate_every == 0
            yield Update(number, number, schedule.steps, loss, rate, evaluate)


def _update(
    parameter: torch.nn.Parameter,
    mean: torch.Tensor,
    square: torch.Tensor,
    number: int,
    rate: float,
    weight_decay: float,
) -> None:
    """Update one parameter as AdamW does, in place (its second algorithm; moments start at zero).

    Written out because torch's optimisers load its compiler first, which takes seconds.
    """
    gradient, data = parameter.grad, parameter.data
    assert gradient is not None, "the caller has looked"
    mean.lerp_(gradient, 1 - BETAS[0])
    square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
    scale = (square / (1 - BETAS[1] ** number)).sqrt_().add_(EPSILON)
    data.mul_(1 - rate * weight_decay).addcdiv_(mean, scale, value=-rate / (1 - BETAS[0] ** number))


def _rise_and_fall(done: int, warmup: int, total: int) -> float:
    rise = min(1.0, (done + 1) / max(1, warmup))
    return rise * 0.5 * (1 + math.cos(math.pi * done / total))


OPTIMIZERS: dict[str, Optimiser] = {optimiser.name: optimiser for optimiser in (SingleStep(), AdamW())}


def get_optimizer(name: str) -> Optimiser:
    """Return the optimiser called `name`.

    Raises:
        RequestError: there is no such optimiser.
    """
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    close = get_close_matches(name, OPTIMIZERS, n=1)
    raise RequestError(f"no optimiser is called {name!r}", f"--optimizer {close[0] if close else 'adamw'}")
