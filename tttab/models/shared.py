"""One pass of the context for all chunks of a step's queries, on TabPFN v2.

Query rows read the context through the first head's keys and values of every layer and through the
embedding of the unknown target, nothing else. So the context runs once, with its graph; those tensors
become leaves that every chunk reads as tabpfn's key-value cache; and the gradient that the chunks leave
there goes back through the context once. The gradient is exact, and chunks cost no second context.
In the last layer only the target's cell is read: the others are left out.
What does not belong here: chunks and losses (`network`), serving (`serving`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

ARCHITECTURE = "tabpfn_v2"
"""The only architecture whose queries read nothing else of the context."""


class SharedContext:
    """The context's keys and values under the weights as they are now."""

    def __init__(self, module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, options: Any) -> None:
        """Run the context: x (rows, members, features), y (rows, members); `options` for the module."""
        from tabpfn.architectures.kv_cache import KVCacheEntry

        self._module, self._options = module, options
        with _target_only(module.blocks[-1]), _read(module) as taken:
            _, cache = module(x, y, return_kv_cache=True, **options)
        self._outer = taken
        # A tensor without a graph stays a constant: rules that move late layers pay for no more.
        self._leaves = [t.detach().requires_grad_(t.requires_grad) for t in taken]
        *heads, unknown = self._leaves
        kv = {
            number: KVCacheEntry(key=key, value=value)
            for number, (key, value) in enumerate(zip(heads[::2], heads[1::2], strict=True))
        }
        self._cache = dataclasses.replace(cache, kv=kv, test_y_embedding=unknown)

    def outputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return the network's outputs for query rows x (rows, members, features)."""
        with _target_only(self._module.blocks[-1]):
            return self._module(x, None, kv_cache=self._cache, x_is_test_only=True, **self._options)

    def backward(self) -> None:
        """Push what the chunks' backward passes have left through the context, once."""
        reached = [(o, leaf.grad) for o, leaf in zip(self._outer, self._leaves, strict=True)]
        reached = [(outer, grad) for outer, grad in reached if grad is not None]
        if reached:
            torch.autograd.backward(*map(list, zip(*reached, strict=True)))


@contextmanager
def _read(module: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Give, after a pass inside, each layer's first-head keys and values, then the unknown target.

    tabpfn's own cache holds the same tensors without their graph.
    """
    seen: dict[torch.nn.Module, torch.Tensor] = {}

    def keep(part: torch.nn.Module, _: Any, output: torch.Tensor) -> None:
        seen[part] = output

    attentions = [block.per_column_attention_between_cells for block in module.blocks]
    parts = [part for a in attentions for part in (a.k_projection, a.v_projection)]
    hooks = [part.register_forward_hook(keep) for part in (*parts, module.target_embedder)]
    taken: list[torch.Tensor] = []
    try:
        yield taken
    finally:
        for hook in hooks:
            hook.remove()
    width = attentions[0].head_dim
    taken.extend(seen[part][..., :width].unsqueeze(2).contiguous() for part in parts)
    # The embedder runs twice: over the context's targets, then over one unknown target.
    taken.append(seen[module.target_embedder][0])


@contextmanager
def _target_only(block: torch.nn.Module) -> Iterator[None]:
    """Let a v2 block compute the target's cell alone, as far as anything reads it."""
    block.forward = _last_layer(block)
    try:
        yield
    finally:
        del block.forward


def _last_layer(block: torch.nn.Module) -> Callable[..., Any]:
    from tabpfn.architectures.shared.scaled_dot_product_attention import scaled_dot_product_attention

    across, down = block.per_sample_attention_between_features, block.per_column_attention_between_cells

    def heads(projection: torch.nn.Module, cells: torch.Tensor) -> torch.Tensor:
        return projection(cells).unflatten(-1, (-1, across.head_dim))

    def forward(cells: Any, _: int, __: Any, *, cached_kv: Any = None, return_kv: bool = False) -> Any:
        cells = cells.pop(0) if isinstance(cells, list) else cells
        flat = cells.flatten(0, 1)
        target = flat[:, -1:]
        keys, values = heads(across.k_projection, flat), heads(across.v_projection, flat)
        mixed = scaled_dot_product_attention(heads(across.q_projection, target), keys, values)
        target = block.layernorm_mha1(target + across.out_projection(mixed.flatten(2)))
        target = target.view(cells.shape[0], cells.shape[1], -1)
        attended, entry = down(target, target.shape[1], cached_kv=cached_kv, return_kv=return_kv)
        if cached_kv is not None:
            target = block.layernorm_mha2(target + attended)
            target = block.layernorm_mlp(target + block.mlp(target))
        return target.unsqueeze(2), entry

    return forward
