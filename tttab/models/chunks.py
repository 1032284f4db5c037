"""How every family cuts query rows into the chunks that an `Execution` asks for."""

from __future__ import annotations

import numpy as np


def chunks_of(rows: np.ndarray, chunk: int | None) -> list[np.ndarray]:
    """Return the rows, `chunk` at a time."""
    step = chunk or len(rows)
    return [rows[start : start + step] for start in range(0, len(rows), step)]
