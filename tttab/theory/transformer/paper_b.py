"""Paper B (2509.25741) on a trained transformer: error against context length, in context and trained.

Tasks are single-index with a link that varies, in distribution or shifted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from tttab.errors import RequestError
from tttab.seeding import torch_stream
from tttab.theory.experiment import Row, over_tasks
from tttab.theory.transformer.adapt import (
    LabelledRows,
    Rule,
    TaskTraining,
    TaskWeights,
    adapt_prompt,
    predict,
)
from tttab.theory.transformer.rates import best_rate
from tttab.theory.transformer.store import Pretrained
from tttab.theory.transformer.tasks import Law, Prompts, label_power, more_rows, sample_prompts

TEST_ROWS = 256
LONG = 1024
DEFAULT_LR: dict[Rule, float] = {"full": 1e-3, "lora": 3e-3}


@dataclass(frozen=True)
class ContextSettings:
    """The grid of the experiment."""

    lengths: tuple[int, ...] = (16, 64, 256, 1024)
    shifts: tuple[str, ...] = ("none", "c=1", "he2")
    rules: tuple[Rule, ...] = ("full", "lora")
    tasks: int = 8
    how: TaskTraining = field(default_factory=lambda: TaskTraining(steps=50))
    """Steps, rank and seed; the step size comes from `DEFAULT_LR` or, with `search`, from validation tasks
    at the middle length."""
    search: bool = False
    long_steps: int = 100
    """Steps at `LONG` rows and more."""
    whole: bool = False
    """Train by every rule under every shift at `LONG` rows and more too, which takes minutes each; else there
    LoRA alone is trained, in distribution."""
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
    same for the true function: the floor. Tasks and test rows are the same at every length and for every
    method. Lengths that the model cannot read (GPT-2's positions) are left out: beyond them its error in
    context is flat by construction, which would look like a plateau.
    """
    hows = {rule: replace(settings.how, rule=rule, lr=DEFAULT_LR[rule]) for rule in settings.rules}
    if settings.search:
        hows = {rule: _searched(pretrained, settings, how) for rule, how in hows.items()}
    for shift in settings.shifts:
        for length in readable(pretrained, settings.lengths):
            yield from _rows_at(pretrained, settings, (shift, length), hows)


def readable(pretrained: Pretrained, lengths: Sequence[int]) -> list[int]:
    """Return the lengths that the model can read as context, or else the one that it can."""
    most = pretrained.model.rows
    return [n for n in lengths if most is None or n <= most] or [most or 1]


@dataclass(frozen=True)
class _Tasks:
    """Prompts of some tasks and the rows to be predicted."""

    law: Law
    prompt: LabelledRows
    test: Prompts


def _rows_at(
    pretrained: Pretrained, settings: ContextSettings, cell: tuple[str, int], hows: dict[Rule, TaskTraining]
) -> Iterator[Row]:
    shift, length = cell
    tasks = _draw(shifted(pretrained.settings.law, shift), settings, length, "test", settings.tasks)
    plain = _losses(pretrained, None, tasks)
    yield _row(pretrained, settings, (shift, length, "icl"), plain, plain, settings.how)
    for rule, chosen in hows.items():
        if length >= LONG and not settings.whole and (rule, shift) != ("lora", "none"):
            continue
        how = replace(chosen, steps=settings.long_steps) if length >= LONG else chosen
        adapted = adapt_prompt(pretrained.model, tasks.prompt, how)
        losses = _losses(pretrained, adapted, tasks)
        row = _row(pretrained, settings, (shift, length, f"ttt-{rule}"), losses, plain, how)
        yield row | {"best_step": float(adapted.best_step.float().mean())}


def _draw(law: Law, settings: ContextSettings, length: int, stream: str, tasks: int) -> _Tasks:
    """Return the tasks of a stream, the same at every length, with `length` rows each."""
    names, device = ("paper-b", stream), settings.device
    test = sample_prompts(law, tasks, TEST_ROWS, torch_stream(settings.seed, *names, device=device))
    rows = more_rows(law, test, length, torch_stream(settings.seed, *names, length, device=device))
    return _Tasks(law, LabelledRows(rows.x, rows.y), test)


def _losses(pretrained: Pretrained, adapted: TaskWeights | None, tasks: _Tasks) -> Tensor:
    predicted = predict(pretrained.model, adapted, tasks.prompt, tasks.test.x)
    error = (predicted - tasks.test.clean).square().mean(dim=1)
    return (error + tasks.law.noise**2) / label_power(tasks.law)


def _searched(pretrained: Pretrained, settings: ContextSettings, how: TaskTraining) -> TaskTraining:
    """Return the best step size on 8 validation tasks of the pre-training law (never the shifted one)."""
    lengths = readable(pretrained, settings.lengths)
    tasks = _draw(pretrained.settings.law, settings, lengths[len(lengths) // 2], "validation", 8)

    def loss(rate: float) -> float:
        adapted = adapt_prompt(pretrained.model, tasks.prompt, replace(how, lr=rate))
        return float(_losses(pretrained, adapted, tasks).mean())

    return replace(how, lr=best_rate(loss))


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
        "method": cell[2],
        **over_tasks("loss", losses),
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
