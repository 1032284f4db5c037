import numpy as np
import pytest
import torch

from tttab.seeding import torch_stream
from tttab.theory.single_index.algorithm import (
    Pipeline,
    pretrain_in_context,
    prompt_parts,
    train,
    weak_direction,
)
from tttab.theory.single_index.attention import (
    attention_output,
    normalised,
    population_gamma,
    pretraining_step,
    sampled_gamma,
)
from tttab.theory.single_index.stages import (
    Stream,
    Student,
    alignment,
    draw_neurons,
    fit_link,
    predict,
    ridge_solve,
    stage_one,
    stage_three,
    stage_two,
)
from tttab.theory.single_index.tasks import (
    IndexLaw,
    derivative,
    draw_basis,
    draw_rows,
    draw_tasks,
    law_of_link,
    series,
    unit,
)

CUBIC = (0.0, 0.0, 0.0, 1.0)


def world(law, tasks=4, rows=200, seed=0):
    generator = torch_stream(seed, "test")
    basis = draw_basis(law, generator)
    drawn = draw_tasks(law, basis, tasks, generator)
    return basis, drawn, *draw_rows(drawn, rows, generator), generator


def test_labels_are_the_hermite_series_and_the_noise_is_two_points():
    law = law_of_link((0, 1, 0, 2), 5, 3, noise=0.25)
    _, tasks, x, y, _ = world(law)
    z = torch.einsum("tnd,td->tn", x, tasks.direction).double()
    wanted = (z + 2 * (z**3 - 3 * z)) / (1 + 4 * 6) ** 0.5
    torch.testing.assert_close(tasks.clean(x).double(), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close((y - tasks.clean(x)).abs(), torch.full_like(y, 0.25), rtol=0, atol=1e-5)
    assert torch.allclose(tasks.direction.norm(dim=1), torch.ones(4), atol=1e-5)


def test_the_derivative_of_a_series_is_autograds():
    weights = torch.randn(3, 6, generator=torch_stream(0, "w"), dtype=torch.float64)
    z = torch.randn(3, 9, generator=torch_stream(0, "z"), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(series(weights, z).sum(), z)
    torch.testing.assert_close(series(derivative(weights), z), slope)


def test_attention_is_the_softmax_of_its_definition_in_blocks_or_not(monkeypatch):
    _, _, x, y, generator = world(IndexLaw(6, 3, CUBIC))
    gamma = torch.randn(6, 6, generator=generator)
    queries = torch.randn(4, 50, 6, generator=generator)
    labels = y.clamp(-3, 3)
    scores = labels[:, None, :] + torch.einsum("tnd,de,tqe->tqn", x, gamma, queries)
    weights = (scores / 0.7).double().exp()
    wanted = (weights * labels[:, None]).sum(2) / weights.sum(2)
    monkeypatch.setattr("tttab.theory.single_index.attention.CPU_BUDGET", 1)
    blocks = attention_output(gamma, x, y, queries, temp=0.7)
    monkeypatch.undo()
    whole = attention_output(gamma, x, y, queries, temp=0.7)
    torch.testing.assert_close(whole.double(), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(blocks, whole, rtol=1e-5, atol=1e-5)


def test_a_low_temperature_collapses_the_softmax_to_one_row_and_heavy_labels_are_clipped():
    x, queries = torch.zeros(1, 3, 2), torch.ones(1, 1, 2)
    y = torch.tensor([[1.0, 2.0, 50.0]])
    cold = attention_output(torch.eye(2), x, y, queries, temp=0.01)
    assert cold.item() == pytest.approx(3.0)


def test_the_pretraining_step_is_minus_autograds_gradient():
    _, _, x, y, _ = world(IndexLaw(5, 5, (0.0, 1.0, 0.5)), rows=30)
    gamma = (torch.eye(5) / 5**0.5).requires_grad_()
    read = attention_output_graph(gamma, x[:, 1:], y[:, 1:], x[:, 0])
    loss = ((y[:, 0].clamp(-3, 3) - read) ** 2 / 2).mean()
    (gradient,) = torch.autograd.grad(loss, gamma)
    step = pretraining_step(gamma.detach(), x[:, 1:], y[:, 1:], x[:, 0], y[:, 0])
    torch.testing.assert_close(step, -gradient, rtol=1e-4, atol=1e-6)


def attention_output_graph(gamma, x, y, query):
    labels = y.clamp(-3, 3)
    share = (labels + torch.einsum("tnd,de,te->tn", x, gamma, query)).softmax(dim=1)
    return (share * labels).sum(dim=1)


@pytest.mark.parametrize("link", [(0.0, 1.0), (0.0, 0.0, 1.0), CUBIC])
def test_sampled_pretraining_finds_the_populations_projection_and_sign(link):
    law = IndexLaw(4, 2, link)
    generator = torch_stream(0, "pretraining")
    basis = draw_basis(law, generator)
    gamma, scale = population_gamma(law, basis)
    *_, (done, raw) = sampled_gamma(law, basis, 6000, 512, generator)
    assert done == 6000
    assert (raw * (basis @ basis.T)).sum().item() / 2 == pytest.approx(scale, rel=0.2)
    assert (scale > 0) == (link == (0.0, 1.0))  # of all these the linear link's step alone is positive
    assert (normalised(raw, 2) - gamma).norm() < 0.25 * gamma.norm()


@pytest.mark.parametrize(("degree", "inside", "across"), [(1, 1.04, 0.02), (2, 0.43, -0.23), (3, 0.4, -0.1)])
def test_pretraining_with_64_rows_per_task_is_smaller_and_has_a_share_across_the_subspace(
    degree, inside, across
):
    law = IndexLaw(4, 2, (0.0,) * degree + (1.0,))
    generator = torch_stream(0, "pretraining")
    basis = draw_basis(law, generator)
    scale = population_gamma(law, basis)[1]
    *_, (_, raw) = sampled_gamma(law, basis, 40_000, 64, generator)
    on = (raw * (basis @ basis.T)).sum().item()
    assert on / 2 / scale == pytest.approx(inside, abs=0.05)
    assert (raw.trace().item() - on) / 2 / scale == pytest.approx(across, abs=0.05)


def test_stage_one_is_autograds_gradient_without_the_start():
    _, _, queries, teacher, generator = world(IndexLaw(6, 6, CUBIC), rows=80)
    student = Student(bound=6.0, tilt=0.1)
    start = unit(torch.randn(4, 6, generator=generator))
    u = start.clone().requires_grad_()
    now, before = (student.value(torch.einsum("tqd,td->tq", queries, v)) for v in (u, start))
    loss = (now - before - teacher).square().mean(dim=1) / 2  # the start cancels
    (gradient,) = torch.autograd.grad(loss.sum(), u)
    across = -gradient + (gradient * start).sum(dim=1, keepdim=True) * start
    torch.testing.assert_close(stage_one(start, queries, teacher, student), unit(across), rtol=0, atol=1e-5)


@pytest.mark.parametrize("loss", ["squared", "correlation"])
def test_a_step_of_stage_two_is_autograds_on_the_sphere(loss):
    _, tasks, x, y, generator = world(IndexLaw(5, 5, (0.0, 0.3, 0.4, 1.0)), rows=1)
    u = unit(torch.randn(4, 5, generator=generator)).requires_grad_()
    h = series(tasks.weights, (x[:, 0] * u).sum(dim=1))
    value = (y[:, 0] - h) ** 2 / 2 if loss == "squared" else -y[:, 0] * h
    (gradient,) = torch.autograd.grad(value.sum(), u)
    across = gradient - (gradient * u).sum(dim=1, keepdim=True) * u
    stream = Stream(x.transpose(0, 1), y.T, torch.tensor([0.01]))
    moved = stage_two(u.detach(), stream, tasks.weights, loss, longest=1e9)
    torch.testing.assert_close(moved, unit(u - 0.01 * across).detach(), rtol=0, atol=1e-5)
    bounded = stage_two(u.detach(), stream, tasks.weights, loss, longest=1e-3)
    assert (bounded - u).norm(dim=1).max() < 1.01e-3


def test_the_fitted_link_shrinks_by_the_alignments_powers():
    _, tasks, x, y, _ = world(IndexLaw(3, 3, CUBIC, noise=0.0), rows=40_000)
    other = unit(torch.linalg.cross(tasks.direction, torch.ones(4, 3)))
    u = 0.8 * tasks.direction + 0.6 * other
    fitted = fit_link(u, x, y, ridge=0.0)
    assert fitted[:, 3].mean().item() == pytest.approx(0.8**3, abs=0.1)
    assert fit_link(-u, x, y)[:, 3].mean().item() == pytest.approx(-(0.8**3), abs=0.1)


def test_stage_three_is_scikit_learns_ridge():
    from sklearn.linear_model import Ridge

    _, tasks, x, y, generator = world(IndexLaw(4, 4, CUBIC), rows=300)
    neurons = draw_neurons(24, 3.0, generator)
    found = stage_three(tasks.direction, x, y, neurons, ridge=1e-2)
    z = torch.einsum("tnd,td->tn", x, tasks.direction)
    for task in range(4):
        features = neurons.features(z[task]).double().numpy()
        reference = Ridge(alpha=300 * 1e-2, fit_intercept=False).fit(features, y[task].double().numpy())
        np.testing.assert_allclose(found[task].numpy(), reference.coef_, rtol=2e-3, atol=2e-4)
    wanted = torch.einsum("tnm,tm->tn", neurons.features(z), found)
    torch.testing.assert_close(predict(tasks.direction, found, neurons, x), wanted, rtol=1e-4, atol=1e-4)


def test_a_narrow_bound_of_biases_leaves_an_error_floor():
    _, tasks, x, y, generator = world(IndexLaw(4, 4, CUBIC, noise=0.0), tasks=6, rows=4000)
    errors = {}
    for bound in (1.0, 3.0):
        neurons = draw_neurons(128, bound, generator)
        output = stage_three(tasks.direction, x[:, :2000], y[:, :2000], neurons)
        test = x[:, 2000:]
        errors[bound] = (predict(tasks.direction, output, neurons, test) - tasks.clean(test)).square().mean()
    assert errors[3.0] < 0.2 * errors[1.0]


def test_tasks_together_equal_tasks_one_by_one():
    law = IndexLaw(6, 3, CUBIC)
    basis, _, x, y, generator = world(law, rows=400)
    x, y, basis = x.double(), y.double(), basis.double()  # 400 steps in a row amplify float32's rounding
    gamma = population_gamma(law, basis)[0]
    queries = torch.randn(4, 64, 3, generator=generator).double() @ basis.T
    start = unit(torch.randn(4, 3, generator=generator).double()) @ basis.T
    neurons = draw_neurons(32, 3.0, generator)

    def stages(part):
        rows, labels = x[part], y[part]
        teacher = attention_output(gamma, rows, labels, queries[part])
        u = stage_one(start[part], queries[part], teacher, Student())
        link = fit_link(u, rows, labels)
        stream = Stream(rows.transpose(0, 1), labels.T, torch.full((400,), 0.01))
        v = stage_two(u, stream, link)
        return torch.cat([u, v, predict(v, stage_three(v, rows, labels, neurons), neurons, rows)], dim=1)

    together = stages(slice(0, 4))
    alone = torch.cat([stages(slice(i, i + 1)) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_the_sign_of_g_does_not_matter_once_it_is_normalised():
    law = IndexLaw(8, 4, CUBIC)
    basis, _, x, y, _ = world(law, rows=512)
    gamma = population_gamma(law, basis)[0]
    noise = 0.01 * torch.randn(8, 8, generator=torch_stream(1, "noise"))
    raw = -0.03 * (gamma + noise)
    again = [
        weak_direction(Pipeline(queries=256), normalised(scale * raw, 4), x, y, torch_stream(2, "weak"))
        for scale in (1.0, -1.0, 50.0)
    ]
    torch.testing.assert_close(again[0], again[1], rtol=0, atol=1e-4)
    torch.testing.assert_close(again[0], again[2], rtol=0, atol=1e-4)
    assert normalised(raw, 4).trace().item() == pytest.approx(2.0, abs=1e-4)


def rounded_to_tf32(values):
    """Round the mantissa to 10 bits, as TF32 does with the factors of a product."""
    return (((values.view(torch.int32) + 0x1000) >> 13) << 13).view(torch.float32)


def test_tf32_factors_move_stage_one_by_less_than_its_own_noise():
    law = IndexLaw(16, 16, CUBIC)
    basis, tasks, x, y, generator = world(law, tasks=8, rows=1024)
    gamma = population_gamma(law, basis)[0]
    queries = torch.randn(8, 1024, 16, generator=generator) @ basis.T
    start = unit(torch.randn(8, 16, generator=generator)) @ basis.T
    found = []
    for cast in (lambda value: value, rounded_to_tf32):
        teacher = attention_output(cast(gamma), cast(x), y, cast(queries))
        teacher = teacher - teacher.mean(dim=1, keepdim=True)
        found.append(stage_one(start, cast(queries), cast(teacher), Student()))
    assert not torch.equal(*found)
    gap = (alignment(found[0], tasks.direction) - alignment(found[1], tasks.direction)).abs()
    assert gap.max() < 0.01


def test_training_recovers_the_direction_and_does_not_read_the_context_to_predict():
    law = IndexLaw(4, 2, CUBIC, noise=0.1)
    basis, tasks, x, y, generator = world(law, tasks=8, rows=4096)
    trained = train(Pipeline(), population_gamma(law, basis)[0], x, y, generator)
    assert alignment(trained.strong, tasks.direction).median() > 0.99
    test = torch.randn(8, 300, 4, generator=generator)
    error = (trained.predict(test) - tasks.clean(test)).square().mean(dim=1)
    assert error.median() < 0.1


def test_the_in_context_model_beats_the_mean_where_the_link_is_linear():
    law = IndexLaw(4, 2, (0.0, 1.0), noise=0.1)
    basis, tasks, x, y, generator = world(law, tasks=8, rows=400)
    gamma = population_gamma(law, basis)[0]
    rival = pretrain_in_context(Pipeline(), gamma, draw_tasks(law, basis, 16, generator), 400, generator)
    test = torch.randn(8, 200, 4, generator=generator)
    error = (rival.predict(x, y, test) - tasks.clean(test)).square().mean()
    assert error < 0.2


def test_prompt_parts_cover_the_prompt_once():
    parts = prompt_parts(1000)
    covered = [row for part in parts for row in range(1000)[part]]
    assert covered == list(range(1000))


def test_ridge_of_nothing_is_zero():
    features = torch.randn(1, 20, 3, generator=torch_stream(0, "f"))
    assert torch.equal(ridge_solve(features, torch.zeros(1, 20), 1e-3), torch.zeros(1, 3))
