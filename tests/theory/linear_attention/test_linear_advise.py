"""A gain predicted from labelled rows alone: by hand, and against what the step then does."""

from __future__ import annotations

import numpy as np
import pytest

from tttab.theory.linear_attention.advise import AdviseSettings, advise, predicted_step, tables


def test_two_rows_that_agree_promise_what_the_formula_says_and_two_that_do_not_nothing():
    gain, step = predicted_step(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([1.0, 1.0]))
    assert (gain, step) == pytest.approx((2 * 0.2, 1 / (3 + 2)))  # V = 1, k = d = 2, mean r^2 = 1
    assert predicted_step(np.eye(2), np.array([1.0, 1.0])) == (0.0, 0.0)
    assert predicted_step(np.array([[1.0], [-1.0]]), np.array([1.0, 1.0])) == (0.0, 0.0)


def test_the_agreement_is_never_taken_for_more_than_the_residuals_leave():
    assert predicted_step(np.array([[3.0], [3.0]]), np.array([1.0, 1.0]))[1] == pytest.approx(1 / (3 + 1))


def test_random_problems_gain_on_average_what_was_predicted():
    rows = list(advise(AdviseSettings(problems=240)))
    predicted, measured = (
        np.array([row[name] for row in rows]) for name in ("gain_predicted", "gain_measured")
    )
    assert predicted.mean() == pytest.approx(measured.mean(), abs=0.025)
    assert 0.25 < measured.mean() < 0.35
    table = tables(rows)[0]
    assert sum(row["problems"] for row in table.rows) == 240
    assert "240 problems gain 0.2" in table.remark
