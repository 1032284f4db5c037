"""The whitened step against one that is taken row by row, and how predictions are judged."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.linear_losses import losses
from tttab.theory.linear_attention import limit
from tttab.theory.linear_attention.calibration import CalibrationSettings, answer, calibration, fit
from tttab.theory.linear_attention.covariances import covariance_family
from tttab.theory.linear_attention.law import loss, one_step
from tttab.theory.linear_attention.problem import LinearProblem, pretrained_weights, whitened


def problem(name, d=5, n=4, k=7):
    family = covariance_family(name, d, 3)
    weights = pretrained_weights(family.covariance, family.prior, n)
    return LinearProblem(family.task(0.3), weights, family.covariance, n, k)


def test_the_whitened_problem_is_the_step_with_the_inverse_covariance_on_both_sides():
    plain = problem("power-law")
    white, draws = whitened(plain), np.random.default_rng(0)
    assert loss(white) == pytest.approx(loss(plain), rel=1e-10)
    sx, b, w = (value.numpy() for value in (plain.covariance, plain.task, plain.weights))
    inverse, eta = np.linalg.inv(sx), one_step(white).best_step
    x, z = (draws.multivariate_normal(np.zeros(5), sx, (8_000, rows)) for rows in (plain.n, plain.k))
    u = np.einsum("tid,ti->td", x, x @ b)
    g = np.einsum("tid,ti->td", z, np.einsum("tid,td->ti", z, b - u @ w.T))
    found = losses(plain, w + 2 * eta * (g @ inverse)[..., None] * (u @ inverse)[:, None])
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found) - one_step(white).best) < 4 * error
    assert abs(np.mean(found) - one_step(plain).best) > 4 * error


def test_the_papers_formula_is_the_leading_order_of_the_whitened_step_alone():
    plain = problem("power-law", 30, 15, 60)
    assert limit.papers_gain(plain) == pytest.approx(limit.general_gain(whitened(plain)))
    assert limit.papers_gain(plain) > 1.5 * limit.general_gain(plain)


def test_a_fit_is_the_rank_correlation_the_slope_and_the_mean_ratio():
    rows = [{"p": p, "gain_measured": m} for p, m in ((0.1, 0.2), (0.2, 0.4), (0.3, 0.6), (0.6, 0.5))]
    found = fit(rows, "p")
    assert found["rank"] == pytest.approx(0.8)  # 1 - 6 (0 + 0 + 1 + 1) / (4 x 15)
    assert found["slope"] == pytest.approx(0.07 / 0.14)
    assert found["off"] == pytest.approx((0.5 + 0.5 + 0.5 + 1.2) / 4)


def test_the_whitened_step_restores_the_order_that_the_plain_one_loses():
    rows = list(calibration(CalibrationSettings(d=30, trials=400, tasks=12)))
    fits = {(row["precondition"], row["predictor"]): row for row in rows if row.get("kind")}
    assert fits["none", "gain_papers"]["rank"] < 0.75 < 0.98 < fits["sx", "gain_papers"]["rank"]
    assert all(fits[step, "gain_exact"]["slope"] == pytest.approx(1, abs=0.05) for step in ("none", "sx"))
    assert "plain step: rank correlation 0." in answer([*fits.values()])
    assert all(row["agrees"] for row in rows if not row.get("kind"))
