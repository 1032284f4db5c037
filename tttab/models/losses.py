"""What an `Objective` makes of log likelihoods: the same for every family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tttab.core import Objective

if TYPE_CHECKING:
    import numpy as np
    import torch


def of_labels(log_p: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the entries of the labels, shape (…, rows), of log probabilities, shape (…, rows, classes)."""
    return log_p.gather(-1, labels.expand(log_p.shape[:-1])[..., None])[..., 0]


def weighted(values: torch.Tensor, objective: Objective, rows: np.ndarray) -> torch.Tensor:
    """Return values times what they count in the loss.

    Args:
        values: shape (…, rows), or (…, rows, classes) where the objective has targets.
        objective: what trains.
        rows: the rows' numbers, shape (rows,).
    """
    soft = objective.targets is not None
    if objective.targets is not None:
        values = values * values.new_tensor(objective.targets[rows])
    if objective.weights is not None:
        weights = values.new_tensor(objective.weights[rows])
        values = values * (weights[:, None] if soft else weights)
    return values
