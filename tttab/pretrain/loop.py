"""The training loop: a generator of what happens, resumable after a kill.

    for event in train(Run(recipe("nano", "classification"), Budget(minutes=90), Path("out"))): ...

With a step budget a run is a function of its seed and of the pool it reads, and resumes bit for bit on the
same device type. With a time budget it uses the tables that have arrived and fits its learning rate to the
clock.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from tttab.errors import ModelError, RequestError
from tttab.pretrain import checkpoint, forward, held_out
from tttab.pretrain.curve import keep_until
from tttab.pretrain.draw import Draw
from tttab.pretrain.loss import loss_for, mean_loss
from tttab.pretrain.optimise import Optimisers, rate_at
from tttab.pretrain.pool import Pool, Workers, wait_for
from tttab.pretrain.prior import batch, size_at
from tttab.pretrain.settings import Budget, Recipe
from tttab.text import shell_word
from tttab.training.precision import fitting_precision

LONGEST_UNSAVED = 900.0
"""Seconds: what a kill costs at most."""
MODEL, STATE, LOG, CURVE = "model.safetensors", "state.pt", "log.jsonl", "loss.png"


@dataclass(frozen=True)
class Run:
    """One run: what, how long, and where the files go."""

    recipe: Recipe
    budget: Budget
    out: Path
    seed: int = 0
    device: str = "cpu"
    pool_folder: Path | None = None
    """Where tabicl's tables are written and read; None: none are used."""
    workers: int = 0
    """Processes that make them; with 0 a folder is only read."""
    start_from: Path | None = None
    """A model file to continue from with a new schedule, on tables of every size from the start."""
    compiled: bool = False
    """Compile the blocks (a minute once, then faster)."""
    precision: str = "auto"
    """fp32, bf16, or auto: bf16 where the hardware has it. Weights and held-out losses are fp32."""
    report_every: float = 5.0
    """Seconds between reports."""
    save_every: float | None = None
    """Seconds between states and held-out evaluations; None: a twentieth of the minutes, 1 to 15; else 15."""


@dataclass
class Counters:
    """What a run has used so far; part of its state."""

    step: int = 0
    tables: int = 0
    pooled: int = 0
    tokens: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    skipped: int = 0
    restarts: int = 0


@dataclass(frozen=True)
class Report:
    """Where a run stands. `loss` is the mean since the last report, nats per query."""

    kind: str
    progress: float
    loss: float
    rate: float
    pool: int
    counters: Counters
    held_out: dict[str, float] = field(default_factory=dict)
    """Held-out loss by context length; empty except where `kind` is `evaluation`."""

    def as_dict(self) -> dict[str, Any]:
        """Return the report as one flat line of the log."""
        rest = {k: v for k, v in asdict(self).items() if k != "counters"}
        return rest | asdict(self.counters)


def train(run: Run) -> Iterator[Report]:
    """Train until the budget is used; yield reports, write model, state and log into `run.out`.

    A state in `run.out` is continued; a finished run does nothing more.

    Raises:
        MissingExtra: tables are to be made and tabicl is not installed.
        ModelError: the state or the model to start from cannot be used.
        RequestError: `run.out` holds another run, or files of these names and no state.
    """
    with ExitStack() as stack:
        workers = None
        if run.pool_folder is not None:
            use = run.recipe.pool
            workers = stack.enter_context(Workers(run.pool_folder, run.seed, run.workers, use))
        trainer = Trainer(run, workers)
        while trainer.progress < 1.0:
            trainer.step()
            if trainer.due:
                yield trainer.report()
            if trainer.save_due:
                yield trainer.save()
        yield trainer.save()


