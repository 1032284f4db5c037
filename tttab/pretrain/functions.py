"""Random functions for a whole batch of tables at once: from features to scores.

Each function maps x of shape (tables, rows, features), about standardised, to scores of shape (tables, rows,
outputs), with its own weights per table and no loop over tables. The families follow those named for TabPFN
v2's and TabICL's priors (Hollmann et al., Nature 2025, "Generation of synthetic data"; Qu et al., arXiv
2502.05564, section 4): networks, trees, discretisation, plus linear, additive, Gaussian-process-like
functions and products.
"""

from __future__ import annotations

from typing import Protocol

import torch

from tttab.pretrain.draw import Draw


class Function(Protocol):
    """A function that draws scores for columns; a card names it."""

    __name__: str

    def __call__(self, draw: Draw, x: torch.Tensor, outputs: int, /) -> torch.Tensor:
        """Return scores (tables, rows, outputs) of x (tables, rows, features)."""
        ...


def standardise(values: torch.Tensor) -> torch.Tensor:
    """Return `values` with mean 0 and standard deviation 1 over the rows (dimension 1)."""
    centred = values - values.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True).sqrt() + 1e-6)


def importance(draw: Draw, tables: int, features: int) -> torch.Tensor:
    """Return how strongly each feature acts, shape (tables, 1, features), unit length per table.

    A random share of the features does not act at all; at least one does.
    """
    keep = draw.chance(draw.uniform(tables, 1, low=0.15, high=1.3), tables, features).float()
    keep.scatter_(1, draw.integers(features, tables, 1), 1.0)
    spread = draw.uniform(tables, 1, high=1.5)
    weight = keep * torch.exp(spread * draw.normal(tables, features))
    return (weight / weight.norm(dim=1, keepdim=True)).unsqueeze(1)


def activate(draw: Draw, values: torch.Tensor) -> torch.Tensor:
    """Apply a random activation to each unit (the last dimension) of each table."""
    tables, _, units = values.shape
    kind = draw.integers(8, tables, 1, units)
    shapes = (
        values,
        torch.tanh(values),
        torch.relu(values),
        torch.sin(2.0 * values),
        torch.exp(-values.square()),
        values.abs(),
        torch.sign(values),
        values.clamp(-1.0, 1.0).square() * torch.sign(values),
    )
    result = shapes[0]
    for number, shape in enumerate(shapes[1:], start=1):
        result = torch.where(kind == number, shape, result)
    return result


def linear(draw: Draw, x: torch.Tensor, outputs: int) -> torch.Tensor:
    """Weighted sums of the features."""
    tables, _, features = x.shape
    return (x * importance(draw, tables, features)) @ draw.normal(tables, features, outputs)


def additive(draw: Draw, x: torch.Tensor, outputs: int) -> torch.Tensor:
    """Sums of smooth one-feature functions, each a mixture of four random sigmoids."""
    tables, _, features = x.shape
    slope = draw.log_uniform(tables, 1, features, 4, low=0.5, high=20.0)
    bend = torch.tanh(slope * (x.unsqueeze(-1) - draw.normal(tables, 1, features, 4)))
    curves = (bend * draw.normal(tables, 1, features, 4)).sum(dim=-1)
    return (curves * importance(draw, tables, features)) @ draw.normal(tables, features, outputs)


def network(draw: Draw, x: torch.Tensor, outputs: int) -> torch.Tensor:
    """A random multi-layer perceptron, one to three hidden layers."""
    tables, _, features = x.shape
    hidden = x * importance(draw, tables, features) * draw.log_uniform(tables, 1, 1, low=0.5, high=4.0)
    width = draw.size(8, 48)
    for _ in range(draw.size(1, 3)):
        fan_in = hidden.shape[-1]
        weights = draw.normal(tables, fan_in, width) * (1.0 if fan_in == features else fan_in**-0.5)
        hidden = standardise(activate(draw, hidden @ weights + draw.normal(tables, 1, width)))
    return hidden @ draw.normal(tables, width, outputs)


