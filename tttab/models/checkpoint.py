"""Reading and writing checkpoints in tabpfn's file format, without ever running code from them.

A checkpoint is a state dict, the architecture's configuration and, optionally, the inference
configuration. `.safetensors` files carry the latter two as JSON in their header; `.ckpt` files are
torch archives, read with `weights_only=True` and nothing else. What does not belong here: which
files exist and where (`catalog`).
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tttab.errors import ModelError
from tttab.files import atomic_path

if TYPE_CHECKING:
    import torch

NAMES_TABPFN_MISREADS = ("v2.5", "v2.6", "v3")
"""tabpfn guesses a model's version from these parts of its file name."""


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a checkpoint as `{"state_dict", "config", …}`.

    Raises:
        ModelError: the file is missing, damaged, not a tabpfn checkpoint, or would have to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no model file at {path}", f"put the checkpoint there: {path}, or use --model auto")
    try:
        checkpoint = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise ModelError(
            f"{path.name} is not a readable checkpoint: {type(error).__name__}: {reason}", "--model auto"
        ) from error
    _check_form(checkpoint, path.name)
    return checkpoint


def write_checkpoint(
    path: str | os.PathLike[str],
    state_dict: dict[str, torch.Tensor],
    config: dict[str, Any],
    inference_config: Any,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write a `.safetensors` checkpoint that plain tabpfn loads, whole or not at all.

    Args:
        path: the file; its name must not contain what tabpfn takes for another model version.
        state_dict: the network's tensors, for regression with the `criterion.` tensors.
        config: the architecture's configuration; its `architecture_name` entry is moved to the header.
        inference_config: tabpfn's `InferenceConfig`.
        extra: further header fields, plain data.

    Raises:
        ModelError: the file name would make tabpfn load the file as another version.
    """
    from safetensors.torch import save_file

    path = Path(path)
    misread = [part for part in NAMES_TABPFN_MISREADS if part in path.name]
    if misread:
        raise ModelError(
            f"the file name {path.name!r} contains {misread[0]!r}, which tabpfn reads as a version"
        )
    config = dict(config)
    header = {
        "architecture_name": config.pop("architecture_name", "tabpfn_v2"),
        "config": config,
        "inference_config": dataclasses.asdict(inference_config),
        **(extra or {}),
    }
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state_dict.items()}
    with atomic_path(path) as part:
        save_file(tensors, str(part), metadata={key: json.dumps(value) for key, value in header.items()})
        _sort_header(part)


def _sort_header(path: Path) -> None:
    """Put the header's fields in order: safetensors has none, so equal weights would differ in their hash."""
    with open(path, "r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        text = json.dumps(
            json.loads(file.read(size)), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        data = text.encode().ljust(size)
        if len(data) == size:
            file.seek(8)
            file.write(data)


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt", device="cpu") as file:
        header = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        # safe_open's handle is no mapping: keys() is its only way to list the tensors.
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return {**header, "state_dict": state}


def _read_torch(path: Path) -> dict[str, Any]:
    import torch

    return torch.load(str(path), map_location="cpu", weights_only=True)


def _check_form(checkpoint: Any, name: str) -> None:
    import torch

    good = (
        isinstance(checkpoint, dict)
        and isinstance(checkpoint.get("config"), dict)
        and isinstance(checkpoint.get("state_dict"), dict)
        and all(isinstance(value, torch.Tensor) for value in checkpoint["state_dict"].values())
    )
    if not good:
        raise ModelError(
            f"{name} is not a tabpfn checkpoint: it lacks the state_dict and config that one holds",
            "--model auto",
        )
