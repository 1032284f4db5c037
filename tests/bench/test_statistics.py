"""The protocol's figures on numbers with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tttab.bench import statistics as stats
from tttab.seeding import numpy_stream

NS = [50, 100, 200, 400, 800]


def test_overlapping_splits_widen_the_interval():
    """Ten seeds whose test rows are half as many as the labelled ones: 1/10 + 1/2 of the variance."""
    gaps = list(np.random.default_rng(0).normal(size=10))
    plain, wide = stats.seed_interval(gaps), stats.seed_interval(gaps, 0.5)
    assert wide.estimate == plain.estimate
    assert wide.high - wide.low == pytest.approx((plain.high - plain.low) * math.sqrt(6))
    assert stats.verdict([-0.10, -0.11, -0.14]) == "helped"
    assert stats.verdict([-0.10, -0.11, -0.14], overlap=2.0) == "within noise"


def test_a_share_has_wilsons_interval():
    """Figures of Brown, Cai and DasGupta (2001) form: 0 of 10 is not certainly 0."""
    found = stats.share(0, 10)
    assert (found.estimate, found.low) == (0, 0) and found.high == pytest.approx(0.2775, abs=1e-4)
    half = stats.share(5, 10)
    assert half.low + half.high == pytest.approx(1) and half.low == pytest.approx(0.2366, abs=1e-4)
    assert math.isnan(stats.share(0, 0).estimate)


def test_improvability_is_the_share_that_the_best_arm_saves():
    found = stats.improvability({"a": [0.1, 0.4], "b": [0.2, 0.2], "failed": [0.1, math.nan]})
    assert found == {"a": pytest.approx(0.25), "b": pytest.approx(0.25), "failed": pytest.approx(0.25)}
    assert stats.improvability({"a": [0.0], "b": [0.1]}) == {"a": 0.0, "b": 1.0}
    assert stats.improvability({}) == {}


def test_effective_context_at_a_measured_point_and_between_two():
    errors = [0.5, 0.4, 0.3, 0.2, 0.1]
    assert stats.effective_context(NS, errors, 0.2) == stats.EffectiveContext(400.0, "")
    between = stats.effective_context(NS, errors, 0.15)
    assert between.rows == pytest.approx(math.sqrt(400 * 800))
    assert between.censored == ""


def test_effective_context_of_the_curve_itself_is_n():
    errors = [0.5, 0.4, 0.3, 0.2, 0.1]
    for n, error in zip(NS, errors, strict=True):
        assert stats.effective_context(NS, errors, error) == stats.EffectiveContext(n, "")


def test_effective_context_between_the_two_smallest_sizes():
    """A quarter of the way from 0.4 to 0.3, in log n: 100 = 25 * 4, so a quarter is 25 * sqrt(2)."""
    found = stats.effective_context([25, 100], [0.4, 0.3], 0.375)
    assert (found.rows, found.censored) == (pytest.approx(25 * math.sqrt(2)), "")


def test_effective_context_beyond_the_end_and_never_reached():
    errors = [0.5, 0.4, 0.3, 0.2, 0.1]
    assert stats.effective_context(NS, errors, 0.05) == stats.EffectiveContext(800.0, "beyond")
    assert stats.effective_context(NS, errors, 0.6) == stats.EffectiveContext(50.0, "below")


def test_effective_context_does_not_believe_a_noisy_dip():
    """The dip to 0.2 at n = 100 is noise: pooled with its neighbours it is 0.3, so 0.25 comes later."""
    errors = [0.5, 0.2, 0.4, 0.3, 0.2]
    assert stats.monotone(errors) == pytest.approx([0.5, 0.3, 0.3, 0.3, 0.2])
    found = stats.effective_context(NS, errors, 0.25)
    assert found.rows == pytest.approx(math.sqrt(400 * 800))


def test_effective_context_on_a_flat_stretch_takes_its_first_point():
    assert stats.effective_context(NS, [0.5, 0.3, 0.3, 0.3, 0.2], 0.3).rows == 100.0


@pytest.mark.parametrize(("ns", "errors"), [([], []), ([50, 50], [0.1, 0.1]), ([50, 100], [0.1])])
def test_effective_context_refuses_what_is_no_curve(ns, errors):
    with pytest.raises(ValueError, match="curve"):
        stats.effective_context(ns, errors, 0.1)


def pooled(errors):
    """Pool adjacent violators, written out."""
    blocks = []
    for error in errors:
        blocks.append([error])
        while len(blocks) > 1 and np.mean(blocks[-2]) <= np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [float(np.mean(block)) for block in blocks for _ in block]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_monotone_pools_adjacent_violators(errors):
    assert stats.monotone(errors) == pytest.approx(pooled(errors), abs=1e-15, rel=1e-15)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0.01, 1), min_size=5, max_size=5), st.floats(0, 1), st.floats(0, 1))
def test_a_smaller_error_never_needs_less_context(errors, one, other):
    low, high = sorted((one, other))
    better, worse = (stats.effective_context(NS, errors, target).rows for target in (low, high))
    assert better >= worse - 1e-9


def test_seed_interval_is_students():
    found = stats.seed_interval([1.0, 2.0, 3.0])
    assert found.estimate == 2.0
    assert found.high - found.estimate == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)
    assert found.low == pytest.approx(2 * found.estimate - found.high)
    one, two = stats.seed_interval([0.5]), stats.seed_interval([1.0, 3.0])
    assert one.estimate == 0.5 and math.isnan(one.low) and math.isnan(one.high)
    assert two.high - two.estimate == pytest.approx(12.706205), (
        "one degree of freedom: 12.7 sqrt(2) / sqrt(2)"
    )
    assert math.isnan(stats.seed_interval([]).estimate)


def test_verdicts_need_more_than_noise_and_more_than_one_seed():
    assert stats.verdict([0.10, 0.11, 0.12]) == "harmed"
    assert stats.verdict([-0.10, -0.11, -0.12]) == "helped"
    assert stats.verdict([-0.10, 0.11, 0.02]) == "within noise"
    assert stats.verdict([0.5]) == "unknown"
    assert stats.verdict([0.0, 0.0, 0.0]) == "within noise"


def test_saturation_rule():
    assert stats.saturated([0.30, 0.31, 0.29], [0.30, 0.31, 0.30])
    assert stats.saturated([0.30, 0.31, 0.29], [0.35, 0.36, 0.34])
    assert not stats.saturated([0.30, 0.31, 0.29], [0.20, 0.21, 0.20])
    assert not stats.saturated([0.30], [0.20])


def test_a_gain_within_noise_or_of_nothing_is_saturated():
    """Gains 0, 0 and 0.3: mean 0.1, but the t interval reaches far below zero."""
    assert stats.saturated([0.3, 0.3, 0.5], [0.3, 0.3, 0.2])
    assert stats.saturated([0.3, 0.4], [0.3, 0.4]), "an interval from 0 to 0 reaches zero"
    assert stats.saturated([0.30], [0.30]) and stats.saturated([0.20], [0.30])


def test_bootstrap_is_reproducible_and_covers_the_mean():
    values = np.random.default_rng(3).lognormal(size=9)
    found = stats.bootstrap(values, np.mean)
    assert found == stats.bootstrap(values, np.mean, seed=0) != stats.bootstrap(values, np.mean, seed=1)
    assert found.estimate == pytest.approx(values.mean())
    assert values.min() <= found.low < found.estimate < found.high <= values.max()
    exact = np.std(values) / math.sqrt(9)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(exact, rel=0.15)


@pytest.mark.parametrize("statistic", [np.mean, np.median, stats.geometric_mean])
def test_bootstrap_draws_from_the_named_stream(statistic):
    """The quantiles of the statistic over rows picked by that stream, draw by draw: reports repeat."""
    values = np.random.default_rng(3).lognormal(size=9)
    picks = numpy_stream(5, "bootstrap").integers(9, size=(stats.DRAWS, 9))
    low, high = np.quantile(statistic(values[picks], axis=-1), [0.025, 0.975])
    found = stats.bootstrap(values, statistic, seed=5)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-15)


def test_bootstrap_of_one_data_set_claims_no_interval_and_of_two_spans_both():
    found = stats.bootstrap([3.0], stats.geometric_mean)
    assert found.estimate == pytest.approx(3.0)
    assert math.isnan(found.low) and math.isnan(found.high)
    nothing = stats.bootstrap([], np.mean)
    assert all(map(math.isnan, (nothing.estimate, nothing.low, nothing.high)))
    # A quarter of the draws is twice the one, a quarter twice the other: both lie inside 95 %.
    assert stats.bootstrap([1.0, 3.0], np.mean) == stats.Interval(2.0, 1.0, 3.0)


def test_the_geometric_mean_by_hand_of_one_draw_or_many():
    values = np.array([0.25, 1.0, 32.0])
    assert stats.geometric_mean(values) == pytest.approx(2.0)
    assert stats.geometric_mean(np.stack([values, 4 * values])) == pytest.approx([2.0, 8.0])


def test_ranks_share_ties_and_put_failures_last():
    found = stats.mean_ranks({"a": [0.1, 0.2], "b": [0.1, 0.3], "c": [math.nan, 0.1]})
    assert found == {"a": 1.75, "b": 2.25, "c": 2.0}
    assert stats.mean_ranks({}) == {}
