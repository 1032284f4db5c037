"""More classes than a model has outputs: the same weights read the table once per code (`codes`).

Every code is a context of its own, whose labels are the few symbols that the model tells apart; what the
codes say is decoded to classes. One set of weights is adapted over all codes, as over members of an ensemble.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tttab.contracts import (
    Context,
    CostModel,
    Execution,
    Group,
    Predictor,
    Queries,
    RowScores,
    Session,
    Tuning,
)
from tttab.core import AS_LABELLED, Limits, ModelInfo, Objective, Task
from tttab.models.codes import code_book, decoded
from tttab.models.losses import of_labels, weighted
from tttab.models.opened import ClassPredictor, check_classes

if TYPE_CHECKING:
    import pandas as pd

MOST_CLASSES = 1_000
TINY = float(np.finfo(np.float32).tiny)


@dataclass
class CodedContext:
    """The context rows as every code labels them."""

    x: pd.DataFrame
    y: np.ndarray
    classes: int
    book: np.ndarray
    """Shape (codes, classes): the symbol of each class in each code."""
    parts: list[Context]
    """One per code."""
    turn: Mapping[int, Context] | None = None
    """What trains, by number of the code, as the members whose turn it is see it; None: all codes."""
    constant: float | None = None

    @property
    def n(self) -> int:
        """Number of context rows."""
        return len(self.y)

    @property
    def trained(self) -> list[Context]:
        """The codes' contexts that train."""
        return self.parts if self.turn is None else list(self.turn.values())


@dataclass(frozen=True)
class CodedQueries:
    """Query rows as every code labels them."""

    parts: list[Queries]
    y: np.ndarray
    turn: Mapping[int, Queries] | None = None
    """As of the context."""

    def __len__(self) -> int:
        return len(self.y)


