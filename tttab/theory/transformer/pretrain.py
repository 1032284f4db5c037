"""Pre-training of the small transformers: resumable, and each checkpoint cached under its settings' hash.

Every step draws fresh tasks from a stream named after the step, so an interrupted run ends with the same
weights as one that was not.
"""

from __future__ import annotations

import itertools
import json
import math
import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from tttab.core import identity_hash
from tttab.errors import ModelError, RequestError
from tttab.seeding import numpy_stream, torch_stream
from tttab.system import files
from tttab.system.files import atomic_path
from tttab.text import shell_word, shown
from tttab.theory.transformer.model import (
    Gpt2OverPairs,
    Kind,
    ModelSettings,
    PairTransformer,
    SmallTransformer,
    build_model,
)
from tttab.theory.transformer.tasks import Law, sample_prompts

SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class Pretraining:
    """Everything that decides the weights of a checkpoint."""

    law: Law
    model: ModelSettings
    steps: int = 10_000
    batch: int = 64
    """Tasks per step."""
    rows: int = 80
    """Rows per task and step."""
    shortest: int = 4
    """Smallest context drawn in training (pair model)."""
    lr: float = 1e-3
    warmup: int = 200
    curriculum: int = 0
    """Steps over which the active features grow from a twelfth to all of them; 0: all from the start."""
    stop: int = 0
    """End here instead, the last sixteenth along a straight line to zero; 0: at `steps`."""
    seed: int = 0

    @property
    def length(self) -> int:
        """Number of steps that are taken."""
        return self.stop or self.steps

    @property
    def tokens(self) -> int:
        """Tokens seen in training: one per row for the pair model, two for GPT-2."""
        per_row = 2 if self.model.kind == "gpt2" else 1
        return self.length * self.batch * self.rows * per_row

    @property
    def key(self) -> str:
        """SHA-256 of the settings."""
        return identity_hash(asdict(self))


@dataclass(frozen=True)
class PretrainStep:
    """Progress of a run."""

    step: int
    steps: int
    loss: float
    """Mean squared error of the last step, divided by nothing."""
    seconds: float


def cache_folder() -> Path:
    """Return where checkpoints are kept: the folder `theory` in tttab's cache."""
    return files.cache_folder() / "theory"


def checkpoint_path(settings: Pretraining, folder: Path) -> Path:
    """Return the file that holds the finished weights of `settings`."""
    return folder / f"{settings.model.kind}-d{settings.law.d}-{settings.key[:16]}.safetensors"


def pretrain(
    settings: Pretraining,
    folder: Path,
    device: str = "cpu",
    every: int = 50,
    precision: str = "float32",
    start: SmallTransformer | None = None,
) -> Iterator[PretrainStep]:
    """Train to the end and leave the checkpoint in `folder`, going on where a killed run stopped.

    Yields every `every` steps. `precision` bfloat16 runs the network under autocast (CUDA). The state
    is saved every minute, and when the generator is closed. A finished checkpoint ends it at once. `start`
    is the pair-token model whose weights a GPT-2 over pairs begins with; None: random ones.

    Raises:
        RequestError: the unfinished run was begun on another kind of device or in another precision, which
            round differently: no run from start to end has the weights of such a mixture.
    """
    target = checkpoint_path(settings, folder)
    if target.exists():
        return
    attention = "sdpa" if device.startswith("cuda") else "eager"
    model = build_model(settings.model, settings.seed, attention)
    if isinstance(model, Gpt2OverPairs) and isinstance(start, PairTransformer):
        model.begin_with(start)
    model = model.to(device)
    optimizer = torch.optim.AdamW(_trainable(model), lr=settings.lr, weight_decay=0.0)
    partial = target.with_suffix(".partial.safetensors")
    machine = f"{torch.device(device).type} {precision}"
    step = _load_state(partial, model, optimizer, machine) if partial.exists() else 0
    started = saved = time.monotonic()
    whole = True
    try:
        while step < settings.length:
            loss = _backward(model, optimizer, settings, step, device, precision)
            with _interrupt_held_back():
                whole = False
                optimizer.step()
                step += 1
                whole = True
            if step % every == 0 or step == settings.length:
                yield PretrainStep(step, settings.length, float(loss), time.monotonic() - started)
            if time.monotonic() - saved > SAVE_SECONDS:
                _save_state(partial, model, optimizer, step, machine)
                saved = time.monotonic()
    finally:
        if whole and step < settings.length:  # a step that failed half-way must not be taken again on top
            _save_state(partial, model, optimizer, step, machine)
    save_checkpoint(target, model, settings)
    partial.unlink(missing_ok=True)


