"""From a checkpoint that was read to TabICL's network, checked before it is allocated, and back to a file."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tabicl._model.tabicl import TabICL

from tttab.core import Task
from tttab.errors import ModelError
from tttab.models.checkpoint import check_weights
from tttab.models.opened import MOST_MEMBERS
from tttab.system.files import atomic_path
from tttab.text import shown

MEMBERS = 8
"""Ensemble members of plain `TabICLClassifier`, and the most there may be."""
LARGEST_SIZE = 65_536
"""Of any number in a header: the weights must have the shapes that follow from it."""
OTHER_NUMBERS = ("row_rope_base",)


@dataclass
class Weights:
    """What a checkpoint holds once it is built."""

    module: TabICL
    config: dict[str, Any]
    """The arguments that made the network, as the file has them."""
    members: int


def build(checkpoint: Mapping[str, Any], task: Task, file: str) -> Weights:
    """Return the classifier of a checkpoint that `read_checkpoint` returned, on the CPU.

    Args:
        checkpoint: left as it is; its tensors are copied.
        task: what the network is for.
        file: the file's name, for messages.

    Raises:
        ModelError: it is a regressor or asked to be one, its header is no plain data or tells of another
            network than its weights, or the weights are no numbers.
    """
    config, members = dict(checkpoint["config"]), checkpoint.get("members", MEMBERS)
    if task != "classification" or config.get("max_classes") == 0:
        what = "is a regressor" if config.get("max_classes") == 0 else "is asked for regression"
        raise ModelError(
            f"{file} {what}: tttab adapts TabICL's classifiers only, since its regressors predict quantiles "
            "and no density whose likelihood could be trained",
            "--model tabpfn-v2, or tttab-tiny" if task == "regression" else "--model auto",
        )
    _check_header(config, len(checkpoint["state_dict"]), file)
    if not isinstance(members, int) or not 1 <= members <= MOST_MEMBERS:
        raise ModelError(f"the header of {file} asks for {members!r:.20} ensemble members", "--model auto")
    try:
        made = config | {"recompute": False}
        with torch.device("meta"):  # other shapes are noticed before they take memory
            TabICL(**made).load_state_dict(checkpoint["state_dict"], assign=True)
        with torch.random.fork_rng(devices=[]):
            module = TabICL(**made)
        module.load_state_dict(checkpoint["state_dict"])
    except Exception as error:
        raise ModelError(
            f"{file} does not hold a classifier that tabicl can build: {shown(error, 160)}", "--model auto"
        ) from error
    check_weights(module.state_dict(), file)
    return Weights(module, config, members)


def write_checkpoint(
    path: str | os.PathLike[str], module: TabICL, config: Mapping[str, Any], extra: Mapping[str, Any]
) -> None:
    """Write a torch archive that plain tabicl loads, whole or not at all; equal weights give equal bytes.

    Args:
        path: the file.
        module: the network.
        config: the arguments that made it.
        extra: further plain data, which tabicl does not read.
    """
    state = {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}
    written = io.BytesIO()
    torch.save({**extra, "config": dict(config), "state_dict": state}, written)
    with atomic_path(path) as part:
        part.write_bytes(written.getvalue())


def _check_header(config: dict[str, Any], tensors: int, file: str) -> None:
    """Refuse numbers that would fill the memory or hang, and what is no plain data."""
    for name, value in config.items():
        plain = isinstance(name, str) and isinstance(value, bool | int | float | str)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        largest = tensors if str(name).endswith("num_blocks") else LARGEST_SIZE
        if not plain or (number and name not in OTHER_NUMBERS and not 0 <= value <= largest):
            raise ModelError(
                f"the header of {file} says {shown(name, 40)} = {shown(value, 40)}", "--model auto"
            )
