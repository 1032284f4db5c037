"""Points and thresholds of the isotropic curves, as rows.

Every row holds the limit, the exact law and the measurement side by side, losses over |b|^2.
"""

from __future__ import annotations

from tttab.theory.experiment import Row
from tttab.theory.linear_attention import limit
from tttab.theory.linear_attention.crossing import Crossing, exact_crossing, measured_crossing
from tttab.theory.linear_attention.isotropic import Isotropic, best_loss, fixed_step, gain, initial_loss
from tttab.theory.linear_attention.measure import (
    SIGMAS,
    Measured,
    checked,
    measure,
    sampler_of,
    second_sampling,
)
from tttab.theory.linear_attention.settings import Sampling, Simulation

FURTHEST = 64
"""A crossing is sought up to k = FURTHEST (n + d)."""
SLACK = 0.002
"""Relative slack of the measured crossing: a parabola stands for the curve between whole k."""


def points(settings: Simulation, experiment: str, start: Isotropic, *, cold: bool = True) -> list[Row]:
    """Return the row of `start` and, with `cold`, that of the same problem from W = 0."""
    inits = {"pretrained": start, "zero": start.from_zero()} if cold else {"pretrained": start}
    starts, convention = list(inits.values()), settings.convention
    sampler = sampler_of(starts, settings.sampler)
    exact = [best_loss(p, convention) for p in starts]
    etas = [best_step(p) for p in starts]
    noises = (str(start.noise), str(start.training_noise))
    names: list[str | int] = [experiment, start.d, int(start.n), int(start.k), *noises]

    def look(sampling: Sampling) -> list[Measured]:
        return measure(sampler, sampling, names, convention, etas)

    return [
        _row(settings, experiment, init, p, seen, agrees)
        for (init, p), (seen, agrees) in zip(
            inits.items(), checked(look, settings.sampling, exact), strict=True
        )
    ]


def best_step(p: Isotropic) -> float:
    """Return the exact best fixed step; 0 where the loss has no slope."""
    parabola = fixed_step(p)
    return parabola.best_step if parabola.curvature > 0 else 0.0


def _row(
    settings: Simulation, experiment: str, init: str, p: Isotropic, seen: Measured, agrees: bool | None
) -> Row:
    alpha, gamma = p.n / p.d, p.k / p.d
    warm, noises = init == "pretrained", (p.noise, p.training_noise)
    untrained = limit.isotropic_loss(alpha, 0.0, settings.convention, pretrained=warm, noise=noises)
    after = limit.isotropic_loss(alpha, gamma, settings.convention, pretrained=warm, noise=noises)
    return {
        "experiment": experiment,
        "convention": settings.convention,
        "d": p.d,
        "n": int(p.n),
        "k": int(p.k),
        "alpha": alpha,
        "gamma": gamma,
        "init": init,
        "noise": p.noise,
        "eta": best_step(p) if settings.convention == "F" else seen.step,
        "loss_limit": after,
        "loss_exact": best_loss(p, settings.convention),
        "loss_measured": seen.mean,
        "stderr": seen.stderr,
        "gain_limit": untrained - after,
        "gain_exact": gain(p, settings.convention),
        "gain_measured": seen.gain,
        "gain_stderr": seen.gain_stderr,
        "agrees": agrees,
    }


def threshold(settings: Simulation, n: int) -> Row:
    """Return the row of the crossing: in the limit, by the exact law, and measured with its interval."""
    d, alpha, convention = settings.d, n / settings.d, settings.convention
    start = Isotropic.pretrained(d, n, 1, settings.noise)
    furthest = FURTHEST * (n + d)

    def exact_difference(k: float) -> float:
        warm = start.with_rows(k)
        return best_loss(warm.from_zero(), convention) - best_loss(warm, convention)

    def limit_difference(gamma: float) -> float:
        noises = (settings.noise, settings.noise)
        cold, warm = (
            limit.isotropic_loss(alpha, gamma, convention, pretrained=init, noise=noises)
            for init in (False, True)
        )
        return cold - warm

    exact = exact_crossing(exact_difference, 0.01, furthest)
    in_limit = exact_crossing(limit_difference, 0.01 / d, furthest / d)

    def look(sampling: Sampling) -> tuple[Crossing | None, bool | None]:
        seen = measured_crossing(
            lambda k: sampler_of([start.with_rows(k), start.with_rows(k).from_zero()], sampling.sampler),
            sampling,
            ["threshold", d, n, str(settings.noise)],
            convention,
            furthest,
        )
        if seen is None:  # too few trials may not see it
            return seen, True if exact is None else None
        return seen, exact is not None and seen.agrees(exact, SIGMAS, SLACK)

    seen, agrees = look(settings.sampling)
    if agrees is False:
        seen, agrees = look(second_sampling(settings.sampling))
    return {
        "experiment": "phase",
        "kind": "threshold",
        "convention": convention,
        "alpha": alpha,
        "d": d,
        "n": n,
        "noise": settings.noise,
        "gamma_limit": in_limit,
        "gamma_exact": exact / d if exact is not None else None,
        "gamma_measured": seen.at / d if seen else None,
        "interval": [seen.low / d, seen.high / d] if seen else None,
        "agrees": agrees,
    }


def equivalent_context(settings: Simulation, loss: float) -> float | None:
    """Return the real n' at which the pre-trained weights without a step have `loss` (over |b|^2)."""

    def difference(n: float) -> float:
        return initial_loss(Isotropic.pretrained(settings.d, n, 1, settings.noise)) - loss

    return exact_crossing(difference, 1e-6, 1e6 * settings.d)


def peak(settings: Simulation, k: int) -> int:
    """Return the whole n with the greatest exact improvement from the pre-trained weights."""

    def value(n: int) -> float:
        return gain(Isotropic.pretrained(settings.d, n, k, settings.noise), settings.convention)

    low, high = 1, 16 * settings.d
    while high - low > 2:  # the improvement rises, then falls: a search by thirds
        third = (high - low) // 3
        left, right = low + third, high - third
        low, high = (left, high) if value(left) < value(right) else (low, right)
    return max(range(low, high + 1), key=value)
