"""Memory: what a training step needs, how a budget is kept, and what the process used.

Query rows do not interact, so a step may be cut into chunks of queries whose gradients add up
exactly; the chunk size is a free choice and this module makes it before the first step. What does
not belong here: the network itself, it only says what a row costs.
"""

from __future__ import annotations

import re
import resource
import sys
from dataclasses import dataclass

from tttab.errors import MemoryPlanError, RequestError

DEFAULT_BUDGET = 4 * 1024**3
RESERVE = 256 * 1024**2
"""Left free for what no plan sees: allocator slack, the data, the other arms."""
UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


@dataclass(frozen=True)
class Plan:
    """How a training step is cut so that it fits."""

    chunk: int
    """Query rows per forward and backward pass."""
    checkpointing: bool
    """Recompute activations in the backward pass."""
    needed: int
    """Estimated bytes on top of what the process holds already."""


def plan_step(
    budget: int, held: int, weights: int, context_rows: int, batch: int, row_bytes: int, row_bytes_saving: int
) -> Plan:
    """Choose the largest chunk that keeps the process under `budget`, bytes.

    Args:
        budget: the most the process may hold.
        held: what it holds now.
        weights: bytes of the trained weights; gradients, two moments and the best copy are four times that.
        context_rows: rows that every chunk carries along.
        batch: query rows of a step; a chunk is at most this.
        row_bytes: activations per row.
        row_bytes_saving: the same with activation checkpointing.

    Raises:
        MemoryPlanError: not even one query row fits; the hint names the smallest budget that would do.
    """
    fixed = held + 4 * weights + RESERVE
    for cost, checkpointing in ((row_bytes, False), (row_bytes_saving, True)):
        chunk = min(batch, (budget - fixed) // cost - context_rows)
        if chunk >= min(batch, 32) or (checkpointing and chunk >= 1):
            return Plan(int(chunk), checkpointing, int(4 * weights + cost * (context_rows + chunk)))
    least = fixed + row_bytes_saving * (context_rows + 1)
    raise MemoryPlanError(
        f"{format_bytes(budget)} of memory cannot hold a training step with {context_rows:,} context rows",
        f"--max-memory {-(-least // 1024**2)}M, or a smaller --n",
    )


def parse_bytes(text: str) -> int:
    """Return the bytes of a size such as `4G`, `512M` or `2.5GiB`.

    Raises:
        RequestError: not a positive size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?)i?b?\s*", text.lower())
    size = float(match[1]) * UNITS[match[2]] if match else 0
    if size < 1:
        raise RequestError(f"{text!r} is not a memory size", "--max-memory 4G")
    return int(size)


def format_bytes(count: float) -> str:
    """Return a size in words a person reads: `2.7 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def resident_bytes() -> int:
    """Return what the process holds in memory now."""
    import psutil

    return psutil.Process().memory_info().rss


def peak_resident_bytes() -> int:
    """Return the most the process has held in memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
