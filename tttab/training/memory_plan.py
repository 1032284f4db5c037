"""Memory: what a training step needs, and how a limit is kept.

Query rows do not interact, so a step may be cut into chunks of queries whose gradients add up exactly;
members of the ensemble may be taken one at a time, and activations recomputed. This module chooses before the
first step. Written by hand: trying ever smaller batches until one fits, as libraries do, needs errors that a
CPU does not raise; there the kernel kills the process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tttab.contracts import Execution
from tttab.errors import MemoryPlanError
from tttab.system.resources import format_bytes

DEFAULT_BUDGET = 4 * 1024**3
RESERVE = 320 * 1024**2
"""Left free for what no plan sees: the data, the other arms, the serving cache."""
HINT_SLACK = 32 * 1024**2
"""What a process holds differs from run to run: a hint must hold in the next one too."""
CHUNK_ROWS = 8
"""What starting a chunk costs, in rows."""


@dataclass(frozen=True)
class ExecutionMode:
    """A way to run a training step."""

    by_member: bool
    """Hold one ensemble member's activations at a time."""
    recompute_activations: bool
    """Compute activations again in the backward pass."""
    cost: float
    """Time per row, in forward passes: a backward pass costs two."""
    slack: float
    """Resident memory per byte of tensors: measured at 1.03 plain and 2.4 recomputed, where many short-lived
    blocks leave gaps that the allocator keeps (glibc, tests/support/memory_probe.py)."""

    def execution(self, chunk: int | None = None) -> Execution:
        """Return how steps run in this mode, `chunk` query rows at a time."""
        return Execution(chunk, self.by_member, self.recompute_activations)


EXECUTION_MODES = (
    ExecutionMode(False, False, 3.0, 1.2),
    ExecutionMode(True, False, 4.0, 1.5),
    ExecutionMode(False, True, 4.0, 2.5),
    ExecutionMode(True, True, 5.0, 2.5),
)


@dataclass(frozen=True)
class Footprint:
    """What a training step allocates, bytes: linear in the rows, and attention where it is written out."""

    fixed: float
    context_row: float
    query_row: float
    pair: float = 0.0
    """Per pair of a context row and a row that attends to it."""

    def bytes(self, context_rows: int, query_rows: int) -> float:
        """Return the peak with so many rows."""
        rows = self.context_row * context_rows + self.query_row * query_rows
        return self.fixed + rows + self.pair * context_rows * (context_rows + query_rows)


@dataclass(frozen=True)
class MemoryPlan:
    """How a training step is cut so that it fits."""

    chunk: int
    """Query rows per forward and backward pass."""
    mode: ExecutionMode
    needed: int
    """Estimated bytes on top of what the process holds already."""

    @property
    def execution(self) -> Execution:
        """The steps of this plan, in float32."""
        return self.mode.execution(self.chunk)


@dataclass(frozen=True)
class StepRequirements:
    """What has to fit."""

    budget: int
    """The most the process may hold, bytes."""
    held: int
    """What it holds now, bytes."""
    weights: int
    """Bytes of the trained weights."""
    context_rows: int
    """Rows that every chunk carries along, where it does."""
    batch: int
    """Query rows of a step; a chunk is at most this."""
    shared_chunk: int | None = None
    """Rows per chunk at most where a step computes its context once; None: it does not."""
    copies: int = 5
    """How many times the weights are held besides: gradients, moments, the choice among them."""

    def carries(self, mode: ExecutionMode) -> bool:
        """Whether every chunk computes the context again."""
        return mode.recompute_activations or self.shared_chunk is None

    def most(self, mode: ExecutionMode) -> int:
        """Return the largest chunk worth having: with a shared context larger ones save little."""
        if mode.recompute_activations or self.shared_chunk is None:
            return self.batch
        return -(-self.batch // -(-self.batch // self.shared_chunk))

    def room(self, mode: ExecutionMode) -> float:
        """Return the bytes left for the tensors of a step."""
        return (self.budget - self.held - self.copies * self.weights - RESERVE) / mode.slack


def plan_step(demand: StepRequirements, measure: Callable[[ExecutionMode], Footprint]) -> MemoryPlan:
    """Choose the fastest way to run a step within the budget.

    Args:
        demand: what has to fit.
        measure: returns the footprint of a mode; asked only where a faster mode does not fit at once.

    Raises:
        MemoryPlanError: not even one query row fits; the hint names a budget and a context that would.
    """
    plans, feet = [], {}
    for mode in EXECUTION_MODES:
        feet[mode] = measure(mode)
        chunk = _largest_chunk(demand, mode, feet[mode])
        if chunk >= 1:
            plans.append((_time(demand, mode, chunk), chunk, mode))
        if chunk == demand.most(mode):
            break
    if not plans:
        raise _nothing_fits(demand, feet)
    _, chunk, mode = min(plans, key=lambda plan: plan[0])
    activations = mode.slack * feet[mode].bytes(demand.context_rows, chunk)
    return MemoryPlan(chunk, mode, int(demand.copies * demand.weights + activations))


def _largest_chunk(demand: StepRequirements, mode: ExecutionMode, foot: Footprint) -> int:
    left = demand.room(mode) - foot.bytes(demand.context_rows, 0)
    row = foot.query_row + foot.pair * demand.context_rows
    return int(max(0, min(demand.most(mode), left // max(1.0, row))))


def _time(demand: StepRequirements, mode: ExecutionMode, chunk: int) -> float:
    """Return the time of a step in forward passes of one row."""
    chunks = -(-demand.batch // chunk)
    contexts = chunks if demand.carries(mode) else 1
    return mode.cost * (contexts * demand.context_rows + chunks * CHUNK_ROWS + demand.batch)


def _nothing_fits(demand: StepRequirements, feet: dict[ExecutionMode, Footprint]) -> MemoryPlanError:
    mode = min(feet, key=lambda mode: mode.slack * feet[mode].bytes(demand.context_rows, 1))
    foot, room = feet[mode], demand.room(mode) - HINT_SLACK / mode.slack
    budget = demand.budget - mode.slack * (room - foot.bytes(demand.context_rows, 1))
    rows = next((n for n in range(demand.context_rows, 0, -1) if foot.bytes(n, 1) <= room), 0)
    smaller = f", or --n {rows}" if rows else ""
    return MemoryPlanError(
        f"{format_bytes(demand.budget)} of memory cannot hold a training step with "
        f"{demand.context_rows:,} context rows",
        f"--max-memory {math.ceil(budget / 1024**2)}M{smaller}",
    )
