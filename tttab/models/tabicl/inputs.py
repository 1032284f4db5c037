"""What a model keeps of a context and of queries: the tensors that tabicl itself feeds to the network.

tabicl's own estimator is fitted and its transformers are called, so preprocessing, outliers and the members'
orders of features and classes are those of inference.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from tabicl import TabICLClassifier

if TYPE_CHECKING:
    import pandas as pd
    from tabicl._model.tabicl import TabICL


@dataclass
class PreparedContext:
    """n labelled rows with the preprocessing fitted on them, once; see `tttab.contracts.Context`."""

    x: pd.DataFrame
    y: np.ndarray
    classes: int
    estimator: Any
    """The fitted tabicl estimator that holds the preprocessing."""
    inputs: torch.Tensor
    """Shape (members, n, columns)."""
    labels: torch.Tensor
    """Shape (members, n): class codes in each member's own order."""
    columns: torch.Tensor
    """Shape (members, classes): which of a member's outputs is class c."""
    constant: float | None = None

    @property
    def n(self) -> int:
        """Number of context rows."""
        return len(self.y)


@dataclass
class PreparedQueries:
    """Query rows transformed under one context; see `tttab.contracts.Queries`."""

    inputs: torch.Tensor
    """Shape (members, rows, columns)."""
    y: torch.Tensor
    """Shape (rows,): class codes."""
    rows: torch.Tensor | None = None
    """What frozen column and row layers make of them, (members, rows, width); None where those train."""
    context_rows: torch.Tensor | None = None
    """The same of the context, shape (members, n, width)."""
    last: torch.Tensor | None = None
    """What all frozen layers make of them, shape (members, rows, width); None where one trains."""

    def __len__(self) -> int:
        """Return the number of query rows."""
        return len(self.y)


def fit_estimator(
    module: TabICL, x: pd.DataFrame, y: np.ndarray, members: int, seed: int, *, cache: bool
) -> TabICLClassifier:
    """Return tabicl's own classifier around `module`, in float32, fitted on a context."""
    device = next(module.parameters()).device
    # In a pass of several members of TabICL v1 without a cache, tabicl 2.2 hands one member's columns to the
    # others by the inverse of their orders; alone, as with a cache, each has its own.
    batch = 8 if cache or module.col_feature_group else 1
    estimator = TabICLClassifier(
        n_estimators=members,
        batch_size=batch,
        kv_cache=cache,
        device=device,
        use_amp=False,
        use_fa3=False,
        random_state=seed,
    )
    estimator.model_ = module
    estimator._load_model = _keep_model
    estimator.fit(cast("np.ndarray", x), y)  # it takes frames, its annotation does not say so
    generator = estimator.ensemble_generator_
    # tabicl takes the normalisations in the order of a set of texts, which differs between processes.
    for name in ("ensemble_configs_", "feature_shuffles_", "class_shuffles_"):
        setattr(generator, name, OrderedDict(sorted(getattr(generator, name).items())))
    return estimator


def context_tensors(estimator: TabICLClassifier) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return inputs, labels and columns of a fitted estimator's context; see `PreparedContext`."""
    generator = estimator.ensemble_generator_
    parts = generator.transform(X=None, mode="train").values()
    x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    orders = [order for orders in generator.class_shuffles_.values() for order in orders]
    columns, device = torch.as_tensor(np.array(orders)), estimator.device_
    return torch.from_numpy(x).float().to(device), torch.from_numpy(y).long().to(device), columns.to(device)


def query_tensor(estimator: TabICLClassifier, x: pd.DataFrame) -> torch.Tensor:
    """Return the inputs of rows under a fitted estimator, shape (members, rows, columns)."""
    numbers = estimator.X_encoder_.transform(x)
    parts = estimator.ensemble_generator_.transform(numbers, mode="test").values()
    return torch.from_numpy(np.concatenate([part for (part,) in parts])).float().to(estimator.device_)


def _keep_model() -> None:
    """Stand in for tabicl's loading of a file."""
