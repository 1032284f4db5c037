"""What the packages expect of each other: models, what is prepared for them, rules. Read it after `core`.

Training, comparing, bundling and serving know a model only through these members; a model family knows
nothing of them. Nothing here computes.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

from typing_extensions import TypeVar

from tttab.core import (
    AS_LABELLED,
    Access,
    Execution,
    KnownModel,
    Limits,
    ModelInfo,
    Objective,
    RowScores,
    Task,
)
from tttab.errors import RuleError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pandas as pd
    import torch

Group = Literal["all", "head", "attention", "temperature"]
"""Parameters that rules choose by their role: every weight of the network, what follows its last layer, the
attention projections of its layers, or the logarithm of the softmax temperature. The last is no weight of the
network. A family without such parameters returns none."""
Tuning = Literal["cache", "prompt", "inputs"]
"""What may train while every weight is frozen. `cache`: keys and values of the context; `prompt`: those of a
few further rows; `inputs`: a gain and a shift of every column."""


class Context(Protocol):
    """The n labelled rows a model reads, with the preprocessing fitted on them, once."""

    x: pd.DataFrame
    y: np.ndarray
    """Shape (n,): class codes, or targets in the table's own units."""
    classes: int
    """0 for regression."""
    constant: float | None
    """Regression: the one target of all rows, with which nothing is trained; None where they differ."""

    @property
    def n(self) -> int:
        """Number of context rows."""
        ...


class Queries(Protocol):
    """Labelled rows prepared for one context: transformed once, kept for all steps."""

    def __len__(self) -> int:
        """Return the number of query rows."""
        ...


C = TypeVar("C", bound=Context, default=Any)
Q = TypeVar("Q", bound=Queries, default=Any)
"""A session takes back the contexts and queries that it made itself; of which class they are is its own
affair, so whoever handles some session writes `Session` alone."""


