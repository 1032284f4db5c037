"""Foundation models: the known files (`catalog`), reading them (`checkpoint`), building and running them.

To add a known model, add a line to `catalog.KNOWN`. Nothing here imports torch or tabpfn before a
model is opened.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from tttab.core import ModelInfo, Task
from tttab.errors import RequestError
from tttab.models.catalog import UNKNOWN, names, resolve
from tttab.text import decoded, shown

if TYPE_CHECKING:
    import torch

    from tttab.models.tabpfn.session import OpenedModel

__all__ = ["names", "open_model", "resolve"]


def open_model(
    spec: str = "auto",
    task: Task = "classification",
    *,
    device: str = "auto",
    seed: int = 0,
    expected_sha256: str | None = None,
) -> OpenedModel:
    """Open a model by name, `auto` or path.

    Args:
        spec: a name of `names()`, or the path of a tabpfn checkpoint (`.ckpt` or `.safetensors`).
        task: what the model is for.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
        seed: tabpfn's random state: order of features and classes per ensemble member.
        expected_sha256: refuse a file whose bytes have another hash, in hex.

    The file is read once: what `info.sha256` names is what runs.

    Raises:
        ModelError: the file is missing, damaged or foreign, not the expected one, or says of itself what
            cannot be.
        RequestError: there is no such device.
    """
    from tttab.models.tabpfn.building import build
    from tttab.models.tabpfn.checkpoint import read_checkpoint

    path, known = resolve(spec, task)
    where = pick_device(device)
    checkpoint = read_checkpoint(path, expected_sha256)
    notes = _check_device(checkpoint, path.name, where)
    weights = build(checkpoint, task, path.name)
    info = ModelInfo(
        name=known.name if known else decoded(path.stem),
        file=decoded(path.name),
        sha256=checkpoint["sha256"],
        provenance=known.provenance if known else UNKNOWN,
        task=task,
        parameters=sum(p.numel() for p in weights.module.parameters()),
        notes=notes,
    )
    if task == "regression":
        from tttab.models.tabpfn.regressor import TabPFNRegressionSession

        return TabPFNRegressionSession(info, weights, where, seed)
    from tttab.models.tabpfn.classifier import TabPFNSession

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


def _check_device(checkpoint: dict[str, Any], name: str, device: torch.device) -> tuple[str, ...]:
    """Warn where weights were adapted on another kind of device than they are opened on.

    Column embeddings are random numbers whose stream differs between devices, and the weights were
    adapted to one of them.
    """
    made = checkpoint.get("adapted_on")
    there = made.get("device") if isinstance(made, dict) else None
    if not isinstance(there, str) or there == device.type:
        return ()
    text = (
        f"{shown(name)} was adapted on {shown(there, 20)} in {shown(made.get('dtype'), 20)}; on "
        f"{device.type} its column embeddings are other random numbers, so expect other predictions than "
        "were measured"
    )
    warnings.warn(text, stacklevel=3)
    return (text,)
