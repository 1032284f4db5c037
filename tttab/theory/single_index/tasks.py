"""Single-index tasks in batches: directions in a shared subspace, links that may vary, labelled rows.

y = s(<b, x>) + noise of ±tau, x ~ N(0, I_d), b uniform on the sphere of an r-dimensional subspace
(2509.25741, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tttab.errors import RequestError
from tttab.theory.single_index.hermite import Series, mean_product


@dataclass(frozen=True)
class IndexLaw:
    """The law of tasks and rows."""

    d: int
    r: int
    link: tuple[float, ...]
    """Weights c_i of He_i/sqrt(i!), i = 0, 1, …"""
    noise: float = 0.1
    """Size tau of the label noise: labels move by +tau or -tau."""
    vary: int = 0
    """Degree whose weight changes from task to task; 0: the link is the same for all tasks."""
    low: float = -0.5
    high: float = 0.5
    """The varying weight is c_vary + U(low, high)."""

    def __post_init__(self) -> None:
        if not 1 <= self.r <= self.d:
            least = max(1, self.d)
            raise RequestError(
                f"r = {self.r} must lie between 1 and d = {self.d}", f"--r {least} --d {least}"
            )

    @property
    def degrees(self) -> int:
        """Number of weights, the constant's included."""
        return max(len(self.link), self.vary + 1 if self.vary else 0)


@dataclass(frozen=True)
class IndexTasks:
    """Tasks of one law."""

    law: IndexLaw
    basis: Tensor
    """Orthonormal columns of the shared subspace, shape (d, r)."""
    direction: Tensor
    """b of every task, unit length, shape (tasks, d)."""
    weights: Tensor
    """Weights of He_i/sqrt(i!) of every task, shape (tasks, degrees)."""

    def clean(self, x: Tensor) -> Tensor:
        """Return s(<b, x>), shape (tasks, rows), for x of shape (tasks, rows, d)."""
        return series(self.weights, torch.bmm(x, self.direction[:, :, None]).squeeze(2))

    def part(self, start: int, stop: int) -> IndexTasks:
        """Return the tasks from `start` to `stop`."""
        return IndexTasks(self.law, self.basis, self.direction[start:stop], self.weights[start:stop])


def law_of_link(exact: Series, d: int, r: int, noise: float = 0.1) -> IndexLaw:
    """Return the law with the link `exact`, scaled so that E[s(z)^2] = 1 without the constant."""
    exact = (type(exact[0])(0), *exact[1:])
    scale = float(mean_product(exact, exact)) ** -0.5
    factorials = [1.0]
    for i in range(1, len(exact)):
        factorials.append(factorials[-1] * i)
    weights = tuple(float(a) * f**0.5 * scale for a, f in zip(exact, factorials, strict=True))
    return IndexLaw(d, r, weights, noise)


def draw_basis(law: IndexLaw, generator: torch.Generator) -> Tensor:
    """Return orthonormal columns of a random r-dimensional subspace, shape (d, r)."""
    square = torch.randn(law.d, law.r, generator=generator, device=generator.device)
    return torch.linalg.qr(square).Q


def draw_tasks(law: IndexLaw, basis: Tensor, tasks: int, generator: torch.Generator) -> IndexTasks:
    """Return fresh tasks in the subspace of `basis`."""
    device = generator.device
    inside = unit(torch.randn(tasks, law.r, generator=generator, device=device))
    weights = torch.zeros(tasks, law.degrees, device=device)
    weights[:, : len(law.link)] = torch.tensor(law.link, device=device)
    if law.vary:
        drawn = torch.rand(tasks, generator=generator, device=device)
        weights[:, law.vary] += law.low + (law.high - law.low) * drawn
    return IndexTasks(law, basis, inside @ basis.T, weights)


def draw_rows(tasks: IndexTasks, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return x (tasks, rows, d) and noisy labels y (tasks, rows)."""
    device, count = generator.device, len(tasks.direction)
    x = torch.randn(count, rows, tasks.law.d, generator=generator, device=device)
    y = tasks.clean(x)
    if tasks.law.noise:
        signs = torch.randint(0, 2, y.shape, generator=generator, device=device)
        y = y + tasks.law.noise * (2.0 * signs - 1.0)
    return x, y


def series(weights: Tensor, z: Tensor) -> Tensor:
    """Return sum_i w_i He_i(z)/sqrt(i!), weights (tasks, degrees), z (tasks, …)."""
    shape = (-1,) + (1,) * (z.ndim - 1)
    before, now = torch.zeros_like(z), torch.ones_like(z)
    total = weights[:, 0].view(shape) * now
    for i in range(1, weights.shape[1]):
        before, now = now, (z * now - (i - 1) ** 0.5 * before) / i**0.5
        total = total + weights[:, i].view(shape) * now
    return total


def derivative(weights: Tensor) -> Tensor:
    """Return the weights of the derivative: (He_i/sqrt(i!))' = sqrt(i) He_(i-1)/sqrt((i-1)!)."""
    order = torch.arange(1, weights.shape[1], device=weights.device, dtype=weights.dtype)
    return weights[:, 1:] * order.sqrt()


def unit(vectors: Tensor) -> Tensor:
    """Return the vectors along the last axis at length one; zero vectors stay zero."""
    return torch.nn.functional.normalize(vectors, dim=-1)
