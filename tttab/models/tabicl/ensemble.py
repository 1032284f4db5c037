"""Passes of an opened TabICL model: members and chunks, in which precision, with the loss of prediction.

tabicl averages its members' logits, divides by its temperature and takes the softmax; so do training and
scores. `passes` holds one pass.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tttab.contracts import Execution, RowScores
from tttab.core import AS_LABELLED, Objective
from tttab.models.chunks import chunks_of, joined_scores
from tttab.models.losses import of_labels, weighted
from tttab.models.tabicl.inputs import PreparedContext, PreparedQueries
from tttab.models.tabicl.passes import TEMPERATURE, SharedContext, decoded

if TYPE_CHECKING:
    from tabicl._model.tabicl import TabICL

Opened = tuple[slice, SharedContext | None]
"""Some members and what their queries read of the context; None where all that reads it is frozen."""
AS_SERVED = Execution()
"""All rows and members at once, in float32."""


class Ensemble:
    """What runs the network. Subclasses say where it comes from."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._start = torch.tensor(math.log(TEMPERATURE), device=device)
        self.log_temperature = torch.nn.Parameter(self._start.clone(), False)

    @property
    def module(self) -> TabICL:
        """The network."""
        raise NotImplementedError

    def logits(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        how: Execution = AS_SERVED,
    ) -> torch.Tensor:
        """Return logits by class of query rows, shape (members, rows, classes), to divide by tabicl's 0.9."""
        opened = [self.open(context, queries, part, how) for part in self.parts(context, how)]
        return self._logits(context, queries, rows, opened)

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
        time: a first pass without gradients gives the mean logits, and the loss's gradient in them is every
        member's share; the members' own losses need none.
        """
        chunks, parts, members = chunks_of(rows, how.chunk), self.parts(context, how), len(context.inputs)
        if how.by_member and members > 1 and objective.loss == "ensemble":
            return self._by_member(context, queries, chunks, scale, how, objective)
        total = 0.0
        for group in [[part] for part in parts] if how.by_member else [parts]:
            with self._precision(how):
                opened = [self.open(context, queries, part, how) for part in group]
                for chunk in chunks:
                    logits = self._logits(context, queries, chunk, opened)
                    logits = logits.mean(dim=0) if objective.loss == "ensemble" else logits
                    share = 1 if objective.loss == "ensemble" else members
                    loss = self._losses(logits, queries, chunk, objective).sum() / share * scale
                    if torch.isfinite(loss):
                        loss.backward()
                    total += loss.item()
            _push(opened)
        return total

    def row_scores(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        how: Execution = AS_SERVED,
    ) -> RowScores:
        """Return how well the query rows numbered `rows` are predicted, in float32."""
        found = []
        with torch.no_grad():
            opened = [self.open(context, queries, part, how) for part in self.parts(context, how)]
            for chunk in chunks_of(rows, how.chunk):
                mean = self._logits(context, queries, chunk, opened).mean(dim=0)
                p = torch.softmax(mean / TEMPERATURE, dim=-1)
                loss = self._losses(mean, queries, chunk)
                found.append(RowScores(loss.cpu().numpy(), p.cpu().numpy()))
        return joined_scores(found)

    def parts(self, context: PreparedContext, how: Execution) -> list[slice]:
        """Return the members that run together: each alone where every one has a tree of its own."""
        members = len(context.inputs)
        if how.by_member or context.classes > self.module.max_classes:
            return [slice(member, member + 1) for member in range(members)]
        return [slice(0, members)]

    def open(self, context: PreparedContext, queries: PreparedQueries, part: slice, how: Execution) -> Opened:
        """Return some members with what their queries read."""
        if queries.last is not None:
            return part, None
        rows = None if queries.context_rows is None else queries.context_rows[part]
        return part, SharedContext(
            self.module,
            context.inputs[part],
            context.labels[part],
            context.classes,
            rows=rows,
            recompute=how.recompute_activations and torch.is_grad_enabled(),
        )

    def _logits(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        opened: list[Opened],
    ) -> torch.Tensor:
        icl, places, found, scale = self.module.icl_predictor, self._places(rows), [], self._scale()
        for part, shared in opened:
            if shared is None:
                assert queries.last is not None, "`open` gives no context where there is a last layer"
                logits = decoded(icl, queries.last[part][:, places], scale)
            elif queries.rows is not None:
                logits = shared.outputs(queries.rows[part][:, places], scale)
            else:
                logits = shared.outputs(shared.rows(queries.inputs[part][:, places]), scale)
            order = context.columns[part][:, None].expand(-1, len(places), -1)
            found.append(logits.gather(-1, order))
        return torch.cat(found)

    def _by_member(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        chunks: list[np.ndarray],
        scale: float,
        how: Execution,
        objective: Objective,
    ) -> float:
        parts, members = self.parts(context, how), len(context.inputs)
        means = [torch.zeros((), device=self.device) for _ in chunks]
        with torch.no_grad():
            for part in parts:
                opened = [self.open(context, queries, part, how)]
                logits = (self._logits(context, queries, chunk, opened)[0] for chunk in chunks)
                means = [mean + part / members for mean, part in zip(means, logits, strict=True)]
        leaves = [mean.requires_grad_() for mean in means]
        pairs = zip(leaves, chunks, strict=True)
        sums = [self._losses(leaf, queries, chunk, objective).sum() for leaf, chunk in pairs]
        loss = torch.stack(sums).sum() * scale
        if not torch.isfinite(loss):
            return loss.item()
        shares = torch.autograd.grad(loss, leaves)
        for part in parts:
            with self._precision(how):
                opened = [self.open(context, queries, part, how)]
                for chunk, share in zip(chunks, shares, strict=True):
                    self._logits(context, queries, chunk, opened)[0].backward(share / members)
            _push(opened)
        return loss.item()

    def _losses(
        self,
        logits: torch.Tensor,
        queries: PreparedQueries,
        rows: np.ndarray,
        objective: Objective = AS_LABELLED,
    ) -> torch.Tensor:
        """Return the losses of rows, nats, from logits, shape (…, rows, classes); with targets by class."""
        log_p = torch.log_softmax(logits / TEMPERATURE, dim=-1)
        if objective.targets is None:
            log_p = of_labels(log_p, queries.y[self._places(rows)])
        return -weighted(log_p, objective, rows)

    def _precision(self, how: Execution) -> Any:
        if how.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _places(self, rows: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(rows, dtype=torch.long, device=self.device)

    def _scale(self) -> torch.Tensor:
        """Return what the network's logits are multiplied with: exactly 1 at tabicl's own temperature."""
        return (self._start - self.log_temperature).exp()


def _push(opened: list[Opened]) -> None:
    """Push what the chunks have left through the contexts."""
    for _, shared in opened:
        if shared is not None:
            shared.backward()
