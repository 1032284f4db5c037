"""What a training step of a TabPFN network costs, for `training.memory_plan`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from tttab.contracts import Execution
from tttab.models.chunks import chunks_of
from tttab.models.tabpfn.forward import ForwardPass, Passes, shares_context
from tttab.models.tabpfn.inputs import PreparedContext, PreparedQueries, Tail, part_of
from tttab.models.tabpfn.parts import LAYERS, OUTPUT, layers_of
from tttab.models.tabpfn.shared_context import ARCHITECTURE as SHARES_CONTEXT

VALUES_PER_CELL = 30
"""Rough count of activations per layer and cell, of the embedding's width: only sizes the samples."""
CELLS, LEAST_ROWS, MOST_ROWS = 1000, 32, 200
"""A chunk under a shared context aims at so many cells, within these rows. Measured on two cores with the
bundled model (benchmarks/run_speed.py): 128 rows instead of 200 take 1.2 to 1.4 times as long on tables of 2
to 20 columns; on 57 columns 200 rows take 0.87 of the memory of tabpfn's own fine-tuning; 1,600 cells gain
nothing on 20 and 36 columns."""
GPU_CELLS, GPU_ROWS = 128_000, 8192
"""The same on a GPU, whose cores wait for Python on small chunks; not measured yet (docs/gpu.md)."""
MOST_KEPT = 256 * 1024**2
"""Bytes of cells that are kept for layers that train: within what every memory plan leaves free."""


class Costs:
    """The `CostModel` of one opened network."""

    def __init__(self, session: Passes) -> None:
        self._session = session

    def sample(self, context: PreparedContext, rows: int) -> PreparedContext:
        """Return a context of the first `rows` rows, preprocessed as all are."""
        calls = [replace(call, context=call.context[:rows], y=call.y[:rows]) for call in context.calls]
        return replace(context, calls=calls)

    def row_bytes(self, context: PreparedContext) -> int:
        """Return roughly what a row's activations take, bytes."""
        cells = sum(call.context.shape[1] * (call.context.shape[2] + 1) for call in context.calls)
        module = self._session.module
        return 4 * VALUES_PER_CELL * cells * module.embedding_dim * len(layers_of(module))

    def shape(self, context: PreparedContext) -> tuple[tuple[int, ...], ...]:
        """Return members and columns of each call of the network."""
        return tuple(tuple(call.context.shape[1:]) for call in context.calls)

    def preferred_chunk(self, context: PreparedContext) -> int | None:
        """Return the query rows worth taking at a time where the context is shared; None where it is not.

        More rows at once save little time and cost memory; fewer leave the cores waiting for Python.
        """
        if not shares_context(self._session.architecture, Execution()):
            return None
        cells = _cells(context)
        aim, most = (GPU_CELLS, GPU_ROWS) if self._session.device.type == "cuda" else (CELLS, MOST_ROWS)
        return min(most, max(LEAST_ROWS, aim // cells))

    def of_members(
        self, context: PreparedContext, queries: PreparedQueries, members: Sequence[int]
    ) -> tuple[PreparedContext, PreparedQueries]:
        """Return context and queries as the ensemble members numbered `members` see them."""
        return part_of(context, queries, [context.members[number] for number in members])

    def frozen_features(
        self, context: PreparedContext, queries: PreparedQueries, how: Execution
    ) -> PreparedQueries:
        """Return the queries with what frozen layers make of them, so that no step runs these again.

        Where at most the output projection trains, a step costs that alone; where the last layers do, it
        costs them. The frozen layers run here, a chunk at a time. Elsewhere, and where the cells that the
        last layers read would take more than `MOST_KEPT`, the queries come back as they are.
        """
        session, first = self._session, self._first_trained()
        if session.architecture != SHARES_CONTEXT or not first:
            return queries
        layers, whole = layers_of(session.module), session.whole_calls(context)
        if first < len(layers):
            kept = 4 * _cells(context) * (context.n + len(queries)) * session.module.embedding_dim
            if kept > MOST_KEPT or not shares_context(SHARES_CONTEXT, how):
                return queries
            parts = [self._through(layers[first], context, queries, which, how) for which in whole]
            tails = [Tail(first, cells[0], torch.cat(cells[1:], dim=1)) for cells in parts]
            return replace(queries, tails=tails)
        output = session.module.get_submodule(OUTPUT)
        embedded = [torch.cat(self._through(output, context, queries, which, how)) for which in whole]
        return replace(queries, embedded=embedded)

    def _first_trained(self) -> int:
        """Return the first layer that trains: their number where none does, 0 where what they read does."""
        layers = layers_of(self._session.module)
        trained = [name for name, p in self._session.module.named_parameters() if p.requires_grad]
        before = any(not name.startswith((OUTPUT, *LAYERS)) for name in trained)
        moving = [
            number for number, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters())
        ]
        return 0 if before else min(moving, default=len(layers))

    def _through(
        self,
        part: torch.nn.Module,
        context: PreparedContext,
        queries: PreparedQueries,
        which: ForwardPass,
        how: Execution,
    ) -> list[torch.Tensor]:
        """Return what `part` is given for the context, if it reads it, and for each chunk of the queries."""
        session = self._session
        with torch.no_grad(), _inputs_of(part) as seen, session.sharing(context, queries, [which], how):
            for rows in chunks_of(np.arange(len(queries)), how.chunk):
                session.outputs(context, queries, rows, which, how)
        return seen


def _cells(context: PreparedContext) -> int:
    """Return the cells of a row as the layers see it, of all members."""
    return sum(call.context.shape[1] * (-(-call.context.shape[2] // 2) + 1) for call in context.calls)


@contextmanager
def _inputs_of(part: torch.nn.Module) -> Generator[list[torch.Tensor]]:
    """Collect what `part` is given inside."""
    seen: list[torch.Tensor] = []

    def collect(_: torch.nn.Module, given: tuple[torch.Tensor | list[torch.Tensor], ...]) -> None:
        seen.append(given[0][0] if isinstance(given[0], list) else given[0])

    hook = part.register_forward_pre_hook(collect)
    try:
        yield seen
    finally:
        hook.remove()
