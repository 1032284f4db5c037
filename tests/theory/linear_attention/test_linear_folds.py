"""Folds: the word calculus against sampled matrices, the law against a step whose W' is formed, limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tttab.theory.linear_attention.folds import (
    Folds,
    best_split,
    best_split_limit,
    limit,
    one_step,
    threshold,
    threshold_limit,
)
from tttab.theory.linear_attention.kfold import KfoldSettings, kfold, tables
from tttab.theory.linear_attention.law import loss
from tttab.theory.linear_attention.problem import LinearProblem
from tttab.theory.linear_attention.wishart import any_of, expectation, one, residual


@pytest.mark.parametrize(
    "forms",
    [
        ["JPJ"],
        ["JPLPJ", "LPO"],
        ["JPLPJPL"],
        ["JPO", "OPJ"],
        ["OPJPO", "P", ""],
    ],
)
def test_words_have_the_mean_of_sampled_matrices(forms):
    d, s2, rows = 3, 0.4, {"J": 2, "L": 4, "O": 3}
    draws, task = np.random.default_rng(5), np.array([1.0, 0, 0, s2**0.5])
    projector = np.diag([1.0, 1, 1, 0])
    seen = []
    for _ in range(30_000):
        matrices = {"P": projector}
        for name, count in rows.items():
            x = draws.standard_normal((count, d + 1))
            matrices[name] = x.T @ x
        value = 1.0
        for form in forms:
            vector = task
            for letter in reversed(form):
                vector = matrices[letter] @ vector
            value *= task @ vector
        seen.append(value)
    exact = expectation(*[[one(form)] for form in forms]).at(rows, d, s2, 0.7)
    assert abs(np.mean(seen) - exact) < 4 * np.std(seen) / len(seen) ** 0.5
    assert abs(exact) > 10 * np.std(seen) / len(seen) ** 0.5


def test_sums_expand_with_their_signs_and_powers_of_w():
    d, s2, w, rows = 5, 0.2, 0.3, {"J": 4}
    whole = expectation([residual("JP"), any_of("J", "")]).at(rows, d, s2, w)
    parts = [expectation([one(word)]).at(rows, d, s2, w) for word in ("J", "", "JPJ", "JP")]
    assert whole == pytest.approx(parts[0] + parts[1] - w * (parts[2] + parts[3]))
    # E[b~'S b~] = n (1 + s2); E[b~'S P b~] = n b~'P b~ = n.
    assert parts[0] == pytest.approx(4 * 1.2) and parts[3] == pytest.approx(4.0)


def losses(p, serve, eta, trials, draws):
    """The loss after the summed step of all folds, W' formed for every trial."""
    found, q, n = [], int(p.fold), int(p.context)
    eye = torch.eye(p.d, dtype=torch.float64)
    for _ in range(trials):
        x = draws.standard_normal((p.count, q, p.d))
        y = x[..., 0] + p.noise**0.5 * draws.standard_normal((p.count, q))
        start = p.weight * np.eye(p.d)
        step = np.zeros((p.d, p.d))
        for j in range(p.count):
            others = [i for i in range(p.count) if i != j]
            inside, outside = ([j], others) if p.scheme == "inverse" else (others, [j])
            u = x[inside].reshape(-1, p.d).T @ y[inside].ravel()
            z, labels = x[outside].reshape(-1, p.d), y[outside].ravel()
            step += np.outer(z.T @ (labels - z @ start @ u), u)
        after = start + 2 * eta * step
        if serve == "fresh":
            found.append(loss(LinearProblem(eye[0], torch.from_numpy(after), eye, n, 1, p.noise)))
        else:
            served = [0] if p.scheme == "inverse" else range(p.count)
            u = x[served].reshape(-1, p.d).T @ y[served].ravel()
            aim = np.eye(p.d)[0] - after @ u
            found.append(aim @ aim + p.noise)
    return np.array(found)


