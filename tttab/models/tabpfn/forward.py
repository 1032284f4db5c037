"""Forward and backward passes of an opened model: member by member, chunk by chunk, in which precision.

Members of the ensemble are averaged as probabilities, so the loss of a row is minus the logarithm of
the mean of its members' likelihoods. Its gradient is a weighted sum of the members' own gradients,
which is why members may be taken one at a time. What does not belong here: weights and contexts
(`session`), what the outputs mean (`classifier`, `regressor`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tttab.models.tabpfn.inputs import Member, PreparedContext, PreparedQueries, RowScores
from tttab.models.tabpfn.shared_context import ARCHITECTURE as SHARES_CONTEXT
from tttab.models.tabpfn.shared_context import SharedContext

OUTPUT = "output_projection"
"""What follows the layers in that architecture."""

EMBEDDERS = ("add_column_embeddings", "_add_column_embeddings")
"""The methods that add the column embeddings, by architecture."""

CELLS, LEAST_ROWS, MOST_ROWS = 1000, 32, 200
"""A chunk under a shared context aims at so many cells, within these rows. Measured on two cores with the
bundled model (benchmarks/run_speed.py): 128 rows instead of 200 take 1.2 to 1.4 times as long on tables of 2
to 20 columns; on 57 columns 200 rows take 0.87 of the memory of tabpfn's own fine-tuning; 1,600 cells gain
nothing on 20 and 36 columns."""


@dataclass(frozen=True)
class Pass:
    """One forward pass: a slice of the members of one prepared call."""

    call: int
    first: int
    last: int

    @property
    def members(self) -> slice:
        """The members as places in the call's batch."""
        return slice(self.first, self.last)


