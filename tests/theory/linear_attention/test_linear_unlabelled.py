"""Unlabelled rows: each rule's law against a step whose W' is formed, the Wishart moments, pseudo-labels."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.linear_losses import losses
from tttab.theory.linear_attention import unlabelled
from tttab.theory.linear_attention.covariances import covariance_family
from tttab.theory.linear_attention.law import one_step
from tttab.theory.linear_attention.problem import LinearProblem, pretrained_weights
from tttab.theory.linear_attention.semi import SemiSettings, semi, tables
from tttab.theory.linear_attention.unlabelled import Pseudo

M = 9


def problem(noise=0.0, k=9):
    family = covariance_family("power-law", 4, 3)
    weights = pretrained_weights(family.covariance, family.prior, 5, noise)
    return LinearProblem(family.task(0.4), weights, family.covariance, 5, k, noise)


def estimate(rule, p, z, free):
    if rule == "known":
        return np.linalg.inv(p.covariance.numpy())
    rows = z if rule == "own" else free
    return np.linalg.inv(rows.swapaxes(1, 2) @ rows / rows.shape[1])


def exact(rule, p):
    if rule == "known":
        return unlabelled.known_step(p)
    return unlabelled.own_step(p) if rule == "own" else unlabelled.unlabelled_step(p, M)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("rule", ["known", "own", "unlabelled"])
def test_the_law_is_that_of_a_step_whose_weights_are_formed(rule, noise):
    p, draws = problem(noise), np.random.default_rng(1)
    sx, b, w = (value.numpy() for value in (p.covariance, p.task, p.weights))
    law, trials = exact(rule, p), 4000
    eta = 0.4 * law.best_step
    x, z, free = (draws.multivariate_normal(np.zeros(4), sx, (trials, rows)) for rows in (p.n, p.k, M))
    y, labels = (v @ b + noise**0.5 * draws.standard_normal(v.shape[:2]) for v in (x, z))
    u = np.einsum("tid,ti->td", x, y)
    g = np.einsum("tid,ti->td", z, labels - np.einsum("tid,td->ti", z, u @ w.T))
    step = (estimate(rule, p, z, free) @ g[..., None]) * u[:, None]
    found = losses(p, w + 2 * eta * step)
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found) - law.at(eta)) < 4 * error
    assert error < 0.02 * law.start


def test_the_moments_are_those_of_sampled_inverse_gram_matrices():
    draws, d, m = np.random.default_rng(0), 3, 12
    rows = draws.standard_normal((60_000, m, d))
    inverse = np.linalg.inv(np.einsum("tmi,tmj->tij", rows, rows) / m)
    first, second = unlabelled.whitening_moments(d, m)
    assert inverse[:, 0, 0].mean() == pytest.approx(first, rel=0.01)
    assert (inverse @ inverse)[:, 1, 1].mean() == pytest.approx(second, rel=0.03)
    assert unlabelled.gain_share(d, m) == pytest.approx(first**2 / second)
    assert unlabelled.gain_share(4000, 12_000) == pytest.approx(1 - 1 / 3, abs=1e-3)


def test_own_rows_need_more_than_d_plus_1_and_without_noise_beat_the_known_covariance():
    assert unlabelled.own_step(problem(k=5)) is None
    p = problem(k=6)
    own, known = unlabelled.own_step(p), unlabelled.known_step(p)
    assert own is not None and own.gain > known.gain


def test_unlabelled_rows_pay_from_where_the_two_gains_are_equal():
    p = problem(k=30)
    plain = one_step(p)
    m = unlabelled.pays_from(p, plain)
    assert m is not None and unlabelled.unlabelled_step(p, m).gain == pytest.approx(plain.gain)
    assert unlabelled.unlabelled_step(p, m + 1).gain > plain.gain
    assert unlabelled.pays_from(p, unlabelled.own_step(p)) is None


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_pseudo_labels_lower_the_loss_as_their_law_says(noise):
    p, draws = Pseudo(4, 3, 8, 5, noise), np.random.default_rng(2)
    kappa, trials = 0.6 * p.law.best_step, 20_000
    weights = [1 / (n + 1 + 4 * (1 + noise)) for n in (3, 8)]
    x, queries = draws.standard_normal((trials, 8, 4)), draws.standard_normal((trials, 5, 4))
    y = x[..., 0] + noise**0.5 * draws.standard_normal((trials, 8))
    short, long = (np.einsum("tid,ti->td", x[:, :n], y[:, :n]) for n in (3, 8))
    residuals = np.einsum("tid,td->ti", queries, weights[1] * long - weights[0] * short)
    # After the step W is weights[0] I + 2 eta g u' with eta = kappa / (2 u'u), and is applied to u.
    aim = np.eye(4)[0] - weights[0] * short - kappa * np.einsum("tid,ti->td", queries, residuals)
    found = (aim**2).sum(1) + noise
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found) - p.law.at(kappa)) < 4 * error
    assert error < 0.02


def test_pseudo_labels_go_to_their_limit_and_labels_of_ones_own_have_no_gradient():
    p = Pseudo(4000, 2000, 8000, 4000)
    assert p.law.gain == pytest.approx(p.limit, rel=1e-3)
    assert p.start - p.law.gain > p.teacher_loss
    assert Pseudo(50, 20, 20, 10).law.slope == pytest.approx(0, abs=1e-9)


def test_rows_agree_and_the_answers_name_the_control():
    rows = list(semi(SemiSettings(d=10, trials=500, m=(20, 60), noise=0.2)))
    assert all(row["agrees"] for row in rows if row.get("gain_exact") is not None)
    assert {row["agrees"] for row in rows if row.get("rule") == "own + unlabelled"} == {None}
    first, second, third = tables(rows)
    assert "own 0." in first.remark and "over the own step" in second.remark
    assert third.remark.startswith("m = 60 pseudo-labels close ")
    few = list(semi(SemiSettings(d=10, k=11, trials=200, m=(20,))))
    assert "own" not in {row.get("rule") for row in few}
