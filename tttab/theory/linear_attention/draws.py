"""Where simulations draw from: a device, a precision, a memory budget and named streams.

On the CPU numbers come from NumPy (float64) or torch (float32), on a GPU from torch; equal seeds give
equal numbers on one device. What does not belong here: what is drawn for.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

from tttab.errors import MemoryPlanError, RequestError
from tttab.seeding import numpy_stream, torch_stream

MATRICES = 8
"""d x d matrices in float64 that a problem and its law hold at once."""
DTYPES = {"float64": torch.float64, "float32": torch.float32}
CPU_BLOCK, CUDA_BLOCK = 8 << 20, 1 << 30
"""Bytes of one block of trials, unless the memory budget is less. Numbers depend on it."""


@dataclass(frozen=True)
class Machine:
    """The device, the precision and the memory a simulation may use."""

    device: str = "cpu"
    dtype: str = "float64"
    memory: int = 1 << 30
    """Bytes; blocks of trials are cut so that one block's arrays stay below."""

    @property
    def kind(self) -> torch.dtype:
        """The torch dtype."""
        return DTYPES[self.dtype]

    def block(self, bytes_per_trial: int, trials: int) -> int:
        """Return how many trials to draw at once, at least 1 and at most `trials`.

        Raises:
            MemoryPlanError: not even one trial fits the budget.
        """
        if bytes_per_trial > self.memory:
            need = -(-bytes_per_trial // (1 << 20))
            raise MemoryPlanError(f"one trial needs {need:,} MiB", f"--memory {need}")
        target = CPU_BLOCK if self.device == "cpu" else CUDA_BLOCK
        return max(1, min(trials, min(target, self.memory) // bytes_per_trial))


def check_machine(device: str, dtype: str, memory: int) -> Machine:
    """Return the machine, or raise RequestError for an unknown device, dtype or an empty budget (bytes)."""
    if dtype not in DTYPES:
        raise RequestError(f"unknown dtype {dtype}; there are float32 and float64", "--dtype float64")
    if memory < 1:
        raise RequestError("the memory budget must be at least 1 MiB", "--memory 1024")
    return Machine(str(check_device(device)), dtype, memory)


def check_device(device: str) -> torch.device:
    """Return the device, cpu or a CUDA one that holds tensors, or raise RequestError."""
    try:
        found = torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError):
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise RequestError(f"there is no device {device} here", "--device cpu")
    return torch.device(device)


def check_matrices(d: int, machine: Machine) -> None:
    """Raise MemoryPlanError where the d x d matrices of a problem need more than the machine's memory."""
    largest = isqrt(machine.memory // (8 * MATRICES))
    if d > largest:
        need = -(-8 * MATRICES * d**2 // (1 << 20))
        raise MemoryPlanError(
            f"matrices of {d:,} x {d:,} need {need:,} MiB", f"--d {max(1, largest)}, or --memory {need}"
        )


class Draws:
    """One named stream of normal and chi-square numbers on a machine."""

    def __init__(self, machine: Machine, seed: int, *names: str | int) -> None:
        self._machine = machine
        self._numpy = numpy_stream(seed, *names) if machine.device == "cpu" else None
        self._torch = torch_stream(seed, *names, device=machine.device)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers of `shape`."""
        if self._numpy is not None and self._machine.kind is torch.float64:
            return torch.from_numpy(self._numpy.standard_normal(shape))
        made = torch.empty(shape, dtype=self._machine.kind, device=self._machine.device)
        return made.normal_(generator=self._torch)

    def chi2(self, freedom: int, size: int) -> Tensor:
        """Return `size` chi-square numbers with `freedom` degrees; no freedom at all gives zeros."""
        if freedom <= 0:
            return torch.zeros(size, dtype=self._machine.kind, device=self._machine.device)
        if self._numpy is not None:
            return torch.from_numpy(self._numpy.chisquare(freedom, size)).to(self._machine.kind)
        if freedom == 1:
            return self.normal(size) ** 2
        return 2 * self._gamma(freedom / 2, size)

    def _gamma(self, shape: float, size: int) -> Tensor:
        """Return gamma numbers of `shape` >= 1 by rejection (Marsaglia and Tsang 2000)."""
        centre = shape - 1 / 3
        made = self._gamma_candidates(centre, size)
        while True:
            missing = torch.nonzero(torch.isnan(made)).squeeze(-1)
            if not len(missing):
                return made
            made[missing] = self._gamma_candidates(centre, len(missing))

    def _gamma_candidates(self, centre: float, size: int) -> Tensor:
        x = self.normal(size)
        uniform = torch.rand(size, generator=self._torch, dtype=x.dtype, device=x.device)
        cube = (1 + x / (9 * centre) ** 0.5) ** 3
        safe = cube.clamp(min=torch.finfo(x.dtype).tiny)
        accepted = (cube > 0) & (torch.log(uniform) < x**2 / 2 + centre * (1 - cube + torch.log(safe)))
        return torch.where(accepted, centre * cube, torch.nan)
