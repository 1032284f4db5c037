"""TabPFN v2's network on a batch of many tables, for training: same weights, same numbers, fewer steps.

The module in tabpfn loops over the tables to encode labels and waits for the device; this one does neither
and fuses the projections. `tests/pretrain/test_forward.py` checks that they are equal. Column embeddings are
drawn anew for every table, so that a file does not depend on the device whose random numbers it was trained
with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from tttab.pretrain.draw import Draw
from tttab.pretrain.prior import Batch

if TYPE_CHECKING:
    from tabpfn.architectures.tabpfn_v2 import TabPFNBlock, TabPFNV2

MISSING = -2.0
"""The indicator tabpfn adds for a missing cell."""

KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Attention's kernels on a GPU, without cuDNN's: those plan each new shape anew, 16 ms of the host per
call, 46 calls a step (H200, torch 2.11), and every batch has a shape of its own."""

Layer = Callable[[torch.Tensor, int, int, tuple[torch.Tensor, ...]], torch.Tensor]


def logits(
    net: TabPFNV2,
    batch: Batch,
    positions: torch.Tensor,
    dtype: torch.dtype = torch.float32,
    run: Layer | None = None,
) -> torch.Tensor:
    """Return the network's outputs for the query rows, float32, shape (tables, queries, outputs).

    `positions` are the column embeddings' random vectors, (tables, feature pairs, emsize // 4);
    `dtype` is what the network computes in; `run` stands for `block`, for instance compiled.
    """
    run = run or block
    cells = _embed(net, batch, positions).to(dtype)
    with sdpa_kernel(KERNELS):
        for number, layer in enumerate(cast("Iterable[TabPFNBlock]", net.blocks), start=1):
            heads = layer.per_sample_attention_between_features.num_heads
            step = last_block if number == len(net.blocks) else run
            cells = step(cells, batch.context, heads, _fused(layer, dtype))
    first, _, last = cast("Iterable[torch.nn.Linear]", net.output_projection)
    hidden = functional.gelu(functional.linear(cells, first.weight.to(dtype), first.bias.to(dtype)))
    return functional.linear(hidden, last.weight.to(dtype), last.bias.to(dtype)).float()


