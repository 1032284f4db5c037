"""One pass of a context for all chunks of a step's queries, on TabICL's own layers.

Query rows read the context through keys and values alone: those of the inducing points in the column layers
and those of the context rows in the in-context layers. Between them the row layers see one row at a time. So
the context runs once, with its graph; its keys and values become leaves that every chunk reads; and the
gradient that the chunks leave there goes back through the context once. More classes than the network has
outputs are told apart by tabicl's own tree of groups, whose every node reads a part of the context.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from tabicl._model.embedding import ColEmbedding
from tabicl._model.kv_cache import KVCache, KVCacheEntry
from tabicl._model.layers import ClassNode
from tabicl._model.learning import ICLearning
from tabicl._model.tabicl import TabICL
from torch.utils.checkpoint import checkpoint

from tttab.models.chunks import Leaves

TEMPERATURE = 0.9
"""tabicl's own softmax temperature."""
SMALLEST = 1e-6
"""What tabicl adds to a probability of its tree before the logarithm."""


@dataclass
class Node:
    """A question to the in-context layers: which of a few classes, or groups of classes, a row belongs to."""

    rows: torch.Tensor
    """Shape (rows,): the context rows it reads."""
    labels: torch.Tensor
    """Shape (members, rows): their classes or groups, counted from 0."""
    outputs: int
    classes: torch.Tensor | None
    """Shape (outputs,): which class an output is; None where it is a group, which `children` divide."""
    children: tuple[Node, ...] = ()
    read: list[KVCacheEntry] = field(default_factory=list)
    """The keys and values of its rows, by layer."""


