"""What a classifier and a regressor share: the weights, and contexts and queries prepared for them.

`forward` runs the network; `classifier` and `regressor` know what its outputs mean.
"""

from __future__ import annotations

import copy
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import numpy as np
import torch

from tttab.contracts import Group, Predictor, Tuning
from tttab.core import Limits, ModelInfo, Task
from tttab.data.levels import drop_unused_categories, match_categories
from tttab.errors import ModelError
from tttab.models.opened import OpenedNetwork, check_members, check_varies
from tttab.models.tabpfn import rowless
from tttab.models.tabpfn.costs import Costs
from tttab.models.tabpfn.forward import AS_SERVED, Passes
from tttab.models.tabpfn.inputs import (
    Call,
    Member,
    PreparedContext,
    PreparedQueries,
    group_calls,
    join_inputs,
    place_members,
    recorder,
)
from tttab.models.tabpfn.parts import head_of, layers_of, projections_of
from tttab.models.tabpfn.shared_context import ARCHITECTURE as SHARES_CONTEXT
from tttab.models.tabpfn.shared_context import face_of
from tttab.text import shown

if TYPE_CHECKING:
    import pandas as pd
    from tabpfn import ModelSpecs
    from tabpfn.architectures.interface import Architecture, ArchitectureConfig
    from tabpfn.architectures.shared.bar_distribution import FullSupportBarDistribution
    from tabpfn.architectures.tabpfn_v2 import TabPFNV2
    from tabpfn.inference_config import InferenceConfig


PIECE = 4096
"""Query rows prepared at a time: tabpfn's preprocessing makes several copies of what it is given."""
MOST_CLASSES = 256
"""The recorder tells the network's outputs apart by a byte."""


@dataclass
class Weights:
    """What a checkpoint holds once it is built."""

    module: Architecture
    config: ArchitectureConfig
    inference_config: InferenceConfig
    criterion: FullSupportBarDistribution | None = None
    """A regressor's distribution over standardised targets; None for a classifier."""


