"""How every family cuts query rows into the chunks that an `Execution` asks for.

What all chunks read of the context, and their scores, is joined again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tttab.contracts import RowScores


def chunks_of(rows: np.ndarray, chunk: int | None) -> list[np.ndarray]:
    """Return the rows, `chunk` at a time."""
    step = chunk or len(rows)
    return [rows[start : start + step] for start in range(0, len(rows), step)]


def joined_scores(parts: Sequence[RowScores]) -> RowScores:
    """Return the scores of several chunks as one."""
    told = [part.predicted for part in parts if part.predicted is not None]
    loss = np.concatenate([part.loss for part in parts])
    return RowScores(loss, np.concatenate(told) if len(told) == len(parts) else None)


class Leaves:
    """A context that chunks read through leaves, so that it runs once and its gradient goes back once."""

    def __init__(self) -> None:
        self._cut: list[tuple[torch.Tensor, torch.Tensor]] = []

    def cut(self, outer: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the tensors as leaves, whose gradients `backward` takes further."""
        # A tensor without a graph stays a constant: rules that move late layers pay for no more.
        leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in outer]
        self._cut += zip(outer, leaves, strict=True)
        return leaves

    def backward(self) -> None:
        """Push what the chunks' backward passes have left through the context, once."""
        reached = [(outer, leaf.grad) for outer, leaf in self._cut if leaf.grad is not None]
        if reached:
            outer, gradients = zip(*reached, strict=True)
            torch.autograd.backward(list(outer), list(gradients))
