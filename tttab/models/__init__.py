"""Foundation models: the known files (`catalog`), reading them (`checkpoint`), running them (`session`).

To add a known model, add a line to `catalog.KNOWN`. Nothing here imports torch or tabpfn before a
model is opened.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tttab.core import ModelInfo, Task
from tttab.errors import ModelError, RequestError
from tttab.files import sha256_of
from tttab.models import environment
from tttab.models.catalog import UNKNOWN, names, resolve

if TYPE_CHECKING:
    import torch

    from tttab.models.network import OpenedModel, Weights

__all__ = ["names", "open_model", "resolve"]


def open_model(
    spec: str = "auto", task: Task = "classification", *, device: str = "auto", seed: int = 0
) -> OpenedModel:
    """Open a model by name, `auto` or path.

    Args:
        spec: a name of `names()`, or the path of a tabpfn checkpoint (`.ckpt` or `.safetensors`).
        task: what the model is for.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
        seed: tabpfn's random state: order of features and classes per ensemble member.

    Raises:
        ModelError: the file is missing, damaged or foreign.
        RequestError: there is no such device.
    """
    path, known = resolve(spec, task)
    where = pick_device(device)
    digest = sha256_of(path)
    weights, notes = _build(path, task, where)
    info = ModelInfo(
        name=known.name if known else path.stem,
        file=path.name,
        sha256=digest,
        provenance=known.provenance if known else UNKNOWN,
        task=task,
        parameters=sum(p.numel() for p in weights.module.parameters()),
        notes=notes,
    )
    if task == "regression":
        from tttab.models.regression import TabPFNRegressionSession

        return TabPFNRegressionSession(info, weights, where, seed)
    from tttab.models.session import TabPFNSession

    return TabPFNSession(info, weights, where, seed)


def pick_device(name: str) -> torch.device:
    """Return the torch device for `auto` or a device name.

    Raises:
        RequestError: torch cannot see such a device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RequestError(f"there is no device {name!r} on this machine", "--device cpu") from error
    return device


def _build(path: Path, task: Task, device: torch.device) -> tuple[Weights, tuple[str, ...]]:
    """Build the network of a checkpoint that `read_checkpoint` has found harmless, and what to know of it."""
    from tttab.models.checkpoint import read_checkpoint

    notes = _check_device(read_checkpoint(path), path.name, device)
    environment.prepare()
    from tabpfn.model_loading import load_model

    from tttab.models.network import Weights

    which = "classifier" if task == "classification" else "regressor"
    try:
        module, criterion, config, inference = load_model(path=path, estimator_type=which)
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(
            f"{path.name} does not hold a {task} model that tabpfn can build: {reason}", "--model auto"
        ) from error
    # With TABPFN_MODEL_CACHE_SIZE set, tabpfn hands the same module to everyone who asks.
    module, criterion = copy.deepcopy((module, criterion))
    return Weights(module, config, inference, criterion if task == "regression" else None), notes


def _check_device(checkpoint: dict[str, Any], name: str, device: torch.device) -> tuple[str, ...]:
    """Warn where weights were adapted on another kind of device than they are opened on.

    Column embeddings are random numbers whose stream differs between devices, and the weights were
    adapted to one of them.
    """
    made = checkpoint.get("adapted_on")
    if not isinstance(made, dict) or made.get("device") in (None, device.type):
        return ()
    text = (
        f"{name} was adapted on {made['device']} in {made.get('dtype')}; on {device.type} its column "
        "embeddings are other random numbers, so expect other predictions than were measured"
    )
    warnings.warn(text, stacklevel=3)
    return (text,)
