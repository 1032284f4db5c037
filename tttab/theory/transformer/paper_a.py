"""Paper A (2503.11842) on a trained transformer: linear tasks, warm against cold start over k.

A context of n = 40 rows stays fixed and k further labelled rows are trained on. The loss is measured on test
rows of the same task, under fresh contexts, as the paper does (its convention F), and under the trained
context (S).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor, nn

from tttab.seeding import torch_stream
from tttab.theory.experiment import Row, stderr
from tttab.theory.transformer.adapt import (
    LabelledRows,
    TaskTraining,
    TaskWeights,
    adapt_fixed_context,
    predict,
)
from tttab.theory.transformer.model import build_model
from tttab.theory.transformer.rates import best_rate
from tttab.theory.transformer.store import Pretrained
from tttab.theory.transformer.tasks import more_rows, sample_prompts

TEST_ROWS = 256
FRESH_CONTEXTS = 8
GRID = (64, 128, 160, 256, 512)


@dataclass(frozen=True)
class WarmColdSettings:
    """The grid of the experiment."""

    k: tuple[int, ...] = GRID
    n: int = 40
    tasks: int = 16
    how: TaskTraining = field(default_factory=lambda: TaskTraining(steps=60, lr=1e-3))
    search: bool = False
    """Choose the step size of each start, at the middle k, on 8 validation tasks of their own."""
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class _Tasks:
    """The rows of some tasks."""

    context: LabelledRows
    labelled: LabelledRows
    test: LabelledRows
    """Labels without noise."""
    fresh: list[LabelledRows]
    """Other contexts of n rows."""


@dataclass(frozen=True)
class _Losses:
    """Mean squared errors over the test rows, each of shape (tasks,)."""

    same: Tensor
    """Under the context that was trained on."""
    fresh: Tensor
    """The mean over fresh contexts."""

    @property
    def columns(self) -> Row:
        return {
            "loss_same": float(self.same.mean()),
            "stderr_same": stderr(self.same),
            "loss_fresh": float(self.fresh.mean()),
            "stderr_fresh": stderr(self.fresh),
        }


def warm_cold_rows(pretrained: Pretrained, settings: WarmColdSettings) -> Iterator[Row]:
    """Yield one row per (start, k); first k = 0, the loss of in-context learning with n rows.

    Losses are over E|b|^2 = 1. `lead` of a cold row is the warm start's loss minus its own on the same fresh
    contexts, `better` the number of tasks on which it is positive. A task is `stuck` where it ends no
    better than in context, on that same context.
    """
    warm = pretrained.model
    cold = build_model(pretrained.settings.model, settings.seed + 1).to(settings.device)
    tasks = _draw(pretrained, settings, max(settings.k, default=0), "test", settings.tasks)
    plain = _losses(warm, None, tasks)
    yield _row(pretrained, settings, ("warm", 0), plain, plain, settings.how) | {"stuck": 0}
    of_warm: dict[int, _Losses] = {}
    for start, model in (("warm", warm), ("cold", cold)):
        how = _searched(pretrained, model, settings) if settings.search else settings.how
        for k in settings.k:
            adapted = _adapt(model, tasks, k, how)
            losses = _losses(model, adapted, tasks)
            row = _row(pretrained, settings, (start, k), losses, plain, how)
            row["best_step"] = float(adapted.best_step.float().mean())
            yield row | (_lead(of_warm[k], losses) if start == "cold" else {})
            of_warm.setdefault(k, losses)


def _lead(warm: _Losses, cold: _Losses) -> Row:
    lead = warm.fresh - cold.fresh
    return {"lead": float(lead.mean()), "lead_stderr": stderr(lead), "better": int((lead > 0).sum())}


def _draw(pretrained: Pretrained, settings: WarmColdSettings, k: int, stream: str, tasks: int) -> _Tasks:
    """Return fresh tasks with k labelled rows."""
    generator = torch_stream(settings.seed, "paper-a", stream, device=settings.device)
    law, n = pretrained.settings.law, settings.n
    drawn = sample_prompts(law, tasks, n + k + TEST_ROWS, generator)
    rows, test = LabelledRows(drawn.x, drawn.y), LabelledRows(drawn.x, drawn.clean).part(n + k, None)
    others = torch_stream(settings.seed, "paper-a", stream, "fresh", device=settings.device)
    more = more_rows(law, drawn, n * FRESH_CONTEXTS, others)
    contexts = LabelledRows(more.x, more.y)
    fresh = [contexts.part(n * i, n * (i + 1)) for i in range(FRESH_CONTEXTS)]
    return _Tasks(rows.part(None, n), rows.part(n, n + k), test, fresh)


def _adapt(model: nn.Module, tasks: _Tasks, k: int, how: TaskTraining) -> TaskWeights:
    """Train on four fifths of the k rows; the last fifth picks the step."""
    cut = k - max(1, k // 5)
    train, held = tasks.labelled.part(None, cut), tasks.labelled.part(cut, k)
    return adapt_fixed_context(model, tasks.context, train, held, how)


def _losses(model: nn.Module, adapted: TaskWeights | None, tasks: _Tasks) -> _Losses:
    def under(context: LabelledRows) -> Tensor:
        return (predict(model, adapted, context, tasks.test.x) - tasks.test.y).square().mean(dim=1)

    return _Losses(under(tasks.context), torch.stack([under(one) for one in tasks.fresh]).mean(dim=0))


def _searched(pretrained: Pretrained, model: nn.Module, settings: WarmColdSettings) -> TaskTraining:
    """Return the step size that is best under fresh contexts."""
    k = settings.k[len(settings.k) // 2]
    tasks = _draw(pretrained, settings, k, "validation", 8)

    def loss(rate: float) -> float:
        return float(
            _losses(model, _adapt(model, tasks, k, replace(settings.how, lr=rate)), tasks).fresh.mean()
        )

    return replace(settings.how, lr=best_rate(loss))


def _row(
    pretrained: Pretrained,
    settings: WarmColdSettings,
    cell: tuple[str, int],
    losses: _Losses,
    plain: _Losses,
    how: TaskTraining,
) -> Row:
    pretraining, (start, k), n = pretrained.settings, cell, settings.n
    return {
        "experiment": "transformer",
        "paper": "A",
        "model": pretraining.model.kind,
        "width": pretraining.model.width,
        "d": pretraining.law.d,
        "n": n,
        "k": k,
        "gamma": k / pretraining.law.d,
        "start": start,
        **losses.columns,
        "best_linear": max(0.0, 1 - n / pretraining.law.d),
        "ols_all": max(0.0, 1 - (n + k) / pretraining.law.d),
        "tasks": len(losses.same),
        "stuck": int((losses.same >= plain.same).sum()),
        "lr": how.lr,
        "steps": how.steps,
        "checkpoint": pretrained.source,
        "checkpoint_key": pretraining.key,
        "pretraining": asdict(pretraining),
        "seed": settings.seed,
        "device": str(torch.device(settings.device).type),
    }
