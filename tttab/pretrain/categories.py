"""Tables of unordered categories, alone or beside numbers: codes, and the scores that follow from them.

A level acts through random numbers of its own, so its code says nothing; codes are as good as permuted names.
"""

from __future__ import annotations

import torch

from tttab.pretrain import features, functions
from tttab.pretrain.draw import Draw
from tttab.pretrain.settings import Mixture

EFFECTS = 2
"""Random numbers through which a level acts: more than one, or the levels would have a hidden order."""


def categorical(
    draw: Draw, shape: tuple[int, int, int], outputs: int, mixture: Mixture
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes of `shape` (tables, rows, features) and scores (tables, rows, outputs).

    In half of the tables the scores are those of a row's hidden group, on which the frequencies of all levels
    depend, many weak hints; in the other half a random function of the levels' effects.
    """
    codes, group, levels = _drawn(draw, shape, mixture)
    acting = functions.scores(draw, _some(draw, _effects(draw, codes, levels)), outputs)
    of_group = draw.normal(shape[0], GROUPS, outputs)
    hidden = torch.gather(of_group, 1, group.unsqueeze(-1).expand(-1, -1, outputs))
    scores = torch.where(draw.chance(0.5, shape[0], 1, 1), hidden, acting)
    x = torch.where(draw.chance(mixture.one_hot, shape[0], 1, 1), _indicators(draw, codes), codes)
    return features.measure_codes(draw, x.float()), functions.standardise(scores)


def mixed(
    draw: Draw, shape: tuple[int, int, int], outputs: int, mixture: Mixture
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return columns of `shape`, some categories and some numbers, and scores (tables, rows, outputs).

    The scores are a random function of the numbers and the levels' effects together: they interact. In a
    third of the tables those that belong to the numbers are added.
    """
    tables, _, columns = shape
    numbers, own = features.latent(draw, shape, outputs)
    codes, _, levels = _drawn(draw, shape, mixture)
    named = draw.chance(draw.uniform(tables, 1, 1, low=0.1, high=0.9), tables, 1, columns)
    effects = functions.standardise(_effects(draw, codes, levels)[..., 0])
    acting = functions.scores(draw, torch.where(named, effects, numbers), outputs)
    scores = acting + own * draw.chance(0.33, tables, 1, 1)
    measured = features.measure(draw, numbers)
    x = torch.where(named, features.measure_codes(draw, codes.float()), measured)
    return x, functions.standardise(scores)


GROUPS = 12
"""The most hidden groups of a table's rows."""


def _drawn(
    draw: Draw, shape: tuple[int, int, int], mixture: Mixture
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return codes (tables, rows, features), each row's group (tables, rows), levels (tables, features)."""
    tables, rows, columns = shape
    levels = _level_counts(draw, tables, columns, mixture)
    most = int(levels.max())
    group = draw.integers(draw.integers(GROUPS - 1, tables, 1) + 2, tables, rows)
    spread = draw.uniform(tables, 1, 1, 1, high=1.5)
    logits = spread * draw.normal(tables, 1, columns, most)
    # With many columns each says little about the group, or it would be read off a few rows.
    strength = draw.log_uniform(tables, 1, 1, 1, low=1.5, high=12.0) * columns**-0.5
    strength = strength * draw.chance(0.7, tables, 1, columns, 1)
    logits = logits + strength * draw.normal(tables, GROUPS, columns, most)
    absent = torch.arange(most, device=levels.device) >= levels[:, None, :, None]
    bounds = torch.softmax(logits.masked_fill(absent, float("-inf")), dim=-1).cumsum(dim=-1)
    place = group + torch.arange(tables, device=group.device)[:, None] * GROUPS
    at = draw.uniform(*shape).unsqueeze(-1) * 0.999999
    codes = (at >= bounds.flatten(0, 1)[place.flatten()].view(tables, rows, columns, most)).sum(dim=-1)
    return _repeated(draw, codes.minimum(levels[:, None] - 1), levels), group, levels


def _level_counts(draw: Draw, tables: int, columns: int, mixture: Mixture) -> torch.Tensor:
    """Return each column's number of levels, (tables, features): alike in a third of the tables."""
    low, high = mixture.levels
    alike = draw.log_uniform(tables, 1, low=low, high=high + 1).expand(-1, columns)
    own = draw.log_uniform(tables, columns, low=low, high=high + 1)
    many = draw.log_uniform(tables, columns, low=high, high=mixture.many_levels + 1)
    own = torch.where(draw.chance(0.05, tables, columns), many, own)
    return torch.where(draw.chance(0.33, tables, 1), alike, own).long()


def _repeated(draw: Draw, codes: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Let some columns repeat another, coarser or renamed, with errors, in a quarter of the tables."""
    tables, rows, columns = codes.shape
    share = draw.uniform(tables, 1, 1, high=0.5) * draw.chance(0.25, tables, 1, 1)
    source = draw.integers(columns, tables, 1, columns).expand(-1, rows, -1)
    shift = draw.integers(levels, tables, columns).unsqueeze(1)
    copies = (torch.gather(codes, 2, source) + shift) % levels.unsqueeze(1)
    wrong = draw.chance(draw.uniform(tables, 1, columns, high=0.5), *codes.shape)
    return torch.where(draw.chance(share, tables, 1, columns) & ~wrong, copies, codes)


def _effects(draw: Draw, codes: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Return the effects of each cell's level, (tables, rows, features, EFFECTS); some levels have none."""
    tables, _, columns = codes.shape
    most = int(levels.max())
    drawn = draw.normal(tables, columns, most, EFFECTS)
    drawn = drawn * draw.chance(draw.uniform(tables, 1, 1, 1, low=0.5, high=2.0), tables, columns, most, 1)
    place = torch.arange(tables * columns, device=codes.device).view(tables, 1, columns) * most + codes
    return drawn.view(-1, EFFECTS)[place]


def _some(draw: Draw, effects: torch.Tensor) -> torch.Tensor:
    """Return the effects of a few columns or all, side by side; the others do not act."""
    tables, rows, columns, _ = effects.shape
    chosen = draw.orders(tables, columns)[:, : draw.size(1, columns)]
    return torch.gather(effects, 2, chosen[:, None, :, None].expand(-1, rows, -1, EFFECTS)).flatten(2)


def _indicators(draw: Draw, codes: torch.Tensor) -> torch.Tensor:
    """Return columns that say whether a column of `codes` has one of its levels: several for each column."""
    tables, rows, columns = codes.shape
    source = draw.integers(draw.integers(columns, tables, 1) + 1, tables, columns).sort(dim=1).values
    values = torch.gather(codes, 2, source.unsqueeze(1).expand(-1, rows, -1))
    of_row = draw.integers(rows, tables, 1, columns)
    return (values == torch.gather(values, 1, of_row)).long()
