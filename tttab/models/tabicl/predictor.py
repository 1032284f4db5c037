"""Prediction: a fitted tabicl estimator with its key-value cache and weights of its own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from tttab.errors import DataError
from tttab.models.opened import ClassPredictor

if TYPE_CHECKING:
    import pandas as pd

CELLS, LEAST_ROWS = 500_000, 64
"""Query cells, over all members, and least rows of a served pass: memory stays flat on large inputs."""


class Server(ClassPredictor):
    """A classifier that answers from one context."""

    def __init__(self, estimator: Any, members: int) -> None:
        """Serve a fitted estimator of so many members around a network that is this server's alone."""
        self._estimator, self._members = estimator, members
        self._lock = threading.Lock()  # tabicl notes on its network which cache a pass reads

    def predict(self, x: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, shape (rows, classes), in chunks."""
        if not len(x):
            raise DataError("there are no rows to predict", "a table with at least one row")
        rows = max(LEAST_ROWS, CELLS // (self._members * (x.shape[1] + 4)))
        starts = range(0, len(x), rows)
        with self._lock:
            parts = [self._estimator.predict_proba(x.iloc[start : start + rows]) for start in starts]
        return np.concatenate(parts)

    @property
    def cache_bytes(self) -> int | None:
        """Size of the key-value cache, bytes; None where there is none, as for more classes than outputs."""
        fitted = getattr(self._estimator, "_final_estimator_", self._estimator)  # a fine-tuner's
        caches = getattr(fitted, "model_kv_cache_", None)
        if caches is None:
            return None
        parts = [part.kv.values() for cache in caches.values() for part in (cache.col_cache, cache.icl_cache)]
        return sum(t.numel() * t.element_size() for part in parts for e in part for t in (e.key, e.value))
