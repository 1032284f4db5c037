"""The exact laws against independent checks: brute force, numerical differentiation, symbolic moments."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import sympy
import torch

from tttab.theory.linear_attention import isotropic, law
from tttab.theory.linear_attention.isotropic import Isotropic
from tttab.theory.linear_attention.limit import (
    alignment_terms,
    general_gain,
    general_threshold,
    isotropic_threshold,
)
from tttab.theory.linear_attention.problem import LinearProblem, isotropic_problem, pretrained_weights
from tttab.theory.linear_attention.quadrature import chi2_rule, normal_rule


def general_problem(d=4, n=5, k=3, noise=0.3, train_noise=0.7):
    stream = torch.Generator().manual_seed(5)

    def normal(*shape):
        return torch.randn(*shape, generator=stream, dtype=torch.float64)

    root = normal(d, d)
    covariance = root @ root.T / d + 0.3 * torch.eye(d, dtype=torch.float64)
    return LinearProblem(normal(d), 0.1 * normal(d, d), covariance, n, k, noise, train_noise)


@cache
def symbolic_parabola(d, n, k, w, noise, train_noise):
    """The parabola of W = w I, b = e1, from Isserlis moments of every single Gaussian: no formula of ours."""
    x = sympy.symbols(f"x0:{n * d}")
    e = sympy.symbols(f"e0:{n}")
    z = sympy.symbols(f"z0:{k * d}")
    f = sympy.symbols(f"f0:{k}")
    x2, e2 = sympy.symbols(f"X0:{n * d}"), sympy.symbols(f"E0:{n}")
    s, t = sympy.sqrt(noise), sympy.sqrt(train_noise)

    def sums(rows, shakes, scale, aim):
        count = len(shakes)
        labels = [sum(rows[i * d + j] * aim[j] for j in range(d)) + scale * shakes[i] for i in range(count)]
        return [sum(rows[i * d + j] * labels[i] for i in range(count)) for j in range(d)]

    b = [sympy.Integer(1)] + [sympy.Integer(0)] * (d - 1)
    u, u2 = sums(x, e, s, b), sums(x2, e2, s, b)
    v = [b[j] - w * u[j] for j in range(d)]
    v2 = [b[j] - w * u2[j] for j in range(d)]
    g = sums(z, f, t, v)
    start = sum(c**2 for c in v) + noise
    slope = (
        4 * sum(a * c for a, c in zip(v2, g, strict=True)) * sum(a * c for a, c in zip(u, u2, strict=True))
    )
    curvature = 4 * sum(c**2 for c in g) * sum(a * c for a, c in zip(u, u2, strict=True)) ** 2
    names = [*x, *e, *z, *f, *x2, *e2]
    return tuple(gaussian_mean(value, names) for value in (start, slope, curvature))


def gaussian_mean(expression, names):
    total = sympy.Integer(0)
    for powers, coefficient in sympy.Poly(sympy.expand(expression), *names).terms():
        if all(power % 2 == 0 for power in powers):
            total += coefficient * sympy.prod([sympy.factorial2(power - 1) for power in powers if power])
    return total


@pytest.mark.parametrize(("d", "n", "k"), [(2, 1, 1), (1, 1, 2)])
def test_parabola_equals_symbolic_moments_exactly(d, n, k):
    w, noise, train = sympy.Rational(1, 5), sympy.Rational(1, 4), sympy.Rational(1, 9)
    start, slope, curvature = symbolic_parabola(d, n, k, w, noise, train)
    found = isotropic.fixed_step(Isotropic(d, n, k, 0.2, 0.25, 1 / 9))
    assert found.start == pytest.approx(float(start), rel=1e-12)
    assert found.slope == pytest.approx(float(slope), rel=1e-12)
    assert found.curvature == pytest.approx(float(curvature), rel=1e-12)


def test_context_moments_equal_symbolic_ones():
    p, radius, noise, n = sympy.symbols("p"), sympy.Rational(3, 2), sympy.Rational(2, 3), 7
    density = p ** (sympy.Rational(n, 2) - 1) * sympy.exp(-p / 2)
    whole = sympy.integrate(density, (p, 0, sympy.oo))
    e = sympy.symbols("e")
    for i, j in [(2, 0), (3, 0), (4, 0), (1, 1), (2, 1), (0, 2)]:
        # sqrt(p) occurs in even powers alone once e is integrated out.
        value = gaussian_mean((radius * p + sympy.sqrt(noise) * sympy.sqrt(p) * e) ** i, [e])
        value = sympy.simplify(value * ((radius**2 + noise) * p) ** j)
        mean = sympy.integrate(sympy.expand(value) * density, (p, 0, sympy.oo)) / whole
        found = law.context_power(i, j, n, float(radius), float(noise))
        assert found == pytest.approx(float(mean), rel=1e-12)


def test_gradient_equals_numerical_differentiation():
    problem = general_problem()
    found, step = law.gradient(problem), 1e-4
    for i in range(problem.d):
        for j in range(problem.d):
            bump = torch.zeros_like(problem.weights)
            bump[i, j] = step
            up, down = (law.loss(replace(problem, weights=problem.weights + s * bump)) for s in (1, -1))
            assert float(found[i, j]) == pytest.approx((up - down) / (2 * step), rel=1e-9, abs=1e-7)


def test_slope_is_k_times_the_squared_gradient():
    problem = general_problem()
    squared = float((law.gradient(problem) ** 2).sum())
    assert law.one_step(problem).slope == pytest.approx(problem.k * squared, rel=1e-12)


def test_parabola_equals_brute_force_that_forms_the_new_weights_and_samples_prompts():
    problem, trials = general_problem(), 200_000
    stream = torch.Generator().manual_seed(8)
    root = torch.linalg.cholesky(problem.covariance)

    def rows(count, aim, noise):
        x = torch.randn(trials, count, 4, generator=stream, dtype=torch.float64) @ root.T
        shake = torch.randn(trials, count, generator=stream, dtype=torch.float64)
        return x, torch.einsum("tnd,d->tn", x, aim) + noise**0.5 * shake

    x, y = rows(problem.n, problem.task, problem.noise)
    u = torch.einsum("tnd,tn->td", x, y)
    z, labels = rows(problem.k, problem.task, problem.training_noise)
    residual = labels - torch.einsum("tkd,td->tk", z, u @ problem.weights.T)
    step = torch.einsum("ti,tj->tij", torch.einsum("tkd,tk->td", z, residual), u)
    x, y = rows(problem.n, problem.task, problem.noise)
    prompt = torch.einsum("tnd,tn->td", x, y)
    query, target = rows(1, problem.task, problem.noise)
    parabola = law.one_step(problem)
    for eta in (0.0, 0.5 * parabola.best_step, parabola.best_step):
        moved = problem.weights + 2 * eta * step
        losses = (target[:, 0] - torch.einsum("td,tde,te->t", query[:, 0], moved, prompt)) ** 2
        stderr = float(losses.std()) / trials**0.5
        assert abs(float(losses.mean()) - parabola.at(eta)) < 4 * stderr


@pytest.mark.parametrize("noise", [(0.0, None), (0.3, 0.7)])
@pytest.mark.parametrize(("d", "n", "k"), [(60, 30, 60), (5, 3, 4)])
def test_scalar_law_equals_matrix_law(d, n, k, noise):
    for p in (Isotropic.pretrained(d, n, k, *noise), Isotropic(d, n, k, 0.0, *noise)):
        scalar, matrix = isotropic.fixed_step(p), law.one_step(p.problem())
        assert scalar.start == pytest.approx(matrix.start, rel=1e-9)
        assert scalar.slope == pytest.approx(matrix.slope, rel=1e-9)
        assert scalar.curvature == pytest.approx(matrix.curvature, rel=1e-9)


def test_zero_start_closed_form():
    """The exact form of arXiv 2503.11842's zero-initialisation result."""
    d, n, k = 60, 30, 90
    found = law.one_step(isotropic_problem(d, n, k, weight=0.0)).best
    assert found == pytest.approx(1 - k / (k + d + 1) * n**2 / ((n + 2) ** 2 + d - 1), rel=1e-12)


