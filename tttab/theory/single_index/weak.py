"""Experiment: how many rows stage I needs, self-distilled against trained on the labels themselves.

What does not belong here: the stage itself (`stages`), tables and plots.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from tttab.seeding import torch_stream
from tttab.theory.single_index.algorithm import Pipeline, Weak, weak_direction
from tttab.theory.single_index.attention import population_gamma
from tttab.theory.single_index.hermite import generative_exponent, information_exponent, parse_link
from tttab.theory.single_index.stages import Student, alignment
from tttab.theory.single_index.tasks import draw_basis, draw_rows, draw_tasks, law_of_link

METHODS: tuple[Weak, ...] = ("distill", "direct", "direct-clipped", "random")


@dataclass(frozen=True)
class WeakSettings:
    """The grid."""

    links: tuple[str, ...] = ("He2", "He3", "He4", "He3 + 0.5*He4")
    ranks: tuple[int, ...] = (16, 32)
    """r; d equals r unless `d` says otherwise."""
    rows: tuple[int, ...] = (256, 1024, 4096)
    """N1."""
    d: int = 0
    tasks: int = 24
    noise: float = 0.1
    how: Pipeline = field(default_factory=lambda: Pipeline(queries=4096))
    seed: int = 0
    device: str = "cpu"


def weak_rows(settings: WeakSettings) -> Iterator[dict[str, Any]]:
    """Yield one row per (link, r, N1, method) with the mean of |<b, u1>| over tasks.

    `floor` is the mean for a random direction, sqrt(2/(pi r)); a task is stuck below twice 1/sqrt(r).
    """
    for text in settings.links:
        for r in settings.ranks:
            for rows in settings.rows:
                yield from _rows_at(settings, text, r, rows)


def _rows_at(settings: WeakSettings, text: str, r: int, rows: int) -> Iterator[dict[str, Any]]:
    exact = parse_link(text)
    law = law_of_link(exact, settings.d or r, r, settings.noise)
    generator = torch_stream(settings.seed, "weak", text, r, rows, device=settings.device)
    basis = draw_basis(law, generator)
    gamma, _ = population_gamma(law, basis, settings.how.temp)
    tasks = draw_tasks(law, basis, settings.tasks, generator)
    x, y = draw_rows(tasks, rows, generator)
    for method in METHODS:
        found = alignment(
            weak_direction(replace(settings.how, weak=method), gamma, x, y, generator), tasks.direction
        )
        yield {
            "experiment": "weak",
            "link": text,
            "ie": information_exponent(exact),
            "ge": generative_exponent(exact),
            "d": law.d,
            "r": r,
            "n1": rows,
            "method": method,
            "alignment": float(found.mean()),
            "stderr": float(found.std() / len(found) ** 0.5) if len(found) > 1 else None,
            "median": float(found.quantile(0.5)),
            "floor": (2 / (torch.pi * r)) ** 0.5,
            "stuck": int((found < 2 / r**0.5).sum()),
            "tasks": len(found),
            **common(settings.how),
            "noise": settings.noise,
            "seed": settings.seed,
            "device": torch.device(settings.device).type,
        }


def common(how: Pipeline) -> dict[str, Any]:
    """Return the choices of stage I as columns."""
    student: Student = how.student
    return {"queries": how.queries, "temp": how.temp, "tilt": student.tilt, "precision": precision()}


def precision() -> str:
    """Return how float32 products are formed: `fp32`, or `tf32` where torch was told to allow it on CUDA."""
    return "fp32" if torch.get_float32_matmul_precision() == "highest" else "tf32"
