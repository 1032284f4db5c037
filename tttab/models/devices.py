"""Where a model runs: the device that is asked for, and whether weights were adapted on another kind.

What does not belong here: opening a model.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tttab.errors import RequestError
from tttab.text import shown

if TYPE_CHECKING:
    import torch


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


def check_adapted_on(checkpoint: Mapping[str, Any], name: str, device: torch.device) -> tuple[str, ...]:
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