CASES = [
    Folds(3, 2, 3, "leave", 0.3),
    Folds(4, 3, 2, "leave"),
    Folds(3, 3, 1, "leave", 0.2, warm=False),
    Folds(3, 2, 3, "inverse", 0.3),
    Folds(4, 3, 2, "inverse"),
    Folds(3, 4, 2, "inverse", 0.2),
]


@pytest.mark.parametrize("serve", ["fresh", "same"])
@pytest.mark.parametrize("p", CASES, ids=str)
def test_the_law_is_that_of_a_step_whose_weights_are_formed(p, serve):
    law = one_step(p, serve)
    eta = 0.5 * law.best_step
    seen = losses(p, serve, eta, 2500 if serve == "same" else 1200, np.random.default_rng(3))
    error = seen.std() / len(seen) ** 0.5
    assert abs(seen.mean() - law.at(eta)) < 4 * error
    assert error < 0.15 * law.start


@pytest.mark.parametrize("serve", ["fresh", "same"])
@pytest.mark.parametrize("scheme", ["leave", "inverse"])
@pytest.mark.parametrize("warm", [True, False])
def test_the_limit_is_where_the_exact_law_goes(scheme, serve, warm):
    apart = []
    for d in (1000, 4000):
        p = Folds(d, 4, 0.3 * d, scheme, warm=warm)
        apart.append(abs(one_step(p, serve).best - limit(p, serve)))
    assert apart[1] < 0.3 * apart[0] < 0.01
    assert limit(replace(p, noise=0.1), serve) is None


def test_thresholds_in_the_limit_and_at_finite_size():
    assert threshold_limit(2) == pytest.approx(2)
    assert [round(threshold_limit(k), 3) for k in (3, 5, 10, 20)] == [2.204, 2.599, 3.424, 4.663]
    assert threshold_limit(10_000) == pytest.approx(100, rel=0.02)
    near = threshold(Folds(3000, 2, 1.0))
    assert near is not None and near == pytest.approx(2, rel=0.02)
    small = threshold(Folds(60, 2, 1.0))
    assert small is not None and small > 2.4
    assert threshold(Folds(60, 10, 1.0)) is None


def test_leaving_one_out_is_a_known_number_and_never_crosses():
    gamma = 1.5
    p = Folds(2000, 3000, 1, "leave")
    wanted = 1 / (1 + gamma) - gamma / ((1 + gamma) ** 2 * (1 + gamma**2))
    assert limit(p, "fresh") == pytest.approx(wanted, rel=1e-3)
    assert one_step(p, "fresh").best == pytest.approx(wanted, rel=0.01)
    for size in (0.5, 2.0, 8.0, 32.0):
        many = Folds(1000, round(1000 * size), 1, "leave")
        assert limit(many, "fresh") < limit(replace(many, warm=False), "fresh")


def test_two_folds_gain_nothing_on_the_rows_that_were_trained_on():
    p = Folds(4000, 2, 2000.0, "leave")
    assert one_step(p, "same").gain == pytest.approx(0, abs=1e-3)
    assert limit(p, "same") == pytest.approx(5 / 9)


def test_the_best_single_split_of_one_d_rows_on_the_same_context_is_one_half():
    assert best_split_limit(1.0, "same") == pytest.approx(4 / 9, abs=1e-4)
    n, value = best_split(2000, 2000, 0.0, "same")
    assert n == pytest.approx(1000, abs=40) and value == pytest.approx(4 / 9, rel=1e-3)


def test_rows_agree_and_the_answers_name_what_wins():
    settings = KfoldSettings(d=10, trials=400, gamma=(1.0, 2.0), folds=(2, 5), noise=0.1)
    rows = list(kfold(settings))
    points = [row for row in rows if not row.get("kind")]
    assert all(row["agrees"] for row in points)
    assert {row["loss_limit"] for row in points} == {None}
    first, second, third = tables(rows)
    assert "leave, fresh: " in first.remark and "single split" in second.remark
    assert third.remark.startswith("K = 2: zero wins from N/d = ")