def draw_positions(draw: Draw, batch: Batch, width: int) -> torch.Tensor:
    """Draw the column embeddings' random vectors, anew for each table; `width` is the network's emsize."""
    pairs = -(-batch.x.shape[2] // 2)
    return draw.normal(len(batch.x), pairs, width // 4)


def _embed(net: TabPFNV2, batch: Batch, positions: torch.Tensor) -> torch.Tensor:
    x, indicator = group(batch.x, batch.context, net.features_per_group)
    features = functional.linear(torch.cat([x, indicator], dim=-1), net.feature_group_embedder.weight)
    features = features + net.feature_positional_embedding_embeddings(positions).unsqueeze(1)
    y = batch.y[:, : batch.context].float()
    # A query's target is unknown: the context's mean label, for classes its rank among them.
    mean = y.mean(dim=1, keepdim=True)
    unknown = torch.ceil(mean) if net.use_multiclass_target_encoding else mean
    queries = batch.x.shape[1] - batch.context
    value = torch.cat([y, unknown.expand(-1, queries)], dim=1)
    flag = torch.zeros_like(value)
    flag[:, batch.context :] = MISSING
    target = net.target_embedder(torch.stack([value, flag], dim=-1))
    return torch.cat([features, target.unsqueeze(2)], dim=2)


def group(x: torch.Tensor, context: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return grouped, imputed, standardised features and their missing-value indicators.

    Both have shape (tables, rows, groups, width). Constant columns go to the end of their group and
    count as zero; statistics come from the context's rows alone, masks from all rows.
    """
    tables, rows, columns = x.shape
    x = functional.pad(x, (0, -columns % width)).view(tables, rows, -1, width)
    x = _constants_last(x)
    indicator = x.isnan() * MISSING
    known = ~x[:, :context].isnan()
    mean = (x[:, :context].nan_to_num() * known).sum(dim=1, keepdim=True) / known.sum(1, keepdim=True).clamp(
        min=1
    )
    x = torch.where(x.isnan(), mean, x)
    centre = x[:, :context].mean(dim=1, keepdim=True)
    spread = (x[:, :context] - centre).square().sum(dim=1, keepdim=True) / max(context - 1, 1)
    spread = spread.sqrt()
    spread = torch.where(spread == 0, 1.0, spread) + torch.finfo(x.dtype).eps
    x = ((x - centre) / spread).clamp(-100.0, 100.0)
    varies = (x != x[:, :1]).any(dim=1, keepdim=True)
    used = varies.sum(dim=-1, keepdim=True).clamp(min=1)
    return torch.where(varies, x * (width / used).sqrt(), 0.0), indicator


def _constants_last(x: torch.Tensor) -> torch.Tensor:
    varies = (x[:, 1:] != x[:, :1]).any(dim=1, keepdim=True)
    order = (~varies).byte().argsort(dim=-1, stable=True)
    moved = torch.gather(x, 3, order.expand_as(x))
    return torch.where(torch.gather(varies, 3, order), moved, 0.0)


def _fused(block: TabPFNBlock, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Return a block's matrices in `dtype`: projections and outputs of both attentions, then the MLP."""
    across, down = block.per_sample_attention_between_features, block.per_column_attention_between_cells
    weights = (
        torch.cat([across.q_projection.weight, across.k_projection.weight, across.v_projection.weight]),
        across.out_projection.weight,
        down.q_projection.weight,
        torch.cat([down.k_projection.weight, down.v_projection.weight]),
        down.out_projection.weight,
        block.mlp.get_parameter("0.weight"),
        block.mlp.get_parameter("2.weight"),
    )
    return tuple(weight.to(dtype) for weight in weights)


def block(cells: torch.Tensor, context: int, heads: int, weights: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Attend across each row's cells, then down each column, then apply the MLP; post-norm.

    `cells`: (tables, rows, groups + target, emsize). Down a column every row attends to the context
    alone; query rows use the first head's keys and values for all their heads.
    """
    across, across_out, query, key_value, down_out, rise, fall = weights
    tables, rows, groups, width = cells.shape
    flat = cells.reshape(tables * rows, groups, width)
    q, k, v = _heads(functional.linear(flat, across), 3, heads)
    cells = _normed(flat + functional.linear(_joined(_attend(q, k, v)), across_out))
    down = cells.view(tables, rows, groups, width).transpose(1, 2).reshape(tables * groups, rows, width)
    (q,) = _heads(functional.linear(down, query), 1, heads)
    k, v = _heads(functional.linear(down[:, :context], key_value), 2, heads)
    shown = _joined(_attend(q[:, :, :context], k, v))
    asked = _joined(_one_head(q[:, :, context:], k[:, :1], v[:, :1]))
    down = _normed(down + functional.linear(torch.cat([shown, asked], dim=1), down_out))
    cells = down.view(tables, groups, rows, width).transpose(1, 2)
    return _normed(cells + functional.linear(functional.gelu(functional.linear(cells, rise)), fall))


def last_block(
    cells: torch.Tensor, context: int, heads: int, weights: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """Return what `block` makes of the query rows' targets, (tables, queries, emsize): all that is read.

    A target attends to every cell of its row, and down its column to the context's targets alone; no other
    cell is asked for anything.
    """
    across, across_out, query, key_value, down_out, rise, fall = weights
    tables, rows, groups, width = cells.shape
    flat = cells.reshape(tables * rows, groups, width)
    (q,) = _heads(functional.linear(flat[:, -1:], across[:width]), 1, heads)
    k, v = _heads(functional.linear(flat, across[width:]), 2, heads)
    targets = _normed(flat[:, -1:] + functional.linear(_joined(_attend(q, k, v)), across_out))
    targets = targets.view(tables, rows, width)
    asked = targets[:, context:]
    (q,) = _heads(functional.linear(asked, query), 1, heads)
    k, v = _heads(functional.linear(targets[:, :context], key_value), 2, heads)
    asked = _normed(asked + functional.linear(_joined(_one_head(q, k[:, :1], v[:, :1])), down_out))
    return _normed(asked + functional.linear(functional.gelu(functional.linear(asked, rise)), fall))


def _normed(cells: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(cells, cells.shape[-1:])


def _heads(values: torch.Tensor, parts: int, heads: int) -> tuple[torch.Tensor, ...]:
    """Divide the last dimension into `parts` tensors of shape (batch, heads, length, width / heads)."""
    batch, length, _ = values.shape
    return tuple(values.view(batch, length, parts, heads, -1).permute(2, 0, 3, 1, 4))


def _joined(values: torch.Tensor) -> torch.Tensor:
    """Put heads beside each other: (batch, heads, length, width) to (batch, length, heads times width)."""
    return values.transpose(1, 2).flatten(2)


def _one_head(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attend with several query heads to one head of keys: the heads count as more queries."""
    batch, heads, length, width = q.shape
    return _attend(q.reshape(batch, 1, heads * length, width), k, v).view(batch, heads, length, width)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Scaled dot-product attention; on the CPU by explicit products, which train faster there."""
    if not q.is_cuda:
        return torch.softmax((q * q.shape[-1] ** -0.5) @ k.mT, dim=-1) @ v
    return functional.scaled_dot_product_attention(q, k, v)