def test_pretrained_weights_minimise_the_loss_over_tasks():
    d, n, noise = 4, 6, 0.2
    problem = general_problem(d=d, n=n, noise=noise)
    stream = torch.Generator().manual_seed(2)
    tasks = torch.randn(6, d, generator=stream, dtype=torch.float64)
    weights = pretrained_weights(problem.covariance, tasks.T @ tasks / 6, n, noise)
    mean = sum(law.gradient(replace(problem, weights=weights, task=task)) for task in tasks) / 6
    alone = law.gradient(replace(problem, weights=weights, task=tasks[0]))
    assert float(mean.abs().max()) < 1e-10 * float(alone.abs().max())


def test_untrained_loss_of_the_pretrained_start():
    assert isotropic.initial_loss(Isotropic.pretrained(60, 30, 1)) == pytest.approx(61 / 91, rel=1e-12)


def test_conventions_are_ordered_and_apart():
    p = Isotropic.pretrained(60, 30, 60)
    gains = {name: isotropic.gain(p, name) for name in "FCTS"}
    assert gains["F"] < gains["C"] < gains["T"] < gains["S"]
    assert gains["C"] / gains["F"] > 1.05 and gains["T"] / gains["C"] > 1.02 and gains["S"] / gains["T"] > 2


def test_same_context_optimum_is_another_law():
    p = Isotropic.pretrained(60, 30, 120)
    start = isotropic.initial_loss(p)
    assert isotropic.best_loss(p, "S") == pytest.approx(start * 61 / 181, rel=1e-12)
    for other in ("F", "C", "T"):
        assert isotropic.best_loss(p, other) > 1.5 * start * 61 / 181