class Passes:
    """What runs the network. Subclasses say what its outputs mean and where the network comes from.

    `checkpointing`, `by_member` and `precision` say how training steps are run, not what they compute:
    recomputing activations and taking members one at a time save memory and cost time;
    `precision="bf16"` runs the network's matrix products in bfloat16 where gradients are taken.
    """

    module: torch.nn.Module
    architecture: str

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.checkpointing = False
        self.by_member = False
        self.precision = "fp32"
        self._shared: dict[Pass, SharedContext] = {}

    @property
    def shares_context(self) -> bool:
        """Whether a step computes its context once, not again with every chunk of queries."""
        return self.architecture == SHARES_CONTEXT and not self.checkpointing

    def piece(self, context: PreparedContext) -> int:
        """Return the query rows worth taking at a time where the context is shared; 0 where it is not.

        More rows at once save little time and cost memory; fewer leave the cores waiting for Python.
        """
        if not self.shares_context:
            return 0
        cells = sum(call.context.shape[1] * (-(-call.context.shape[2] // 2) + 1) for call in context.calls)
        return min(MOST_ROWS, max(LEAST_ROWS, CELLS // cells))

    def embed(self, context: PreparedContext, queries: PreparedQueries, chunk: int) -> PreparedQueries:
        """Return the queries with what the layers make of them, where at most the output projection trains.

        The layers' answer is then the same in every step: it is computed here, `chunk` rows at a time, and
        a step costs the output projection alone. Elsewhere the queries come back as they are. What comes
        back belongs to this context and these layers; it must not outlive a change of either.
        """
        trained = [name for name, parameter in self.module.named_parameters() if parameter.requires_grad]
        if self.architecture != SHARES_CONTEXT or any(not name.startswith(OUTPUT) for name in trained):
            return queries
        embedded, whole = [], self._whole_calls(context)
        with torch.no_grad(), self._sharing(context, queries, whole):
            for which in whole:
                with _inputs_of(self.module.get_submodule(OUTPUT)) as seen:
                    for piece in _pieces(np.arange(len(queries)), chunk):
                        self.outputs(context, queries, piece, which)
                embedded.append(torch.cat(seen))
        return replace(queries, embedded=embedded)

    def member_log_likelihoods(
        self, context: PreparedContext, queries: PreparedQueries, rows: np.ndarray, which: Pass
    ) -> torch.Tensor:
        """Return each member's log likelihood of the true label, shape (members of the pass, rows)."""
        raise NotImplementedError

    def row_scores(
        self, context: PreparedContext, queries: PreparedQueries, rows: np.ndarray, chunk: int | None = None
    ) -> RowScores:
        """Return how well the query rows numbered `rows` are predicted, in fp32, `chunk` at a time."""
        with torch.no_grad(), self._sharing(context, queries, self._whole_calls(context)):
            return RowScores.joined([self._scores(context, queries, p) for p in _pieces(rows, chunk)])

    def loss(self, context: PreparedContext, queries: PreparedQueries, rows: np.ndarray) -> torch.Tensor:
        """Return the summed loss, nats, of the query rows numbered `rows`, as it is served."""
        parts = [self.member_log_likelihoods(context, queries, rows, p) for p in self._passes(context)]
        return -log_mean(torch.cat(parts)).sum()

    def accumulate(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        scale: float,
        chunk: int | None = None,
    ) -> float:
        """Add the gradient of `scale` times the summed loss to the parameters; return that product.

        `chunk` query rows are taken at a time, all by default; the gradients add up exactly. With
        `by_member` one member's activations are held at a time: d(-log mean_m p_m) is the sum of
        -w_m d(log p_m), w being the softmax of the log p_m, which a first pass without gradients gives.
        """
        pieces = _pieces(rows, chunk)
        if self.by_member:
            return self._accumulate_by_member(context, queries, pieces, scale)
        total = 0.0
        with self._sharing(context, queries, self._passes(context)):
            for piece in pieces:
                loss = self.loss(context, queries, piece) * scale
                if torch.isfinite(loss):
                    loss.backward()
                total += loss.item()
        return total

    def outputs(
        self, context: PreparedContext, queries: PreparedQueries, rows: np.ndarray, which: Pass
    ) -> torch.Tensor:
        """Return the network's raw outputs for one pass, shape (rows, members, outputs), float32."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.device)
        if queries.embedded is not None:
            return self.module.get_submodule(OUTPUT)(queries.embedded[which.call][index][:, which.members])
        x = queries.inputs[which.call][index][:, which.members]
        with self._reduced_precision():
            if which in self._shared:
                return self._shared[which].outputs(x).float()
            shown, y, options = self._call(context, which)
            return self.module(torch.cat([shown, x]), y, **options).float()

    def _scores(self, context: PreparedContext, queries: PreparedQueries, rows: np.ndarray) -> RowScores:
        raise NotImplementedError

    def _passes(self, context: PreparedContext) -> list[Pass]:
        whole = self._whole_calls(context)
        if not self.by_member:
            return whole
        return [Pass(which.call, member, member + 1) for which in whole for member in range(which.last)]

    def _whole_calls(self, context: PreparedContext) -> list[Pass]:
        return [Pass(number, 0, call.context.shape[1]) for number, call in enumerate(context.calls)]

    def _call(
        self, context: PreparedContext, which: Pass
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """Return a pass's context rows, their targets, and the module's options."""
        call, members = context.calls[which.call], which.members
        kwargs = dict(call.kwargs)
        if kwargs.get("categorical_inds") is not None:
            kwargs["categorical_inds"] = kwargs["categorical_inds"][members]
        return call.context[:, members], call.y[:, members], self._options(kwargs)

    @contextmanager
    def _sharing(
        self, context: PreparedContext, queries: PreparedQueries, passes: list[Pass]
    ) -> Iterator[None]:
        """Compute the context of `passes` once for all chunks inside; at the end its gradient, once."""
        if not self.shares_context or queries.embedded is not None:
            yield
            return
        try:
            with self._reduced_precision():
                for which in passes:
                    self._shared[which] = SharedContext(self.module, *self._call(context, which))
            yield
            for shared in self._shared.values():
                shared.backward()
        finally:
            self._shared.clear()

    def _accumulate_by_member(
        self, context: PreparedContext, queries: PreparedQueries, pieces: list[np.ndarray], scale: float
    ) -> float:
        passes, parts = self._passes(context), []
        for which in passes:
            with torch.no_grad(), self._sharing(context, queries, [which]):
                likelihoods = [self.member_log_likelihoods(context, queries, p, which) for p in pieces]
            parts.append(torch.cat(likelihoods, dim=1))
        total = -log_mean(torch.cat(parts)).sum().item() * scale
        shares = torch.softmax(torch.cat(parts), dim=0).split([len(part) for part in parts])
        if not math.isfinite(total):
            return total
        sizes = [len(piece) for piece in pieces]
        for share, which in zip(shares, passes, strict=True):
            with self._sharing(context, queries, [which]):
                for piece, part in zip(pieces, share.split(sizes, dim=1), strict=True):
                    likelihoods = self.member_log_likelihoods(context, queries, piece, which)
                    (-(part * likelihoods).sum() * scale).backward()
        return total

    def _members_of(self, context: PreparedContext, which: Pass) -> list[tuple[Member, int]]:
        """Return the members that a pass computes, and where each stands in its batch."""
        return [
            (member, member.batch - which.first)
            for member in context.members
            if member.call == which.call and which.first <= member.batch < which.last
        ]

    @contextmanager
    def _reduced_precision(self) -> Iterator[None]:
        """Run the network in bfloat16 where that is asked for and gradients are taken.

        Column embeddings are random numbers drawn in the dtype of the cells, and the streams of
        float32 and bfloat16 are unrelated: they are drawn in float32, as they are served.
        """
        if self.precision != "bf16" or not torch.is_grad_enabled():
            yield
            return
        name = next((name for name in EMBEDDERS if hasattr(self.module, name)), None)
        if name is not None:
            add = getattr(self.module, name)
            setattr(self.module, name, lambda cells: add(cells.float()))
        try:
            with torch.autocast(self.device.type, torch.bfloat16):
                yield
        finally:
            if name is not None:
                delattr(self.module, name)

    def _options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        options = kwargs.get("performance_options")
        if options is None or not torch.is_grad_enabled():
            return kwargs
        training = replace(
            options,
            save_peak_memory_factor=None,
            force_recompute_layer=self.checkpointing,
            use_chunkwise_inference=False,
        )
        return {**kwargs, "performance_options": training}


def log_mean(likelihoods: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the mean over members, the first dimension."""
    return torch.logsumexp(likelihoods, dim=0) - math.log(len(likelihoods))


@contextmanager
def _inputs_of(part: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect what `part` is given inside."""
    seen: list[torch.Tensor] = []
    hook = part.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        hook.remove()


def _pieces(rows: np.ndarray, chunk: int | None) -> list[np.ndarray]:
    step = chunk or len(rows)
    return [rows[start : start + step] for start in range(0, len(rows), step)]