def train_step(
    model: SmallTransformer,
    optimizer: torch.optim.Optimizer,
    settings: Pretraining,
    step: int,
    device: str,
    precision: str = "float32",
) -> Tensor:
    """Take step number `step` on fresh tasks and return its loss (mean squared error)."""
    loss = _backward(model, optimizer, settings, step, device, precision)
    optimizer.step()
    return loss


@contextmanager
def _interrupt_held_back() -> Generator[None, None, None]:
    """Let Ctrl-C wait until the block is done: weights, moments and their count belong together.

    Only the main thread is ever interrupted, and only there can a handler be set.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    held: list[Any] = []
    signal.signal(signal.SIGINT, lambda *call: held.append(call))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            before(*held[0])


def _backward(
    model: SmallTransformer,
    optimizer: torch.optim.Optimizer,
    settings: Pretraining,
    step: int,
    device: str,
    precision: str,
) -> Tensor:
    """Put the clipped gradient of step number `step` and its rate in place; return the loss."""
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * _schedule(settings, step)
    generator = torch_stream(settings.seed, "pretrain", step, device=device)
    prompts = sample_prompts(_active_law(settings, step), settings.batch, settings.rows, generator)
    x = nn.functional.pad(prompts.x, (0, settings.law.d - prompts.x.shape[-1]))
    with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=precision == "bfloat16"):
        predicted, wanted = model.training_predictions(x, prompts.y, _draw_cut(settings, step))
    loss = (predicted.float() - wanted).square().mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(_trainable(model), 1.0)
    return loss.detach()


def within_minutes(
    settings: Pretraining, minutes: float, device: str, precision: str = "float32"
) -> Pretraining:
    """Return `settings` with as many steps as fit into `minutes` on this machine, timed on 20 of them."""
    attention = "sdpa" if device.startswith("cuda") else "eager"
    model = build_model(settings.model, settings.seed, attention).to(device)
    optimizer = torch.optim.AdamW(_trainable(model), lr=0.0, weight_decay=0.0)
    timed, warm, started = 20, 5, _now(device)
    for step in range(warm + timed):
        if step == warm:
            started = _now(device)
        train_step(model, optimizer, replace(settings, curriculum=0), step, device, precision)
    per_step = (_now(device) - started) / timed
    steps = max(20, int(60 * minutes / per_step) // 10 * 10)
    return replace(settings, steps=steps, warmup=min(settings.warmup, steps // 10))


def save_checkpoint(path: Path, model: SmallTransformer, settings: Pretraining, half: bool = False) -> None:
    """Write the weights (`half`: as float16) with their settings, atomically."""
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if half:
        state = {name: value.half() for name, value in state.items()}
    with atomic_path(path) as part:
        save_file(state, part, metadata={"settings": json.dumps(asdict(settings), sort_keys=True)})


def load_checkpoint(path: Path, device: str = "cpu") -> tuple[SmallTransformer, Pretraining]:
    """Return the model in float32 and the settings it was trained under.

    Raises ModelError for a file that is missing or is no such checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            settings = settings_from_dict(json.loads(file.metadata()["settings"]))
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        _check_sizes(settings, state)
        model = build_model(settings.model, settings.seed)
        model.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{path} is no checkpoint of a small transformer: {shown(error, 160)}", "make one with --retrain"
        ) from error
    return model.to(device), settings


