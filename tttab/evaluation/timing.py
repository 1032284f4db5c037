"""How long a prediction takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

LATENCY_ROWS = 1000
LATENCY_CALLS, LATENCY_SECONDS = 3, 1.0


def latency(
    predict: Callable[[pd.DataFrame], np.ndarray], x: pd.DataFrame, calls: int, elapsed: float
) -> float:
    """Return milliseconds per 1,000 rows: the fastest of `calls` calls on 1,000 rows of `x`, repeated.

    No call begins after `LATENCY_SECONDS`: what disturbs a short call hardly moves a long one.
    Without a call it follows from `elapsed`, the seconds that predicting `x` took.
    """
    rows = x.iloc[np.resize(np.arange(len(x)), LATENCY_ROWS)].reset_index(drop=True)
    best = elapsed * 1000 / len(x) if calls == 0 else float("inf")
    spent = 0.0
    for _ in range(calls):
        if spent > LATENCY_SECONDS:
            break
        start = time.perf_counter()
        predict(rows)
        took = time.perf_counter() - start
        best, spent = min(best, took * 1000 / LATENCY_ROWS), spent + took
    return 1000 * best
