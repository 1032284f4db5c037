"""The one check of `--device` for all experiments."""

from __future__ import annotations

from tttab.errors import RequestError


def check_device(device: str) -> None:
    """Raise RequestError unless `device` is the CPU or a CUDA device that holds tensors."""
    import torch

    try:
        found = torch.zeros(1, device=device).device.type
    except (RuntimeError, AssertionError):
        found = ""
    if found not in ("cpu", "cuda"):
        raise RequestError(f"there is no device {device} here", "--device cpu")
