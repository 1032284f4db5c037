"""The exponent of r: read off made-up alignments of known growth, and its interval against a repetition."""

from __future__ import annotations

import numpy as np
import pytest

from tttab.theory.single_index.growth import growth
from tttab.theory.single_index.weak import growth_answer

SIZES = tuple(2**i for i in range(2, 15))


def cells(power, stream, tasks=40):
    """Alignments that reach 0.5 at N1 = 3 r^power."""
    return {
        r: {n: n / (n + 3 * r**power) + 0.1 * stream.standard_normal(tasks) for n in SIZES}
        for r in (8, 16, 32)
    }


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_exponent_and_its_interval_are_those_of_the_alignments(power, monkeypatch):
    monkeypatch.setattr("tttab.theory.single_index.growth.RESAMPLES", 80)
    stream, slopes, covered = np.random.default_rng(1), [], 0
    for _ in range(8):
        found = growth(cells(power, stream), 0.5, stream)
        slopes.append(found["exponent"])
        covered += found["low"] <= power <= found["high"]
        assert found["r_reached"] == [8, 16, 32]
    assert np.mean(slopes) == pytest.approx(power, abs=4 * np.std(slopes) / 8**0.5)
    assert found["n1_at_target"][1] == pytest.approx(3 * 16**power, rel=0.3)
    assert covered >= 6  # of 8, at 95 %


def test_an_r_that_never_reaches_the_target_has_no_part():
    stream = np.random.default_rng(0)
    low = {n: np.full(5, 0.1) for n in SIZES}
    found = growth(cells(1.0, stream) | {64: low}, 0.5, stream)
    assert found["r_reached"] == [8, 16, 32]
    alone = growth({64: low}, 0.5, stream)
    assert alone["exponent"] is alone["low"] is None and alone["n1_at_target"] == []


def test_one_lucky_point_is_no_crossing():
    lucky = {64: np.full(4, 0.3), 128: np.full(4, 0.55), 256: np.full(4, 0.35), 512: np.full(4, 0.75)}
    found = growth({8: lucky, 16: lucky}, 0.5, np.random.default_rng(0))
    # The pool of 0.55 and 0.35 is 0.45, so 0.5 is reached a sixth of the way from 256 to 512.
    assert found["n1_at_target"] == [round(256 * 2 ** (1 / 6))] * 2


def test_the_answer_compares_the_interval_with_the_papers_exponent():
    row = {"link": "He3", "method": "distill", "papers": 1, "low": 0.8, "high": 1.3}
    assert growth_answer([row]) == "He3 distill allows 1"
    assert growth_answer([row | {"low": 1.1}]) == "He3 distill lies above 1"
    assert growth_answer([row | {"high": 0.9}]) == "He3 distill lies below 1"
    assert growth_answer([row | {"low": None}]).startswith("no link reaches the target")
