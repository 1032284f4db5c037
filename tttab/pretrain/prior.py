"""One training batch: shapes from the curriculum, tables from our own prior and from the pool.

A batch is a pure function of the seed, the step, the progress and the pool's content.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tttab.pretrain import categories, features, labels
from tttab.pretrain.draw import Draw
from tttab.pretrain.pool import Pool
from tttab.pretrain.settings import Mixture, Recipe, Shapes

SIGMAS = 12.0


@dataclass(frozen=True)
class Batch:
    """Tables of one shape; the first `context` rows of each have labels the network sees."""

    x: torch.Tensor
    """(tables, rows, features), float32, NaN where missing."""
    y: torch.Tensor
    """(tables, rows): class codes, int64, or standardised targets, float32."""
    context: int
    classes: torch.Tensor
    """(tables, 1): classes shown in the context; zeros for regression."""
    counted: torch.Tensor
    """(tables, queries), bool: query rows whose class the context shows."""
    pooled: int
    """How many of the tables come from the pool."""

    @property
    def tokens(self) -> int:
        """Return the number of cells the network works on."""
        tables, rows, columns = self.x.shape
        return tables * rows * (-(-columns // 2) + 1)


@dataclass(frozen=True)
class Size:
    """The shape of a batch."""

    tables: int
    context: int
    queries: int
    features: int
    classes: int

    @property
    def rows(self) -> int:
        """Return context and query rows together."""
        return self.context + self.queries


def size_at(draw: Draw, shapes: Shapes, progress: float) -> Size:
    """Draw a batch shape at `progress` (0 to 1): small tables first, all sizes later."""
    share = min(1.0, progress / shapes.widen_until)
    context = draw.size(shapes.context[0], _between(shapes.first_context, shapes.context[1], share))
    columns = draw.size(shapes.features[0], _between(shapes.first_features, shapes.features[1], share))
    queries = int(draw.host.integers(shapes.queries[0], shapes.queries[1] + 1))
    cells = -(-columns // 2) + 1  # tabpfn v2 embeds two features as one cell; the target is one more
    if shapes.most_tokens is not None:
        fitting = shapes.most_tokens // (cells * shapes.fewest_tables) - queries
        context = min(context, max(fitting, shapes.context[0]))
    rows = context + queries
    most = min(shapes.most_tables, shapes.most_rows // rows, shapes.tokens // (rows * cells))
    tables = max(shapes.fewest_tables, most)
    return Size(tables, context, queries, columns, _between(shapes.first_classes, shapes.classes, share))


def batch(draw: Draw, size: Size, recipe: Recipe, pool: Pool | None) -> Batch:
    """Return a batch of `size`, part of it from `pool` where that holds tables of this width."""
    pooled = _from_pool(draw, size, recipe, pool)
    taken = 0 if pooled is None else len(pooled[0])
    made = _generated(draw, size, size.tables - taken, recipe) if taken < size.tables else None
    x, y = (torch.cat(part) for part in zip(*filter(None, (made, pooled)), strict=True))
    return _assembled(draw, x, y, size.context, recipe, taken)


def _assembled(
    draw: Draw, x: torch.Tensor, y: torch.Tensor, context: int, recipe: Recipe, pooled: int
) -> Batch:
    """Soften outliers as inference does or take ranks, and close the labels over the context."""
    clipped = _soft_clip(x, context) if recipe.task == "classification" else x
    x = torch.where(draw.chance(recipe.shapes.ranked, len(x), 1, 1), _quantiles(x, context), clipped)
    if recipe.task == "regression":
        shown = torch.zeros(len(x), 1, dtype=torch.long, device=x.device)
        counted = torch.ones(len(x), x.shape[1] - context, dtype=torch.bool, device=x.device)
        return Batch(x, labels.by_context(y, context), context, shown, counted, pooled)
    codes, shown, counted = labels.compact(y, context)
    return Batch(x, codes, context, shown, counted & (shown > 1), pooled)


def _generated(draw: Draw, size: Size, tables: int, recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    outputs = 1 if recipe.task == "regression" else labels.MAX_CLASSES
    x, scores, numbers = _columns(draw, (tables, size.rows, size.features), outputs, recipe.mixture)
    if recipe.task == "regression":
        y = labels.regress(draw, scores[..., 0], size.context)
    else:
        classes = labels.class_count(draw, tables, size.classes, recipe.mixture.two_classes)
        y = labels.classify(draw, scores, classes)
    return torch.cat([features.measure(draw, x[:numbers]), x[numbers:]]), y


def _columns(
    draw: Draw, shape: tuple[int, int, int], outputs: int, mixture: Mixture
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return columns, scores, and how many tables, the first ones, are numbers still to be measured."""
    if mixture.categorical + mixture.mixed + mixture.grouped + mixture.redundant == 0.0:
        return *features.latent(draw, shape, outputs), shape[0]
    of_numbers = 1.0 - mixture.categorical - mixture.mixed
    shares = (
        of_numbers * (1.0 - mixture.grouped),
        of_numbers * mixture.grouped,
        mixture.mixed,
        mixture.categorical,
    )
    plain, grouped, mixed, named = draw.shares(shape[0], shares)
    parts = [
        *([features.latent(draw, (plain, *shape[1:]), outputs)] if plain else []),
        *([features.grouped(draw, (grouped, *shape[1:]), outputs)] if grouped else []),
        *([categories.mixed(draw, (mixed, *shape[1:]), outputs, mixture)] if mixed else []),
        *([categories.categorical(draw, (named, *shape[1:]), outputs, mixture)] if named else []),
    ]
    x, scores = (torch.cat(part) for part in zip(*parts, strict=True))
    numbers = plain + grouped
    return (
        torch.cat([features.repeat_columns(draw, x[:numbers], mixture.redundant), x[numbers:]]),
        scores,
        numbers,
    )