def test_papers_step_can_harm_the_context_it_was_trained_on():
    p = Isotropic.pretrained(60, 10, 60)
    eta = isotropic.fixed_step(p).best_step
    assert isotropic.same_context_loss(p, eta) > isotropic.initial_loss(p) > isotropic.fixed_step(p).at(eta)


def test_cosine_has_known_ends():
    found = isotropic.squared_cosine(20, 30, np.array([0.0, 1.0]))
    assert found == pytest.approx([1 / 20, 30 / 49], rel=1e-10)


def test_threshold_of_the_general_limit_is_the_isotropic_one():
    weights = torch.eye(50, dtype=torch.float64) / (40 + 50)
    problem = replace(isotropic_problem(50, 40, 30), weights=weights)
    assert general_threshold(problem) == pytest.approx(isotropic_threshold(0.8), rel=1e-12)
    terms = alignment_terms(problem)
    assert terms.gain == pytest.approx((50 / 90) ** 3, rel=1e-12)
    assert general_gain(problem) == pytest.approx(30 / 80 * terms.gain, rel=1e-12)


def test_limit_is_reached_for_large_sizes():
    for d, tolerance in ((1_000, 0.02), (100_000, 0.0003)):
        gain = isotropic.fixed_step(Isotropic.pretrained(d, d, d)).gain
        assert gain == pytest.approx(0.5 / 8, rel=tolerance * 1.5)


def test_rules_integrate_polynomials():
    x, weights = chi2_rule(7.5, 12)
    assert (weights * x**4).sum() == pytest.approx(law.chi2_moment(7.5, 4), rel=1e-11)
    e, weights = normal_rule(8)
    assert (weights * e**6).sum() == pytest.approx(15, rel=1e-11)