def trees(draw: Draw, x: torch.Tensor, outputs: int) -> torch.Tensor:
    """Sums of random oblivious trees: piecewise constant, thresholds at values of the data."""
    tables, rows, features = x.shape
    count, depth = draw.size(1, 24), int(draw.host.integers(1, 6))
    odds = importance(draw, tables, features).squeeze(1).square()
    chosen = draw.weighted(odds, count * depth)
    split = torch.gather(x, 2, chosen.unsqueeze(1).expand(-1, rows, -1))
    at = torch.gather(split, 1, draw.integers(rows, tables, 1, count * depth))
    bits = (split > at).view(tables, rows, count, depth).long()
    leaf = (bits << torch.arange(depth, device=x.device)).sum(dim=-1)
    leaf = leaf + torch.arange(count, device=x.device) * 2**depth
    values = draw.normal(tables, count * 2**depth, outputs)
    picked = torch.gather(values, 1, leaf.view(tables, rows * count, 1).expand(-1, -1, outputs))
    return picked.view(tables, rows, count, outputs).sum(dim=2)


def waves(draw: Draw, x: torch.Tensor, outputs: int) -> torch.Tensor:
    """Draws from a Gaussian process: 64 random Fourier features with per-feature length scales.

    Source: Rahimi and Recht, NeurIPS 2007. Half of the tables get heavy-tailed frequencies.
    """
    tables, _, features = x.shape
    scale = draw.log_uniform(tables, 1, 1, low=0.4, high=3.0)
    tail = torch.where(draw.chance(0.5, tables, 1, 1), draw.normal(tables, 1, 64).abs() + 0.4, 1.0)
    frequency = draw.normal(tables, features, 64) * importance(draw, tables, features).mT * scale / tail
    phase = draw.uniform(tables, 1, 64, high=6.2832)
    return torch.cos(x @ frequency + phase) @ draw.normal(tables, 64, outputs) * 64**-0.5


def prototypes(draw: Draw, x: torch.Tensor, outputs: int) -> torch.Tensor:
    """Each row takes the scores of its nearest prototype, hard or blurred; prototypes are rows."""
    tables, rows, features = x.shape
    count = draw.size(2, 30)
    scaled = x * importance(draw, tables, features)
    which = draw.integers(rows, tables, count, 1).expand(-1, -1, features)
    distance = torch.cdist(scaled, torch.gather(scaled, 1, which)).square()
    sharpness = draw.log_uniform(tables, 1, 1, low=3.0, high=300.0)
    return torch.softmax(-sharpness * distance, dim=-1) @ draw.normal(tables, count, outputs)


def products(draw: Draw, x: torch.Tensor, outputs: int) -> torch.Tensor:
    """Sums of products of two features, or of their signs (exclusive or)."""
    tables, rows, features = x.shape
    count = draw.size(1, 8)
    odds = importance(draw, tables, features).squeeze(1).square()
    pairs = draw.weighted(odds, 2 * count)
    values = torch.gather(x, 2, pairs.unsqueeze(1).expand(-1, rows, -1))
    values = values - draw.normal(tables, 1, 2 * count) * 0.5
    values = torch.where(draw.chance(0.3, tables, 1, 1), torch.sign(values), values.clamp(-3.0, 3.0))
    return (values[..., :count] * values[..., count:]) @ draw.normal(tables, count, outputs)


KINDS: dict[Function, float] = {
    linear: 0.14,
    additive: 0.10,
    network: 0.18,
    trees: 0.24,
    waves: 0.16,
    prototypes: 0.10,
    products: 0.08,
}
"""The functions and how often each is drawn."""


def scores(draw: Draw, x: torch.Tensor, outputs: int) -> torch.Tensor:
    """Return standardised scores, shape (tables, rows, outputs): one random kind per table.

    A second, weaker function is added to a third of the tables, so that kinds mix.
    """
    first = _mixed(draw, x, outputs)
    if draw.host.random() < 0.35:
        strength = draw.uniform(len(x), 1, 1) * draw.chance(0.7, len(x), 1, 1)
        order = draw.host.permutation(len(x))
        first = first + strength * _mixed(draw, x[order], outputs)[order.argsort()]
    return standardise(first)


def _mixed(draw: Draw, x: torch.Tensor, outputs: int) -> torch.Tensor:
    parts, start = [], 0
    for function, count in zip(KINDS, draw.shares(len(x), list(KINDS.values())), strict=True):
        if count:
            parts.append(standardise(function(draw, x[start : start + count], outputs)))
            start += count
    return torch.cat(parts)