class OpenedModel(Passes, OpenedNetwork):
    """An opened TabPFN network. Pretrained weights are never changed: adapt a fork."""

    task: Task
    package, suffix, random_embeddings = "tabpfn", "safetensors", True

    def __init__(self, info: ModelInfo, weights: Weights, device: torch.device, seed: int = 0) -> None:
        super().__init__(device)
        self.info = info
        self.seed = seed
        self._weights = weights
        weights.module.to(device).eval().requires_grad_(False)
        start = float(weights.inference_config.SOFTMAX_TEMPERATURE)
        self.log_temperature = torch.nn.Parameter(torch.tensor(math.log(start), device=device), False)

    @property
    def module(self) -> Architecture:
        """The network whose parameters a rule selects."""
        return self._weights.module

    @module.setter
    def module(self, module: Architecture) -> None:
        self._weights = replace(self._weights, module=module)

    @property
    def temperature(self) -> float:
        """The softmax temperature that is served."""
        return float(self.log_temperature.detach().exp())

    @property
    def architecture(self) -> str:
        """tabpfn's name of the network's architecture, `tabpfn_v2` for example."""
        return type(self.module).__module__.rsplit(".", 1)[-1]

    @property
    def layers(self) -> torch.nn.ModuleList:
        """The transformer's layers, first to last; empty where no known name is found."""
        return layers_of(self.module)

    @property
    def members(self) -> int:
        """The ensemble members that serve."""
        return int(self._weights.inference_config.N_ESTIMATORS)

    def with_members(self, members: int) -> Self:
        """Return the same model, its weights shared, with another number of ensemble members.

        Raises:
            ModelError: fewer than one or more than `opened.MOST_MEMBERS`.
        """
        check_members(members)
        twin = copy.copy(self)
        twin._shared = {}
        config = replace(self._weights.inference_config, N_ESTIMATORS=members)
        twin._weights = replace(self._weights, inference_config=config)
        return twin

    @property
    def cost_model(self) -> Costs | None:
        """What a training step costs; None where other things than weights train."""
        return Costs(self) if self.tuning is None else None

    @property
    def rowless(self) -> WithoutRows | None:
        """What serves without a context's rows: of TabPFN v2, whose queries read keys and values alone."""
        return WithoutRows(self) if self.architecture == SHARES_CONTEXT and self.tuning is None else None

    @property
    def limits(self) -> Limits:
        """The largest table the model reads."""
        held = self._weights.inference_config
        classes = min(int(held.MAX_NUMBER_OF_CLASSES), self._weights.config.max_num_classes, MOST_CLASSES)
        return Limits(max(classes, 0), held.MAX_NUMBER_OF_FEATURES, held.MAX_NUMBER_OF_SAMPLES)

    def parameters(self, group: Group) -> list[torch.nn.Parameter]:
        """Return the parameters of a group, in the network's order; none where no known name is found."""
        if group == "temperature":
            return [self.log_temperature]
        if group == "all" and self.tuning is not None:
            return list(self.tuning.leaves.values())
        if group == "all":
            return list(self.module.parameters())
        return head_of(self.module) if group == "head" else projections_of(self.module)

    def fork(self) -> Self:
        """Return an independent copy, weights included, that may be trained."""
        twin = type(self)(
            self.info, replace(self._weights, module=copy.deepcopy(self.module)), self.device, self.seed
        )
        twin.log_temperature.data.copy_(self.log_temperature.data)
        twin.tuning = self.tuning and self.tuning.fork()
        return twin

    def tuned(self, what: Tuning, context: PreparedContext, rows: int = 0) -> Self | None:
        """Return a copy in which `what` trains instead of weights; for classifiers of TabPFN v2 alone."""
        from tttab.models.tabpfn.tuned import TunedCache, TunedInputs

        if self.task == "regression" or self.architecture != SHARES_CONTEXT:
            return None
        twin = self.fork()
        module = cast("TabPFNV2", twin.module)
        calls = [self._call(context, which, AS_SERVED) for which in self.whole_calls(context)]
        inputs = what == "inputs"
        twin.tuning = TunedInputs(module, calls) if inputs else TunedCache(module, calls, rows)
        return twin

    def row_vectors(self, context: PreparedContext, x: pd.DataFrame) -> np.ndarray:
        """Return the last layer's vectors of rows, the members' side by side."""
        x = match_categories(x, context.x)
        with context.lock:
            parts = [
                context.estimator.get_embeddings(x.iloc[at : at + PIECE]) for at in range(0, len(x), PIECE)
            ]
        return np.concatenate(list(np.concatenate(parts, axis=1)), axis=-1)

    def fresh_network(self) -> Architecture:
        """Return a network of this architecture with weights drawn from torch's own stream."""
        from tabpfn.architectures import ARCHITECTURES

        return ARCHITECTURES[self.architecture].get_architecture(self._weights.config)

    def context(self, x: pd.DataFrame, y: np.ndarray, classes: int = 0) -> PreparedContext:
        """Fit the preprocessing on the context rows; y holds class codes, or targets for regression.

        Raises:
            SplitError: the labels or the features cannot serve as a context.
            ModelError: the table is beyond the model's limits.
        """
        self.check_fits(classes, x.shape[1], len(y))
        self._check_labels(y, classes)
        check_varies(x)
        x = drop_unused_categories(x)
        module = face_of(self.module)
        estimator = self._fitted(module, x, y)
        prepared = PreparedContext(x, y, classes, estimator, module)
        # One row is enough to record how the context enters the network.
        calls, members = self._record(prepared, x.iloc[:1])
        if any(len(call.y) != len(y) for call in calls):
            raise ModelError(
                f"{self.info.name} shows each member a part of the context only (SUBSAMPLE_SAMPLES)",
                "--model auto",
            )
        calls = [Call(call.context[: len(y)], call.y, call.kwargs) for call in calls]
        prepared.calls, prepared.groups = group_calls(calls)
        prepared.members = place_members(members, prepared.groups, calls)
        return prepared

    def queries(self, context: PreparedContext, x: pd.DataFrame, y: np.ndarray) -> PreparedQueries:
        """Transform labelled query rows under `context`, once; unseen categories count as missing."""
        pieces = []
        for start in range(0, max(1, len(y)), PIECE):
            calls, _ = self._record(context, x.iloc[start : start + PIECE])
            pieces.append(join_inputs(context.calls, context.groups, calls, context.n))
        inputs = [torch.cat(parts) for parts in zip(*pieces, strict=True)]
        return PreparedQueries(inputs, self._labels(y))

    def serve(self, context: PreparedContext) -> Predictor:
        """Return a predictor with the context's key-value cache, on a copy of the weights as they are now."""
        raise NotImplementedError

    def answering(self, estimator: Any, reference: pd.DataFrame) -> Predictor:
        """Return the predictor around a fitted estimator; `reference`: its context, or its empty form."""
        raise NotImplementedError

    def finetuned(
        self,
        x: pd.DataFrame,
        y: np.ndarray,
        classes: int,
        seed: int,
        seconds: float | None = None,
        rows: int | None = None,
    ) -> Predictor | None:
        """Return what tabpfn's own fine-tuner makes of rows, by its defaults; None for regression."""
        from tttab.models.tabpfn.finetuning import finetune, serve_finetuned

        self.check_fits(classes, x.shape[1], len(y))
        if self.task == "regression":
            return None
        with tempfile.TemporaryDirectory() as folder:
            self.save(path := Path(folder) / f"model.{self.suffix}")
            first = self.architecture == "tabpfn_v2"
            model = finetune(path, self.device, x, y, seed, seconds, first)
        return serve_finetuned(model, x, y, rows, self.architecture)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write the weights as a file that plain tabpfn loads, with the device and dtype they belong to."""
        from tttab.models.tabpfn.checkpoint import write_checkpoint

        config = {**asdict(self._weights.config), "architecture_name": self.architecture}
        inference = replace(self._weights.inference_config, SOFTMAX_TEMPERATURE=self.temperature)
        state = self.module.state_dict()
        if self._weights.criterion is not None:
            state |= {f"criterion.{name}": t for name, t in self._weights.criterion.state_dict().items()}
        belongs = {"adapted_on": {"device": self.device.type, "dtype": "float32"}}
        terms = {"license": self.info.license} if self.info.license else {}
        write_checkpoint(path, state, config, inference, belongs | terms | dict(metadata or {}))

    def fitted_with_cache(self, x: pd.DataFrame, y: np.ndarray) -> Any:
        """Return tabpfn's estimator with a cache of a context, on a copy of the weights as they are now."""
        return self._estimator("fit_with_cache", self._served_module()).fit(x, y)

    def _fitted(self, module: Architecture, x: pd.DataFrame, y: np.ndarray) -> Any:
        try:
            return self._estimator("fit_preprocessors", module).fit(x, y)
        except ValueError as error:
            reason = shown(error, 160)
            raise ModelError(
                f"{self.info.name} cannot take this context: {reason}", f"--n {2 * len(y)}, or --model auto"
            ) from error

    def named_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Return all parameters by name: weights, the temperature, what trains in the weights' place."""
        return super().named_parameters() | (self.tuning.leaves if self.tuning is not None else {})

    def _record(self, context: PreparedContext, x: pd.DataFrame) -> tuple[list[Call], list[Member]]:
        """Return the network's inputs for context and `x`, and where each member stands in them."""
        config = self._weights.config
        width = config.max_num_classes if self.task == "classification" else config.num_buckets
        with recorder(context, width, self.task == "classification") as calls:
            members = self._read_places(context, match_categories(x, context.x))
        return calls, members

    def _read_places(self, context: PreparedContext, x: pd.DataFrame) -> list[Member]:
        raise NotImplementedError

    def _check_labels(self, y: np.ndarray, classes: int) -> None:
        raise NotImplementedError

    def _labels(self, y: np.ndarray) -> torch.Tensor:
        raise NotImplementedError

    def specs(self, module: Architecture | None = None) -> ModelSpecs:
        """Return what tabpfn's estimators take in the place of a file, around `module` if given."""
        from tabpfn import ModelSpecs

        held = self._weights
        return ModelSpecs(module or held.module, held.config, held.inference_config, held.criterion)

    def _estimator(
        self, fit_mode: Literal["fit_preprocessors", "fit_with_cache"], module: Architecture
    ) -> Any:
        """Return tabpfn's own estimator around `module`, settings as they are served."""
        import tabpfn

        kind = tabpfn.TabPFNClassifier if self.task == "classification" else tabpfn.TabPFNRegressor
        return kind(
            model_path=self.specs(module),
            device=str(self.device),
            fit_mode=fit_mode,
            softmax_temperature=self.temperature,
            inference_precision=torch.float32,
            ignore_pretraining_limits=True,
            random_state=self.seed,
        )


@dataclass(frozen=True)
class WithoutRows:
    """`tttab.contracts.Rowless` of a session of TabPFN v2."""

    session: OpenedModel

    def pack(self, context: PreparedContext) -> bytes:
        """Return fitted preprocessing, keys and values as a safetensors file's content."""
        if context.constant is not None:
            raise ModelError("a context of one target has no keys and values", "keep the rows")
        return rowless.write(self.session.fitted_with_cache(context.x, context.y), context.x)

    def serve(self, content: bytes) -> Predictor:
        """Return the predictor of what `pack` returned."""
        import pandas as pd

        own, rows = self.session, max(2, self.session.limits.classes)
        x = pd.DataFrame({"x": np.arange(rows, dtype=float)})  # any rows: what they teach is replaced
        y = np.arange(rows) if own.task == "classification" else x["x"].to_numpy()
        estimator = own.fitted_with_cache(x, y)
        server = own.answering(estimator, reference := rowless.read(content, estimator, own.device))
        try:
            server.predict(reference.reindex([0]))
        except Exception as error:  # of a content that lies, in any place of preprocessing or network
            raise ModelError(f"keys and values do not serve: {shown(error, 120)}", "--model auto") from error
        return server