def _check_sizes(settings: Pretraining, state: dict[str, Tensor]) -> None:
    """Check what the settings say against the weights, before a model of their sizes gets memory.

    Raises:
        ValueError: the settings are of no model or tell of more weights than there are, or these are no
            numbers.
    """
    model, law = settings.model, settings.law
    sizes = (model.d, model.width, model.layers, model.heads, model.rows, law.r, settings.seed + 1)
    if not all(isinstance(size, int) and size > 0 for size in sizes) or model.width % model.heads:
        raise ValueError("its sizes are of no model")
    if (model.kind, law.family) not in itertools.product(get_args(Kind), ("linear", "index")):
        raise ValueError("it is of a kind that is not known")
    held = sum(value.numel() for value in state.values())
    positions = model.rows if model.kind == "gpt2" else 0
    if model.width * (12 * model.layers * model.width + model.d + positions) > held or model.d != law.d:
        raise ValueError("its settings tell of more weights than it holds")
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise ValueError("its weights are not all numbers")


def settings_from_dict(data: dict[str, Any]) -> Pretraining:
    """Return the settings that `asdict` turned into plain data."""
    parts: dict[str, Any] = {"law": Law(**data["law"]), "model": ModelSettings(**data["model"])}
    return Pretraining(**(data | parts))


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [value for value in model.parameters() if value.requires_grad]


def _schedule(settings: Pretraining, step: int) -> float:
    """Linear warm-up, then a cosine down to zero; with `stop`, a straight line over the last sixteenth."""
    if settings.stop:
        bend = settings.stop - settings.stop // 16
        if step > bend:
            before = _schedule(replace(settings, stop=0), bend)
            return before * (settings.stop - step) / (settings.stop - bend)
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


def _draw_cut(settings: Pretraining, step: int) -> int:
    """Return a context length, log-uniform between the shortest and the model's rows."""
    low, high = math.log(settings.shortest), math.log(min(settings.model.rows, settings.rows - 1) + 1)
    return int(math.exp(numpy_stream(settings.seed, "cut", step).uniform(low, high)))


def _active_law(settings: Pretraining, step: int) -> Law:
    """Return the law of step `step`: fewer features early on where a curriculum is set."""
    if step >= settings.curriculum:
        return settings.law
    share = 1 / 12 + 11 / 12 * step / settings.curriculum
    d = max(2, round(settings.law.d * share))
    return replace(settings.law, d=d, r=min(settings.law.r, d))


def _save_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, machine: str
) -> None:
    from safetensors.torch import save_file

    tensors = {f"model.{name}": value.detach().cpu() for name, value in model.state_dict().items()}
    for number, value in enumerate(_trainable(model)):
        for name, moment in optimizer.state.get(value, {}).items():
            tensors[f"adam.{number}.{name}"] = moment.detach().cpu()
    with atomic_path(path) as part:
        metadata = {"step": str(step), "machine": machine}
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, metadata=metadata)


def _load_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, machine: str) -> int:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        step, begun = int(file.metadata()["step"]), file.metadata().get("machine", "an unknown device")
        if begun != machine:
            raise RequestError(
                f"the unfinished {path.name} was begun on {begun}, not on {machine}",
                f"go on there, or begin anew: rm {shell_word(path)}",
            )
        names = list(file.keys())
        model.load_state_dict(
            {name[6:]: file.get_tensor(name) for name in names if name.startswith("model.")}
        )
        for number, value in enumerate(_trainable(model)):
            prefix = f"adam.{number}."
            state = {n[len(prefix) :]: file.get_tensor(n) for n in names if n.startswith(prefix)}
            device = {k: v if k == "step" else v.to(value.device) for k, v in state.items()}
            if device:
                optimizer.state[value] = device
    return step


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.monotonic()