class Predictor(Protocol):
    """Answers from one context, with the weights as they were when it was made. Threads may share it."""

    @property
    def cache_bytes(self) -> int | None:
        """Size of what is kept of the context, bytes; None where nothing is."""
        ...

    def predict(self, x: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, shape (rows, classes), or predictive means, shape (rows,)."""
        ...

    def predict_quantiles(self, x: pd.DataFrame, quantiles: Sequence[float]) -> np.ndarray:
        """Return quantiles of the predicted distribution, shape (rows, quantiles).

        Raises:
            ModelError: the model predicts classes, which have none.
        """
        ...

    def metrics(
        self, x: pd.DataFrame, y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None
    ) -> dict[str, float]:
        """Return the figures of merit of `predicted`, the predictions for `x`, against the labels `y`.

        `weights` say how much each row counts, shape (rows,); None: all alike.
        """
        ...


class CostModel(Protocol[C, Q]):
    """What memory planning asks of a session. One without it trains with one chunk size and no plan."""

    def sample(self, context: C, rows: int) -> C:
        """Return a context of the first `rows` rows, on which a step can be measured."""
        ...

    def row_bytes(self, context: C) -> int:
        """Return roughly what a row's activations take, bytes: it only sizes the samples."""
        ...

    def shape(self, context: C) -> Hashable:
        """Return what sets a step's cost apart besides rows, weights and execution."""
        ...

    def preferred_chunk(self, context: C) -> int | None:
        """Return the query rows worth taking at a time where chunks share one pass of the context.

        None where every chunk computes the context again.
        """
        ...

    def of_members(self, context: C, queries: Q, members: Sequence[int]) -> tuple[C, Q]:
        """Return context and queries as the ensemble members numbered `members` see them."""
        ...

    def frozen_features(self, context: C, queries: Q, how: Execution) -> Q:
        """Return the queries with what layers that do not train make of them; as they are where some do.

        What comes back belongs to this context and these layers; it must not outlive a change of either.
        """
        ...


class Rowless(Protocol[C]):
    """Serving without the context's rows, from what predictions need of them."""

    def pack(self, context: C) -> bytes:
        """Return that as a file's content; ModelError where it cannot be written."""
        ...

    def serve(self, content: bytes) -> Predictor:
        """Return the predictor of what `pack` returned; ModelError where it is no such content."""
        ...


@runtime_checkable
class Session(Protocol[C, Q]):
    """An opened foundation model. Pretrained weights are never changed: adapt a fork."""

    info: ModelInfo
    task: Task
    device: torch.device
    seed: int
    """Names the random numbers of the model's own preprocessing."""
    package: str
    """The distribution whose code prepares tables and predicts: its version is noted with what is saved."""
    suffix: str
    """Of the files that `save` writes: `safetensors`, or `ckpt` for a torch archive."""
    random_embeddings: bool
    """Whether the network draws random numbers, which another device or dtype draws otherwise."""

    @property
    def limits(self) -> Limits:
        """The largest table the model reads."""
        ...

    @property
    def members(self) -> int:
        """The ensemble members that serve; 1 for a model without an ensemble."""
        ...

    def with_members(self, members: int) -> Self:
        """Return the same model, its weights shared, with another number of ensemble members.

        Raises:
            ModelError: it cannot have so many.
        """
        ...

    @property
    def layers(self) -> torch.nn.ModuleList:
        """The network's layers, first to last; empty where it has no separate layers.

        A rule may put modules of its own in their matrices' places while it trains (`Rule.finish` undoes it).
        """
        ...

    @property
    def cost_model(self) -> CostModel[C, Q] | None:
        """What memory planning may ask; None where it can ask nothing."""
        ...

    @property
    def rowless(self) -> Rowless[C] | None:
        """What serves without a context's rows; None where this model needs them."""
        ...

    def check_fits(self, classes: int, features: int, rows: int = 0) -> None:
        """Raise ModelError where a table is beyond the limits."""
        ...

    def fork(self) -> Self:
        """Return an independent copy, weights included, that may be trained."""
        ...

    def context(self, x: pd.DataFrame, y: np.ndarray, classes: int = 0) -> C:
        """Fit the preprocessing on the context rows. `classes`: number of classes, 0 for regression.

        Raises:
            SplitError: the labels or the features cannot serve as a context.
            ModelError: the table is beyond the model's limits.
        """
        ...

    def queries(self, context: C, x: pd.DataFrame, y: np.ndarray) -> Q:
        """Transform labelled query rows under `context`."""
        ...

    def parameters(self, group: Group) -> list[torch.nn.Parameter]:
        """Return the parameters of a group, in a fixed order."""
        ...

    def accumulate_gradients(
        self,
        context: C,
        queries: Q,
        rows: np.ndarray,
        scale: float,
        how: Execution,
        objective: Objective = AS_LABELLED,
    ) -> float:
        """Add the gradient of `scale` times the summed loss of the rows numbered `rows`; return that product.

        The loss, nats, is what `objective` says. Where it is not finite, no gradient is added.

        Raises:
            ModelError: the objective has targets and the model predicts no classes.
        """
        ...

    def row_scores(self, context: C, queries: Q, rows: np.ndarray, how: Execution) -> RowScores:
        """Return how well the query rows numbered `rows` are predicted, in float32."""
        ...

    def serve(self, context: C) -> Predictor:
        """Return a predictor from `context`, on a copy of the weights as they are now."""
        ...

    def share_weights(self, pool: dict[str, torch.Tensor]) -> None:
        """Hold each weight that equals one of `pool` as that one, add the others; none may change then."""
        ...

    def row_vectors(self, context: C, x: pd.DataFrame) -> np.ndarray:
        """Return what the network makes of rows under `context` before its output, shape (rows, width)."""
        ...

    def tuned(self, what: Tuning, context: C, rows: int = 0) -> Self | None:
        """Return a copy of frozen weights in which `what` trains instead, for this context alone.

        Its `parameters("all")` are what trains. None where the family has no such thing for this model.

        Args:
            what: see `Tuning`.
            context: what it belongs to; the copy takes no other.
            rows: of a `prompt`.
        """
        ...

    def finetuned(
        self,
        x: pd.DataFrame,
        y: np.ndarray,
        classes: int,
        seed: int,
        seconds: float | None = None,
        rows: int | None = None,
    ) -> Predictor | None:
        """Return what the family's own fine-tuner makes of labelled rows x and y; None where it has none.

        Args:
            x: the rows.
            y: class codes, or targets.
            classes: 0 for regression.
            seed: of the fine-tuner.
            seconds: the most it may take; None: as long as it goes on by itself.
            rows: so many rows, the first, serve as its context; None: all.

        Raises:
            MissingExtra: something that the fine-tuner needs is not installed.
        """
        ...

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """Return the parameters that are set to train, by name."""
        ...

    def load_trainable(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put the values of `state`, by the names of `trainable`, into the parameters."""
        ...

    def reinitialise(self, seed: int) -> None:
        """Replace all weights by the architecture's own random ones: the papers' cold start."""
        ...

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write the weights as a file that `open_model` reads, with further plain data in its header."""
        ...


class ModelFamily(Protocol):
    """One kind of foundation model: its known files, and opening one. Importing it is cheap."""

    @property
    def name(self) -> str:
        """What it is called, for messages."""
        ...

    def known(self) -> Sequence[KnownModel]:
        """Return the models that have a name; `auto` looks for the first of a task."""
        ...

    def folder(self) -> Path:
        """Return where official files are looked for."""
        ...

    def fetch(self, model: KnownModel, folder: Path, seconds: float | None = None) -> Path:
        """Download an official file into an empty folder and return its place.

        Args:
            model: the file.
            folder: what is there may be thrown away.
            seconds: the most it may take from each server; None: as long as bytes keep coming.

        Raises:
            ModelError: it could not be downloaded; without a hint the caller says where to put it.
        """
        ...

    def access(self, model: KnownModel) -> Access:
        """Return whether an official file may be downloaded: asks a server where a licence is needed."""
        ...

    def login(self, model: KnownModel) -> None:
        """Go through the family's own way to accept a licence.

        Raises:
            ModelError: it was not accepted, or there is none to accept.
        """
        ...

    def recognises(self, checkpoint: Mapping[str, Any]) -> bool:
        """Tell whether a file that was read (`models.checkpoint.read_checkpoint`) is one of this kind."""
        ...

    def open(
        self, checkpoint: Mapping[str, Any], info: ModelInfo, device: torch.device, seed: int
    ) -> Session:
        """Build the network of a checkpoint for the task of `info`; the checkpoint is left as it is.

        Raises:
            ModelError: its header and its weights do not make a network for the task.
        """
        ...


@dataclass(frozen=True)
class Rule(ABC):
    """Which parameters may move. A rule is a frozen dataclass whose `name` has a default."""

    name: str
    rate: float = 1.0
    """Learning rate of these parameters, as a multiple of the schedule's."""

    @abstractmethod
    def parameters(self, session: Session) -> list[torch.nn.Parameter]:
        """Return the parameters to train; empty only for the rule `none`.

        Raises:
            RuleError: the model has none of the kind.
        """

    def finish(self, session: Session) -> None:
        """Turn what `parameters` put into the network back into plain weights; by default nothing was."""
        return

    @classmethod
    def parse(cls, argument: str) -> Rule:
        """Return the rule for `NAME:ARGUMENT`.

        Raises:
            RuleError: the rule takes no argument, as by default, or not this one.
        """
        raise RuleError(f"no rule is called {f'{cls.name}:{argument}'!r}", f"--rule {cls.name}")
