"""The held-out synthetic tables on which a run is evaluated while it trains.

They come from a stream that no training batch draws from, the same for every run of a recipe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from tttab.pretrain import forward
from tttab.pretrain.draw import Draw
from tttab.pretrain.loss import Loss, mean_loss
from tttab.pretrain.prior import Batch, Size, batch
from tttab.pretrain.settings import Mixture, Recipe

if TYPE_CHECKING:
    from tabpfn.architectures.tabpfn_v2 import TabPFNV2

SEED = 20_251
CONTEXTS = (50, 200, 800)
COLUMNS = (4, 16)
KINDS: dict[str, tuple[int, Mixture]] = {
    "numbers": (10, Mixture()),
    "mixed": (10, Mixture(mixed=1.0)),
    "categories": (16, Mixture(categorical=1.0)),
    "wide": (40, Mixture(categorical=0.3, grouped=0.5, redundant=0.3)),
    "many classes": (16, Mixture(grouped=0.3, two_classes=0.0)),
}
"""Kinds of tables, with their number of columns, on which a recipe with such tables is judged, at n = 200."""
CELLS = 40_000
"""Of all tables of a kind, about."""


def batches(recipe: Recipe, device: torch.device) -> Iterator[tuple[str, Batch]]:
    """Yield (name, tables) for short, middle and long contexts and few and many columns, and by kind."""
    for context in CONTEXTS:
        for columns in COLUMNS:
            n, width = min(context, recipe.shapes.context[1]), min(columns, recipe.shapes.features[1])
            draw = Draw(SEED, "held-out", context, columns, device=device)
            yield f"n={n}", _tables(draw, recipe, n, width, recipe.shapes.tokens)
    if recipe.mixture != Mixture():
        for name, (columns, mixture) in KINDS.items():
            draw = Draw(SEED, "held-out", name, device=device)
            yield name, _tables(draw, replace(recipe, mixture=mixture), 200, columns, CELLS)


def _tables(draw: Draw, recipe: Recipe, n: int, width: int, most: int) -> Batch:
    cells = (n + 64) * (-(-width // 2) + 1)
    tables = max(4, min(64, most // cells))
    return batch(draw, Size(tables, n, 64, width, recipe.shapes.classes), recipe, None)


@torch.no_grad()
def losses(network: TabPFNV2, recipe: Recipe, loss: Loss, device: torch.device) -> dict[str, float]:
    """Return the mean loss in nats by context length and kind; fixed column embeddings, fp32 as served."""
    found: dict[str, list[float]] = {}
    for name, tables in batches(recipe, device):
        groups = -(-tables.x.shape[2] // 2)
        draw = Draw(SEED, "positions", groups, device=device)
        positions = forward.draw_positions(draw, tables, recipe.architecture.emsize)
        logits = forward.logits(network, tables, positions)
        found.setdefault(name, []).append(mean_loss(loss(logits, tables), tables).item())
    return {name: sum(values) / len(values) for name, values in found.items()}
