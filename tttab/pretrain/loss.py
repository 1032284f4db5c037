"""The loss of a batch, the same as at prediction time.

Classification: cross-entropy over the classes the context shows. Regression: the negative log density of
tabpfn's bar distribution.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from tttab.pretrain.checkpoint import bar_borders
from tttab.pretrain.labels import MAX_CLASSES
from tttab.pretrain.prior import Batch
from tttab.pretrain.settings import Recipe

Loss = Callable[[torch.Tensor, Batch], torch.Tensor]

FARTHEST = 25.0
"""Targets farther out, in deviations of the context, count as this far."""


def loss_for(recipe: Recipe, device: torch.device) -> Loss:
    """Return the loss in nats per query, shape (tables, queries); zero where a query does not count."""
    if recipe.task == "classification":
        return class_loss
    from tabpfn.architectures.shared.bar_distribution import FullSupportBarDistribution

    bars = FullSupportBarDistribution(bar_borders(recipe).to(device))
    return lambda logits, batch: bars(logits, batch.y[:, batch.context :].clamp(-FARTHEST, FARTHEST))


def class_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the cross-entropy of each query, shape (tables, queries)."""
    logits = mask_absent(logits, batch)
    entropy = functional.cross_entropy(logits.transpose(1, 2), batch.y[:, batch.context :], reduction="none")
    return torch.where(batch.counted, entropy, 0.0)


def mask_absent(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return logits with minus infinity for classes the context does not show."""
    absent = torch.arange(MAX_CLASSES, device=logits.device) >= batch.classes.unsqueeze(-1)
    return logits.masked_fill(absent, float("-inf"))


def mean_loss(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the mean over the queries that count."""
    return values.sum() / batch.counted.sum().clamp(min=1)
