"""What a model keeps of a context and of queries: the tensors tabpfn itself feeds to the network.

They are captured from tabpfn's own `predict`: for one call the network's `forward` is replaced by a recorder,
so preprocessing, ensembling and outlier clipping are exactly those of inference, in every tabpfn version. A
context has its own face of the network and a lock, so threads may share contexts and sessions.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Member:
    """One ensemble member's place in the prepared calls, and how its outputs are read."""

    call: int
    batch: int
    columns: torch.Tensor | None = None
    """Classification, shape (classes,): which of the network's outputs is class c."""
    borders: torch.Tensor | None = None
    """Regression, shape (buckets + 1,): the bucket borders of this member, in standardised targets."""
    cancelled: torch.Tensor | None = None
    """Regression, shape (buckets,): outputs that are served as impossible; None where there are none."""


@dataclass
class Call:
    """One call of the network: the context part of its input and its other arguments."""

    context: torch.Tensor
    """Shape (n, members, columns)."""
    y: torch.Tensor
    """Shape (n, members)."""
    kwargs: dict[str, Any]


class ContextLock:
    """A lock that is not copied with what it guards: a copy gets a new one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


@dataclass
class PreparedContext:
    """n labelled rows with the preprocessing fitted on them, once; see `tttab.contracts.Context`."""

    x: pd.DataFrame
    y: np.ndarray
    classes: int
    estimator: Any
    """The fitted tabpfn estimator that holds the preprocessing."""
    module: torch.nn.Module
    """The network inside that estimator, a face of the session's that nothing else uses: its inputs are
    recorded, its weights are never read."""
    calls: list[Call] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    constant: float | None = None
    """Regression: the one target of all context rows, which is what is predicted; None where they differ."""
    groups: list[list[int]] = field(default_factory=list)
    """Which recorded calls each prepared call holds: calls of one shape share a forward pass."""
    lock: ContextLock = field(default_factory=ContextLock, repr=False, compare=False)
    """Held while inputs are recorded."""

    @property
    def n(self) -> int:
        """Number of context rows."""
        return len(self.y)


@dataclass
class Tail:
    """What the frozen first layers make of every row of a call, shape (members, rows, columns, width)."""

    first: int
    """The first layer that trains."""
    context: torch.Tensor
    queries: torch.Tensor


@dataclass
class PreparedQueries:
    """Query rows transformed under one context; see `tttab.contracts.Queries`."""

    inputs: list[torch.Tensor]
    """One tensor of shape (rows, members, columns) per prepared call."""
    y: torch.Tensor
    """Shape (rows,): class codes, or targets in the table's own units."""
    embedded: list[torch.Tensor] | None = None
    """What frozen layers make of them, shape (rows, members, width) per call; None where layers train."""
    tails: list[Tail] | None = None
    """Where the last layers alone train: what the others make of the rows, per call."""

    def __len__(self) -> int:
        """Return the number of query rows."""
        return len(self.y)


def group_calls(calls: list[Call]) -> tuple[list[Call], list[list[int]]]:
    """Join calls of one shape into one call with more members, and say which went where."""
    groups: dict[tuple[torch.Size, torch.Size], list[int]] = {}
    for place, call in enumerate(calls):
        groups.setdefault((call.context.shape, call.y.shape), []).append(place)
    return [_join([calls[place] for place in group]) for group in groups.values()], list(groups.values())


def join_inputs(
    own: list[Call], groups: list[list[int]], calls: list[Call], context_rows: int
) -> list[torch.Tensor]:
    """Return the query part of freshly recorded `calls`, grouped as the context's calls are."""
    joined = [torch.cat([calls[place].context[context_rows:] for place in group], dim=1) for group in groups]
    return [_freeze_constant_columns(call.context, part) for call, part in zip(own, joined, strict=True)]


