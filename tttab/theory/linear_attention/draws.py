"""Named streams of random numbers on a backend.

On the CPU numbers come from NumPy (float64) or torch (float32), on a GPU from torch. Equal seeds give equal
numbers on one device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tttab.seeding import numpy_stream, torch_stream
from tttab.theory.linear_attention.settings import Backend, Precision

DTYPES: dict[Precision, torch.dtype] = {"float64": torch.float64, "float32": torch.float32}


class Draws:
    """One named stream of normal and chi-square numbers on a backend."""

    def __init__(self, backend: Backend, seed: int, *names: str | int) -> None:
        self._device, self._dtype = backend.device, DTYPES[backend.dtype]
        self._numpy = numpy_stream(seed, *names) if backend.device == "cpu" else None
        self._torch = torch_stream(seed, *names, device=backend.device)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers of `shape`."""
        if self._numpy is not None and self._dtype is torch.float64:
            return torch.from_numpy(self._numpy.standard_normal(shape))
        drawn = torch.empty(shape, dtype=self._dtype, device=self._device)
        return drawn.normal_(generator=self._torch)

    def chi2(self, freedom: int, size: int) -> Tensor:
        """Return `size` chi-square numbers with `freedom` degrees; no freedom at all gives zeros."""
        if freedom <= 0:
            return torch.zeros(size, dtype=self._dtype, device=self._device)
        if self._numpy is not None:
            return torch.from_numpy(self._numpy.chisquare(freedom, size)).to(self._dtype)
        if freedom == 1:
            return self.normal(size) ** 2
        return 2 * self._gamma(freedom / 2, size)

    def _gamma(self, shape: float, size: int) -> Tensor:
        """Return gamma numbers of `shape` >= 1 by rejection (Marsaglia and Tsang 2000)."""
        centre = shape - 1 / 3
        drawn = self._gamma_candidates(centre, size)
        while True:
            missing = torch.nonzero(torch.isnan(drawn)).squeeze(-1)
            if not len(missing):
                return drawn
            drawn[missing] = self._gamma_candidates(centre, len(missing))

    def _gamma_candidates(self, centre: float, size: int) -> Tensor:
        x = self.normal(size)
        uniform = torch.rand(size, generator=self._torch, dtype=x.dtype, device=x.device)
        cube = (1 + x / (9 * centre) ** 0.5) ** 3
        safe = cube.clamp(min=torch.finfo(x.dtype).tiny)
        accepted = (cube > 0) & (torch.log(uniform) < x**2 / 2 + centre * (1 - cube + torch.log(safe)))
        return torch.where(accepted, centre * cube, torch.nan)
