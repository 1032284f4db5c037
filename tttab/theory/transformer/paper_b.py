"""Paper B (2509.25741) on a trained transformer: error against context length, in context and trained.

Tasks are single-index with a link that varies, in distribution or shifted. What does not belong here:
the one-layer algorithm of the paper's theorems (`tttab.theory.single_index`), pre-training, tables, plots.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from tttab.errors import RequestError
from tttab.seeding import torch_stream
from tttab.theory.experiment import Row
from tttab.theory.transformer.adapt import (
    LabelledRows,
    Rule,
    TaskTraining,
    TaskWeights,
    adapt_prompt,
    predict,
)
from tttab.theory.transformer.store import Pretrained
from tttab.theory.transformer.tasks import Law, Prompts, label_power, sample_prompts

TEST_ROWS = 256
LR_GRID = (3e-4, 1e-3, 3e-3)
DEFAULT_LR: dict[Rule, float] = {"full": 1e-3, "lora": 3e-3}


@dataclass(frozen=True)
class ContextSettings:
    """The grid of the experiment."""

    lengths: tuple[int, ...] = (16, 64, 256)
    shifts: tuple[str, ...] = ("none", "c=1", "he2")
    rules: tuple[Rule, ...] = ("full", "lora")
    tasks: int = 8
    how: TaskTraining = field(default_factory=lambda: TaskTraining(steps=50))
    """Steps, rank and seed; the step size comes from `DEFAULT_LR` or, with `search`, from validation tasks
    at the middle length."""
    search: bool = False
    seed: int = 0
    device: str = "cpu"


def shifted(law: Law, shift: str) -> Law:
    """Return the test law: `none`, `c=1` (He4's weight fixed at 1), `he2` (He2/sqrt(2) mixed in).

    Raises RequestError for any other name.
    """
    if shift == "none":
        return law
    if shift == "c=1":
        return replace(law, c_low=1.0, c_high=1.0)
    if shift == "he2":
        return replace(law, he2=1.0)
    raise RequestError(f"there is no link shift {shift}", "none, c=1 or he2")


def context_rows(pretrained: Pretrained, settings: ContextSettings) -> Iterator[Row]:
    """Yield one row per (shift, context length, method: icl, ttt-full, ttt-lora).

    The loss is the expected squared error on a noisy label divided by E[clean label^2]; `noise` is the
    same for the true function: the floor.
    """
    hows = {rule: replace(settings.how, rule=rule, lr=DEFAULT_LR[rule]) for rule in settings.rules}
    if settings.search:
        hows = {rule: _searched(pretrained, settings, how) for rule, how in hows.items()}
    for shift in settings.shifts:
        for length in settings.lengths:
            yield from _rows_at(pretrained, settings, (shift, length), hows)


def _rows_at(
    pretrained: Pretrained, settings: ContextSettings, cell: tuple[str, int], hows: dict[Rule, TaskTraining]
) -> Iterator[Row]:
    shift, length = cell
    law = shifted(pretrained.settings.law, shift)
    prompts = _draw(law, settings, length, "test", settings.tasks)
    plain = _losses(pretrained, None, prompts, length, law)
    yield _row(pretrained, settings, (shift, length, "icl"), plain, plain, settings.how)
    for rule, how in hows.items():
        adapted = _adapt(pretrained, prompts, length, how)
        losses = _losses(pretrained, adapted, prompts, length, law)
        row = _row(pretrained, settings, (shift, length, f"ttt-{rule}"), losses, plain, how)
        yield row | {"best_step": float(adapted.best_step.float().mean())}


def _draw(law: Law, settings: ContextSettings, length: int, stream: str, tasks: int) -> Prompts:
    generator = torch_stream(settings.seed, "paper-b", stream, length, device=settings.device)
    return sample_prompts(law, tasks, length + TEST_ROWS, generator)


def _readable(pretrained: Pretrained, length: int) -> int:
    """Return how many rows the model can hold as context."""
    limit = pretrained.model.rows
    return length if limit is None else min(length, limit)


def _adapt(pretrained: Pretrained, prompts: Prompts, length: int, how: TaskTraining) -> TaskWeights:
    rows = LabelledRows(prompts.x, prompts.y).part(None, length)
    return adapt_prompt(pretrained.model, rows, how, _readable(pretrained, length))


def _losses(
    pretrained: Pretrained, adapted: TaskWeights | None, prompts: Prompts, length: int, law: Law
) -> Tensor:
    context = LabelledRows(prompts.x, prompts.y).part(None, _readable(pretrained, length))
    predicted = predict(pretrained.model, adapted, context, prompts.x[:, length:])
    error = (predicted - prompts.clean[:, length:]).square().mean(dim=1)
    return (error + law.noise**2) / label_power(law)


def _searched(pretrained: Pretrained, settings: ContextSettings, how: TaskTraining) -> TaskTraining:
    """Return the best step size on 8 validation tasks of the pre-training law (never the shifted one)."""
    length = settings.lengths[len(settings.lengths) // 2]
    law = pretrained.settings.law
    prompts = _draw(law, settings, length, "validation", 8)
    tried = [replace(how, lr=lr) for lr in LR_GRID]
    losses = [
        float(_losses(pretrained, _adapt(pretrained, prompts, length, one), prompts, length, law).mean())
        for one in tried
    ]
    return tried[losses.index(min(losses))]


def _row(
    pretrained: Pretrained,
    settings: ContextSettings,
    cell: tuple[str, int, str],
    losses: Tensor,
    plain: Tensor,
    how: TaskTraining,
) -> Row:
    pretraining, tasks = pretrained.settings, len(losses)
    law = shifted(pretraining.law, cell[0])
    return {
        "experiment": "transformer",
        "paper": "B",
        "model": pretraining.model.kind,
        "width": pretraining.model.width,
        "d": pretraining.law.d,
        "r": pretraining.law.r,
        "shift": cell[0],
        "n": cell[1],
        "context_read": _readable(pretrained, cell[1]),
        "method": cell[2],
        "loss": float(losses.mean()),
        "stderr": float(losses.std() / tasks**0.5) if tasks > 1 else None,
        "median": float(losses.quantile(0.5)),
        "noise": law.noise**2 / label_power(law),
        "tasks": tasks,
        "stuck": 0 if cell[2] == "icl" else int((losses >= plain).sum()),
        "lr": 0.0 if cell[2] == "icl" else how.lr,
        "steps": 0 if cell[2] == "icl" else how.steps,
        "rank": how.rank if cell[2] == "ttt-lora" else None,
        "checkpoint": pretrained.source,
        "checkpoint_key": pretraining.key,
        "pretraining": asdict(pretraining),
        "seed": settings.seed,
        "device": str(torch.device(settings.device).type),
    }