def _from_pool(
    draw: Draw, size: Size, recipe: Recipe, pool: Pool | None
) -> tuple[torch.Tensor, torch.Tensor] | None:
    if pool is None or size.rows > recipe.pool.rows:
        return None
    share = recipe.pool.share
    wanted = round(size.tables * share) if size.tables > 1 else int(draw.host.random() < share)
    if wanted < 1:
        return None
    drawn = pool.draw(draw, wanted, size.rows, size.features)
    if drawn is None:
        return None
    x, y, named = drawn
    if recipe.pool.measured:
        measured = draw.chance(recipe.pool.measured, len(x), 1, 1)
        x = torch.where(measured, features.measure(draw, x), x)
    if recipe.task == "regression":
        return x, y
    classes = labels.class_count(draw, len(x), size.classes, recipe.mixture.two_classes)
    codes = labels.merge(draw, y.long(), classes)
    return x, torch.where(named, codes, labels.recut(draw, y, classes))


def _quantiles(x: torch.Tensor, context: int) -> torch.Tensor:
    """Return each value's rank among the context's values of its column, from 0 to 1; NaN stays.

    The smallest and the largest are 0 and 1 however often they occur, as in scikit-learn's transform, which
    serves the model: a column that is mostly zeros keeps them at 0.
    """
    columns = x.transpose(1, 2).contiguous()
    # Missing values sort behind all others, so the first `present` ones are the known.
    known = columns[..., :context].nan_to_num(nan=float("inf")).sort(dim=-1).values
    present = columns[..., :context].isfinite().sum(dim=-1, keepdim=True).clamp(min=1)
    largest = known.gather(-1, present - 1)
    below = torch.searchsorted(known, columns) + torch.searchsorted(known, columns, right=True)
    rank = (below / (2.0 * present)).clamp(0.0, 1.0)
    rank = torch.where(columns >= largest, 1.0, rank)
    rank = torch.where(columns <= known[..., :1], 0.0, rank)
    return torch.where(columns.isnan(), columns, rank).transpose(1, 2)


def _soft_clip(x: torch.Tensor, context: int) -> torch.Tensor:
    """Bend values more than `SIGMAS` standard deviations out towards the bulk, as tabpfn does."""
    lower, upper = _bounds(x[:, :context])
    inside = x[:, :context]
    # Outliers must not widen the bounds that are to catch them.
    inside = torch.where((inside < lower) | (inside > upper), float("nan"), inside)
    lower, upper = _bounds(inside)
    raised = torch.maximum(lower - torch.log1p(x.abs()), x)
    return torch.minimum(upper + torch.log1p(raised.abs()), raised)


def _bounds(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    missing = x.isnan()
    count = (~missing).sum(dim=1, keepdim=True)
    mean = x.nan_to_num().sum(dim=1, keepdim=True) / count.clamp(min=1)
    square = torch.where(missing, 0.0, (x - mean).square()).sum(dim=1, keepdim=True)
    spread = (square / (count - 1).clamp(min=1)).sqrt()
    return mean - SIGMAS * spread, mean + SIGMAS * spread


def _between(first: int, last: int, share: float) -> int:
    return round(first * (max(last, 1) / first) ** share)  # grows by equal ratios
