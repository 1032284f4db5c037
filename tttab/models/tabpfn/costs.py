"""What a training step of a TabPFN network costs, as memory planning asks for it.

What does not belong here: planning (`training.memory_plan`) and measuring (`training.footprint`).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from tttab.contracts import Execution
from tttab.models.tabpfn.forward import Passes, chunks_of, shares_context
from tttab.models.tabpfn.inputs import PreparedContext, PreparedQueries
from tttab.models.tabpfn.parts import OUTPUT, layers_of
from tttab.models.tabpfn.shared_context import ARCHITECTURE as SHARES_CONTEXT

VALUES_PER_CELL = 30
"""Rough count of activations per layer and cell, of the embedding's width: only sizes the samples."""
CELLS, LEAST_ROWS, MOST_ROWS = 1000, 32, 200
"""A chunk under a shared context aims at so many cells, within these rows. Measured on two cores with the
bundled model (benchmarks/run_speed.py): 128 rows instead of 200 take 1.2 to 1.4 times as long on tables of 2
to 20 columns; on 57 columns 200 rows take 0.87 of the memory of tabpfn's own fine-tuning; 1,600 cells gain
nothing on 20 and 36 columns."""


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
        cells = sum(call.context.shape[1] * (-(-call.context.shape[2] // 2) + 1) for call in context.calls)
        return min(MOST_ROWS, max(LEAST_ROWS, CELLS // cells))

    def frozen_features(
        self, context: PreparedContext, queries: PreparedQueries, how: Execution
    ) -> PreparedQueries:
        """Return the queries with what the layers make of them, where at most the output projection trains.

        The layers' answer is then the same in every step: it is computed here, a chunk at a time, and a step
        costs the output projection alone. Elsewhere the queries come back as they are.
        """
        session = self._session
        trained = [name for name, parameter in session.module.named_parameters() if parameter.requires_grad]
        if session.architecture != SHARES_CONTEXT or any(not name.startswith(OUTPUT) for name in trained):
            return queries
        embedded, whole = [], session.whole_calls(context)
        with torch.no_grad(), session.sharing(context, queries, whole, how):
            for which in whole:
                with _inputs_of(session.module.get_submodule(OUTPUT)) as seen:
                    for rows in chunks_of(np.arange(len(queries)), how.chunk):
                        session.outputs(context, queries, rows, which, how)
                embedded.append(torch.cat(seen))
        return replace(queries, embedded=embedded)


@contextmanager
def _inputs_of(part: torch.nn.Module) -> Generator[list[torch.Tensor]]:
    """Collect what `part` is given inside."""
    seen: list[torch.Tensor] = []

    def collect(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        seen.append(given[0])

    hook = part.register_forward_pre_hook(collect)
    try:
        yield seen
    finally:
        hook.remove()
