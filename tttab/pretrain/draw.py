"""Random numbers for one batch: structure is drawn on the host, values on the training device.

Sizes (how many trees, how deep) must be known to Python without waiting for the device, so they come from a
NumPy stream; everything else comes from a torch stream on the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from tttab.seeding import numpy_stream, torch_stream


class Draw:
    """The two streams of one batch; equal (seed, names, device type) give equal draws."""

    def __init__(self, seed: int, *names: str | int, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.host = numpy_stream(seed, *names, "host")
        self._values = torch_stream(seed, *names, "values", device=self.device)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """Return floats in [low, high)."""
        return torch.rand(shape, generator=self._values, device=self.device) * (high - low) + low

    def normal(self, *shape: int) -> torch.Tensor:
        """Return standard normal floats."""
        return torch.randn(shape, generator=self._values, device=self.device)

    def log_uniform(self, *shape: int, low: float, high: float) -> torch.Tensor:
        """Return floats whose logarithm is uniform between log(low) and log(high)."""
        return low * torch.exp(self.uniform(*shape) * math.log(high / low))

    def chance(self, probability: float | torch.Tensor, *shape: int) -> torch.Tensor:
        """Return booleans, true with `probability` (broadcast against `shape`)."""
        return self.uniform(*shape) < probability

    def integers(self, high: int | torch.Tensor, *shape: int) -> torch.Tensor:
        """Return integers in [0, high), int64."""
        return (self.uniform(*shape) * high).long()

    def orders(self, tables: int, size: int) -> torch.Tensor:
        """Return a random permutation of range(size) per table, shape (tables, size)."""
        return self.uniform(tables, size).argsort(dim=1)

    def weighted(self, odds: torch.Tensor, count: int) -> torch.Tensor:
        """Return `count` column numbers per row of `odds`, drawn with replacement in proportion to it."""
        return torch.multinomial(odds, count, replacement=True, generator=self._values)

    def size(self, low: int, high: int) -> int:
        """Return a host integer in [low, high], log-uniform."""
        return min(high, int(low * ((high + 1) / low) ** self.host.random()))

    def shares(self, tables: int, weights: Sequence[float]) -> list[int]:
        """Divide `tables` at random in proportion to `weights`; host integers that sum to `tables`."""
        total = sum(weights)
        return [int(count) for count in self.host.multinomial(tables, [w / total for w in weights])]