def place_members(members: list[Member], groups: list[list[int]], calls: list[Call]) -> list[Member]:
    """Return the members with their places in the joined calls instead of the recorded ones."""
    starts = {}
    for number, group in enumerate(groups):
        offset = 0
        for place in group:
            starts[place] = (number, offset)
            offset += calls[place].context.shape[1]
    return [
        replace(member, call=starts[member.call][0], batch=starts[member.call][1] + member.batch)
        for member in members
    ]


def part_of(
    context: PreparedContext, queries: PreparedQueries, members: list[Member]
) -> tuple[PreparedContext, PreparedQueries]:
    """Return what some members see of a context and of queries: calls of these members alone."""
    calls: list[Call] = []
    placed: list[Member] = []
    taken: list[tuple[int, list[int]]] = []
    for number, call in enumerate(context.calls):
        here = [member for member in members if member.call == number]
        if not here:
            continue
        places = [member.batch for member in here]
        kwargs = dict(call.kwargs)
        if kwargs.get("categorical_inds") is not None:
            kwargs["categorical_inds"] = [kwargs["categorical_inds"][place] for place in places]
        placed += [replace(m, call=len(calls), batch=batch) for batch, m in enumerate(here)]
        calls.append(Call(call.context[:, places], call.y[:, places], kwargs))
        taken.append((number, places))

    def only(parts: list[torch.Tensor]) -> list[torch.Tensor]:
        return [parts[number][:, places] for number, places in taken]

    embedded = None if queries.embedded is None else only(queries.embedded)
    tails = queries.tails and [
        replace(tail, context=tail.context[places], queries=tail.queries[places])
        for tail, places in ((queries.tails[number], places) for number, places in taken)
    ]
    fewer = replace(queries, inputs=only(queries.inputs), embedded=embedded, tails=tails)
    return replace(context, calls=calls, members=placed), fewer


@contextmanager
def recorder(context: PreparedContext, width: int, code_columns: bool) -> Generator[list[Call]]:
    """Replace the context's network's forward by one that records its inputs and answers with place numbers.

    One thread at a time records: what it does to the context's estimator and network is seen by no other.
    The answer for output c of batch entry b in call i is i·2^16 + b·2^8 + c, without c where
    `code_columns` is false, so what tabpfn makes of it tells each member's place and class order.
    """
    calls: list[Call] = []
    module = context.module

    @wraps(module.forward)  # tabpfn asks forward's signature which arguments it takes
    def record(x: torch.Tensor, y: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        batch = x.shape[1]
        column = torch.arange(width) if code_columns else torch.zeros(width, dtype=torch.long)
        place = len(calls) * 65536 + torch.arange(batch)[:, None] * 256 + column
        labels = y.detach().clone().reshape(len(y), -1).expand(-1, batch).contiguous()
        calls.append(Call(x.detach().clone(), labels, kwargs))
        return place.float().to(x.device).expand(x.shape[0] - len(y), batch, width)

    with context.lock:
        module.forward = record
        try:
            yield calls
        finally:
            del module.forward


def _join(calls: list[Call]) -> Call:
    if len(calls) == 1:
        return calls[0]
    kwargs = dict(calls[0].kwargs)
    if kwargs.get("categorical_inds") is not None:
        kwargs["categorical_inds"] = [inds for call in calls for inds in call.kwargs["categorical_inds"]]
    context = torch.cat([call.context for call in calls], dim=1)
    return Call(context, torch.cat([call.y for call in calls], dim=1), kwargs)


def _freeze_constant_columns(context: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Give the queries the context's value where a column is constant in the context.

    The key-value cache drops such columns, whatever cells of them are missing; the plain forward would
    fit its mask on the queries too.
    """
    known = ~torch.isnan(context)
    low = torch.where(known, context, torch.inf).amin(dim=0, keepdim=True)
    high = torch.where(known, context, -torch.inf).amax(dim=0, keepdim=True)
    return torch.where((low == high) & ~torch.isnan(queries), low, queries)
