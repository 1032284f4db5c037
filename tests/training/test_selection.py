"""Which candidate is kept: by held-out loss, with a veto on calibration, or the last."""

from __future__ import annotations

import math

import pytest

from tttab.training.selection import ECE_ALLOWANCE, Score, Selector

BEFORE = Score(1.0, 0.25, 64)
ALLOWED = 0.25 + ECE_ALLOWANCE / 8
"""Of 64 rows: the root is 8, and every figure here is exact in binary."""
CANDIDATES = [Score(0.8, ALLOWED + 2**-20, 64), Score(0.9, ALLOWED, 64), Score(1.2, 0.0, 64)]


def kept(guard, scores, before=BEFORE):
    choice = Selector(guard, before, {"w": 0})
    for number, score in enumerate(scores, start=1):
        choice.consider(number, number / 10, score, lambda number=number: {"w": number})
    return choice


@pytest.mark.parametrize(("guard", "step"), [("loss", 1), ("loss+ece", 2), ("off", 3)])
def test_each_guard_keeps_its_own_candidate_and_the_allowance_itself_is_allowed(guard, step):
    choice = kept(guard, CANDIDATES)
    assert choice.step == choice.state["w"] == step and choice.size == step / 10
    assert choice.score == CANDIDATES[step - 1]
    assert choice.vetoed == ([1] if guard == "loss+ece" else [])


def test_the_allowance_is_measured_from_the_untouched_weights_and_not_from_the_last_kept():
    """Each of these is within the allowance of the one before, the third is not of the untouched weights."""
    errors = [0.25 + ECE_ALLOWANCE / 8 * share for share in (0.75, 1.0, 1.5)]
    choice = kept("loss+ece", [Score(0.9 - 0.1 * step, ece, 64) for step, ece in enumerate(errors)])
    assert choice.step == 2 and choice.vetoed == [3]


def test_few_held_out_rows_allow_more_and_many_less():
    worse = 0.25 + ECE_ALLOWANCE / 8
    assert kept("loss+ece", [Score(0.5, worse, 65)], Score(1.0, 0.25, 65)).vetoed == [1]
    assert kept("loss+ece", [Score(0.5, worse, 63)], Score(1.0, 0.25, 63)).vetoed == []
    assert ECE_ALLOWANCE / math.sqrt(200) == pytest.approx(0.0177, abs=1e-4), "as its text says"


@pytest.mark.parametrize("guard", ["loss", "loss+ece"])
def test_worse_and_equal_losses_keep_the_untouched_weights_and_are_no_veto(guard):
    choice = kept(guard, [Score(1.1, 0.9, 64), Score(1.0, 0.0, 64)])
    assert (choice.step, choice.size, choice.score, choice.state) == (0, 0.0, BEFORE, {"w": 0})
    assert choice.vetoed == []


@pytest.mark.parametrize("guard", ["loss", "loss+ece", "off"])
def test_a_score_that_is_no_number_is_no_candidate(guard):
    assert (
        kept(guard, [Score(math.nan, 0.0, 64), Score(math.inf, 0.0, 64), Score(-math.inf, 0.0, 64)]).step == 0
    )


def test_regression_has_no_calibration_error_and_no_veto():
    assert kept("loss+ece", [Score(0.5, math.nan, 64)], Score(1.0, math.nan, 64)).step == 1


def test_weights_are_copied_only_where_they_are_kept():
    copies = []
    choice = Selector("loss", BEFORE)
    for step, loss in enumerate([1.5, 0.9, 1.2, 0.8]):
        choice.consider(step, 0.1, Score(loss, 0.0, 64), lambda step=step: copies.append(step))
    assert copies == [1, 3]


def test_a_metric_decides_before_the_loss_and_the_loss_among_equals():
    before = Score(1.0, 0.0, 64, 0.7)
    scores = [Score(0.5, 0.0, 64, 0.6), Score(1.5, 0.0, 64, 0.8), Score(1.2, 0.0, 64, 0.8)]
    choice = Selector("loss", before, by_metric=True)
    for step, score in enumerate([*scores, Score(0.1, 0.0, 64, math.nan)], start=1):
        choice.consider(step, 0.1, score, dict)
    assert choice.step == 3 and choice.score == scores[2]
    assert kept("loss", scores, before).step == 1, "the loss alone, where no metric was asked for"
