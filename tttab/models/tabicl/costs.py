"""What a training step of a TabICL network costs, for `training.memory_plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from tttab.contracts import Execution
from tttab.models.chunks import chunks_of
from tttab.models.tabicl.ensemble import Ensemble
from tttab.models.tabicl.inputs import PreparedContext, PreparedQueries

VALUES = 14
"""Rough count of activations per layer and vector, in vectors: only sizes the samples."""
CELLS, LEAST_ROWS, MOST_ROWS = 6000, 64, 200
"""A chunk aims at so many cells of all members, within these rows. Measured on one core with half of TabICL
v2's width and two members of banana: 200 rows take as long as 334 and three quarters of their memory, 100
rows 1.3 times as long, 48 rows 1.7 times."""
ROW_PARTS = ("col_embedder.", "row_interactor.")
LAST_PARTS = ("icl_predictor.ln.", "icl_predictor.decoder.")
"""How the names of weights begin that make rows, and of those after the last layer."""


class Costs:
    """What a training step of one session costs."""

    def __init__(self, session: Ensemble) -> None:
        self._session = session

    def sample(self, context: PreparedContext, rows: int) -> PreparedContext:
        """Return a context of the first `rows` rows, preprocessed as all are."""
        return replace(context, inputs=context.inputs[:, :rows], labels=context.labels[:, :rows])

    def row_bytes(self, context: PreparedContext) -> int:
        """Return roughly what a row's activations take, bytes."""
        module, (members, _, columns) = self._session.module, context.inputs.shape
        cells = (columns + module.row_num_cls) * (module.col_num_blocks + module.row_num_blocks)
        return 4 * VALUES * members * module.embed_dim * (cells + module.row_num_cls * module.icl_num_blocks)

    def shape(self, context: PreparedContext) -> tuple[int, ...]:
        """Return members, columns and classes."""
        return len(context.inputs), context.inputs.shape[2], context.classes

    def preferred_chunk(self, context: PreparedContext) -> int:
        """Return the query rows worth taking at a time: they share one pass of the context."""
        cells = len(context.inputs) * (context.inputs.shape[2] + self._session.module.row_num_cls)
        return min(MOST_ROWS, max(LEAST_ROWS, CELLS // cells))

    def of_members(
        self, context: PreparedContext, queries: PreparedQueries, members: Sequence[int]
    ) -> tuple[PreparedContext, PreparedQueries]:
        """Return context and queries as the ensemble members numbered `members` see them."""
        chosen = list(members)
        own = {name: getattr(context, name)[chosen] for name in ("inputs", "labels", "columns")}
        kept = {name: getattr(queries, name) for name in ("inputs", "rows", "context_rows", "last")}
        parts = {name: tensor if tensor is None else tensor[chosen] for name, tensor in kept.items()}
        return replace(context, **own), replace(queries, **parts)

    def frozen_features(
        self, context: PreparedContext, queries: PreparedQueries, how: Execution
    ) -> PreparedQueries:
        """Return the queries with what the layers make of them that come before the first that trains.

        Where only in-context layers train, those are vectors of rows; where nothing but what follows the last
        layer does, they are that layer's answers, and a step costs a few products.
        """
        session = self._session
        trained = [name for name, parameter in session.module.named_parameters() if parameter.requires_grad]
        if any(name.startswith(ROW_PARTS) for name in trained):
            return queries
        through = all(name.startswith(LAST_PARTS) for name in trained)
        through &= context.classes <= session.module.max_classes
        with torch.no_grad():
            found = [
                self._frozen(context, queries, part, how, through) for part in session.parts(context, how)
            ]
        own, rows, last = ([part[i] for part in found] for i in range(3))
        if through:
            return replace(queries, last=torch.cat(last))
        return replace(queries, context_rows=torch.cat(own), rows=torch.cat(rows))

    def _frozen(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        part: slice,
        how: Execution,
        through: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        _, shared = self._session.open(context, queries, part, how)
        assert shared is not None, "these queries have no frozen features yet"
        chunks = chunks_of(np.arange(len(queries)), how.chunk)
        rows = torch.cat([shared.rows(queries.inputs[part][:, chunk]) for chunk in chunks], dim=1)
        last = torch.cat([shared.last(rows[:, chunk]) for chunk in chunks], dim=1) if through else rows
        return shared.own_rows, rows, last
