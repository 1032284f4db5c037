"""What a training step allocates: measured on a few rows, then extended to any number.

Every tensor that a forward and backward pass makes is counted when it is made and when it is freed, so
architecture, rule and execution are all in the figure. `memory_plan` chooses from it.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tttab.contracts import Context, CostModel, Execution, Queries, Session
from tttab.errors import MemoryPlanError
from tttab.system.resources import resident_bytes
from tttab.training.memory_plan import Footprint, MemoryPlan

SMALLEST_SAMPLE, LARGEST_SAMPLE = 2, 24
SAMPLE_BYTES = 64 * 1024**2
"""Aimed at for the activations of a sample: enough to tell rows from constants, little enough to be safe."""

_measured: dict[tuple[Hashable, ...], Footprint] = {}


class PeakCounter(TorchDispatchMode):
    """Counts the bytes of the tensors made inside it, and the most there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._sizes: dict[weakref.ref[torch.UntypedStorage], int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func` and count what it returns."""
        made = func(*args, **(kwargs or {}))
        for thing in (made,) if isinstance(made, torch.Tensor) else tree_leaves(made):
            if isinstance(thing, torch.Tensor):
                self._count(thing.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        known = weakref.ref(storage, self._forget)
        if known not in self._sizes:
            self._sizes[known] = storage.nbytes()
            self.now += self._sizes[known]
            self.peak = max(self.peak, self.now)

    def _forget(self, known: weakref.ref[torch.UntypedStorage]) -> None:
        self.now -= self._sizes.pop(known)


def measure_step(
    session: Session, costs: CostModel, context: Context, queries: Queries, how: Execution
) -> Footprint:
    """Return what a training step of `session` allocates per row.

    Args:
        session: a fork whose trained parameters require gradients.
        costs: its cost model.
        context: the prepared context.
        queries: prepared queries, of which a few are used.
        how: how the step runs; all its rows at once.
    """
    sizes = _samples(costs, context, queries)
    trained = sum(parameter.numel() for parameter in session.trainable().values())
    # A sample of few rows tells less than one of many: each stands for itself.
    key = (session.info.sha256, trained, costs.shape(context), how, *sizes)
    if key not in _measured:
        terms = np.array([(1, n, q, n * (n + q)) for n, q in sizes], dtype=float)
        samples = [(costs.sample(context, n), q) for n, q in sizes]
        peaks = np.array([_peak(session, small, queries, q, how) for small, q in samples], dtype=float)
        fitted = np.linalg.lstsq(terms, peaks, rcond=None)[0]
        _measured[key] = Footprint(*np.maximum(fitted, 0.0).tolist())
    return _measured[key]


def _samples(costs: CostModel, context: Context, queries: Queries) -> list[tuple[int, int]]:
    """Return four samples, (context rows, query rows), that tell the terms of a footprint apart."""
    most = min(LARGEST_SAMPLE, context.n // 2, len(queries) // 2)
    rows = max(1, min(most, max(SMALLEST_SAMPLE, SAMPLE_BYTES // (2 * costs.row_bytes(context)))))
    n, q = min(2 * rows, context.n), min(2 * rows, len(queries))
    return [(rows, rows), (n, rows), (rows, q), (n, q)]


def held_bytes(device: torch.device) -> int:
    """Return what is held now: the process's resident memory, or the tensors on a GPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else resident_bytes()


def smaller_plan(
    device: torch.device, how: Execution | None, plan: MemoryPlan | None, context_rows: int
) -> MemoryPlanError:
    """Return the error for memory that ran out although the plan was kept: others use it too."""
    where = "before the first step" if how is None else f"in a step of {how.chunk} query rows at a time"
    message = f"the machine ran out of memory {where}"
    if how is None or plan is None:
        return MemoryPlanError(message, f"--n {max(1, context_rows // 2)}")
    megabytes = max(1, (plan.needed + held_bytes(device)) // 2**21)
    return MemoryPlanError(message, f"--max-memory {megabytes}M plans with half of it")


def usable_bytes(device: torch.device, budget: int) -> int:
    """Return the most that may be held: the budget, or what a GPU has for this process where that is less."""
    if device.type != "cuda":
        return budget
    return min(budget, torch.cuda.mem_get_info(device)[0] + held_bytes(device))


def _peak(session: Session, context: Context, queries: Queries, rows: int, how: Execution) -> int:
    """Return the most bytes at once of a step with so many queries, gradients left out."""
    trained = session.trainable().values()
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    with PeakCounter() as counter:
        session.accumulate_gradients(context, queries, np.arange(rows), 1.0, how)
    for parameter in trained:
        parameter.grad = None
    return counter.peak
