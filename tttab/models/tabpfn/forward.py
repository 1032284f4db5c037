"""Forward and backward passes of an opened model: member by member, chunk by chunk, in which precision.

Members of the ensemble are averaged as probabilities, so the loss of a row is minus the logarithm of the mean
of its members' likelihoods. Its gradient is a weighted sum of the members' own gradients, which is why
members may be taken one at a time.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from tttab.contracts import Execution, RowScores
from tttab.core import AS_LABELLED, Objective
from tttab.models.chunks import chunks_of, joined_scores
from tttab.models.losses import weighted
from tttab.models.tabpfn.inputs import Member, PreparedContext, PreparedQueries
from tttab.models.tabpfn.parts import OUTPUT
from tttab.models.tabpfn.shared_context import ARCHITECTURE as SHARES_CONTEXT
from tttab.models.tabpfn.shared_context import SharedContext, SharedTail

if TYPE_CHECKING:
    from tabpfn.architectures.interface import Architecture
    from tabpfn.architectures.tabpfn_v2 import TabPFNV2

    from tttab.models.tabpfn.tuned import Tuned

AS_SERVED = Execution()
"""All rows and members at once, in float32."""
EMBEDDERS = ("add_column_embeddings", "_add_column_embeddings")
"""The methods that add the column embeddings, by architecture."""


@dataclass(frozen=True)
class ForwardPass:
    """One forward pass: a slice of the members of one prepared call."""

    call: int
    first: int
    last: int

    @property
    def members(self) -> slice:
        """The members as places in the call's batch."""
        return slice(self.first, self.last)


