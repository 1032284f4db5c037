"""What the linear experiments share: size, convention, noise, and how trials are drawn.

An experiment's settings inherit from `Simulation` or `MatrixSimulation`, and so get the options.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isqrt
from typing import Literal

from tttab.errors import MemoryPlanError
from tttab.theory.device import check_device
from tttab.theory.experiment import Settings, option

Convention = Literal["F", "C", "T", "S"]
CONVENTIONS: dict[Convention, str] = {
    "F": "step fixed before any data is seen; loss on a fresh context",
    "C": "step optimal given the context; loss on a fresh context",
    "T": "step optimal for each trial; loss on a fresh context",
    "S": "step optimal given the context; loss on the same context",
}
SamplerName = Literal["scalars", "vectors", "rows"]
FamilyName = Literal["two-level", "power-law", "random"]
Precondition = Literal["none", "sx"]
Precision = Literal["float64", "float32"]
MATRICES = 8
"""d x d matrices in float64 that a problem and its law hold at once."""
CPU_BLOCK, CUDA_BLOCK = 8 << 20, 1 << 30
"""Bytes of one block of trials, unless the memory budget is less. Numbers depend on it."""


@dataclass(frozen=True)
class Backend:
    """The device, the precision and the memory a simulation may use."""

    device: str = "cpu"
    dtype: Precision = "float64"
    memory: int = 1 << 30
    """Bytes; blocks of trials are cut so that one block's arrays stay below."""

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

    def check_matrices(self, d: int) -> None:
        """Raise MemoryPlanError where the d x d matrices of a problem need more than the memory."""
        largest = isqrt(self.memory // (8 * MATRICES))
        if d > largest:
            need = -(-8 * MATRICES * d**2 // (1 << 20))
            raise MemoryPlanError(
                f"matrices of {d:,} x {d:,} need {need:,} MiB", f"--d {max(1, largest)}, or --memory {need}"
            )


@dataclass(frozen=True)
class Sampling:
    """How to simulate."""

    trials: int = 20_000
    seed: int = 0
    backend: Backend = field(default_factory=Backend)
    sampler: SamplerName = "scalars"
    """`scalars` (O(1)), `vectors` (O(d)) or `rows`."""


@dataclass(frozen=True, kw_only=True)
class Simulation(Settings):
    """The options of everything that simulates."""

    d: int = option(100, "Features.", low=1)
    trials: int = option(10_000, "Simulated trials per point.", low=100)
    noise: float = option(0.0, "Variance of the label noise, over |b|^2.", low=0)
    convention: Convention = option(
        "F",
        "When the step size is chosen, and on which context the loss is measured. F: before any data, C: "
        "given the context, T: per trial, each on a fresh context; S: given the context, on that context.",
    )
    sampler: SamplerName = option(
        "scalars", "How to draw trials: scalars, O(1) numbers each; vectors, O(d); rows, every row."
    )
    seed: int = option(0, "Random seed.")
    device: str = option("cpu", "Where to compute: cpu, cuda or cuda:N.")
    dtype: Precision = option("float64", "Arithmetic: float64 or float32.")
    memory: int = option(1024, "Memory for trials", unit="MiB", low=1)

    @property
    def sampling(self) -> Sampling:
        """How trials are drawn."""
        backend = Backend(self.device, self.dtype, self.memory << 20)
        return Sampling(self.trials, self.seed, backend, self.sampler)

    def check(self, *, matrices: bool = False) -> None:
        """Check what the machine must have; `matrices`: d x d ones are formed whatever the sampler.

        Raises:
            RequestError: the device is not there.
            MemoryPlanError: the matrices do not fit the memory.
        """
        check_device(self.device)
        if matrices or self.sampler != "scalars":
            self.sampling.backend.check_matrices(self.d)

    def sizes(self, n: int | None, k: int | None) -> tuple[int, int]:
        """Return the context and the training rows; None: d/2 and 2d."""
        return n or max(1, self.d // 2), k or 2 * self.d


@dataclass(frozen=True, kw_only=True)
class MatrixSimulation(Simulation):
    """The same for experiments that work with d x d matrices."""

    d: int = option(60, "Features.", low=1)
    trials: int = option(4_000, "Simulated trials per point.", low=100)


@dataclass(frozen=True, kw_only=True)
class Sized(Settings):
    """The options of experiments that are drawn in one way alone, in float64 on the CPU."""

    d: int = option(60, "Features.", low=2)
    trials: int = option(2_000, "Simulated trials per point.", low=100)
    seed: int = option(0, "Random seed.")

    @property
    def sampling(self) -> Sampling:
        """How trials are drawn."""
        return Sampling(self.trials, self.seed, sampler="vectors")

    def sizes(self, n: int | None, k: int | None) -> tuple[int, int]:
        """Return the context and the training rows; None: d/2 and 2d."""
        return n or max(1, self.d // 2), k or 2 * self.d


def more_trials(settings: Simulation | Sized) -> dict[str, object]:
    """Return the options under which a disagreement is looked at again."""
    return {"trials": 4 * settings.trials, "seed": settings.seed + 1}
