"""A model family without tabpfn, for tests of rules, arms and loops: `ToySession` and `ToyFamily`.

It classifies a row by the labels of the context rows that two small layers find similar. It has no attention
and no cost model, and a step takes milliseconds.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tttab.contracts import Execution, Group, RowScores, Session, Tuning
from tttab.core import AS_LABELLED, Access, KnownModel, Limits, ModelInfo, Objective, Task
from tttab.errors import ModelError
from tttab.metrics import classification_metrics
from tttab.seeding import stream_seed

WIDTH = 8
INFO = ModelInfo("toy", "toy.safetensors", "0" * 64, "trained on nothing", "classification")


@dataclass
class ToyContext:
    """Context rows, and what standardises them."""

    x: pd.DataFrame
    y: np.ndarray
    classes: int
    mean: np.ndarray
    scale: np.ndarray
    constant: float | None = None

    @property
    def n(self) -> int:
        """Number of context rows."""
        return len(self.y)

    def inputs(self, x: pd.DataFrame) -> torch.Tensor:
        """Return rows as the network reads them, shape (rows, WIDTH); missing cells are the mean."""
        values = np.nan_to_num((_numbers(x) - self.mean) / self.scale)
        return torch.as_tensor(np.pad(values, ((0, 0), (0, WIDTH - values.shape[1]))), dtype=torch.float32)


@dataclass
class ToyQueries:
    """Query rows under one context."""

    inputs: torch.Tensor
    y: torch.Tensor

    def __len__(self) -> int:
        return len(self.y)


class ToySession:
    """A `Session`: classification of up to 8 numeric or categorical features."""

    task: Task = "classification"
    package, suffix, random_embeddings = "torch", "safetensors", False
    cost_model = rowless = None

    def __init__(self, info: ModelInfo = INFO, seed: int = 0, classes: int = 10) -> None:
        self.info, self.seed, self.device = info, seed, torch.device("cpu")
        self.limits = Limits(classes, features=WIDTH, rows=10_000)
        layers = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.module = torch.nn.ModuleDict({"layers": layers, "head": torch.nn.Linear(WIDTH, WIDTH)})
        self.log_temperature = torch.nn.Parameter(torch.zeros(()), requires_grad=False)
        self.reinitialise(seed)

    @property
    def members(self) -> int:
        """One: there is no ensemble."""
        return 1

    def with_members(self, members: int) -> ToySession:
        """Return the model itself.

        Raises:
            ModelError: more than one member is asked for.
        """
        if members != 1:
            raise ModelError(f"{self.info.name} has one member, not {members}", "--members 1")
        return self

    @property
    def layers(self) -> torch.nn.ModuleList:
        """The two layers before the head."""
        layers = self.module["layers"]
        assert isinstance(layers, torch.nn.ModuleList)
        return layers

    def check_fits(self, classes: int, features: int, rows: int = 0) -> None:
        """Raise ModelError where a table is beyond the limits."""
        self.limits.check(classes, features, rows)

    def fork(self) -> ToySession:
        """Return an independent copy."""
        return copy.deepcopy(self)

    def context(self, x: pd.DataFrame, y: np.ndarray, classes: int = 0) -> ToyContext:
        """Standardise by the context rows."""
        self.check_fits(classes, x.shape[1], len(y))
        values = _numbers(x)
        return ToyContext(x, y, classes, np.nanmean(values, axis=0), np.nanstd(values, axis=0) + 1e-6)

    def queries(self, context: ToyContext, x: pd.DataFrame, y: np.ndarray) -> ToyQueries:
        """Standardise query rows as the context was."""
        return ToyQueries(context.inputs(x), torch.as_tensor(y, dtype=torch.long))

    def parameters(self, group: Group) -> list[torch.nn.Parameter]:
        """Return the parameters of a group; there is no attention."""
        parts: dict[str, list[torch.nn.Parameter]] = {
            "all": list(self.module.parameters()),
            "head": list(self.module["head"].parameters()),
            "temperature": [self.log_temperature],
        }
        return parts.get(group, [])

    def log_probabilities(self, context: ToyContext, inputs: torch.Tensor) -> torch.Tensor:
        """Return log p(class), shape (rows, classes): a vote of the context rows by how alike they are."""
        alike = -torch.cdist(self._embed(inputs), self._embed(context.inputs(context.x)))
        votes = torch.nn.functional.one_hot(torch.as_tensor(context.y), context.classes).float()
        return (torch.softmax(alike / self.log_temperature.exp(), dim=1) @ votes + 1e-6).log()

    def accumulate_gradients(
        self,
        context: ToyContext,
        queries: ToyQueries,
        rows: np.ndarray,
        scale: float,
        how: Execution,
        objective: Objective = AS_LABELLED,
    ) -> float:
        """Add the gradient of `scale` times the summed log loss; always in float32, chunk by chunk."""
        total = 0.0
        for start in range(0, len(rows), how.chunk or len(rows)):
            chunk = rows[start : start + (how.chunk or len(rows))]
            places = torch.as_tensor(chunk)
            log_p = self.log_probabilities(context, queries.inputs[places])
            wanted, weights = objective.targets, objective.weights
            labels = torch.nn.functional.one_hot(queries.y[places], context.classes)
            aim = labels if wanted is None else torch.as_tensor(wanted[chunk])
            count = torch.ones(len(chunk)) if weights is None else torch.as_tensor(weights[chunk])
            loss = -scale * ((log_p * aim).sum(dim=1) * count).sum()
            loss.backward()
            total += loss.item()
        return total

    def row_scores(
        self, context: ToyContext, queries: ToyQueries, rows: np.ndarray, how: Execution
    ) -> RowScores:
        """Return loss and probabilities of the query rows numbered `rows`."""
        with torch.no_grad():
            log_p = self.log_probabilities(context, queries.inputs[torch.as_tensor(rows)])
        y = queries.y[torch.as_tensor(rows)]
        loss = torch.nn.functional.nll_loss(log_p, y, reduction="none")
        return RowScores(loss.numpy(), log_p.exp().numpy())

    def serve(self, context: ToyContext) -> ToyPredictor:
        """Return a predictor on a copy of the weights."""
        return ToyPredictor(self.fork(), context)

    def share_weights(self, pool: dict[str, torch.Tensor]) -> None:
        """Do nothing: a toy's weights take no room."""

    def row_vectors(self, context: ToyContext, x: pd.DataFrame) -> np.ndarray:
        """Return what the layers make of rows, shape (rows, WIDTH)."""
        with torch.no_grad():
            return self._embed(context.inputs(x)).numpy()

    def tuned(self, what: Tuning, context: ToyContext, rows: int = 0) -> None:
        """Return nothing: a toy has weights alone."""

    def finetuned(
        self,
        x: pd.DataFrame,
        y: np.ndarray,
        classes: int,
        seed: int,
        seconds: float | None = None,
        rows: int | None = None,
    ) -> None:
        """Return nothing: there is no other way to train a toy."""

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Return the parameters that are set to train, by name."""
        return {name: parameter for name, parameter in self._named() if parameter.requires_grad}

    def load_trainable(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put the values of `state` into the parameters."""
        own = dict(self._named())
        with torch.no_grad():
            for name, tensor in state.items():
                own[name].copy_(tensor)

    def reinitialise(self, seed: int) -> None:
        """Draw all weights anew."""
        rng = torch.Generator().manual_seed(stream_seed(seed, "toy") % 2**63)
        for parameter in self.module.requires_grad_(False).parameters():
            parameter.normal_(0.0, WIDTH**-0.5, generator=rng)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write the weights as a file that `ToyFamily` opens."""
        from safetensors.torch import save_file

        header = {"config": {}, "toy": True, "classes": self.limits.classes, **(metadata or {})}
        state = {**self.module.state_dict(), "log_temperature": self.log_temperature.detach()}
        save_file(state, str(path), metadata={name: json.dumps(value) for name, value in header.items()})

    def _embed(self, inputs: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            inputs = inputs + torch.tanh(layer(inputs))
        return self.module["head"](inputs)

    def _named(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [*self.module.named_parameters(), ("log_temperature", self.log_temperature)]


@dataclass(frozen=True)
class ToyPredictor:
    """Answers from one context; nothing of it is cached."""

    session: ToySession
    context: ToyContext
    cache_bytes: int | None = None

    def predict(self, x: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, shape (rows, classes)."""
        with torch.no_grad():
            p = self.session.log_probabilities(self.context, self.context.inputs(x)).exp().numpy()
        return p / p.sum(axis=1, keepdims=True)

    def predict_quantiles(self, x: pd.DataFrame, quantiles: Sequence[float]) -> np.ndarray:
        """Raise ModelError: a class has no quantiles."""
        raise ModelError("a toy model classifies", "--model auto")

    def metrics(
        self, x: pd.DataFrame, y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None
    ) -> dict[str, float]:
        """Return the figures of merit of `predicted` against the labels."""
        return classification_metrics(y, predicted, weights)


