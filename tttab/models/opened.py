"""What the opened models of every family share: names of weights, limits, a fresh start, one prediction."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tttab.contracts import C, Limits, Predictor, Rowless
from tttab.errors import ModelError, SplitError
from tttab.metrics import classification_metrics
from tttab.seeding import stream_seed

if TYPE_CHECKING:
    import pandas as pd

MOST_MEMBERS = 64


class OpenedNetwork(ABC):
    """A network, the temperature of its softmax as a parameter beside it, and the limits of its tables."""

    log_temperature: torch.nn.Parameter
    _serves_only = False
    """Other sessions hold some of the weights too: they never change, so what serves needs no copy."""

    @property
    @abstractmethod
    def module(self) -> torch.nn.Module:
        """The network."""

    @property
    def rowless(self) -> Rowless | None:
        """What serves without a context's rows: nothing, unless a family has it."""
        return None

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """The largest table the model reads."""

    @abstractmethod
    def fresh_network(self) -> torch.nn.Module:
        """Return a network of this architecture with weights drawn from torch's own stream."""

    @abstractmethod
    def serve(self, context: C) -> Predictor:
        """Return a predictor from `context`, on a copy of the weights as they are now."""

    def named_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Return all parameters by name, the temperature last."""
        return {**dict(self.module.named_parameters()), "log_temperature": self.log_temperature}

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Return the parameters that are set to train, by name."""
        return {name: own for name, own in self.named_parameters().items() if own.requires_grad}

    def load_trainable(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put the values of `state`, by the names of `trainable`, into the parameters."""
        own = self.named_parameters()
        with torch.no_grad():
            for name, tensor in state.items():
                own[name].copy_(tensor)

    def share_weights(self, pool: dict[str, torch.Tensor]) -> None:
        """Hold each weight that equals one of `pool` as that one, and add the others to it.

        The session serves from then on and is never changed; a fork has weights of its own.
        """
        for weight in self.module.parameters():
            weight.data = pool.setdefault(_digest(weight.data), weight.data)
        self._serves_only = True

    def _served_module(self) -> Any:
        """Return a copy of the network as it is now; shared weights are the same memory."""
        own = self.module.parameters() if self._serves_only else ()
        same = {id(weight): torch.nn.Parameter(weight.data, False) for weight in own}
        return copy.deepcopy(self.module, same).requires_grad_(False)

    def reinitialise(self, seed: int) -> None:
        """Replace all weights by the architecture's own random ones: the papers' cold start."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(seed, "cold start"))
            fresh = self.fresh_network()
        self.module.load_state_dict(fresh.state_dict())

    def check_fits(self, classes: int, features: int, rows: int = 0) -> None:
        """Raise ModelError where a table is beyond the model's limits."""
        self.limits.check(classes, features, rows)

    def predict(self, context: C, x: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, shape (rows, classes), or the mean target, shape (rows,)."""
        return self.serve(context).predict(x)


class ClassPredictor:
    """What predictors of classes share: their figures of merit, and that they have no quantiles."""

    def predict_quantiles(self, x: pd.DataFrame, quantiles: Sequence[float]) -> np.ndarray:
        """Raise ModelError: a classifier has no quantiles."""
        raise ModelError("a classifier predicts no quantiles", "tttab adapt --regression")

    def metrics(
        self, x: pd.DataFrame, y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None
    ) -> dict[str, float]:
        """Return the figures of merit of `predicted`, the predictions for `x`, against the labels `y`."""
        return classification_metrics(y, predicted, weights)


def check_members(members: int) -> None:
    """Raise ModelError for fewer members than one or more than `MOST_MEMBERS`."""
    if not 1 <= members <= MOST_MEMBERS:
        raise ModelError(f"an ensemble has 1 to {MOST_MEMBERS} members, not {members}", "--members 4")


def check_classes(y: np.ndarray, classes: int) -> None:
    """Raise SplitError where one of so many classes has no row in a context of labels `y`."""
    missing = sorted(set(range(classes)) - set(np.unique(y).tolist()))
    if missing:
        lacking = f"class number {missing[0]} of {classes} has no row in the context"
        raise SplitError(lacking, f"--n {max(classes, 2 * len(y))}")


def check_varies(x: pd.DataFrame) -> None:
    """Raise SplitError where no feature of a context has two values."""
    if all(x[name].nunique() < 2 for name in x.columns):
        raise SplitError("all features of the context are constant", f"--n {2 * len(x)}")


def _digest(weight: torch.Tensor) -> str:
    """Return a hash of a weight's numbers, its form and its place."""
    content = weight.reshape(-1).view(torch.uint8).cpu().numpy()
    return f"{weight.dtype} {tuple(weight.shape)} {weight.device} {sha256(content).hexdigest()}"