class SharedContext(Leaves):
    """What queries read of a context for some of its members, under the weights as they are now."""

    def __init__(
        self,
        module: TabICL,
        x: torch.Tensor,
        labels: torch.Tensor,
        classes: int,
        *,
        rows: torch.Tensor | None = None,
        recompute: bool = False,
    ) -> None:
        """Run the context.

        Args:
            module: the network.
            x: shape (members, n, columns).
            labels: shape (members, n). Where a tree is needed, of one member.
            classes: the number of classes.
            rows: what the column and row layers make of x where that is known, shape (members, n, width).
            recompute: hold no activations of blocks, compute them again in the backward pass.
        """
        super().__init__()
        self._module, self._classes = module, classes
        self._run: Callable[..., Any] = partial(checkpoint, use_reentrant=False) if recompute else _call
        self._rows = copy.copy(module.row_interactor)  # other passes may run on the module meanwhile
        self._rows.recompute = recompute
        self._columns: list[list[KVCacheEntry]] = []
        self.own_rows = self._context_rows(x, labels) if rows is None else rows
        self._tree = _tree_of(module.icl_predictor, labels, classes)
        self._read(self._tree, self.own_rows)

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the column and row layers make of query rows x, shape (members, rows, width)."""
        col: Any = self._module.col_embedder
        features = _features(col, x)
        cells, made = col.in_linear(features), []
        for entries in self._columns:
            given = cells
            for block, entry in zip(col.tf_col.blocks, entries, strict=True):
                given = self._run(partial(block.multihead_attn2, cached_kv=entry), given)
            made.append(given)
        return self._row(features, sum(made) / len(made))

    def last(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what the in-context layers make of `rows`; there must be no tree."""
        return self._through(self._tree, rows)

    def outputs(self, rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Return logits by class code of each member, shape (members, rows, classes).

        Args:
            rows: what the column and row layers make of query rows.
            scale: what the network's own logits are multiplied with.
        """
        if self._classes <= self._module.icl_predictor.max_classes:
            return self._logits(self._tree, rows, scale)
        return TEMPERATURE * (self._probabilities(self._tree, rows, scale) + SMALLEST).log()

    def _context_rows(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        col: Any = self._module.col_embedder
        features = _features(col, x)
        cells, made = col.in_linear(features), []
        for digit in _digits(col, labels):
            given, entries = cells, []
            if digit is not None:
                given = cells + col.y_encoder(digit.float())[:, None]
            for block in col.tf_col.blocks:
                given, key, value = self._run(_induce, block, given)
                entries.append(KVCacheEntry(*self.cut([key, value])))
            self._columns.append(entries)
            made.append(given)
        return self._row(features, sum(made) / len(made))

    def _row(self, features: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Return a vector per row, shape (members, rows, width), from the column layers' cells."""
        col, row = self._module.col_embedder, self._rows
        if col.affine:
            cells = features * col.ln_w(col.out_w(cells)) + col.ln_b(col.out_b(cells))
        tokens = row.cls_tokens.expand(len(cells), cells.shape[2], -1, -1)
        return row._aggregate_embeddings(torch.cat([tokens, cells.transpose(1, 2)], dim=2))

    def _read(self, node: Node, rows: torch.Tensor) -> None:
        """Let a node and those below it read their context rows."""
        icl = self._module.icl_predictor
        given = rows[:, node.rows] + icl.y_encoder(node.labels.float())
        blocks: list[Any] = list(icl.tf_icl.blocks)
        last = blocks.pop()
        for block in blocks:
            given, key, value = self._run(partial(block, train_size=given.shape[1], need_kv=True), given)
            node.read.append(KVCacheEntry(*self.cut([key, value])))
        # What the last layer makes of the context itself is read by nobody.
        _, key, value = last(given[:, :1], given, given, need_kv=True)
        node.read.append(KVCacheEntry(*self.cut([key, value])))
        for child in node.children:
            self._read(child, rows)

    def _through(self, node: Node, rows: torch.Tensor) -> torch.Tensor:
        for block, entry in zip(self._module.icl_predictor.tf_icl.blocks, node.read, strict=True):
            rows = self._run(partial(block, cached_kv=entry), rows)
        return rows

    def _logits(self, node: Node, rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        logits = decoded(self._module.icl_predictor, self._through(node, rows), scale)
        return logits[..., : node.outputs]

    def _probabilities(self, node: Node, rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Return the classes' probabilities below a node, shape (members, rows, all classes)."""
        p = torch.softmax(self._logits(node, rows, scale) / TEMPERATURE, dim=-1)
        if node.classes is not None:
            return p.new_zeros(*p.shape[:-1], self._classes).index_copy(-1, node.classes, p)
        below = [self._probabilities(child, rows, scale) for child in node.children]
        return torch.stack([p[..., i, None] * part for i, part in enumerate(below)]).sum(dim=0)


def decoded(icl: ICLearning, rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return `scale` times the logits of what the last in-context layer gives, in float32."""
    return icl.decoder(icl.ln(rows) if icl.norm_first else rows).float() * scale


def _call(work: Callable[..., Any], *given: Any) -> Any:
    return work(*given)


def _features(col: ColEmbedding, x: torch.Tensor) -> torch.Tensor:
    """Return the cells that the column layers read, shape (members, groups, rows, features of a group).

    tabicl pads them with columns for the row layers' own tokens, which those overwrite: here left out.
    """
    return col.feature_grouping(x).transpose(1, 2)


def _digits(col: ColEmbedding, labels: torch.Tensor) -> Iterator[torch.Tensor | None]:
    """Yield the labels that the column layers are shown: one digit at a time where there are too many."""
    if not col.target_aware:
        yield None
        return
    bases = col._compute_mixed_radix_bases(int(labels.max()) + 1)
    for number in range(len(bases)):
        yield labels if len(bases) == 1 else col._extract_mixed_radix_digit(labels, number, bases)


def _induce(block: Any, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run a column layer over the context; return also the inducing points' keys and values."""
    cache: Any = KVCache()
    out = block.induced_attention_with_cache(cells, cache, 0, train_size=cells.shape[-2])
    return out, cache.kv[0].key, cache.kv[0].value


def _tree_of(icl: ICLearning, labels: torch.Tensor, classes: int) -> Node:
    """Return tabicl's tree of groups; one node where the network has an output for every class."""
    numbers = torch.arange(labels.shape[1], device=labels.device)
    if classes <= icl.max_classes:
        return Node(numbers, labels, classes, torch.arange(classes, device=labels.device))
    root = ClassNode()
    icl._fit_node(root, numbers, labels[0], 0)
    return _node(root)


def _node(found: Any) -> Node:
    device = found.R.device
    if found.is_leaf:
        classes = found.classes_.long().to(device)
        return Node(found.R, torch.searchsorted(classes, found.y)[None], len(classes), classes)
    children = tuple(_node(child) for child in found.child_nodes)
    return Node(found.R, found.group_indices.long().to(device)[None], len(children), None, children)
