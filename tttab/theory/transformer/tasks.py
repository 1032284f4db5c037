"""Task laws for the small transformers: linear tasks (paper A) and single-index tasks (paper B)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Law:
    """The law of a task and of its rows: x ~ N(0, I_d), y = s(<b, x>) + noise."""

    family: Literal["linear", "index"]
    """`linear`: s(z) = z, b ~ N(0, I/d). `index`: b uniform on the sphere of r coordinates."""
    d: int
    r: int
    """Dimension of the subspace that b lives in; the first r coordinates (x is rotation invariant)."""
    noise: float = 0.0
    """Linear: standard deviation of Gaussian noise. Index: the label moves by +noise or -noise."""
    c_low: float = -0.5
    c_high: float = 0.5
    """The link is He3/sqrt(6) + c He4/sqrt(24) with c ~ U(c_low, c_high), drawn for each task."""
    he2: float = 0.0
    """Weight of He2/sqrt(2) mixed into the link: 0 in pre-training."""


@dataclass(frozen=True)
class Prompts:
    """Rows of many tasks, and what is known of the tasks."""

    x: Tensor
    """Shape (tasks, rows, d)."""
    y: Tensor
    """Labels with noise, shape (tasks, rows)."""
    clean: Tensor
    """Labels without noise, shape (tasks, rows)."""
    c: Tensor
    """Coefficient of He4/sqrt(24), shape (tasks,); zeros for linear tasks."""
    direction: Tensor
    """b, shape (tasks, d)."""


def link(z: Tensor, c: Tensor, he2: float = 0.0) -> Tensor:
    """Return He3(z)/sqrt(6) + c He4(z)/sqrt(24) + he2 He2(z)/sqrt(2) (2509.25741, experiments)."""
    third, fourth = z**3 - 3 * z, z**4 - 6 * z**2 + 3
    return third / 6**0.5 + c * fourth / 24**0.5 + he2 * (z**2 - 1) / 2**0.5


def sample_prompts(law: Law, tasks: int, rows: int, generator: torch.Generator) -> Prompts:
    """Return `rows` rows of each of `tasks` fresh tasks, on the generator's device."""
    draw: dict[str, Any] = {"generator": generator, "device": generator.device}
    x = torch.randn(tasks, rows, law.d, **draw)
    direction = torch.zeros(tasks, law.d, device=generator.device)
    direction[:, : law.r] = torch.randn(tasks, law.r, **draw)
    if law.family == "linear":
        c = torch.zeros(tasks, device=generator.device)
        direction = direction / law.r**0.5
    else:
        c = law.c_low + (law.c_high - law.c_low) * torch.rand(tasks, **draw)
        direction = direction / direction.norm(dim=1, keepdim=True)
    return _labelled(law, x, direction, c, generator)


def more_rows(law: Law, known: Prompts, rows: int, generator: torch.Generator) -> Prompts:
    """Return `rows` further rows of each of the tasks of `known`."""
    shape = (len(known.c), rows, law.d)
    x = torch.randn(*shape, generator=generator, device=generator.device)
    return _labelled(law, x, known.direction, known.c, generator)


def _labelled(law: Law, x: Tensor, direction: Tensor, c: Tensor, generator: torch.Generator) -> Prompts:
    draw: dict[str, Any] = {"generator": generator, "device": generator.device}
    z, shape = torch.einsum("tnd,td->tn", x, direction), x.shape[:2]
    if law.family == "linear":
        clean, noise = z, torch.randn(*shape, **draw)
    else:
        clean = link(z, c[:, None], law.he2)
        noise = 2.0 * torch.randint(0, 2, shape, **draw) - 1.0
    return Prompts(x, clean + law.noise * noise, clean, c, direction)


def label_power(law: Law) -> float:
    """Return E[clean y^2] over tasks and rows: the error of always answering 0."""
    if law.family == "linear":
        return 1.0
    low, high = law.c_low, law.c_high
    return 1.0 + (low * low + low * high + high * high) / 3 + law.he2**2