class ToyFamily:
    """A `ModelFamily` whose files are those that `ToySession.save` writes."""

    name = "toy"

    def known(self) -> tuple[KnownModel, ...]:
        """Return nothing: no toy has a name."""
        return ()

    def folder(self) -> Path:
        """Return the working directory: there are no official files."""
        return Path()

    def fetch(self, model: KnownModel, folder: Path, seconds: float | None = None) -> Path:
        """Raise ModelError: there are no official files."""
        raise ModelError(f"{model.name} cannot be fetched", "--model auto")

    def access(self, model: KnownModel) -> Access:
        """Return that no licence is asked for."""
        return Access("open")

    def login(self, model: KnownModel) -> None:
        """Raise ModelError: there is no licence to accept."""
        raise ModelError(f"{model.name} has no licence to accept", "--model auto")

    def recognises(self, checkpoint: Mapping[str, Any]) -> bool:
        """Tell whether a header says that it is a toy's."""
        return checkpoint.get("toy") is True

    def open(
        self, checkpoint: Mapping[str, Any], info: ModelInfo, device: torch.device, seed: int
    ) -> Session:
        """Return a `ToySession` with the weights of the file."""
        session = ToySession(info, seed, checkpoint["classes"])
        session.load_trainable(checkpoint["state_dict"])
        return session


def _numbers(x: pd.DataFrame) -> np.ndarray:
    """Return the cells as numbers, shape (rows, features): codes for categories, NaN for missing cells."""
    columns = []
    for name in x.columns:
        column = x[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            column = column.cat.codes.where(column.notna())
        columns.append(column.to_numpy(dtype=float))
    return np.stack(columns, axis=1)
