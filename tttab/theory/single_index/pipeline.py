"""Experiment: test error of the whole algorithm against N, beside the noise and the in-context model.

What does not belong here: the algorithm (`algorithm`), tables and plots.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from tttab.seeding import torch_stream
from tttab.theory.single_index.algorithm import InContext, Pipeline, pretrain_in_context, train
from tttab.theory.single_index.attention import normalised, population_gamma, sampled_gamma
from tttab.theory.single_index.hermite import parse_link
from tttab.theory.single_index.stages import alignment
from tttab.theory.single_index.tasks import (
    IndexLaw,
    IndexTasks,
    draw_basis,
    draw_rows,
    draw_tasks,
    law_of_link,
)
from tttab.theory.single_index.weak import common

TEST_ROWS = 512
STUCK = 0.5


@dataclass(frozen=True)
class PipelineSettings:
    """The grid."""

    rows: tuple[int, ...] = (1024, 4096, 16384)
    """N, all four parts of the prompt together."""
    dims: tuple[int, ...] = (32,)
    """d, one curve each."""
    r: int = 16
    link: str = "He3"
    vary: int = 4
    """Degree whose weight is drawn from U(-0.5, 0.5) for each task; 0: one link for all."""
    noise: float = 0.2
    tasks: int = 32
    in_context: bool = True
    """Measure the in-context model as well."""
    pretraining_tasks: int = 0
    """Tasks that G is pre-trained on; 0: infinitely many."""
    how: Pipeline = field(default_factory=Pipeline)
    seed: int = 0
    device: str = "cpu"


def pipeline_rows(settings: PipelineSettings) -> Iterator[dict[str, Any]]:
    """Yield one row per (d, N, method ttt or icl).

    `error` is the expected squared error on a noisy label, so `noise_level` = tau^2 is its floor; a task is
    stuck where the error without noise exceeds half of the labels' power. Alignments |<b, u>| are medians
    over tasks, as one that is stuck says nothing of the others; stage I's mean stands beside them.
    """
    for d in settings.dims:
        law = _law(settings, d)
        generator = torch_stream(settings.seed, "pipeline", "subspace", d, device=settings.device)
        basis = draw_basis(law, generator)
        gamma = _gamma(settings, law, basis, generator)
        for rows in settings.rows:
            yield from _rows_at(settings, (law, basis, gamma), rows)


def _law(settings: PipelineSettings, d: int) -> IndexLaw:
    exact = law_of_link(parse_link(settings.link), d, settings.r, settings.noise)
    return IndexLaw(d, settings.r, exact.link, settings.noise, settings.vary)


def _gamma(settings: PipelineSettings, law: IndexLaw, basis: Tensor, generator: torch.Generator) -> Tensor:
    gamma, _ = population_gamma(law, basis, settings.how.temp)
    if settings.pretraining_tasks:
        for _, raw in sampled_gamma(law, basis, settings.pretraining_tasks, 64, generator, settings.how.temp):
            gamma = raw
        gamma = normalised(gamma, law.r)
    return gamma.to(basis)


def _rows_at(
    settings: PipelineSettings, world: tuple[IndexLaw, Tensor, Tensor], rows: int
) -> Iterator[dict[str, Any]]:
    law, basis, gamma = world
    generator = torch_stream(settings.seed, "pipeline", law.d, rows, device=settings.device)
    tasks = draw_tasks(law, basis, settings.tasks, generator)
    rival = None
    if settings.in_context:
        seen = draw_tasks(law, basis, min(32, settings.tasks), generator)
        rival = pretrain_in_context(settings.how, gamma, seen, rows, generator)
    parts = []
    size = max(1, (2**25 if generator.device.type == "cpu" else 2**30) // (rows * law.d))
    for first in range(0, settings.tasks, size):
        parts.append(_measure(settings.how, tasks.part(first, first + size), (gamma, rival), rows, generator))
    ttt, weak, strong, icl = (torch.cat(values) for values in zip(*parts, strict=True))
    aligned = {
        "weak_alignment_mean": float(weak.mean()),
        "weak_alignment_median": float(weak.quantile(0.5)),
        "strong_alignment_median": float(strong.quantile(0.5)),
    }
    yield _row(settings, tasks, rows, "ttt", ttt) | aligned
    if rival:
        yield _row(settings, tasks, rows, "icl", icl)


def _measure(
    how: Pipeline,
    tasks: IndexTasks,
    models: tuple[Tensor, InContext | None],
    rows: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the trained model's errors, both alignments and the in-context model's errors, per task."""
    gamma, rival = models
    x, y = draw_rows(tasks, rows, generator)
    shape = (len(tasks.direction), TEST_ROWS, tasks.law.d)
    test = torch.randn(shape, generator=generator, device=generator.device)
    trained = train(how, gamma, x, y, generator)
    errors = _errors(tasks, test, trained.predict(test))
    weak, strong = (alignment(u, tasks.direction) for u in (trained.weak, trained.strong))
    queries = test[:, :128]
    icl = _errors(tasks, queries, rival.predict(x, y, queries)) if rival else errors
    return errors, weak, strong, icl


def _errors(tasks: IndexTasks, x: Tensor, predicted: Tensor) -> Tensor:
    return (predicted - tasks.clean(x)).square().mean(dim=1)


def _row(
    settings: PipelineSettings, tasks: IndexTasks, rows: int, method: str, errors: Tensor
) -> dict[str, Any]:
    law, count = tasks.law, len(errors)
    power = float(tasks.weights.square().sum(dim=1).mean())
    floor = law.noise**2
    return {
        "experiment": "single-index",
        "link": settings.link,
        "vary": settings.vary,
        "d": law.d,
        "r": law.r,
        "n": rows,
        "method": method,
        "stage_1": settings.how.weak if method == "ttt" else "",
        "error": float(errors.mean()) + floor,
        "stderr": float(errors.std() / count**0.5) if count > 1 else None,
        "median": float(errors.quantile(0.5)) + floor,
        "noise_level": floor,
        "label_power": power,
        "stuck": int((errors > STUCK * power).sum()),
        "tasks": count,
        **common(settings.how),
        "pipeline": asdict(settings.how),
        "pretraining_tasks": settings.pretraining_tasks,
        "seed": settings.seed,
        "device": torch.device(settings.device).type,
    }
