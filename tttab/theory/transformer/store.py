"""Which checkpoint a transformer experiment uses: a file, an included one, or one from the cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from tttab.core import identity_hash
from tttab.errors import RequestError
from tttab.system.files import write_text_atomically
from tttab.theory.transformer.model import Kind, ModelSettings, SmallTransformer
from tttab.theory.transformer.pretrain import (
    Pretraining,
    PretrainStep,
    cache_folder,
    checkpoint_path,
    load_checkpoint,
    pretrain,
    within_minutes,
)
from tttab.theory.transformer.tasks import Law

Paper = Literal["A", "B"]
SHIPPED = Path(__file__).parent / "checkpoints"
NOISE_B = 0.1


@dataclass(frozen=True)
class Pretrained:
    """A model ready for an experiment."""

    model: SmallTransformer
    settings: Pretraining
    source: str
    """`shipped`, `cache` or the file's name."""


def recipe(paper: Paper, kind: Kind, size: str = "small", d: int = 0) -> Pretraining:
    """Return the settings of a pre-training run; `size` small fits a laptop core, full wants a GPU.

    `d` 0 is the paper's own: 60 for A, 4 for B. The small gpt2-pairs is a short one: it begins with the
    shipped pair-token model (`beginning`). Raises RequestError for other papers and sizes.
    """
    if paper not in ("A", "B") or size not in ("small", "full"):
        raise RequestError(f"there is no {size} recipe of paper {paper}", "--paper A or --paper B")
    full, gpt2 = size == "full", kind == "gpt2"
    width = (128 if kind == "pair" else 256) if full else (96 if paper == "A" else 64)
    rows = 40 if paper == "A" else (128 if full else 64)
    d = d or (60 if paper == "A" else 4)
    law = Law("linear", d, d) if paper == "A" else Law("index", d, min(4, d), noise=NOISE_B)
    model = ModelSettings(kind, d, width, 2, 8 if full and kind != "pair" else 4, rows)
    per_task = rows + 1 if gpt2 else rows + 24
    shortest = 40 if paper == "A" else 4
    small = Pretraining(law, model, 15_000, 64, per_task, shortest, lr=1e-3 if paper == "A" else 2e-3)
    if full:
        return replace(small, batch=1024 if paper == "A" else 512, lr=1e-3)
    return _short(small) if kind == "gpt2-pairs" else small


def _short(small: Pretraining) -> Pretraining:
    """Return the recipe of a model that begins with a trained one: fewer steps, longer contexts."""
    if small.law.family == "linear":
        return replace(small, steps=600, warmup=60, lr=3e-4)
    model = replace(small.model, rows=256)
    return replace(small, steps=3600, warmup=100, batch=16, rows=280, lr=1e-3, model=model)


def shipped_path(paper: Paper, d: int) -> Path:
    """Return where the checkpoint that comes with the package lies."""
    return SHIPPED / f"paper-{paper.lower()}-d{d}.safetensors"


def beginning(settings: Pretraining) -> SmallTransformer | None:
    """Return the shipped model whose weights a GPT-2 over pairs of the same law and shape begins with."""
    ready = shipped_path("A" if settings.law.family == "linear" else "B", settings.law.d)
    if settings.model.kind != "gpt2-pairs" or not ready.exists():
        return None
    model, found = load_checkpoint(ready)
    shape = replace(found.model, kind="gpt2-pairs", rows=settings.model.rows)
    alike = (shape, found.law) == (settings.model, settings.law)
    return model if alike else None


def open_pretrained(settings: Pretraining, folder: Path | None = None, device: str = "cpu") -> Pretrained:
    """Open the cached checkpoint of `settings`. Raises ModelError where there is none."""
    model, found = load_checkpoint(checkpoint_path(settings, folder or cache_folder()), device)
    return Pretrained(model, found, "cache")


def open_file(path: Path, device: str = "cpu") -> Pretrained:
    """Open a checkpoint file. Raises ModelError where it is none."""
    model, found = load_checkpoint(path, device)
    return Pretrained(model, found, "shipped" if path.parent == SHIPPED else path.name)


def pretrain_into_cache(
    settings: Pretraining,
    folder: Path | None = None,
    device: str = "cpu",
    precision: str = "float32",
    minutes: float = 0.0,
) -> Iterator[PretrainStep | Pretrained]:
    """Pre-train into the cache, yielding progress and last the opened model; `minutes` bounds the steps.

    How many steps fit is timed once and kept in the cache: the same call goes on with the same run.
    """
    folder = folder or cache_folder()
    if minutes:
        settings = _bounded(settings, folder, minutes, device, precision)
    yield from pretrain(settings, folder, device, precision=precision, start=beginning(settings))
    yield open_pretrained(settings, folder, device)


def _bounded(settings: Pretraining, folder: Path, minutes: float, device: str, precision: str) -> Pretraining:
    kept = (
        folder / f"bound-{identity_hash(asdict(settings) | {'minutes': minutes, 'device': device})[:16]}.json"
    )
    if kept.exists():
        return replace(settings, **json.loads(kept.read_text(encoding="utf-8")))
    bounded = within_minutes(settings, minutes, device, precision)
    write_text_atomically(kept, json.dumps({"steps": bounded.steps, "warmup": bounded.warmup}))
    return bounded
