"""The isotropic experiments as streams of rows: phase, samples, context, noise.

Every row holds the limit, the exact law and the measurement side by side, losses over |b|^2. What does
not belong here: general covariances (`alignment`), several steps (`steps`), the size of
the step (`step_size`), tables and figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tttab.theory.linear_attention import limit
from tttab.theory.linear_attention.crossing import Crossing, exact_crossing, measured_crossing
from tttab.theory.linear_attention.isotropic import Isotropic, best_loss, fixed_step, gain, initial_loss
from tttab.theory.linear_attention.measure import (
    SIGMAS,
    Measured,
    Plan,
    checked,
    measure,
    sampler_of,
    second_plan,
)
from tttab.theory.linear_attention.problem import Convention

Row = dict[str, Any]
FURTHEST = 64
"""A crossing is sought up to k = FURTHEST (n + d)."""
SLACK = 0.002
"""Relative slack of the measured crossing: a parabola stands for the curve between whole k."""


@dataclass(frozen=True)
class Setting:
    """What all experiments share."""

    d: int = 100
    convention: Convention = "F"
    noise: float = 0.0
    """s2 over |b|^2."""
    plan: Plan = field(default_factory=Plan)


def phase(setting: Setting, alphas: Sequence[float], gammas: Sequence[float]) -> Iterator[Row]:
    """Yield pre-trained against zero over gamma = k/d, and per alpha = n/d a last row with the threshold."""
    for alpha in alphas:
        n = max(1, round(alpha * setting.d))
        for gamma in gammas:
            k = max(1, round(gamma * setting.d))
            yield from points(setting, "phase", Isotropic.pretrained(setting.d, n, k, setting.noise))
        yield threshold(setting, n)


def samples(setting: Setting, ns: Sequence[int], ks: Sequence[int]) -> Iterator[Row]:
    """Yield loss and improvement against k at several n, with the context length of equal loss.

    `n_equivalent` is the (real) n' at which the pre-trained weights without any step have the loss that
    the step reaches; None where no context length does.
    """
    for n in ns:
        for k in ks:
            start = Isotropic.pretrained(setting.d, n, k, setting.noise)
            for row in points(setting, "samples", start, cold=False):
                yield row | {"n_equivalent": equivalent_context(setting, row["loss_exact"])}


def context(setting: Setting, ns: Sequence[int], k: int) -> Iterator[Row]:
    """Yield the improvement against n at fixed k, and a last row with its peak.

    The peak's `n_exact` is the best whole n of the exact law; `n_rule` is 0.87 d^(2/3).
    """
    rows = []
    for n in ns:
        rows += points(setting, "context", Isotropic.pretrained(setting.d, n, k, setting.noise), cold=False)
        yield rows[-1]
    highest = max(rows, key=lambda row: row["gain_measured"])
    yield {
        "experiment": "context",
        "kind": "peak",
        "convention": setting.convention,
        "d": setting.d,
        "k": k,
        "noise": setting.noise,
        "n_exact": peak(setting, k),
        "n_measured": highest["n"],
        "n_rule": 0.87 * setting.d ** (2 / 3),
    }


def noise(setting: Setting, n: int, k: int, levels: Sequence[float]) -> Iterator[Row]:
    """Yield both starts under label noise in the context rows, in the training rows, in both."""
    for where in ("both", "context", "training"):
        for level in levels:
            inside = 0.0 if where == "training" else level
            trained = 0.0 if where == "context" else level
            start = Isotropic.pretrained(setting.d, n, k, inside, trained)
            for row in points(setting, "noise", start):
                yield row | {"where": where, "noise": level}


def points(setting: Setting, experiment: str, start: Isotropic, *, cold: bool = True) -> list[Row]:
    """Return the row of `start` and, with `cold`, that of the same problem from W = 0."""
    inits = {"pretrained": start, "zero": start.from_zero()} if cold else {"pretrained": start}
    starts, convention = list(inits.values()), setting.convention
    sampler = sampler_of(starts, setting.plan.sampler)
    exact = [best_loss(p, convention) for p in starts]
    etas = [best_step(p) for p in starts]
    names = [experiment, start.d, int(start.n), int(start.k), str(start.noise), str(start.training_noise)]

    def look(plan: Plan) -> list[Measured]:
        return measure(sampler, plan, names, convention, etas)

    return [
        _row(setting, experiment, init, p, seen, agrees)
        for (init, p), (seen, agrees) in zip(inits.items(), checked(look, setting.plan, exact), strict=True)
    ]


def best_step(p: Isotropic) -> float:
    """Return the exact best fixed step; 0 where the loss has no slope."""
    parabola = fixed_step(p)
    return parabola.best_step if parabola.curvature > 0 else 0.0


def _row(
    setting: Setting, experiment: str, init: str, p: Isotropic, seen: Measured, agrees: bool | None
) -> Row:
    alpha, gamma = p.n / p.d, p.k / p.d
    warm, noises = init == "pretrained", (p.noise, p.training_noise)
    untrained = limit.isotropic_loss(alpha, 0.0, setting.convention, pretrained=warm, noise=noises)
    after = limit.isotropic_loss(alpha, gamma, setting.convention, pretrained=warm, noise=noises)
    return {
        "experiment": experiment,
        "convention": setting.convention,
        "d": p.d,
        "n": int(p.n),
        "k": int(p.k),
        "alpha": alpha,
        "gamma": gamma,
        "init": init,
        "noise": p.noise,
        "eta": best_step(p) if setting.convention == "F" else seen.step,
        "loss_limit": after,
        "loss_exact": best_loss(p, setting.convention),
        "loss_measured": seen.mean,
        "stderr": seen.stderr,
        "gain_limit": untrained - after,
        "gain_exact": gain(p, setting.convention),
        "gain_measured": seen.gain,
        "gain_stderr": seen.gain_stderr,
        "agrees": agrees,
    }


def threshold(setting: Setting, n: int) -> Row:
    """Return the row of the crossing: in the limit, by the exact law, and measured with its interval."""
    d, alpha, convention = setting.d, n / setting.d, setting.convention
    start = Isotropic.pretrained(d, n, 1, setting.noise)
    furthest = FURTHEST * (n + d)

    def exact_difference(k: float) -> float:
        warm = start.with_rows(k)
        return best_loss(warm.from_zero(), convention) - best_loss(warm, convention)

    def limit_difference(gamma: float) -> float:
        noises = (setting.noise, setting.noise)
        cold, warm = (
            limit.isotropic_loss(alpha, gamma, convention, pretrained=init, noise=noises)
            for init in (False, True)
        )
        return cold - warm

    exact = exact_crossing(exact_difference, 0.01, furthest)
    in_limit = exact_crossing(limit_difference, 0.01 / d, furthest / d)

    def look(plan: Plan) -> tuple[Crossing | None, bool | None]:
        seen = measured_crossing(
            lambda k: sampler_of([start.with_rows(k), start.with_rows(k).from_zero()], plan.sampler),
            plan,
            ["threshold", d, n, str(setting.noise)],
            convention,
            furthest,
        )
        if seen is None:  # too few trials may not see it
            return seen, True if exact is None else None
        return seen, exact is not None and seen.agrees(exact, SIGMAS, SLACK)

    seen, agrees = look(setting.plan)
    if agrees is False:
        seen, agrees = look(second_plan(setting.plan))
    return {
        "experiment": "phase",
        "kind": "threshold",
        "convention": convention,
        "alpha": alpha,
        "d": d,
        "n": n,
        "noise": setting.noise,
        "gamma_limit": in_limit,
        "gamma_exact": exact / d if exact is not None else None,
        "gamma_measured": seen.at / d if seen else None,
        "interval": [seen.low / d, seen.high / d] if seen else None,
        "agrees": agrees,
    }


def equivalent_context(setting: Setting, loss: float) -> float | None:
    """Return the real n' at which the pre-trained weights without a step have `loss` (over |b|^2)."""

    def difference(n: float) -> float:
        return initial_loss(Isotropic.pretrained(setting.d, n, 1, setting.noise)) - loss

    return exact_crossing(difference, 1e-6, 1e6 * setting.d)


def peak(setting: Setting, k: int) -> int:
    """Return the whole n with the greatest exact improvement from the pre-trained weights."""

    def value(n: int) -> float:
        return gain(Isotropic.pretrained(setting.d, n, k, setting.noise), setting.convention)

    low, high = 1, 16 * setting.d
    while high - low > 2:  # the improvement rises, then falls: a search by thirds
        third = (high - low) // 3
        left, right = low + third, high - third
        low, high = (left, high) if value(left) < value(right) else (low, right)
    return max(range(low, high + 1), key=value)
