"""Test-time training of the small transformers: all weights or LoRA, many tasks at once or one by one.

Every task gets its own weights. Vectorised, they are stacked along a leading axis and torch.func maps the
gradient over it. The loop does the same task by task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from tttab.seeding import torch_stream

Weights = dict[str, Tensor]
Rule = Literal["full", "lora"]
Batch = Callable[[int], tuple["LabelledRows", "LabelledRows"]]


@dataclass(frozen=True)
class TaskTraining:
    """How a task's weights are trained."""

    rule: Rule = "full"
    lr: float = 1e-3
    """Adam's step size."""
    steps: int = 100
    rank: int = 4
    """Rank of the LoRA factors on every weight matrix."""
    check: int = 10
    """Steps between looks at the held-out rows; the weights of the best look are kept."""
    seed: int = 0


@dataclass(frozen=True)
class LabelledRows:
    """Rows of many tasks: x (tasks, rows, d) and y (tasks, rows)."""

    x: Tensor
    y: Tensor

    def part(self, start: int | None, stop: int | None) -> LabelledRows:
        """Return the rows from `start` to `stop` of every task."""
        return LabelledRows(self.x[:, start:stop], self.y[:, start:stop])

    def task(self, number: int) -> LabelledRows:
        """Return one task, still with a task axis."""
        return LabelledRows(self.x[number : number + 1], self.y[number : number + 1])


@dataclass(frozen=True)
class TaskWeights:
    """Weights of every task and how they were found."""

    weights: Weights
    """Trained tensors, stacked over tasks: the model's own for `full`, the factors for `lora`."""
    best_step: Tensor
    """Step whose weights were kept, shape (tasks,); 0 means untouched."""
    rule: Rule


def adapt_fixed_context(
    model: nn.Module, context: LabelledRows, train: LabelledRows, held: LabelledRows, how: TaskTraining
) -> TaskWeights:
    """Train on `train` under a fixed `context`; keep the best step on `held` (2503.11842, sec. 3)."""

    def batch(step: int) -> tuple[LabelledRows, LabelledRows]:
        return context, train

    return _adapt(model, batch, (context, held), how)


def adapt_prompt(model: nn.Module, prompt: LabelledRows, how: TaskTraining) -> TaskWeights:
    """Train on one prompt: each step splits its rows anew into context and queries, half and half.

    The last fifth of the prompt (at least one row) is held out and picks the step that is kept; no row
    outside the prompt is read.
    """
    rows = prompt.y.shape[1]
    held = max(1, rows // 5)
    train = prompt.part(None, rows - held)
    kept = rows - held

    def batch(step: int) -> tuple[LabelledRows, LabelledRows]:
        order = torch.randperm(kept, generator=torch_stream(how.seed, "split", step)).to(prompt.x.device)
        n = max(1, kept // 2)
        shuffled = LabelledRows(train.x[:, order], train.y[:, order])
        return shuffled.part(None, n), shuffled.part(n, 2 * n)

    return _adapt(model, batch, (train, prompt.part(kept, None)), how)


def adapt_looped(model: nn.Module, prompt: LabelledRows, how: TaskTraining) -> TaskWeights:
    """Return what `adapt_prompt` returns, task by task: the reference, and the slower way for many tasks."""
    parts = [adapt_prompt(model, prompt.task(t), how) for t in range(len(prompt.y))]
    weights = {name: torch.cat([part.weights[name] for part in parts]) for name in parts[0].weights}
    return TaskWeights(weights, torch.cat([part.best_step for part in parts]), how.rule)


@torch.no_grad()
def predict(model: nn.Module, adapted: TaskWeights | None, context: LabelledRows, query_x: Tensor) -> Tensor:
    """Return predictions (tasks, queries); `adapted` None is plain in-context learning."""
    if adapted is None:
        return model(context.x, context.y, query_x)
    base = _base_weights(model)

    def one(weights: Weights, x: Tensor, y: Tensor, query: Tensor) -> Tensor:
        full = _effective(base, weights, adapted.rule)
        return functional_call(model, full, (x[None], y[None], query[None]))[0]

    return vmap(one)(adapted.weights, context.x, context.y, query_x)


def start_weights(model: nn.Module, tasks: int, how: TaskTraining) -> Weights:
    """Return the tensors to train, stacked over tasks; LoRA starts at the model itself (B = 0)."""
    base = _base_weights(model)
    if how.rule == "full":
        return {name: value.expand(tasks, *value.shape).clone() for name, value in base.items()}
    factors: Weights = {}
    for name, value in base.items():
        if value.ndim == 2:
            generator = torch_stream(how.seed, "lora", name)
            down = torch.randn(how.rank, value.shape[1], generator=generator) / value.shape[1] ** 0.5
            factors[f"{name}/A"] = down.to(value.device).expand(tasks, -1, -1).clone()
            factors[f"{name}/B"] = value.new_zeros(tasks, value.shape[0], how.rank)
    return factors


def _adapt(
    model: nn.Module, batch: Batch, watch: tuple[LabelledRows, LabelledRows], how: TaskTraining
) -> TaskWeights:
    base = _base_weights(model)
    tasks = len(watch[0].y)
    weights = start_weights(model, tasks, how)
    moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in weights.items()}

    def loss(weights: Weights, x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        full = _effective(base, weights, how.rule)
        predicted = functional_call(model, full, (x[None], y[None], query_x[None]))[0]
        return (predicted - query_y).square().mean()

    def watched(weights: Weights) -> Tensor:
        with torch.no_grad():
            return vmap(loss)(weights, watch[0].x, watch[0].y, watch[1].x, watch[1].y)

    gradient = vmap(grad_and_value(loss))
    best, best_loss = {k: v.clone() for k, v in weights.items()}, watched(weights)
    best_step = torch.zeros(tasks, dtype=torch.long, device=best_loss.device)
    for step in range(1, how.steps + 1):
        context, query = batch(step)
        grads, _ = gradient(weights, context.x, context.y, query.x, query.y)
        _adam(weights, grads, moments, step, how.lr)
        if step % how.check == 0 or step == how.steps:
            now = watched(weights)
            better = now < best_loss
            best_loss = torch.where(better, now, best_loss)
            best_step = torch.where(better, torch.full_like(best_step, step), best_step)
            for name, value in weights.items():  # each task keeps its own best step
                best[name][better] = value[better]
    return TaskWeights(best, best_step, how.rule)


def _adam(
    weights: Weights, grads: Weights, moments: dict[str, tuple[Tensor, Tensor]], step: int, lr: float
) -> None:
    """Take one step of Adam (betas 0.9, 0.999) in place; it is elementwise, so tasks stay apart."""
    for name, grad in grads.items():
        first, second = moments[name]
        first.lerp_(grad, 0.1)
        second.mul_(0.999).addcmul_(grad, grad, value=0.001)
        scale = (second / (1 - 0.999**step)).sqrt_().add_(1e-8)
        weights[name].addcdiv_(first, scale, value=-lr / (1 - 0.9**step))


def _base_weights(model: nn.Module) -> Weights:
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def _effective(base: Weights, weights: Weights, rule: Rule) -> Weights:
    """Return the weights to call the model with."""
    if rule == "full":
        return weights
    merged = dict(base)
    for name in base:
        if f"{name}/A" in weights:
            merged[name] = base[name] + weights[f"{name}/B"] @ weights[f"{name}/A"]
    return merged
