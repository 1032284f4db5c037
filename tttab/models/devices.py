"""Where a model runs: the requested device, and whether weights were adapted on another kind."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tttab.errors import RequestError
from tttab.text import shown

if TYPE_CHECKING:
    import torch


ACCELERATORS = ("cuda", "xpu", "mps")


def pick_device(name: str) -> torch.device:
    """Return the torch device of a name; `auto` is the first of `ACCELERATORS` that is there, or the CPU.

    Raises:
        RequestError: torch cannot see such a device.
    """
    import torch

    if name == "auto":
        return torch.device(next((kind for kind in ACCELERATORS if _is_there(kind)), "cpu"))
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # of "meta" there is nothing to read
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RequestError(f"there is no device {name!r} on this machine", "--device cpu") from error
    return device


def widest(device: torch.device) -> torch.dtype:
    """Return the widest floating type on a device: MPS has no float64, and XPU may only emulate it."""
    import torch

    return torch.float64 if device.type in ("cpu", "cuda") else torch.float32


def _is_there(kind: str) -> bool:
    import torch

    backend = torch.backends.mps if kind == "mps" else getattr(torch, kind, None)
    return backend is not None and backend.is_available()


def check_adapted_on(checkpoint: Mapping[str, Any], name: str, device: torch.device) -> tuple[str, ...]:
    """Warn where weights were adapted on another kind of device than they are opened on.

    Column embeddings are random numbers whose stream differs between devices, and the weights were
    adapted to one of them.
    """
    adapted_on = checkpoint.get("adapted_on")
    adapted_on = adapted_on if isinstance(adapted_on, dict) else {}
    there = adapted_on.get("device")
    if not isinstance(there, str) or there == device.type:
        return ()
    text = (
        f"{shown(name)} was adapted on {shown(there, 20)} in {shown(adapted_on.get('dtype'), 20)}; on "
        f"{device.type} its column embeddings are other random numbers, so its predictions differ from those "
        "that were measured"
    )
    warnings.warn(text, stacklevel=3)
    return (text,)
