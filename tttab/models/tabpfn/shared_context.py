"""One pass of the context for all chunks of a step's queries, on TabPFN v2.

Query rows read the context through the first head's keys and values of every layer and through the embedding
of the unknown target, nothing else. So the context runs once, with its graph; those tensors become leaves
that every chunk reads as tabpfn's key-value cache; and the gradient that the chunks leave there goes back
through the context once. The gradient is exact, and chunks cost no second context.

The layers compute what tabpfn's compute, with fewer operations: one product for queries, keys and values, no
copies between the two attentions, and in the last layer only the target's cell, which is all that anything
reads. Prediction uses them too.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch

from tttab.models.chunks import Leaves

if TYPE_CHECKING:
    from tabpfn.architectures.kv_cache import KVCacheEntry
    from tabpfn.architectures.tabpfn_v2 import Attention, TabPFNBlock, TabPFNV2, TabPFNV2Cache

M = TypeVar("M", bound=torch.nn.Module)

ARCHITECTURE = "tabpfn_v2"
"""The only architecture whose queries read nothing else of the context."""


class SharedContext(Leaves):
    """The context's keys and values under the weights as they are now."""

    def __init__(
        self, module: TabPFNV2, x: torch.Tensor, y: torch.Tensor, options: Mapping[str, Any]
    ) -> None:
        """Run the context: x (rows, members, features), y (rows, members); `options` for the module."""
        super().__init__()
        self._module, self._options = module, options
        face = own_layers(module)
        taken = _targets_of(face)
        cache: TabPFNV2Cache = face(x, y, return_kv_cache=True, **options)[1]
        entries = [cast("KVCacheEntry", cache.kv[number]) for number in range(len(module.blocks))]
        *heads, unknown = self.cut([*(tensor for entry in entries for tensor in _held(entry)), taken[-1]])
        self._cache = dataclasses.replace(cache, kv=_entries(heads), test_y_embedding=unknown)

    @property
    def read(self) -> list[torch.Tensor]:
        """The keys and values that queries read, layer by layer."""
        return [tensor for entry in self._cache.kv.values() for tensor in _held(cast("KVCacheEntry", entry))]

    def reading(self, module: TabPFNV2, tensors: list[torch.Tensor]) -> SharedContext:
        """Return the same with other keys and values, in the order of `read`; their gradient ends there."""
        twin = copy.copy(self)
        twin._module, twin._cut = module, []
        twin._cache = dataclasses.replace(self._cache, kv=_entries(tensors))
        return twin

    def outputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return the network's outputs for query rows x (rows, members, features)."""
        face = own_layers(self._module)
        return face(x, None, kv_cache=self._cache, x_is_test_only=True, **self._options)


class SharedTail(SharedContext):
    """The same of the last layers alone, where what the layers before them make of every row is known."""

    def __init__(self, module: TabPFNV2, cells: torch.Tensor, first: int) -> None:
        """Run the layers from number `first` on the context's cells (members, rows, columns, width)."""
        Leaves.__init__(self)
        self._module = module
        self._blocks = list(cast("Iterable[TabPFNBlock]", module.blocks))[first:]
        outer: list[torch.Tensor] = []
        for block in self._blocks:
            cells, entry = _layer(block, block is self._blocks[-1], cells, 0, None)
            outer += _held(cast("KVCacheEntry", entry))
        self._kv = list(_entries(self.cut(outer)).values())

    def outputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return the network's outputs for the queries' cells x (members, rows, columns, width)."""
        for block, entry in zip(self._blocks, self._kv, strict=True):
            x, _ = _layer(block, block is self._blocks[-1], x, 0, None, cached_kv=entry)
        return self._module.output_projection(x[:, :, -1].transpose(0, 1))


def own_layers(module: TabPFNV2) -> TabPFNV2:
    """Return a second face of the module that runs the layers of this file, on the very same weights.

    The module itself stays as it is: other threads may run or copy it meanwhile.
    """
    face = face_of(module)
    run_own_layers(face)
    return face


def run_own_layers(module: TabPFNV2) -> None:
    """Let a module that is the caller's alone run the layers of this file from now on."""
    blocks = list(cast("Iterable[TabPFNBlock]", module.blocks))
    faces = [face_of(block) for block in blocks]
    for face, block in zip(faces, blocks, strict=True):
        # A partial, unlike a closure, is copied and pickled together with its block.
        face.forward = cast("Callable[..., Any]", partial(_layer, block, block is blocks[-1]))
    module.blocks = torch.nn.ModuleList(faces)


def face_of(module: M) -> M:
    """Return another object with the module's weights and parts: what is set on it shows nowhere else."""
    face = object.__new__(type(module))
    face.__dict__.update(module.__dict__)
    face._modules = dict(module._modules)
    face._forward_hooks = OrderedDict(module._forward_hooks)
    return face


