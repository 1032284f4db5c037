"""Writing checkpoints in tabpfn's file format, and what their weights may be.

A checkpoint is a state dict, the architecture's configuration and, optionally, the inference configuration.
Plain tabpfn loads what is written here.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tttab.errors import ModelError
from tttab.models.checkpoint import check_weights, read_checkpoint
from tttab.system.files import atomic_path

if TYPE_CHECKING:
    import torch
    from tabpfn.inference_config import InferenceConfig

__all__ = ["CRITERION", "check_weights", "read_checkpoint", "write_checkpoint"]

NAMES_TABPFN_MISREADS = ("v2.5", "v2.6", "v3")
"""tabpfn guesses a model's version from these parts of its file name."""
CRITERION = "criterion."
"""What the names of a regressor's bucket borders begin with; the other tensors are the network's."""


def write_checkpoint(
    path: str | os.PathLike[str],
    state_dict: dict[str, torch.Tensor],
    config: dict[str, Any],
    inference_config: InferenceConfig,
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
