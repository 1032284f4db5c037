"""Paper A (2503.11842) on a trained transformer: linear tasks, warm against cold start over k.

A context of n = 40 rows stays fixed, k further labelled rows are trained on, and the loss is measured
on fresh rows of the same task. What does not belong here: pre-training, tables, plots.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor, nn

from tttab.seeding import torch_stream
from tttab.theory.experiment import Row
from tttab.theory.transformer.adapt import (
    LabelledRows,
    TaskTraining,
    TaskWeights,
    adapt_fixed_context,
    predict,
)
from tttab.theory.transformer.model import build_model
from tttab.theory.transformer.store import Pretrained
from tttab.theory.transformer.tasks import sample_prompts

TEST_ROWS = 256
LR_GRID = (3e-4, 1e-3, 3e-3)


@dataclass(frozen=True)
class WarmColdSettings:
    """The grid of the experiment."""

    k: tuple[int, ...] = (64, 128, 256, 512)
    n: int = 40
    tasks: int = 8
    how: TaskTraining = field(default_factory=lambda: TaskTraining(steps=60, lr=1e-3))
    search: bool = False
    """Choose the step size of each start, at the middle k, on 8 validation tasks of their own."""
    seed: int = 0
    device: str = "cpu"


def warm_cold_rows(pretrained: Pretrained, settings: WarmColdSettings) -> Iterator[Row]:
    """Yield one row per (start, k); first k = 0, the loss of in-context learning with n rows.

    Losses are mean squared errors on fresh rows divided by E|b|^2 = 1. From either start a task is `stuck`
    where it ends no better than in context.
    """
    warm = pretrained.model
    cold = build_model(pretrained.settings.model, settings.seed + 1).to(settings.device)
    prompts = _draw(pretrained, settings, max(settings.k, default=0), "test", settings.tasks)
    plain = _losses(warm, None, *prompts[::2])
    yield _row(pretrained, settings, "warm", 0, plain, None, settings.how)
    context, labelled, test = prompts
    for start, model in (("warm", warm), ("cold", cold)):
        how = _searched(pretrained, model, settings) if settings.search else settings.how
        for k in settings.k:
            adapted = _adapt(model, context, labelled, k, how)
            losses = _losses(model, adapted, context, test)
            yield _row(pretrained, settings, start, k, losses, plain, how) | {
                "best_step": float(adapted.best_step.float().mean())
            }


def _draw(
    pretrained: Pretrained, settings: WarmColdSettings, k: int, stream: str, tasks: int
) -> tuple[LabelledRows, LabelledRows, LabelledRows]:
    """Return the context, k labelled rows and the test rows of fresh tasks."""
    generator = torch_stream(settings.seed, "paper-a", stream, device=settings.device)
    drawn = sample_prompts(pretrained.settings.law, tasks, settings.n + k + TEST_ROWS, generator)
    rows, n = LabelledRows(drawn.x, drawn.y), settings.n
    return rows.part(None, n), rows.part(n, n + k), LabelledRows(drawn.x, drawn.clean).part(n + k, None)


def _adapt(
    model: nn.Module, context: LabelledRows, labelled: LabelledRows, k: int, how: TaskTraining
) -> TaskWeights:
    """Train on four fifths of the k rows; the last fifth picks the step."""
    cut = k - max(1, k // 5)
    return adapt_fixed_context(model, context, labelled.part(None, cut), labelled.part(cut, k), how)


def _losses(
    model: nn.Module, adapted: TaskWeights | None, context: LabelledRows, test: LabelledRows
) -> Tensor:
    return (predict(model, adapted, context, test.x) - test.y).square().mean(dim=1)


def _searched(pretrained: Pretrained, model: nn.Module, settings: WarmColdSettings) -> TaskTraining:
    k = settings.k[len(settings.k) // 2]
    context, labelled, test = _draw(pretrained, settings, k, "validation", 8)
    tried = [replace(settings.how, lr=lr) for lr in LR_GRID]
    losses = [
        float(_losses(model, _adapt(model, context, labelled, k, how), context, test).mean()) for how in tried
    ]
    return tried[losses.index(min(losses))]


def _row(
    pretrained: Pretrained,
    settings: WarmColdSettings,
    start: str,
    k: int,
    losses: Tensor,
    plain: Tensor | None,
    how: TaskTraining,
) -> Row:
    pretraining, tasks = pretrained.settings, len(losses)
    return {
        "experiment": "transformer",
        "paper": "A",
        "model": pretraining.model.kind,
        "width": pretraining.model.width,
        "d": pretraining.law.d,
        "n": settings.n,
        "k": k,
        "gamma": k / pretraining.law.d,
        "start": start,
        "loss": float(losses.mean()),
        "stderr": float(losses.std() / tasks**0.5) if tasks > 1 else None,
        "median": float(losses.quantile(0.5)),
        "best_linear": max(0.0, 1 - settings.n / pretraining.law.d),
        "tasks": tasks,
        "stuck": int((losses >= plain).sum()) if plain is not None else 0,
        "lr": how.lr,
        "steps": how.steps,
        "checkpoint": pretrained.source,
        "checkpoint_key": pretraining.key,
        "pretraining": asdict(pretraining),
        "seed": settings.seed,
        "device": str(torch.device(settings.device).type),
    }