class Trainer:
    """The state of a run between two steps."""

    def __init__(self, run: Run, workers: Workers | None) -> None:
        self._run, self._workers = run, workers
        run.out.mkdir(parents=True, exist_ok=True)
        self._device = torch.device(run.device)
        precision = fitting_precision(run.precision, self._device.type)
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._pool = self._open_pool()
        self._network = checkpoint.new_network(run.recipe, run.seed)
        self._started_from = (
            checkpoint.load_weights(self._network, run.start_from) if run.start_from else None
        )
        self._network.to(self._device).train()
        self._optimisers = Optimisers(self._network, run.recipe.optimiser)
        self._loss = loss_for(run.recipe, self._device)
        self._layer = torch.compile(forward.block, dynamic=True) if run.compiled else forward.block
        self.counters = Counters()
        self._resume()
        self._used_before = self.counters.seconds
        self._start = self._reported = self._saved = time.perf_counter()
        self._losses: list[torch.Tensor] = []

    @property
    def progress(self) -> float:
        """Return the share of the budget that is used."""
        return self._run.budget.progress(self.counters.step, self._seconds())

    @property
    def due(self) -> bool:
        """Whether it is time for a report."""
        return time.perf_counter() - self._reported >= self._run.report_every

    @property
    def save_due(self) -> bool:
        """Whether it is time to write the state."""
        every = self._run.save_every
        if every is None:
            minutes = self._run.budget.minutes
            every = LONGEST_UNSAVED if minutes is None else min(max(60.0, 3.0 * minutes), LONGEST_UNSAVED)
        return time.perf_counter() - self._saved >= every

    def step(self) -> None:
        """Make one batch and take one step."""
        self._await_tables()
        recipe, counters, progress = self._run.recipe, self.counters, self.progress
        draw = Draw(self._run.seed, "batch", counters.step, device=self._device)
        widened = progress if self._run.start_from is None else 1.0
        tables = batch(draw, size_at(draw, recipe.shapes, widened), recipe, self._pool)
        positions = forward.draw_positions(draw, tables, recipe.architecture.emsize)
        logits = forward.logits(self._network, tables, positions, self._dtype, self._layer)
        loss = mean_loss(self._loss(logits, tables), tables)
        self._optimisers.clear()
        loss.backward()
        if self._optimisers.step(self._rate()):
            self._losses.append(loss.detach())
        else:
            counters.skipped += 1
        counters.step += 1
        counters.tables += len(tables.x)
        counters.pooled += tables.pooled
        counters.tokens += tables.tokens

    def report(self, kind: str = "training", losses: dict[str, float] | None = None) -> Report:
        """Return where the run stands, and log it."""
        self.counters.seconds = self._seconds()
        self._reported = time.perf_counter()
        recent = torch.stack(self._losses).mean().item() if self._losses else float("nan")
        size = self._pool.size if self._pool else 0
        found = Report(
            kind, self.progress, recent, self._rate(), size, Counters(**asdict(self.counters)), losses or {}
        )
        if kind == "training":
            self._losses = []
        _append(self._run.out / LOG, found.as_dict())
        return found

    def save(self) -> Report:
        """Evaluate on the held-out tables, write the model and the state, and report."""
        recipe, out = self._run.recipe, self._run.out
        losses = held_out.losses(self._network, recipe, self._loss, self._device)
        found = self.report("evaluation", losses)
        checkpoint.write_model(out / MODEL, self._network, recipe)
        self._write_state()
        self._saved = time.perf_counter()
        return found

    def _write_state(self) -> None:
        state = {
            "identity": self._identity(),
            "network": self._network.state_dict(),
            "optimisers": self._optimisers.state(),
            "counters": asdict(self.counters),
        }
        checkpoint.write_state(self._run.out / STATE, state)

    def _rate(self) -> float:
        """Return the share of the full learning rates that applies now."""
        settings = self._run.recipe.optimiser
        full = 1.0 if self._run.start_from is None else settings.further
        return full * rate_at(self.progress, settings.warm_up, settings.decay)

    def _open_pool(self) -> Pool | None:
        run = self._run
        if run.pool_folder is None:
            return None
        return Pool(run.pool_folder, run.recipe.pool, self._device, run.recipe.task == "regression")

    def _await_tables(self) -> None:
        if self._pool is None or self._workers is None:
            return
        if self._run.budget.steps is not None:
            use = self._run.recipe.pool
            needed = use.at_first + int(self.counters.step * use.per_step)
            self.counters.waited += wait_for(self._pool, needed, self._workers)
        elif self.counters.step % 10 == 0:
            self._pool.take_in()
            self._workers.revive()
        self.counters.restarts = self._workers.restarts

    def _resume(self) -> None:
        path = self._run.out / STATE
        if not path.exists():
            self._claim()
            return
        state = checkpoint.read_state(path)
        if not isinstance(state, dict) or state.get("identity") != self._identity():
            raise RequestError(
                f"{path} belongs to a run with other settings", "choose another --out, or remove that folder"
            )
        try:
            self._restore(state)
        except Exception as error:  # a state that was changed fails anywhere in torch
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            written = " ".join(shell_word(self._run.out / name) for name in (STATE, MODEL, LOG, CURVE))
            raise ModelError(f"{path} is damaged: {reason}", f"rm -f {written} to start afresh") from error
        keep_until(self._run.out / LOG, self.counters.step)

    def _claim(self) -> None:
        """Refuse a folder whose files are not ours; a state at once says whose the files to come are."""
        for name in (MODEL, LOG, CURVE):
            if (self._run.out / name).exists():
                raise RequestError(
                    f"{self._run.out / name} is there and no state of a run", "choose another --out"
                )
        self._write_state()

    def _restore(self, state: dict[str, Any]) -> None:
        """Take over a state; raise anything where it is none that `save` wrote."""
        if not all(value.isfinite().all() for value in state["network"].values()):
            raise ValueError("a weight is not finite")
        self._network.load_state_dict(state["network"])
        self._optimisers.restore(state["optimisers"])
        self.counters = _counters(state["counters"])

    def _identity(self) -> str:
        """Return what must be equal for a state to be continued."""
        run = self._run
        settings = {"recipe": run.recipe.as_dict(), "seed": run.seed}
        if self._started_from is not None:
            settings["from"] = self._started_from
        return json.dumps(settings, sort_keys=True)

    def _seconds(self) -> float:
        return self._used_before + time.perf_counter() - self._start


def _counters(stored: dict[str, Any]) -> Counters:
    found = Counters(**stored)
    for name, value in asdict(found).items():
        if type(value) is not type(getattr(Counters, name)) or not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value!r:.40}")
    return found


def _append(path: Path, line: dict[str, Any]) -> None:
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
