"""The three stages of test-time training in 2509.25741, each for many tasks at once, and prediction.

I: one self-distilled gradient step gives a direction. II: online steps on the sphere sharpen it. III: a ridge
regression on random ReLU neurons learns the link. `algorithm` divides a prompt among them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tttab.theory.single_index.settings import Loss
from tttab.theory.single_index.tasks import derivative, unit


@dataclass(frozen=True)
class Student:
    """The neurons that stage I differentiates: mean of relu(v <u, w> + bias), biases uniform on ±bound."""

    bound: float = 3.0
    tilt: float = 0.05
    """Share of v = +1 above one half. 0 sees even links alone, 1/2 mostly links with a linear part."""

    def value(self, z: Tensor) -> Tensor:
        """Return the mean over the biases, up to a constant, for |z| <= bound extended linearly."""
        near = z.clamp(-self.bound, self.bound)
        return near**2 / (4 * self.bound) + (z - near).abs() / 2 + self.tilt * z

    def slope(self, z: Tensor) -> Tensor:
        """Return the derivative of `value`."""
        return z.clamp(-self.bound, self.bound) / (2 * self.bound) + self.tilt


def stage_one(start: Tensor, queries: Tensor, teacher: Tensor, student: Student) -> Tensor:
    """Return u after one gradient step from `start` with weight decay 1/step: weak recovery (tasks, d).

    The decay removes `start`; what the gradient holds along it is removed as well, and u is normalised.
    """
    pull = teacher * student.slope(_along(queries, start))
    # Minus the gradient at u = start, where student(u) - student(start) vanishes.
    gradient = torch.bmm(pull[:, None, :], queries).squeeze(1) / queries.shape[1]
    return unit(gradient - (gradient * start).sum(dim=1, keepdim=True) * start)


def fit_link(u: Tensor, x: Tensor, y: Tensor, degree: int = 5, ridge: float = 1e-2) -> Tensor:
    """Return weights of He_i/sqrt(i!) of y along u, (tasks, degree + 1): they settle sign and scale."""
    z = _along(x, u)
    basis = [torch.ones_like(z), z]
    for i in range(2, degree + 1):
        basis.append((z * basis[-1] - (i - 1) ** 0.5 * basis[-2]) / i**0.5)
    return ridge_solve(torch.stack(basis, dim=2), y, ridge)


@dataclass(frozen=True)
class Stream:
    """Rows in the order in which stage II reads them; time comes first."""

    x: Tensor
    """Shape (rows, tasks, r)."""
    y: Tensor
    """Shape (rows, tasks)."""
    rates: Tensor
    """Step sizes, shape (rows,)."""


def stage_two(
    u: Tensor, stream: Stream, link: Tensor, loss: Loss = "squared", longest: float = 0.5
) -> Tensor:
    """Return u (tasks, r) after one online step on the sphere per row of the stream.

    A step descends (y - h(<u, x>))^2 / 2, or -y h(<u, x>) for the loss `correlation`; link: weights of
    h, (tasks, degrees) or (1, degrees). `longest` bounds a step's length: heavy tails throw u off.
    """
    polynomials = torch.stack([_monomials(link), _monomials(derivative(link), link.shape[1])], dim=1)
    if loss == "correlation":
        polynomials[:, 0] = 0
    x, y, rates = stream.x, stream.y, stream.rates
    squares = x.square().sum(dim=2)
    for t, rate in enumerate(rates.tolist()):
        z = torch.linalg.vecdot(x[t], u)
        powers = torch.cat([torch.ones_like(z)[:, None], z[:, None].expand(-1, link.shape[1] - 1)], 1)
        h, slope = (polynomials * powers.cumprod(1)[:, None]).sum(dim=2).unbind(1)
        pull = rate * (y[t] - h) * slope
        across = (squares[t] - z * z).clamp_min(0).sqrt()
        # The step is tangential: `pull` times x without its part along u, whose length is `across`.
        pull = pull * (longest / (pull.abs() * across).clamp_min(longest))
        shrink = torch.rsqrt(1 + (pull * across).square())
        u = torch.addcmul(((1 - pull * z) * shrink)[:, None] * u, (pull * shrink)[:, None], x[t])
    return unit(u)


def _monomials(weights: Tensor, width: int = 0) -> Tensor:
    """Return the weights of z^0, z^1, … of a series in He_i/sqrt(i!), padded with zeros to `width`."""
    size = weights.shape[1]
    table = torch.zeros(size, max(size, width), dtype=torch.float64)
    table[0, 0] = 1.0
    for i in range(1, size):
        table[i, 1:] = table[i - 1, :-1]
        if i > 1:
            table[i] -= (i - 1) ** 0.5 * table[i - 2]
        table[i] /= i**0.5
    return weights @ table.to(weights)


@dataclass(frozen=True)
class Neurons:
    """Fixed first layer of the perceptron: v = ±1 and biases uniform on ±bound, shape (neurons,)."""

    v: Tensor
    bias: Tensor

    def features(self, z: Tensor) -> Tensor:
        """Return relu(v z + bias), shape (*z.shape, neurons)."""
        return torch.relu(z.unsqueeze(-1) * self.v + self.bias)


def draw_neurons(count: int, bound: float, generator: torch.Generator) -> Neurons:
    """Return `count` neurons; bound below 3 leaves the tails of <u, x> to a straight line."""
    device = generator.device
    signs = 2.0 * torch.randint(0, 2, (count,), generator=generator, device=device) - 1.0
    return Neurons(signs, bound * (2 * torch.rand(count, generator=generator, device=device) - 1))


def stage_three(u: Tensor, x: Tensor, y: Tensor, neurons: Neurons, ridge: float = 1e-3) -> Tensor:
    """Return the output weights a (tasks, neurons) that minimise mean (f - y)^2 / 2 + ridge |a|^2 / 2."""
    return ridge_solve(neurons.features(_along(x, u)), y, ridge)


def predict(u: Tensor, a: Tensor, neurons: Neurons, x: Tensor) -> Tensor:
    """Return f = sum_j a_j relu(v_j <u, x> + bias_j), (tasks, rows). The context is not read."""
    return torch.bmm(neurons.features(_along(x, u)), a[:, :, None]).squeeze(2)


def ridge_solve(features: Tensor, y: Tensor, ridge: float) -> Tensor:
    """Return argmin_a mean (features a - y)^2 / 2 + ridge |a|^2 / 2 for each task; solved in float64."""
    rows = features.shape[1]
    gram = torch.bmm(features.transpose(1, 2), features).double() / rows
    gram.diagonal(dim1=1, dim2=2).add_(ridge)
    moment = torch.bmm(y[:, None, :], features).double() / rows
    factor = torch.linalg.cholesky(gram)
    return torch.cholesky_solve(moment.transpose(1, 2), factor).squeeze(2).to(y.dtype)


def alignment(u: Tensor, direction: Tensor) -> Tensor:
    """Return |<b, u>|, shape (tasks,)."""
    return (u * direction).sum(dim=1).abs()


def _along(x: Tensor, u: Tensor) -> Tensor:
    return torch.bmm(x, u[:, :, None]).squeeze(2)
