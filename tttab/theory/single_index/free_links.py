"""Links that are any function of one or two directions, and training of both layers together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tttab.theory.single_index.algorithm import Pipeline, weak_direction
from tttab.theory.single_index.stages import Neurons, draw_neurons, ridge_solve
from tttab.theory.single_index.tasks import IndexLaw, IndexTasks

Link = Callable[[Tensor, Tensor], Tensor]
REACH, POINTS, ANGLES = 6.0, 301, 91
BATCH = 256


def _third(z: Tensor) -> Tensor:
    return (z**3 - 3 * z) / 6**0.5


LINKS: dict[str, Link] = {
    "He3": lambda z, w: _third(z),
    "sign": lambda z, w: z.sign(),
    "tanh": lambda z, w: torch.tanh(3 * z),
    "abs": lambda z, w: z.abs(),
    "cos": lambda z, w: torch.cos(2 * z),
    "product": lambda z, w: z * w,
    "sum": lambda z, w: _third(z) + _third(w),
    "ridge-pair": lambda z, w: z.abs() + _third(w),
}
"""As functions of z = <b1, x> and w = <b2, x>; each is centred and scaled to unit power."""
PAIRS = ("product", "sum", "ridge-pair")
"""The links of two directions."""


@dataclass(frozen=True)
class FreeTasks(IndexTasks):
    """Tasks whose link is a function of one or two orthonormal directions."""

    second: Tensor
    """b2 of every task, shape (tasks, d)."""
    name: str

    @property
    def pair(self) -> bool:
        """Whether the link has two directions."""
        return self.name in PAIRS

    def clean(self, x: Tensor) -> Tensor:
        """Return the labels without noise, shape (tasks, rows), for x of shape (tasks, rows, d)."""
        z, w = (torch.bmm(x, b[:, :, None]).squeeze(2) for b in (self.direction, self.second))
        mean, power = moments(self.name)
        return (LINKS[self.name](z, w) - mean) / power**0.5

    def alignment(self, found: Tensor) -> Tensor:
        """Return how much of the found directions (tasks, d, m) lies in the link's, shape (tasks,).

        The root of the mean squared cosine; where the link has more directions than were found, of those
        found.
        """
        own = torch.stack([self.direction, self.second], 2)[:, :, : 1 + self.pair]
        axes = torch.linalg.qr(found).Q
        shares = torch.bmm(axes.transpose(1, 2), own).square().sum((1, 2))
        return (shares / min(found.shape[2], own.shape[2])).sqrt()


def draw_free_tasks(name: str, d: int, noise: float, count: int, generator: torch.Generator) -> FreeTasks:
    """Return tasks with random orthonormal directions in d dimensions."""
    pair = torch.randn(count, d, 2, generator=generator, device=generator.device)
    both = torch.linalg.qr(pair).Q
    law, basis = IndexLaw(d, d, (0.0, 1.0), noise), torch.eye(d, device=generator.device)
    weights = torch.zeros(count, 2, device=generator.device)
    return FreeTasks(law, basis, both[:, :, 0].contiguous(), weights, both[:, :, 1].contiguous(), name)


def moments(name: str) -> tuple[float, float]:
    """Return mean and variance of a link under independent standard normal z and w, by quadrature."""
    z, mass = _grid()
    values = LINKS[name](z[:, None], z[None]).expand(len(z), len(z))
    joint = torch.outer(mass, mass)
    mean = float((joint * values).sum())
    return mean, float((joint * (values - mean).square()).sum())


def one_direction_floor(name: str) -> float:
    """Return the least E Var(s | <u, x>) over directions u in the link's span, 0 for one direction."""
    if name not in PAIRS:
        return 0.0
    z, mass = _grid()
    mean, power = moments(name)
    best = 1.0
    for angle in torch.linspace(0, torch.pi, ANGLES, dtype=z.dtype):
        c, s = angle.cos(), angle.sin()
        along, across = z[:, None], z[None]
        seen = ((LINKS[name](c * along - s * across, s * along + c * across) - mean) @ mass).square() @ mass
        best = min(best, 1 - float(seen) / power)
    return best


@dataclass(frozen=True)
class Fitted:
    """One or two directions of every task and a perceptron on them."""

    directions: Tensor
    """Shape (tasks, d, m)."""
    ways: Tensor
    """Fixed unit vectors, a neuron's in the plane, shape (m, neurons)."""
    neurons: Neurons
    output: Tensor
    """Shape (tasks, neurons)."""

    def features(self, x: Tensor) -> Tensor:
        """Return the neurons' values, shape (tasks, rows, neurons)."""
        along = torch.bmm(x, torch.nn.functional.normalize(self.directions, dim=1))
        return torch.relu((along @ self.ways) * self.neurons.v + self.neurons.bias)

    def predict(self, x: Tensor) -> Tensor:
        """Return predictions (tasks, rows) for x (tasks, rows, d)."""
        return torch.bmm(self.features(x), self.output[:, :, None]).squeeze(2)


def main_plane(
    how: Pipeline, gamma: Tensor, x: Tensor, y: Tensor, starts: int, generator: torch.Generator
) -> Tensor:
    """Return the two main axes (tasks, d, 2) of stage I's directions from several random starts."""
    found = torch.stack([weak_direction(how, gamma, x, y, generator) for _ in range(starts)], 2)
    return torch.linalg.svd(found, full_matrices=False).U[:, :, :2]


def fit_output(how: Pipeline, directions: Tensor, x: Tensor, y: Tensor, generator: torch.Generator) -> Fitted:
    """Return stage III on one or two directions (tasks, d, m): ridge regression on random neurons."""
    neurons = draw_neurons(how.neurons, how.bound, generator)
    ways = torch.ones(1, how.neurons, device=x.device)
    if directions.shape[2] > 1:
        angles = torch.pi * torch.rand(how.neurons, generator=generator, device=x.device)
        ways = torch.stack([angles.cos(), angles.sin()])
    bare = Fitted(directions, ways, neurons, y.new_zeros(len(y), how.neurons))
    return replace(bare, output=ridge_solve(bare.features(x), y, how.ridge))


def train_jointly(
    start: Fitted, x: Tensor, y: Tensor, steps: int, rate: float, generator: torch.Generator
) -> Fitted:
    """Return the directions and the output layer trained together, a task with weights of its own.

    Adam with a cosine to zero, on batches of the rows.
    """
    moved = [start.directions.clone().requires_grad_(True), start.output.clone().requires_grad_(True)]
    model = replace(start, directions=moved[0], output=moved[1])
    optimiser = torch.optim.Adam(moved, lr=rate)
    rule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        rows = torch.randint(x.shape[1], (min(BATCH, x.shape[1]),), generator=generator, device=x.device)
        loss = (model.predict(x[:, rows]) - y[:, rows]).square().mean(1).sum() / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rule.step()
    return replace(model, directions=moved[0].detach(), output=moved[1].detach())


def _grid() -> tuple[Tensor, Tensor]:
    z = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
    mass = torch.exp(-z.square() / 2)
    return z, mass / mass.sum()
