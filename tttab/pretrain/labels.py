"""From scores to targets: class labels or standardised regression targets, for a batch of tables."""

from __future__ import annotations

import torch

from tttab.pretrain.draw import Draw
from tttab.pretrain.functions import standardise

MAX_CLASSES = 10


def class_count(draw: Draw, tables: int, most: int, two: float = 0.45) -> torch.Tensor:
    """Return a number of classes per table, shape (tables, 1): 2 for the share `two`, else 2..most."""
    many = 2 + draw.integers(max(1, most - 1), tables, 1)
    return torch.where(draw.chance(two, tables, 1), 2, many)


def classify(draw: Draw, scores: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return labels, shape (tables, rows), from standardised scores (tables, rows, at least 10).

    Half of the tables cut one score at random quantiles, as a hidden quantity would be; the other
    half take the largest of several scores. Both are noisy, some hardly, some badly.
    """
    cut = _cut(draw, scores[..., 0], classes)
    largest = _largest(draw, scores[..., :MAX_CLASSES], classes)
    labels = torch.where(draw.chance(0.5, len(scores), 1), cut, largest)
    return _flip(draw, labels, classes)


def recut(draw: Draw, values: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return labels that cut the continuous `values` (tables, rows) at random quantiles."""
    return _flip(draw, _cut(draw, standardise(values.unsqueeze(-1)).squeeze(-1), classes), classes)


def merge(draw: Draw, labels: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return `labels` renamed at random and, where there are more than `classes`, merged."""
    names = draw.orders(len(labels), MAX_CLASSES) % classes
    return torch.gather(names, 1, labels.clamp(0, MAX_CLASSES - 1))


def compact(labels: torch.Tensor, context: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rename labels to their rank among the classes of the first `context` rows.

    Returns the labels, the number of classes in each context (tables, 1), and which of the later
    rows have a class that the context shows (tables, rows - context).
    """
    seen = torch.zeros(len(labels), MAX_CLASSES, dtype=torch.long, device=labels.device)
    seen.scatter_(1, labels[:, :context], 1)
    known = torch.gather(seen, 1, labels[:, context:]).bool()
    rank = (seen.cumsum(dim=1) - 1).clamp(min=0)
    return torch.gather(rank, 1, labels), seen.sum(dim=1, keepdim=True), known


def regress(draw: Draw, score: torch.Tensor, context: int) -> torch.Tensor:
    """Return noisy targets (tables, rows) from one score, standardised by the context's rows.

    Some tables are skewed, some have heavy-tailed noise, a few have only a handful of values.
    """
    tables, rows = score.shape
    noise = draw.log_uniform(tables, 1, low=0.005, high=0.8)
    tail = torch.where(draw.chance(0.15, tables, 1), 1.0 / (draw.uniform(tables, rows) + 0.05), 1.0)
    y = score + noise * draw.normal(tables, rows) * tail
    bend = draw.uniform(tables, 1, low=0.2, high=1.2)
    skewed = torch.expm1(bend * y.clamp(-5.0, 5.0))
    y = torch.where(draw.chance(0.25, tables, 1), skewed, y)
    levels = draw.log_uniform(tables, 1, low=1.0, high=8.0)
    y = torch.where(draw.chance(0.08, tables, 1), torch.round(y * levels), y)
    return by_context(y, context)


def by_context(y: torch.Tensor, context: int) -> torch.Tensor:
    """Standardise `y` by the mean and standard deviation of its first `context` rows.

    The standard deviation is the population's, as TabPFNRegressor takes it.
    """
    known = y[:, :context]
    mean = known.mean(dim=1, keepdim=True)
    spread = (known - mean).square().mean(dim=1, keepdim=True).sqrt()
    return (y - mean) / (spread + 1e-6)


def _weights(draw: Draw, classes: torch.Tensor) -> torch.Tensor:
    """Return class shares, shape (tables, 10): equal to very unequal, zero beyond `classes`."""
    tables = len(classes)
    power = draw.uniform(tables, 1, high=1.6)
    raw = (-torch.log(draw.uniform(tables, MAX_CLASSES, low=1e-3, high=0.999))) ** power
    raw = raw * (torch.arange(MAX_CLASSES, device=classes.device) < classes)
    return raw / raw.sum(dim=1, keepdim=True)


def _cut(draw: Draw, score: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    noise = draw.log_uniform(len(score), 1, low=0.002, high=0.5) * draw.normal(*score.shape)
    rank = (score + noise).argsort(dim=1).argsort(dim=1).float() / score.shape[1]
    edges = _weights(draw, classes).cumsum(dim=1)[:, :-1]
    level = (rank.unsqueeze(-1) > edges.unsqueeze(1)).sum(dim=-1).minimum(classes - 1)
    return torch.gather(_names(draw, classes), 1, level)


def _largest(draw: Draw, scores: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    tables, rows, _ = scores.shape
    sharpness = draw.log_uniform(tables, 1, 1, low=2.5, high=150.0)
    bias = draw.uniform(tables, 1, 1) * draw.normal(tables, 1, MAX_CLASSES)
    gumbel = -torch.log(-torch.log(draw.uniform(tables, rows, MAX_CLASSES, low=1e-6, high=1 - 1e-6)))
    absent = torch.arange(MAX_CLASSES, device=scores.device) >= classes.unsqueeze(-1)
    return (sharpness * (scores + bias) + gumbel).masked_fill(absent, float("-inf")).argmax(dim=-1)


def _flip(draw: Draw, labels: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    rate = draw.uniform(len(labels), 1, high=0.2) * draw.chance(0.1, len(labels), 1)
    anything = draw.integers(classes, *labels.shape)
    return torch.where(draw.chance(rate, *labels.shape), anything, labels)


def _names(draw: Draw, classes: torch.Tensor) -> torch.Tensor:
    """Return a random renaming of the classes below `classes`, shape (tables, 10)."""
    keys = draw.uniform(len(classes), MAX_CLASSES)
    beyond = torch.arange(MAX_CLASSES, device=classes.device) >= classes
    return (keys + 10.0 * beyond).argsort(dim=1)
