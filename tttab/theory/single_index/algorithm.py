"""The whole algorithm of 2509.25741 for many tasks: a prompt in four parts, three stages, a prediction.

Its rival is here too: the one-layer in-context model f = MLP(g), whose perceptron is pre-trained across tasks
and then fixed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tttab.errors import RequestError
from tttab.theory.single_index.attention import CLIP, attention_output
from tttab.theory.single_index.settings import StageOne, Weak
from tttab.theory.single_index.stages import (
    Neurons,
    Stream,
    Student,
    draw_neurons,
    fit_link,
    predict,
    ridge_solve,
    stage_one,
    stage_three,
    stage_two,
)
from tttab.theory.single_index.tasks import IndexTasks, draw_rows, unit

FEWEST_ROWS = 64


@dataclass(frozen=True)
class Pipeline:
    """The choices that the paper leaves open, and the ablations."""

    weak: Weak = "distill"
    """Stage I: the attention's output as teacher, the labels themselves, or none (a random direction)."""
    queries: int = 1024
    """Fresh queries of stage I; fewer than about a thousand are noisy."""
    student: Student = field(default_factory=Student)
    temp: float = 1.0
    rate: float = 0.1
    """Stage II's first step size times r; it falls as 1/(1 + 30 t/N3)."""
    refits: int = 4
    """How often stage II fits the link along the direction found so far."""
    neurons: int = 128
    bound: float = 3.0
    ridge: float = 1e-3

    @classmethod
    def of(cls, stage: StageOne, weak: Weak = "distill") -> Pipeline:
        """Return the pipeline with the choices of stage I."""
        return cls(weak, stage.queries, Student(tilt=stage.tilt), stage.temp)

    @property
    def stage_one(self) -> dict[str, Any]:
        """The choices of stage I as columns."""
        shared = {"queries": self.queries, "temp": self.temp, "tilt": self.student.tilt}
        return shared | {"precision": product_precision()}


@dataclass(frozen=True)
class Trained:
    """What test-time training found for each task."""

    weak: Tensor
    """Direction after stage I, shape (tasks, d)."""
    strong: Tensor
    """Direction after stage II, shape (tasks, d)."""
    neurons: Neurons
    output: Tensor
    """Output weights of stage III, shape (tasks, neurons)."""

    def predict(self, x: Tensor) -> Tensor:
        """Return predictions (tasks, rows) for x (tasks, rows, d); no context is read."""
        return predict(self.strong, self.output, self.neurons, x)


def prompt_parts(rows: int) -> tuple[slice, slice, slice, slice]:
    """Return the parts N1 to N4 of a prompt: 1/4, 1/8, 1/2 and 1/8 of its rows.

    Raises RequestError below `FEWEST_ROWS` rows.
    """
    if rows < FEWEST_ROWS:
        raise RequestError(
            f"a prompt of {rows} rows cannot be cut in four, it needs {FEWEST_ROWS}", f"--n {FEWEST_ROWS}"
        )
    cuts = [0, rows // 4, rows // 4 + rows // 8, rows - rows // 8, rows]
    first, second, third, fourth = (slice(a, b) for a, b in pairwise(cuts))
    return first, second, third, fourth


def weak_direction(how: Pipeline, gamma: Tensor, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Return stage I's direction (tasks, d) from rows x (tasks, rows, d), y (tasks, rows).

    Only the subspace that G kept is used: everything happens in its r coordinates, and G's sign is free.
    """
    basis = subspace(gamma)
    shape, device = (len(x), basis.shape[1]), x.device
    start = unit(torch.randn(shape, generator=generator, device=device))
    if how.weak == "random":
        return start @ basis.T
    rows = x @ basis
    if how.weak == "distill":
        queries = torch.randn(shape[0], how.queries, shape[1], generator=generator, device=device)
        teacher = attention_output(basis.T @ gamma @ basis, rows, y, queries, how.temp)
    else:
        queries = rows
        teacher = y.clamp(-CLIP, CLIP) if how.weak == "direct-clipped" else y
    # A constant pulls along the start alone, which stage I removes, and only adds noise across it.
    teacher = teacher - teacher.mean(dim=1, keepdim=True)
    return stage_one(start, queries, teacher, how.student) @ basis.T


def subspace(gamma: Tensor, share: float = 0.1) -> Tensor:
    """Return orthonormal columns of what G kept: singular values above `share` of the largest."""
    left, sizes, _ = torch.linalg.svd(gamma)
    return left[:, sizes > share * sizes[0]]


def train(how: Pipeline, gamma: Tensor, x: Tensor, y: Tensor, generator: torch.Generator) -> Trained:
    """Run stages I, II and III on prompts x (tasks, rows, d), y (tasks, rows)."""
    first, second, third, fourth = prompt_parts(x.shape[1])
    weak = weak_direction(how, gamma, x[:, first], y[:, first], generator)
    basis = subspace(gamma)
    fitted = x[:, second] @ basis, y[:, second]
    inside = _sharpen(how, weak @ basis, fitted, (x[:, third] @ basis, y[:, third]))
    strong = inside @ basis.T
    neurons = draw_neurons(how.neurons, how.bound, generator)
    return Trained(weak, strong, neurons, stage_three(strong, x[:, fourth], y[:, fourth], neurons, how.ridge))


def _sharpen(
    how: Pipeline, u: Tensor, fitted: tuple[Tensor, Tensor], online: tuple[Tensor, Tensor]
) -> Tensor:
    x, y = online[0].transpose(0, 1).contiguous(), online[1].T.contiguous()
    count, r = len(x), x.shape[2]
    rates = how.rate / r / (1 + 30 * torch.arange(count) / count)
    # The link was fitted along a direction that has improved since: fit it anew before each part.
    for part in torch.arange(count).tensor_split(how.refits):
        if len(part):
            span = slice(int(part[0]), int(part[-1]) + 1)
            u = stage_two(u, Stream(x[span], y[span], rates[span]), fit_link(u, *fitted))
    return u


@dataclass(frozen=True)
class InContext:
    """The one-layer in-context model: a perceptron on the attention's output, the same for every task."""

    gamma: Tensor
    temp: float
    centre: Tensor
    spread: Tensor
    neurons: Neurons
    output: Tensor

    def predict(self, x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
        """Return predictions (tasks, queries) from contexts x (tasks, rows, d), y (tasks, rows)."""
        read = attention_output(self.gamma, x, y, queries, self.temp)
        return self.neurons.features((read - self.centre) / self.spread) @ self.output


def pretrain_in_context(
    how: Pipeline, gamma: Tensor, tasks: IndexTasks, rows: int, generator: torch.Generator, queries: int = 64
) -> InContext:
    """Fit the perceptron of the in-context model on the tasks, with contexts of `rows` rows."""
    x, y = draw_rows(tasks, rows + queries, generator)
    read = attention_output(gamma, x[:, :rows], y[:, :rows], x[:, rows:], how.temp)
    centre, spread = read.mean(), read.std().clamp_min(1e-6)
    neurons = draw_neurons(how.neurons, how.bound, generator)
    features = neurons.features((read - centre) / spread).flatten(0, 1)[None]
    output = ridge_solve(features, y[:, rows:].reshape(1, -1), how.ridge)[0]
    return InContext(gamma, how.temp, centre, spread, neurons, output)


def product_precision() -> str:
    """Return how float32 products are formed: `fp32`, or `tf32` where torch may use it on CUDA."""
    return "fp32" if torch.get_float32_matmul_precision() == "highest" else "tf32"
