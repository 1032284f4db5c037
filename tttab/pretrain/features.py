"""Random features for a batch of tables, before and after they are distorted as real columns are.

`latent` draws rows with structure and scores that belong to them. `measure` distorts smooth columns as real
tables are: skewed, counted, categorical, heavy-tailed and missing values.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch.nn import functional

from tttab.pretrain import functions
from tttab.pretrain.draw import Draw


class Family(Protocol):
    """A function that draws columns and the scores that belong to them; a card names it."""

    __name__: str

    def __call__(
        self, draw: Draw, shape: tuple[int, int, int], outputs: int, /
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features of `shape` (tables, rows, features) and scores (tables, rows, outputs)."""
        ...


def latent(draw: Draw, shape: tuple[int, int, int], outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features of `shape` (tables, rows, features) and scores (tables, rows, outputs).

    Both are standardised over the rows; the tables of one batch come from several families.
    """
    tables, rows, features = shape
    xs, ss = [], []
    for family, count in zip(FAMILIES, draw.shares(tables, list(FAMILIES.values())), strict=True):
        if count:
            x, s = family(draw, (count, rows, features), outputs)
            xs.append(functions.standardise(x))
            ss.append(functions.standardise(s))
    return torch.cat(xs), torch.cat(ss)


def independent(draw: Draw, shape: tuple[int, int, int], outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Independent columns, normal or uniform; the scores are a random function of them."""
    tables, _, features = shape
    normal, uniform = draw.normal(*shape), draw.uniform(*shape, low=-1.7, high=1.7)
    x = torch.where(draw.chance(0.5, tables, 1, features), normal, uniform)
    return x, functions.scores(draw, x, outputs)


def correlated(draw: Draw, shape: tuple[int, int, int], outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns that share a few factors; the scores depend on the columns."""
    x, _ = _measured_factors(draw, shape)
    return x, functions.scores(draw, x, outputs)


def hidden(draw: Draw, shape: tuple[int, int, int], outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns that share a few factors; the scores depend on the factors, which nobody sees."""
    x, factors = _measured_factors(draw, shape)
    return x, functions.scores(draw, factors, outputs)


def causal(draw: Draw, shape: tuple[int, int, int], outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns and scores are units of one random sparse network, causes before effects or after."""
    tables, rows, features = shape
    width = max(16, min(96, features + outputs))
    units = draw.normal(tables, rows, draw.size(1, 16))
    kept = []
    noise = draw.log_uniform(tables, 1, 1, low=0.003, high=0.5)
    for _ in range(draw.size(2, 5)):
        fan_in = units.shape[-1]
        weights = draw.normal(tables, fan_in, width) * draw.chance(
            min(1.0, 4.0 / fan_in), tables, fan_in, width
        )
        units = activate_and_scale(draw, units @ weights, noise)
        kept.append(units)
    every = torch.cat(kept, dim=-1)
    order = draw.orders(tables, every.shape[-1])[:, : features + outputs]
    chosen = torch.gather(every, 2, order.unsqueeze(1).expand(-1, rows, -1))
    return chosen[..., :features], chosen[..., features:]


def clustered(draw: Draw, shape: tuple[int, int, int], outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows around centres; each centre has scores of its own."""
    tables, rows, features = shape
    count = draw.size(2, 30)
    cluster = draw.integers(count, tables, rows)
    centres = (
        draw.normal(tables, count, features) * functions.importance(draw, tables, features) * features**0.5
    )
    width = draw.log_uniform(tables, count, features, low=0.15, high=1.2)
    width = width * draw.log_uniform(tables, 1, 1, low=0.5, high=2.5)
    pick = cluster.unsqueeze(-1).expand(-1, -1, features)
    x = torch.gather(centres, 1, pick) + torch.gather(width, 1, pick) * draw.normal(*shape)
    scores = draw.normal(tables, count, outputs)
    return _rotated(draw, x), torch.gather(scores, 1, cluster.unsqueeze(-1).expand(-1, -1, outputs))


FAMILIES: dict[Family, float] = {
    independent: 0.22,
    correlated: 0.20,
    hidden: 0.18,
    causal: 0.25,
    clustered: 0.15,
}
"""The families and how often each is drawn."""


def activate_and_scale(draw: Draw, values: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return noisy, activated, standardised units of a causal network's layer."""
    shifted = functions.standardise(values) + draw.normal(len(values), 1, values.shape[-1]) * 0.5
    active = functions.standardise(functions.activate(draw, shifted))
    return active + noise * draw.normal(*values.shape)


def grouped(draw: Draw, shape: tuple[int, int, int], outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows around centres on a few factors that all columns share; each centre belongs to one output.

    So are measured pictures and spectra: many columns, each weak, and classes that are groups of rows.
    """
    tables, rows, columns = shape
    count, width = draw.size(4, 24), draw.size(2, max(2, min(24, columns)))
    cluster = draw.integers(count, tables, rows)
    at = draw.normal(tables, count, width) * draw.log_uniform(tables, 1, 1, low=1.2, high=6.0)
    factors = torch.gather(at, 1, cluster.unsqueeze(-1).expand(-1, -1, width)) + draw.normal(
        tables, rows, width
    )
    x = functions.standardise(factors @ draw.normal(tables, width, columns))
    if draw.host.random() < 0.5:
        x = functions.standardise(functions.activate(draw, x + draw.normal(tables, 1, columns)))
    x = x + draw.log_uniform(tables, 1, columns, low=0.03, high=1.0) * draw.normal(*shape)
    owner = (torch.arange(count, device=x.device) % outputs).expand(tables, -1)
    scores = draw.normal(tables, count, outputs) + 3.0 * functional.one_hot(owner, outputs)
    return x, functions.standardise(torch.gather(scores, 1, cluster.unsqueeze(-1).expand(-1, -1, outputs)))


def repeat_columns(draw: Draw, x: torch.Tensor, share: float) -> torch.Tensor:
    """Replace columns of a `share` of the tables: by noisy copies of a few others, in blocks, or by noise."""
    tables, rows, columns = x.shape
    chosen = draw.chance(share, tables, 1, 1)
    leaders = draw.integers(columns, tables, 1 + columns // 8)
    source = torch.gather(leaders, 1, draw.integers(leaders.shape[1], tables, columns)).unsqueeze(1)
    noise = draw.log_uniform(tables, 1, columns, low=0.02, high=1.0) * draw.normal(*x.shape)
    sign = 1.0 - 2.0 * draw.chance(0.3, tables, 1, columns).float()
    copies = torch.gather(x, 2, source.expand(-1, rows, -1)) * sign + noise
    kind = draw.uniform(tables, 1, columns)
    copied = draw.uniform(tables, 1, 1, high=0.6)
    nothing = copied + draw.uniform(tables, 1, 1) * (1.0 - copied) * 0.4
    replaced = torch.where(kind < copied, copies, torch.where(kind < nothing, draw.normal(*x.shape), x))
    return torch.where(chosen, replaced, x)


def measure_codes(draw: Draw, x: torch.Tensor) -> torch.Tensor:
    """Turn codes into measured ones: some columns irrelevant, some cells missing."""
    return _missing(draw, _irrelevant(draw, x))


def measure(draw: Draw, x: torch.Tensor) -> torch.Tensor:
    """Turn smooth columns into measured ones: warped, in levels, categorical, irrelevant, missing."""
    x = _irrelevant(draw, x)
    x = _warped(draw, x)
    x = _levelled(draw, x)
    return _missing(draw, x)


def _measured_factors(draw: Draw, shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    tables, rows, features = shape
    count = draw.size(1, max(2, min(12, features)))
    factors = draw.normal(tables, rows, count)
    loadings = draw.normal(tables, count, features) * draw.chance(0.5, tables, count, features)
    x = functions.standardise(factors @ loadings)
    if draw.host.random() < 0.5:
        x = functions.standardise(functions.activate(draw, x + draw.normal(tables, 1, features)))
    noise = draw.log_uniform(tables, 1, features, low=0.02, high=1.0)
    return x + noise * draw.normal(*shape), factors


def _rotated(draw: Draw, x: torch.Tensor) -> torch.Tensor:
    """Mix each column with another one by a random angle, in half of the tables."""
    angle = draw.uniform(len(x), 1, x.shape[-1], high=3.1416) * draw.chance(0.5, len(x), 1, 1)
    return torch.cos(angle) * x + torch.sin(angle) * x.roll(1, dims=-1)


def _irrelevant(draw: Draw, x: torch.Tensor) -> torch.Tensor:
    """Replace some columns of some tables by the same values in another order of the rows."""
    share = draw.uniform(len(x), 1, 1, high=0.5) * draw.chance(0.25, len(x), 1, 1)
    shift = int(draw.host.integers(1, max(2, x.shape[1])))
    return torch.where(draw.chance(share, len(x), 1, x.shape[-1]), x.roll(shift, dims=1), x)


def _warped(draw: Draw, x: torch.Tensor) -> torch.Tensor:
    tables, _, features = x.shape
    share = draw.uniform(tables, 1, 1) * draw.chance(0.6, tables, 1, 1)
    # Real tables often hold one sort of column throughout: counts and amounts, nearly all zero.
    alike = draw.chance(0.3, tables, 1, 1)
    kind = torch.where(alike, draw.integers(5, tables, 1, 1), draw.integers(5, tables, 1, features))
    kind = torch.where(draw.chance(share, tables, 1, features), kind, 5)
    amount = draw.log_uniform(tables, 1, features, low=0.4, high=2.5)
    bounded = x.clamp(-6.0, 6.0)
    warps = (
        torch.sign(x) * (x.abs() + 1e-6).pow(amount),
        torch.exp(bounded * amount.clamp(max=1.5)),
        torch.tanh(x * amount),
        torch.relu(x - draw.normal(tables, 1, features) * 0.8),
        torch.expm1(torch.relu(bounded * amount.clamp(max=1.5) - draw.uniform(tables, 1, features))),
    )
    for number, warp in enumerate(warps):
        x = torch.where(kind == number, warp, x)
    return x


def _levelled(draw: Draw, x: torch.Tensor) -> torch.Tensor:
    """Cut some columns into 2 to 12 levels; half of those are categories in no order."""
    tables, rows, features = x.shape
    share = draw.uniform(tables, 1, 1) * draw.chance(0.5, tables, 1, 1)
    affected = draw.chance(share, tables, 1, features)
    levels = 2 + draw.integers(draw.uniform(tables, 1, features) * 11, tables, 1, features)
    rank = x.argsort(dim=1).argsort(dim=1).float() / rows
    even = torch.sigmoid(1.7 * functions.standardise(x))
    code = (torch.where(draw.chance(0.5, tables, 1, features), rank, even) * levels).long()
    names = draw.uniform(tables, features, 16).argsort(dim=-1).unsqueeze(1).expand(-1, rows, -1, -1)
    shuffled = torch.gather(names, 3, code.clamp(0, 15).unsqueeze(-1)).squeeze(-1)
    code = torch.where(draw.chance(0.5, tables, 1, features), shuffled, code)
    return torch.where(affected, code.float(), x)


def _missing(draw: Draw, x: torch.Tensor) -> torch.Tensor:
    tables, _, features = x.shape
    rate = draw.uniform(tables, 1, features, high=0.35) * draw.chance(0.5, tables, 1, features)
    rate = rate * draw.chance(0.12, tables, 1, 1)
    return x.masked_fill(draw.chance(rate, *x.shape), float("nan"))
