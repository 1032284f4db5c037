"""How every family cuts query rows into the chunks that an `Execution` asks for, and joins their scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
