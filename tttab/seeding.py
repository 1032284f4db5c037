"""Named streams of randomness: a seed and a name give a generator, always the same one.

A stream's seed is a hash of the user's seed and the stream's names, so adding a stream never shifts another.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """Return the 63-bit seed of the stream `names` under the user's `seed`."""
    text = "\x1f".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return NumPy's generator for the stream `names`."""
    import numpy as np

    return np.random.default_rng(stream_seed(seed, *names))


def torch_stream(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return torch's generator for the stream `names` on `device` (CPU and CUDA streams differ)."""
    import torch

    return torch.Generator(device=device).manual_seed(stream_seed(seed, *names))
