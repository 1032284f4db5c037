"""Prediction: a fitted tabpfn estimator with its key-value cache and weights of its own.

The cache and the weights are made together and never change, so a cache cannot be out of date. Many threads
may use one server: nothing is set or patched while it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tttab.data.levels import match_categories
from tttab.errors import DataError
from tttab.models.opened import ClassPredictor
from tttab.models.tabpfn.shared_context import ARCHITECTURE, run_own_layers

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS, LEAST_ROWS, MOST_CELLS = 4096, 64, 32_768
"""Query rows per served forward pass, and their cells, so that memory stays flat on large inputs."""


class Server(ClassPredictor):
    """A classifier that answers from one context."""

    def __init__(self, estimator: Any, reference: pd.DataFrame, architecture: str) -> None:
        """Serve a fitted estimator.

        Args:
            estimator: tabpfn's, fitted with a cache, around a network that is this server's alone.
            reference: its context.
            architecture: of its network.
        """
        self._estimator = estimator
        self._reference = reference
        for module in estimator.models_ if architecture == ARCHITECTURE else []:
            run_own_layers(module)

    def predict(self, x: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, shape (rows, classes), in chunks; a regressor's mean, shape (rows,)."""
        return np.concatenate(list(self.predict_chunks(x)))

    def predict_chunks(self, x: pd.DataFrame) -> Iterator[np.ndarray]:
        """Yield the predictions chunk by chunk."""
        for chunk in self._chunks(x):
            yield self._estimator.predict_proba(chunk)

    @property
    def cache_bytes(self) -> int:
        """Size of the key-value cache, bytes."""
        return sum(_tensor_bytes(cache) for cache in self._estimator.executor_.kv_caches)

    def _chunks(self, x: pd.DataFrame) -> Iterator[pd.DataFrame]:
        if not len(x):
            raise DataError("there are no rows to predict", "a table with at least one row")
        x = match_categories(x, self._reference)
        rows = min(MOST_ROWS, max(LEAST_ROWS, MOST_CELLS // (-(-x.shape[1] // 2) + 1)))
        for start in range(0, len(x), rows):
            yield x.iloc[start : start + rows]


class TunedServer(Server):
    """A classifier whose context, or what its rows pass through, was trained while the weights stayed."""

    def __init__(
        self, answer: Callable[[pd.DataFrame], np.ndarray], reference: pd.DataFrame, kept: int
    ) -> None:
        """Serve what `answer` makes of a chunk of rows; `kept`: bytes of keys and values."""
        super().__init__(None, reference, "")
        self._answer, self._kept = answer, kept

    def predict_chunks(self, x: pd.DataFrame) -> Iterator[np.ndarray]:
        """Yield the predictions chunk by chunk."""
        yield from map(self._answer, self._chunks(x))

    @property
    def cache_bytes(self) -> int:
        """Size of the keys and values, bytes."""
        return self._kept


def _tensor_bytes(thing: object) -> int:
    """Return the bytes of all tensors inside a cache object."""
    if isinstance(thing, torch.Tensor):
        return thing.numel() * thing.element_size()
    if isinstance(thing, dict):
        return sum(map(_tensor_bytes, thing.values()))
    if isinstance(thing, list | tuple):
        return sum(map(_tensor_bytes, thing))
    return sum(map(_tensor_bytes, vars(thing).values())) if hasattr(thing, "__dict__") else 0
