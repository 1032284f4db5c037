"""The held-out synthetic tables a run is judged on while it trains.

They come from a stream of their own that no training batch draws from, the same for every run of
a recipe. What does not belong here: real tables; the choice of preprocessing (`choose`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from tttab.pretrain import forward
from tttab.pretrain.draw import Draw
from tttab.pretrain.loss import Loss, mean_loss
from tttab.pretrain.prior import Batch, Size, batch
from tttab.pretrain.settings import Recipe

if TYPE_CHECKING:
    from tabpfn.architectures.tabpfn_v2 import TabPFNV2

SEED = 20_251
CONTEXTS = (50, 200, 800)
COLUMNS = (4, 16)


def batches(recipe: Recipe, device: torch.device) -> Iterator[tuple[str, Batch]]:
    """Yield (name, tables) for short, middle and long contexts and few and many columns."""
    shapes = recipe.shapes
    for context in CONTEXTS:
        n = min(context, shapes.context[1])
        for columns in COLUMNS:
            width = min(columns, shapes.features[1])
            cells = (n + 64) * (-(-width // 2) + 1)
            tables = max(4, min(64, shapes.tokens // cells))
            draw = Draw(SEED, "held-out", context, columns, device=device)
            yield f"n={n}", batch(draw, Size(tables, n, 64, width, shapes.classes), recipe, None)


@torch.no_grad()
def losses(network: TabPFNV2, recipe: Recipe, loss: Loss, device: torch.device) -> dict[str, float]:
    """Return the mean loss in nats by context length; fixed column embeddings, fp32 as served."""
    found: dict[str, list[float]] = {}
    for name, tables in batches(recipe, device):
        groups = -(-tables.x.shape[2] // 2)
        draw = Draw(SEED, "positions", groups, device=device)
        positions = draw.normal(len(tables.x), groups, recipe.architecture.emsize // 4)
        logits = forward.logits(network, tables, positions)
        found.setdefault(name, []).append(mean_loss(loss(logits, tables), tables).item())
    return {name: sum(values) / len(values) for name, values in found.items()}
