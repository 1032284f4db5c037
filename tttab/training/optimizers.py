"""Optimisers: how far the trained weights move. One class and one registry line each.

An optimiser is a generator of updates. It yields after each one, and receives the held-out score if it asked
for one.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
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

FIRST_CYCLE, SHARE = 12, 0.12
"""Steps of a race's first cycle, or such a share of all lanes' steps where that is less; each later one is
twice as long."""
HEATS = 2
"""Cycles that end with lanes left behind: the slower half while two remain, at the last all but one."""
MARGIN = 0.02
"""Share of its loss by which a lane must improve to go on: less is chance on a few hundred rows."""
FLOOR = 1e-3
"""And so many nats at least: a table that is solved is not solved further."""
LULL = 24
"""A lane ends so many steps after it last improved by the margin, or as many as it took to get there if those
are more."""
MEAN = 0.9
"""What a step keeps of the running mean of a lane's weights; the first steps count alike."""

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class NotFinite(Exception):
    """The loss or its gradient is infinite or no number."""


class Training(Protocol):
    """What an optimiser may ask of the loop."""

    parameters: list[torch.nn.Parameter]
    schedule: Schedule
    rates: Sequence[float]
    """Learning rates of the rule: one, or those that race."""

    def gradient(self, *, whole: bool, repeat: bool = False, labels: bool = False) -> float:
        """Put the gradient of the mean loss of a batch, or of all training queries, into the parameters.

        With `repeat` the batch is the last one; with `labels` they count even where there are soft targets.
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
    softened: bool = False
    """Whether its targets were softened ones, where the schedule has both."""


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

    def copies(self, lanes: int) -> int:
        """Return how many times the trained weights are held beside themselves, for so many lanes."""
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

    def copies(self, lanes: int) -> int:
        """Return 5, as for `AdamW`."""
        return 5

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

    def copies(self, lanes: int) -> int:
        """Return 5: gradients, two moments, the choice and what it replaces."""
        return 5

    def updates(self, training: Training, before: Score) -> Updates:
        """Yield one move per step; every `evaluate_every`-th and the last ask for a score."""
        import torch

        schedule, parameters = training.schedule, training.parameters
        moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
        for number in range(1, schedule.steps + 1):
            loss = training.gradient(whole=False)
            torch.nn.utils.clip_grad_norm_(parameters, schedule.clip)
            rate = training.rates[0] * _rise_and_fall(number - 1, schedule.warmup, schedule.steps)
            _update_all(parameters, moments, number, rate, schedule.weight_decay)
            evaluate = number == schedule.steps or number % schedule.evaluate_every == 0
            yield Update(number, number, schedule.steps, loss, rate, evaluate)


@dataclass
class _Lane:
    """A run at one rate: its weights, their running mean, its moments."""

    rate: float
    labels: bool
    """Whether it trains on labels where there are soft targets."""
    weights: list[torch.Tensor]
    mean: list[torch.Tensor]
    moments: list[tuple[torch.Tensor, torch.Tensor]]
    best: float = math.inf
    mark: float = math.inf
    """The last score that was better by the margin, ..."""
    marked: int = 0
    """... and its step."""

    def move(self, training: Training, number: int, share: float, *, repeat: bool) -> float:
        """Take a step at a share of the rate and leave the mean of the weights in the parameters.

        Returns the loss before it.
        """
        import torch

        schedule, parameters = training.schedule, training.parameters
        _put(parameters, self.weights)
        loss = training.gradient(whole=False, repeat=repeat, labels=self.labels)
        torch.nn.utils.clip_grad_norm_(parameters, schedule.clip)
        _update_all(parameters, self.moments, number, self.rate * share, schedule.weight_decay)
        for parameter, own, mean in zip(parameters, self.weights, self.mean, strict=True):
            own.copy_(parameter.data)
            mean.lerp_(own, max(1 - MEAN, 1 / number))
        _put(parameters, self.mean)
        return loss

    def judge(self, number: int, score: Score) -> None:
        """Note the score of the mean after so many steps."""
        self.best = min(self.best, score.loss)
        if score.loss < self.mark - max(MARGIN * abs(score.loss), FLOOR):
            self.mark, self.marked = score.loss, number


@dataclass(frozen=True)
class Race:
    """AdamW at several rates, from the same weights and on the same batches.

    A strong start is spoilt by the rate and the length that a weak one needs, so the held-out rows choose
    both. Rates fall as a cosine and start again, over cycles of twice the length (Loshchilov and Hutter 2017,
    SGDR). What is scored is the running mean of a lane's weights. After each of the first cycles the slower
    lanes are left behind (successive halving, Jamieson and Talwalkar 2016); a lane ends where it
    has not improved for long.
    """

    name: str = "race"
    in_turns: bool = True

    def copies(self, lanes: int) -> int:
        """Return 3, as for `AdamW` without its moments, and 4 for every lane."""
        return 3 + 4 * lanes

    def updates(self, training: Training, before: Score) -> Updates:
        """Yield one move per lane and step, the mean of its weights in the parameters."""
        schedule = training.schedule
        both = (True, False) if schedule.taught else (False,)
        ways = [(rate, labels) for rate in training.rates for labels in both]
        lanes = [_lane(*way, training.parameters) for way in ways[: schedule.steps]]
        length = max(1, min(FIRST_CYCLE, int(SHARE * schedule.steps)))
        done = number = began = cycles = 0
        while lanes and done + len(lanes) <= schedule.steps:
            share = _rise_and_fall(number - began, schedule.warmup, length)
            number += 1
            ends = number == began + length
            last = done + 2 * len(lanes) > schedule.steps
            evaluate = last or ends or number % schedule.evaluate_every == 0
            for place, lane in enumerate(list(lanes)):
                done += 1
                try:
                    loss = lane.move(training, number, share, repeat=place > 0)
                except NotFinite:
                    lanes.remove(lane)
                    if not lanes:
                        raise
                    continue
                softened = schedule.taught and not lane.labels
                move = Update(number, done, schedule.steps, loss, lane.rate, evaluate, softened)
                score = yield move
                if score is not None:
                    lane.judge(number, score)
            if ends:
                cycles += 1
                lanes, began, length = _faster(lanes, cycles), number, 2 * length
            if evaluate:
                lanes = [lane for lane in lanes if number - lane.marked < max(LULL, lane.marked)]


def _lane(rate: float, labels: bool, parameters: list[torch.nn.Parameter]) -> _Lane:
    import torch

    weights, mean = ([p.detach().clone() for p in parameters] for _ in range(2))
    return _Lane(
        rate, labels, weights, mean, [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    )


def _faster(lanes: list[_Lane], cycles: int) -> list[_Lane]:
    """Return the better half of the lanes, two at least, or the best after the last heat."""
    kept = 1 if cycles >= HEATS else max(2, -(-len(lanes) // 2))
    return sorted(lanes, key=lambda lane: lane.best)[:kept]


def _put(parameters: list[torch.nn.Parameter], values: list[torch.Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data.copy_(value)


def _update_all(
    parameters: list[torch.nn.Parameter],
    moments: list[tuple[torch.Tensor, torch.Tensor]],
    number: int,
    rate: float,
    weight_decay: float,
) -> None:
    for parameter, (mean, square) in zip(parameters, moments, strict=True):
        if parameter.grad is not None:
            _update(parameter, mean, square, number, rate, weight_decay)


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


OPTIMIZERS: dict[str, Optimiser] = {
    optimiser.name: optimiser for optimiser in (SingleStep(), AdamW(), Race())
}


def get_optimizer(name: str) -> Optimiser:
    """Return the optimiser called `name`.

    Raises:
        RequestError: there is no such optimiser.
    """
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    close = get_close_matches(name, OPTIMIZERS, n=1)
    raise RequestError(f"no optimiser is called {name!r}", f"--optimizer {close[0] if close else 'adamw'}")