def _entries(tensors: list[torch.Tensor]) -> dict[int, KVCacheEntry]:
    """Return keys and values, in turn, as tabpfn's entries by layer."""
    from tabpfn.architectures.kv_cache import KVCacheEntry

    pairs = zip(tensors[::2], tensors[1::2], strict=True)
    return {number: KVCacheEntry(key=key, value=value) for number, (key, value) in enumerate(pairs)}


def _held(entry: KVCacheEntry) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the keys and the values of an entry that has both."""
    assert entry.key is not None and entry.value is not None
    return entry.key, entry.value


def _targets_of(face: TabPFNV2) -> list[torch.Tensor]:
    """Take the target embedder's outputs with their graph; the last is the unknown target's.

    The embedder runs over the context's targets, then over one unknown target.
    """
    taken: list[torch.Tensor] = []
    embedder = face._modules["target_embedder"] = face_of(face.target_embedder)
    embedder.register_forward_hook(lambda _, __, output: taken.append(output[0]))
    return taken


def _layer(
    block: TabPFNBlock, last: bool, cells: torch.Tensor | list[torch.Tensor], _: int, __: int | None, *,
    cached_kv: KVCacheEntry | None = None, return_kv: bool = False,
) -> tuple[torch.Tensor, KVCacheEntry | None]:  # fmt: skip
    """Run a v2 block, with the shapes and the cache entry of tabpfn's own."""
    from tabpfn.architectures.kv_cache import KVCacheEntry

    across, down = block.per_sample_attention_between_features, block.per_column_attention_between_cells
    cells = cells.pop(0) if isinstance(cells, list) else cells
    read = cells[:, :, -1:] if last else cells
    mixed = _attend(*(part.flatten(0, 1) for part in _heads(across, read, cells)))
    mixed = _product(mixed.flatten(2), across.out_projection).view(read.shape)
    read = block.layernorm_mha1(read + mixed)
    entry = None
    if cached_kv is None:
        query, key, value = (_by_column(part) for part in _heads(down, read, read))
        entry = KVCacheEntry(key=key[:, :, :1].contiguous(), value=value[:, :, :1].contiguous())
        if last:  # what the context predicts for itself is read by nobody
            return read, entry
    else:
        # All heads read one head's keys and values: as more queries of it, they share them uncopied.
        query = _product(read, down.q_projection).unflatten(-1, (-1, down.head_dim))
        query = _by_column(query).flatten(1, 2)[:, :, None]
        key, value = (part.to(query.dtype) for part in _held(cached_kv))
        if last:  # tabpfn's own cache has every column, ours the target's alone
            key, value = (part.unflatten(0, (len(read), -1))[:, -1] for part in (key, value))
    mixed = _attend(query, key, value).reshape(len(query), read.shape[1], -1)
    mixed = _product(mixed, down.out_projection).unflatten(0, (len(read), -1)).transpose(1, 2)
    read = block.layernorm_mha2(read + mixed)
    widen, activation, narrow = block.mlp
    mixed = _product(activation(_product(read, widen)), narrow)
    return block.layernorm_mlp(read + mixed), entry


def _heads(attention: Attention, read: torch.Tensor, cells: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the queries of `read`, the keys and the values of `cells`: (…, columns, heads, width)."""
    query, key, value = attention.q_projection, attention.k_projection, attention.v_projection
    groups = [(cells, (query, key, value))] if read is cells else [(read, (query,)), (cells, (key, value))]
    for given, parts in groups:
        made = _product(given, *parts)
        yield from made.unflatten(-1, (len(parts), -1, attention.head_dim)).unbind(-3)


def _product(cells: torch.Tensor, *parts: torch.nn.Module) -> torch.Tensor:
    """Return what linear maps without a bias make of the cells, side by side, as one product."""
    weights = [_matrix(part) for part in parts]
    return torch.nn.functional.linear(cells, weights[0] if len(weights) == 1 else torch.cat(weights))


def _matrix(part: Any) -> torch.Tensor:
    """Return the matrix of a linear map; peft's additions are added to it, not applied beside it."""
    if isinstance(part, torch.nn.Linear):
        return part.weight
    return part.get_base_layer().weight + sum(part.get_delta_weight(name) for name in part.active_adapters)


def _by_column(heads: torch.Tensor) -> torch.Tensor:
    """Return (members, rows, columns, heads, width) as (members x columns, rows, heads, width)."""
    return heads.transpose(1, 2).flatten(0, 1)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return softmax attention over the second dimension of (batch, places, heads, width)."""
    if query.is_cuda:
        from tabpfn.architectures.shared.scaled_dot_product_attention import scaled_dot_product_attention

        return scaled_dot_product_attention(query, key, value)
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    return torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
