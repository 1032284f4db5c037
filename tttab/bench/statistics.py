"""The protocol's figures as pure functions: effective context, intervals, harm, break-even, ranks.

Errors are always "smaller is better". Seeds are averaged first, data sets are resampled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from tttab.seeding import numpy_stream

LEVEL = 0.95
DRAWS = 10_000
Censored = Literal["", "below", "beyond"]
Verdict = Literal["helped", "harmed", "within noise", "unknown"]


@dataclass(frozen=True)
class Interval:
    """An estimate between two bounds; bounds are NaN where nothing is known about the noise."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class EffectiveContext:
    """How many context rows plain in-context learning needs to reach a given error."""

    rows: float
    """n'; where censored, the end of the measured curve, a bound and not an estimate."""
    censored: Censored
    """`below`: the curve is better already at its smallest n. `beyond`: not yet there at its largest."""


def effective_context(ns: Sequence[int], errors: Sequence[float], target: float) -> EffectiveContext:
    """Return the n' at which the monotone icl curve reaches the error `target`.

    The measured errors are first made non-increasing (isotonic regression, equal weights), so that noise
    cannot place a crossing where there is none, then interpolated linearly in log n. Where the curve
    is flat at the target the smallest n counts, which never flatters the adapted model.

    Args:
        ns: context sizes, increasing, shape (points,).
        errors: mean icl error at each n, shape (points,).
        target: the error of the adapted model.

    Raises:
        ValueError: no points, or `ns` does not increase.
    """
    if not len(ns) or len(ns) != len(errors) or any(b <= a for a, b in pairwise(ns)):
        raise ValueError("a curve needs one error per n, and increasing n")
    curve = monotone(errors)
    if target > curve[0]:
        return EffectiveContext(float(ns[0]), "below")
    if target < curve[-1]:
        return EffectiveContext(float(ns[-1]), "beyond")
    right = int(np.argmax(curve <= target))
    if right == 0 or curve[right] == target:
        return EffectiveContext(float(ns[right]), "")
    share = (curve[right - 1] - target) / (curve[right - 1] - curve[right])
    low, high = np.log(ns[right - 1]), np.log(ns[right])
    return EffectiveContext(float(np.exp(low + share * (high - low))), "")


def monotone(errors: Sequence[float]) -> np.ndarray:
    """Return the closest non-increasing sequence in least squares (pool adjacent violators)."""
    from scipy.optimize import isotonic_regression

    return isotonic_regression(np.asarray(errors, dtype=float), increasing=False).x


def seed_interval(differences: Sequence[float], overlap: float = 0.0) -> Interval:
    """Return the mean of paired per-seed differences with its 95 % t interval.

    The splits of one table share rows, so the mean of J seeds varies by more than 1 / J of their variance.
    The factor is 1 / J + n_test / n_train (Nadeau and Bengio 2003, equation 13).

    Args:
        differences: one per seed.
        overlap: n_test / n_train; 0 takes the seeds for independent, which is too narrow.
    """
    from scipy.stats import t

    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return Interval(float(values.mean()) if len(values) else np.nan, np.nan, np.nan)
    spread = values.std(ddof=1) * np.sqrt(1 / len(values) + overlap)
    half = float(t.ppf(0.5 + LEVEL / 2, len(values) - 1) * spread)
    mean = float(values.mean())
    return Interval(mean, mean - half, mean + half)


def verdict(differences: Sequence[float], overlap: float = 0.0) -> Verdict:
    """Say whether per-seed differences (adapted minus plain) lie beyond noise; one seed cannot tell."""
    interval = seed_interval(differences, overlap)
    if np.isnan(interval.low):
        return "unknown"
    if interval.low > 0:
        return "harmed"
    return "helped" if interval.high < 0 else "within noise"


def saturated(reference: Sequence[float], largest: Sequence[float]) -> bool:
    """Whether more context no longer helps: the error at the largest n is not below that at the reference n.

    The rule is fixed here, before any table is seen: the 95 % t interval over seeds of the paired gain
    (reference minus largest) reaches zero. With one seed noise is unknown, and a gain of zero or less counts.

    Args:
        reference: icl errors at the reference n (200), one per seed.
        largest: icl errors at the largest n (1,000), the same seeds.
    """
    gain = seed_interval(np.asarray(reference, dtype=float) - np.asarray(largest, dtype=float))
    return bool((gain.estimate if np.isnan(gain.low) else gain.low) <= 0)


def bootstrap(values: Sequence[float], statistic: Callable[..., Any], seed: int = 0) -> Interval:
    """Return `statistic` over data sets with a 95 % percentile bootstrap interval.

    Args:
        values: one number per data set, seeds already averaged.
        statistic: such as `np.mean`, with the argument `axis`.
        seed: names the resampling.
    """
    array = np.asarray(values, dtype=float)
    if not len(array):
        return Interval(np.nan, np.nan, np.nan)
    estimate = float(statistic(array[None, :], axis=-1)[0])
    if len(array) < 2:
        return Interval(estimate, np.nan, np.nan)
    from scipy.stats import bootstrap as resampled

    found = resampled(
        (array,),
        statistic,
        n_resamples=DRAWS,
        vectorized=True,
        confidence_level=LEVEL,
        method="percentile",
        rng=numpy_stream(seed, "bootstrap"),
    )
    low, high = found.confidence_interval
    return Interval(estimate, float(low), float(high))


def share(count: int, of: int) -> Interval:
    """Return `count / of` with its 95 % Wilson interval."""
    if not of:
        return Interval(np.nan, np.nan, np.nan)
    from scipy.stats import binomtest

    low, high = binomtest(count, of).proportion_ci(LEVEL, method="wilson")
    return Interval(count / of, float(low), float(high))


def improvability(errors: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return by what share the best arm's error is below each arm's, mean over data sets (as in TabArena).

    Args:
        errors: per arm one error per data set, the same data sets in the same order; NaN where an arm failed,
            which counts as the worst error there.
    """
    if not errors:
        return {}
    table = np.array([list(values) for values in errors.values()], dtype=float)
    table = np.where(np.isnan(table), np.nanmax(table, axis=0), table)
    best = table.min(axis=0)
    # An error of 0 cannot be improved on.
    lost = np.divide(table - best, table, out=np.zeros_like(table), where=table > 0)
    return {arm: float(row.mean()) for arm, row in zip(errors, lost, strict=True)}


def geometric_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the geometric mean along an axis: ratios weigh the same up and down."""
    return np.exp(np.log(values).mean(axis=axis))


def mean_ranks(errors: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return each arm's mean rank over data sets; 1 is best, ties share, NaN (a failed arm) ranks last.

    Args:
        errors: per arm one error per data set, the same data sets in the same order.
    """
    from scipy.stats import rankdata

    if not errors:
        return {}
    table = np.array([list(values) for values in errors.values()], dtype=float)
    ranks = rankdata(np.where(np.isnan(table), np.inf, table), axis=0)
    return {arm: float(row.mean()) for arm, row in zip(errors, ranks, strict=True)}