class Passes:
    """What runs the network. Subclasses say what its outputs mean and where the network comes from."""

    module: Architecture

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._shared: dict[ForwardPass, SharedContext] = {}
        self.tuning: Tuned | None = None

    @property
    def architecture(self) -> str:
        """tabpfn's name of the network's architecture."""
        raise NotImplementedError

    def member_log_likelihoods(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        which: ForwardPass,
        how: Execution = AS_SERVED,
        *,
        of_classes: bool = False,
    ) -> torch.Tensor:
        """Return each member's log likelihood of the true label, shape (members of the pass, rows).

        With `of_classes` that of every class, shape (members of the pass, rows, classes).

        Raises:
            ModelError: so, and the model tells no classes.
        """
        raise NotImplementedError

    def row_scores(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        how: Execution = AS_SERVED,
    ) -> RowScores:
        """Return how well the query rows numbered `rows` are predicted, in float32."""
        with torch.no_grad(), self.sharing(context, queries, self.whole_calls(context), how):
            parts = [self._scores(context, queries, chunk, how) for chunk in chunks_of(rows, how.chunk)]
        return joined_scores(parts)

    def loss(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        how: Execution = AS_SERVED,
        objective: Objective = AS_LABELLED,
    ) -> torch.Tensor:
        """Return the summed loss, nats, of the query rows numbered `rows`."""
        return self._loss(context, queries, rows, self._passes(context, how), how, objective)

    def accumulate_gradients(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        scale: float,
        how: Execution = AS_SERVED,
        objective: Objective = AS_LABELLED,
    ) -> float:
        """Add the gradient of `scale` times the summed loss to the parameters; return that product.

        The gradients of chunks add up exactly. With `how.by_member` one member's activations are held at a
        time: d(-log mean_m p_m) is the sum of -w_m d(log p_m), w being the softmax of the log p_m, which a
        first pass without gradients gives; the members' own losses need none.
        """
        chunks, passes = chunks_of(rows, how.chunk), self._passes(context, how)
        if how.by_member and objective.loss == "ensemble":
            return self._accumulate_by_member(context, queries, chunks, scale, how, objective)
        total = 0.0
        for group in [[which] for which in passes] if how.by_member else [passes]:
            with self.sharing(context, queries, group, how):
                for chunk in chunks:
                    loss = self._loss(context, queries, chunk, group, how, objective) * scale
                    if torch.isfinite(loss):
                        loss.backward()
                    total += loss.item()
        return total

    def outputs(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        which: ForwardPass,
        how: Execution = AS_SERVED,
    ) -> torch.Tensor:
        """Return the network's raw outputs for one pass, shape (rows, members, outputs), float32."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.device)
        if queries.embedded is not None:
            return self.module.get_submodule(OUTPUT)(queries.embedded[which.call][index][:, which.members])
        with self._reduced_precision(how):
            if which in self._shared and queries.tails is not None:
                cells = queries.tails[which.call].queries[which.members][:, index]
                return self._shared[which].outputs(cells).float()
            x = queries.inputs[which.call][index][:, which.members]
            if which in self._shared:
                return self._shared[which].outputs(x).float()
            shown, y, options = self._call(context, which, how)
            return self.module(torch.cat([shown, x]), y, **options).float()

    def whole_calls(self, context: PreparedContext) -> list[ForwardPass]:
        """Return one pass per prepared call, with all its members."""
        return [ForwardPass(number, 0, call.context.shape[1]) for number, call in enumerate(context.calls)]

    def _loss(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        passes: list[ForwardPass],
        how: Execution,
        objective: Objective,
    ) -> torch.Tensor:
        """Return what `passes` add to the summed loss; as it is served it takes all of them at once."""
        every = torch.cat(
            [self._likelihoods(context, queries, rows, which, how, objective) for which in passes]
        )
        values = log_mean(every) if objective.loss == "ensemble" else every.sum(dim=0) / len(context.members)
        return -weighted(values, objective, rows).sum()

    def _likelihoods(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        which: ForwardPass,
        how: Execution,
        objective: Objective,
    ) -> torch.Tensor:
        soft = objective.targets is not None
        return self.member_log_likelihoods(context, queries, rows, which, how, of_classes=soft)

    def _scores(
        self, context: PreparedContext, queries: PreparedQueries, rows: np.ndarray, how: Execution
    ) -> RowScores:
        raise NotImplementedError

    def _passes(self, context: PreparedContext, how: Execution) -> list[ForwardPass]:
        whole = self.whole_calls(context)
        if not how.by_member:
            return whole
        return [
            ForwardPass(which.call, member, member + 1) for which in whole for member in range(which.last)
        ]

    def _call(
        self, context: PreparedContext, which: ForwardPass, how: Execution
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """Return a pass's context rows, their targets, and the module's options."""
        call, members = context.calls[which.call], which.members
        kwargs = dict(call.kwargs)
        if kwargs.get("categorical_inds") is not None:
            kwargs["categorical_inds"] = kwargs["categorical_inds"][members]
        return call.context[:, members], call.y[:, members], self._options(kwargs, how)

    @contextmanager
    def sharing(
        self, context: PreparedContext, queries: PreparedQueries, passes: list[ForwardPass], how: Execution
    ) -> Generator[None]:
        """Compute the context of `passes` once for all chunks inside; at the end its gradient, once."""
        if not shares_context(self.architecture, how) or queries.embedded is not None:
            yield
            return
        try:
            with self._reduced_precision(how):
                for which in passes:
                    self._shared[which] = self._share(context, queries, which, how)
            yield
            for shared in self._shared.values():
                shared.backward()
        finally:
            self._shared.clear()

    def _share(
        self, context: PreparedContext, queries: PreparedQueries, which: ForwardPass, how: Execution
    ) -> SharedContext:
        module = cast("TabPFNV2", self.module)
        if self.tuning is not None:
            return self.tuning.share(module, which.call, self._call(context, which, how))
        if queries.tails is None:
            return SharedContext(module, *self._call(context, which, how))
        tail = queries.tails[which.call]
        return SharedTail(module, tail.context[which.members], tail.first)

    def _accumulate_by_member(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        chunks: list[np.ndarray],
        scale: float,
        how: Execution,
        objective: Objective,
    ) -> float:
        passes, rows, parts = self._passes(context, how), np.concatenate(chunks), []
        for which in passes:
            with torch.no_grad(), self.sharing(context, queries, [which], how):
                found = [self._likelihoods(context, queries, c, which, how, objective) for c in chunks]
            parts.append(torch.cat(found, dim=1))
        every = torch.cat(parts)
        total = -weighted(log_mean(every), objective, rows).sum().item() * scale
        shares = weighted(torch.softmax(every, dim=0), objective, rows).split([len(part) for part in parts])
        if not math.isfinite(total):
            return total
        sizes = [len(chunk) for chunk in chunks]
        for share, which in zip(shares, passes, strict=True):
            with self.sharing(context, queries, [which], how):
                for chunk, part in zip(chunks, share.split(sizes, dim=1), strict=True):
                    likelihoods = self._likelihoods(context, queries, chunk, which, how, objective)
                    (-(part * likelihoods).sum() * scale).backward()
        return total

    def _members_of(self, context: PreparedContext, which: ForwardPass) -> list[tuple[Member, int]]:
        """Return the members that a pass computes, and where each stands in its batch."""
        return [
            (member, member.batch - which.first)
            for member in context.members
            if member.call == which.call and which.first <= member.batch < which.last
        ]

    @contextmanager
    def _reduced_precision(self, how: Execution) -> Generator[None]:
        """Run the network in bfloat16 where that is asked for and gradients are taken.

        Column embeddings are random numbers drawn in the dtype of the cells, and the streams of
        float32 and bfloat16 are unrelated: they are drawn in float32, as they are served.
        """
        if how.precision != "bf16" or not torch.is_grad_enabled():
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

    def _options(self, kwargs: dict[str, Any], how: Execution) -> dict[str, Any]:
        options = kwargs.get("performance_options")
        if options is None or not torch.is_grad_enabled():
            return kwargs
        training = replace(
            options,
            save_peak_memory_factor=None,
            force_recompute_layer=how.recompute_activations,
            use_chunkwise_inference=False,
        )
        return {**kwargs, "performance_options": training}


def log_mean(likelihoods: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the mean over members, the first dimension."""
    return torch.logsumexp(likelihoods, dim=0) - math.log(len(likelihoods))


def shares_context(architecture: str, how: Execution) -> bool:
    """Tell whether a step computes its context once, not again with every chunk of queries."""
    return architecture == SHARES_CONTEXT and not how.recompute_activations