class CodedSession:
    """A classifier of more classes than the model inside has outputs, by error-correcting output codes."""

    task: Task = "classification"
    rowless = None

    def __init__(self, inner: Session, symbols: int, classes: int, codes: int | None = None) -> None:
        """Wrap an opened model.

        Args:
            inner: what reads the codes.
            symbols: how many classes it tells apart.
            classes: how many the table has.
            codes: so many of the book's codes, the first; None: all.
        """
        self._inner, self._symbols, self._classes, self._asked = inner, symbols, classes, codes
        self.device, self.seed, self.package = inner.device, inner.seed, inner.package
        self.suffix, self.random_embeddings = inner.suffix, inner.random_embeddings

    @property
    def info(self) -> ModelInfo:
        """What is known of the model file."""
        return self._inner.info

    @info.setter
    def info(self, info: ModelInfo) -> None:
        self._inner.info = info

    @property
    def limits(self) -> Limits:
        """The model's own, with more classes."""
        return replace(self._inner.limits, classes=MOST_CLASSES)

    @property
    def members(self) -> int:
        """Those of all codes together."""
        return len(self._book(self._classes)) * self._inner.members

    def with_members(self, members: int) -> CodedSession:
        """Return the same model with so many members at most: as many codes as it can, then members of each.

        Raises:
            ModelError: it cannot have so many.
        """
        codes = min(members, len(self._book(self._classes)))
        inner = self._inner.with_members(members // codes if codes > 0 else members)
        return CodedSession(inner, self._symbols, self._classes, codes)

    @property
    def layers(self) -> torch.nn.ModuleList:
        """The network's layers."""
        return self._inner.layers

    @property
    def cost_model(self) -> CodedCosts | None:
        """What a training step costs."""
        costs = self._inner.cost_model
        return None if costs is None else CodedCosts(costs, self._inner.members)

    def check_fits(self, classes: int, features: int, rows: int = 0) -> None:
        """Raise ModelError where a table is beyond the limits."""
        self.limits.check(classes, features, rows)

    def fork(self) -> CodedSession:
        """Return an independent copy, weights included."""
        return CodedSession(self._inner.fork(), self._symbols, self._classes, self._asked)

    def context(self, x: pd.DataFrame, y: np.ndarray, classes: int = 0) -> CodedContext:
        """Fit the preprocessing on the context rows, once per code.

        Raises:
            SplitError: a class has no row in the context, or the features cannot serve.
            ModelError: the table is beyond the model's limits.
        """
        self.check_fits(classes, x.shape[1], len(y))
        check_classes(y, classes)
        book = self._book(classes)
        parts = [self._inner.context(x, code[y], int(code.max()) + 1) for code in book]
        return CodedContext(x, y, classes, book, parts)

    def queries(self, context: CodedContext, x: pd.DataFrame, y: np.ndarray) -> CodedQueries:
        """Transform labelled query rows under the context of every code."""
        pairs = zip(context.parts, context.book, strict=True)
        return CodedQueries([self._inner.queries(part, x, code[y]) for part, code in pairs], y)

    def parameters(self, group: Group) -> list[torch.nn.Parameter]:
        """Return the parameters of a group."""
        return self._inner.parameters(group)

    def accumulate_gradients(
        self,
        context: CodedContext,
        queries: CodedQueries,
        rows: np.ndarray,
        scale: float,
        how: Execution,
        objective: Objective = AS_LABELLED,
    ) -> float:
        """Add the gradient of `scale` times the summed loss; return that product. One code is run at a time.

        The loss is that of the decoded classes: a first pass without gradients says how it depends on each
        code's log probabilities, and that is the code's target, for its members' average or for each of them.
        Where some members take turns, theirs is the gradient, for all.
        """
        turn = list(_turn_of(context, queries))
        log_p = torch.as_tensor(self._log_p(context, queries, rows, how)).requires_grad_()
        loss = self._losses(decoded(log_p, context.book), queries, rows, objective).sum() * scale
        if not torch.isfinite(loss):
            return loss.item()
        (slope,) = torch.autograd.grad(loss * (len(context.book) / len(turn)), log_p)
        for code, part, own in turn:
            targets = np.zeros((len(queries), slope.shape[2]))
            targets[rows] = -slope[code].numpy()
            asked = Objective(objective.loss, targets=targets)
            self._inner.accumulate_gradients(part, own, rows, 1.0, how, asked)
        return loss.item()

    def row_scores(
        self, context: CodedContext, queries: CodedQueries, rows: np.ndarray, how: Execution
    ) -> RowScores:
        """Return loss and class probabilities of the query rows numbered `rows`, decoded as served."""
        log_p = decoded(torch.as_tensor(self._log_p(context, queries, rows, how)), context.book)
        return RowScores(self._losses(log_p, queries, rows, AS_LABELLED).numpy(), log_p.exp().numpy())

    def serve(self, context: CodedContext) -> CodedPredictor:
        """Return a predictor with the cached contexts of all codes."""
        return CodedPredictor([self._inner.serve(part) for part in context.parts], context.book)

    def row_vectors(self, context: CodedContext, x: pd.DataFrame) -> np.ndarray:
        """Return the vectors of rows under every code, side by side."""
        return np.concatenate([self._inner.row_vectors(part, x) for part in context.parts], axis=1)

    def tuned(self, what: Tuning, context: CodedContext, rows: int = 0) -> None:
        """Return nothing: such things belong to one context."""

    def finetuned(
        self,
        x: pd.DataFrame,
        y: np.ndarray,
        classes: int,
        seed: int,
        seconds: float | None = None,
        rows: int | None = None,
    ) -> None:
        """Return nothing: no family's own fine-tuner knows codes."""

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """Return the parameters that are set to train, by name."""
        return self._inner.trainable()

    def load_trainable(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put the values of `state` into the parameters."""
        self._inner.load_trainable(state)

    def share_weights(self, pool: dict[str, torch.Tensor]) -> None:
        """Share weights as the model inside does."""
        self._inner.share_weights(pool)

    def reinitialise(self, seed: int) -> None:
        """Replace all weights by the architecture's own random ones."""
        self._inner.reinitialise(seed)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write the weights as the model inside does; the codes follow from its outputs, classes and seed."""
        self._inner.save(path, metadata)

    def _book(self, classes: int) -> np.ndarray:
        return code_book(classes, self._symbols, self.seed)[: self._asked]

    def _log_p(
        self, context: CodedContext, queries: CodedQueries, rows: np.ndarray, how: Execution
    ) -> np.ndarray:
        """Return what every code says of its symbols, shape (codes, rows, symbols)."""
        pairs = zip(context.parts, queries.parts, strict=True)
        return _logarithms([self._inner.row_scores(*pair, rows, how).predicted for pair in pairs])

    def _losses(
        self, log_p: torch.Tensor, queries: CodedQueries, rows: np.ndarray, objective: Objective
    ) -> torch.Tensor:
        if objective.targets is None:
            log_p = of_labels(log_p, torch.as_tensor(queries.y[rows]))
        return -weighted(log_p, objective, rows)


class CodedCosts:
    """What a training step costs: that of one code at a time, its memory."""

    def __init__(self, costs: CostModel, members: int) -> None:
        """Take the costs of the model inside, and its ensemble members."""
        self._costs, self._members = costs, members

    def sample(self, context: CodedContext, rows: int) -> CodedContext:
        """Return a context of the first `rows` rows."""
        parts = [self._costs.sample(part, rows) for part in context.parts]
        turn = context.turn and {code: self._costs.sample(part, rows) for code, part in context.turn.items()}
        return replace(context, x=context.x.iloc[:rows], y=context.y[:rows], parts=parts, turn=turn)

    def row_bytes(self, context: CodedContext) -> int:
        """Return roughly what a row's activations take, bytes."""
        return max(map(self._costs.row_bytes, context.trained))

    def shape(self, context: CodedContext) -> Hashable:
        """Return what sets a step's cost apart: the shapes of the codes, and of those that train."""
        return tuple(map(self._costs.shape, [*context.parts, *context.trained]))

    def preferred_chunk(self, context: CodedContext) -> int | None:
        """Return the query rows worth taking at a time."""
        return self._costs.preferred_chunk(context.parts[0])

    def of_members(
        self, context: CodedContext, queries: CodedQueries, members: Sequence[int]
    ) -> tuple[CodedContext, CodedQueries]:
        """Return context and queries as some members see them, numbered code by code."""
        contexts, asked = {}, {}
        for code in sorted({member // self._members for member in members}):
            own = [member % self._members for member in members if member // self._members == code]
            seen = self._costs.of_members(context.parts[code], queries.parts[code], own)
            contexts[code], asked[code] = seen
        return replace(context, turn=contexts), replace(queries, turn=asked)

    def frozen_features(self, context: CodedContext, queries: CodedQueries, how: Execution) -> CodedQueries:
        """Return the queries with what frozen layers make of them; the same ones where every layer trains."""
        pairs = list(zip(context.parts, queries.parts, strict=True))
        parts = [self._costs.frozen_features(*pair, how) for pair in pairs]
        same = all(new is old for new, (_, old) in zip(parts, pairs, strict=True))
        return queries if same else replace(queries, parts=parts)


class CodedPredictor(ClassPredictor):
    """Answers from the contexts of all codes."""

    def __init__(self, servers: list[Predictor], book: np.ndarray) -> None:
        """Serve what the codes' own predictors say; `book` as in `codes.code_book`."""
        self._servers, self._book = servers, book

    @property
    def cache_bytes(self) -> int | None:
        """Size of the key-value caches of all codes, bytes; None where there are none."""
        kept = [server.cache_bytes for server in self._servers]
        return None if None in kept else sum(size for size in kept if size is not None)

    def predict(self, x: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, shape (rows, classes)."""
        log_p = _logarithms([server.predict(x) for server in self._servers])
        return decoded(torch.as_tensor(log_p), self._book).exp().numpy()


def _turn_of(context: CodedContext, queries: CodedQueries) -> Iterator[tuple[int, Context, Queries]]:
    """Yield what trains: the code's number, its context and its queries."""
    if context.turn is None or queries.turn is None:
        yield from zip(range(len(context.parts)), context.parts, queries.parts, strict=True)
    else:
        yield from ((code, part, queries.turn[code]) for code, part in context.turn.items())


def _logarithms(p: Sequence[np.ndarray | None]) -> np.ndarray:
    told = [part for part in p if part is not None]
    return np.log(np.maximum(np.stack(told).astype(np.float64), TINY))
