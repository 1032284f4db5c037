"""Softmax attention: the model and its step row by row, the limit laws against large sizes, thresholds."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest
import torch

from tttab.theory.linear_attention.draws import Draws
from tttab.theory.linear_attention.head_trials import Case, measure_case, predictions
from tttab.theory.linear_attention.heads import Head, cold_loss
from tttab.theory.linear_attention.limit import isotropic_loss
from tttab.theory.linear_attention.measure import Measured
from tttab.theory.linear_attention.settings import Backend, Sampling
from tttab.theory.linear_attention.softmax import SoftmaxSettings, crossing, line_to_infinity, softmax, tables

FLOAT32 = Backend(dtype="float32")


def one_head(w, c, x, y, query):
    weights = np.exp([query @ w @ row for row in x])
    return c * weights @ y / weights.sum()


def test_the_models_are_sums_over_rows_and_two_layers_read_what_the_first_left():
    draws, d, n = np.random.default_rng(0), 4, 5
    x, query = draws.standard_normal((n, d)), draws.standard_normal(d)
    y = x[:, 0]
    batch = [torch.from_numpy(value)[None].float() for value in (x, y, query[None])]
    for model in ("head", "pair", "layers"):
        case = Case(model, Head(1.25, 1.0, model == "pair"), d, 1.0)
        start = case.start(1)
        w, c = start[0].double().numpy(), case.readouts
        if model == "layers":
            left = [y[i] - one_head(w[0], c[0], np.delete(x, i, 0), np.delete(y, i), x[i]) for i in range(n)]
            wanted = one_head(w[0], c[0], x, y, query) + one_head(w[1], c[1], x, np.array(left), query)
        else:
            wanted = sum(one_head(w[h], c[h], x, y, query) for h in range(len(c)))
        assert float(predictions(case, start, *batch)) == pytest.approx(wanted, rel=1e-4)


def test_the_step_is_the_sum_of_residuals_times_rows_times_the_heads_reading():
    draws, d, n, k = np.random.default_rng(1), 3, 6, 4
    x, z = draws.standard_normal((n, d)), draws.standard_normal((k, d))
    case = Case("head", Head(2.0), d, 1.0)
    (c,), start = case.readouts, case.start(1).double()
    w, gradient = start[0, 0].numpy(), np.zeros((d, d))
    for row in z:
        p = np.exp(x @ w.T @ row)
        p = p / p.sum()
        mean = p @ x[:, 0]
        s = (p * (x[:, 0] - mean)) @ x
        gradient += 2 * c * (row[0] - c * mean) * np.outer(row, s)
    start.requires_grad_(True)
    batch = [torch.from_numpy(value)[None] for value in (x, x[:, 0], z)]
    loss = (torch.from_numpy(z[:, 0]) - predictions(case, start, *batch)).square().sum()
    (found,) = torch.autograd.grad(loss, start)
    np.testing.assert_allclose(-found[0, 0].numpy(), gradient, rtol=1e-6)


def test_a_long_context_makes_one_head_linear():
    d, generator = 3, torch.Generator().manual_seed(0)
    case = Case("head", Head(1e5), d, 1.0)
    weights = 0.3 * torch.randn(1, 1, d, d, generator=generator)
    x = torch.randn(1, 400_000, d, generator=generator)
    queries = 0.7 * torch.randn(1, 4, d, generator=generator)
    (c,) = case.readouts
    wanted = c * (queries[0] @ weights[0, 0])[:, 0]  # f = c x'W b for every W (Gaussian tilting)
    torch.testing.assert_close(
        predictions(case, weights, x, x[..., 0], queries)[0], wanted, atol=0.02 * c, rtol=0
    )


@pytest.mark.parametrize("opposite", [False, True])
def test_the_untrained_loss_and_the_gains_are_those_of_many_features(opposite):
    model, head = ("pair", Head(2.0, 0.7, True)) if opposite else ("head", Head(2.0, 0.7))
    seen = measure_case(Case(model, head, 200, 1.0), Sampling(150, 0, FLOAT32))
    for found, wanted in (
        (seen.start, head.start),
        (seen.fresh, head.after(1.0)),
        (seen.same, head.after(1.0, same=True)),
    ):
        assert abs(found.mean - wanted) < 4 * found.stderr + 0.01
        assert found.stderr < 0.025
    assert seen.fresh.mean < head.start - 0.6 * head.gain(1.0)


def test_costs_thresholds_and_the_way_back_to_linear_attention():
    assert (
        Head(1.0).cost == pytest.approx(exp(1))
        and Head(1.0, 0.8).cost > exp(1)
        and Head(1.0, 1.3).cost > exp(1)
    )
    assert [round(Head(a).threshold(), 3) for a in (0.25, 0.5, 1, 2, 4, 8)] == [
        *(0.641, 0.718, 0.877, 1.204, 1.879, 3.273)
    ]
    near = Head(0.5, 0.02, opposite=True)
    for gamma in (0.5, 2.0):
        assert near.after(gamma) == pytest.approx(isotropic_loss(0.5, gamma, pretrained=True), rel=1e-3)
        same = isotropic_loss(0.5, gamma, "S", pretrained=True)
        assert near.after(gamma, same=True) == pytest.approx(same, rel=1e-3)
    assert near.threshold() == pytest.approx(0.9, rel=1e-3)
    assert near.start < Head(0.5, opposite=True).start < Head(0.5).start


def test_a_zero_start_goes_to_its_limit():
    seen = measure_case(Case("pair", Head(1.0, 1.0, True), 200, 1.0, warm=False), Sampling(200, 0, FLOAT32))
    assert abs(seen.fresh.mean - cold_loss(1.0)) < 4 * seen.fresh.stderr + 0.03


def test_the_line_ends_where_two_points_say_and_its_error_is_theirs():
    end, error = line_to_infinity((50, Measured(0.7, 0.03)), (100, Measured(0.6, 0.02)))
    assert end == pytest.approx(0.5)
    assert error == pytest.approx((0.04**2 + 0.03**2) ** 0.5)


def test_a_crossing_lies_between_the_two_points_where_the_lead_changes():
    def rows(leads):
        return [
            {"gamma": gamma, "init": init, "loss_measured": 0.5 + (lead if init == "pretrained" else 0.0)}
            for gamma, lead in leads.items()
            for init in ("pretrained", "zero")
        ]

    assert crossing(rows({1.0: -0.1, 4.0: 0.1})) == pytest.approx(2.0)
    assert crossing(rows({1.0: -0.2, 4.0: -0.1})) is None
    assert crossing(rows({1.0: 0.2, 4.0: 0.3})) is None


def test_rows_have_a_verdict_where_there_is_a_law():
    rows = list(softmax(SoftmaxSettings(d=(40, 80), alpha=(2.0,), gamma=(1.0,), tau=0.5, trials=60)))
    ends = [row for row in rows if row.get("kind") == "limit"]
    assert {row["agrees"] for row in ends if row["model"] == "layers"} == {None}
    assert all(row["agrees"] for row in ends if row["model"] != "layers" and row["init"] == "pretrained")
    first, second, third = tables(rows)
    assert "one head" in first.remark and "lines end within" in second.remark
    assert "linear attention 2.250" in third.remark


def test_equal_streams_give_equal_draws_in_float32():
    one, other = (Draws(FLOAT32, 0, "softmax", 1).normal(3) for _ in range(2))
    assert torch.equal(one, other)
