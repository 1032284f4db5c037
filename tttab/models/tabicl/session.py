"""An opened TabICL classifier behind `tttab.contracts.Session`: weights, contexts, queries, files.

`ensemble` and `passes` run the network.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from tabicl._model.tabicl import TabICL

from tttab.contracts import Group, Tuning
from tttab.core import Limits, ModelInfo, Task
from tttab.errors import ModelError
from tttab.models.opened import OpenedNetwork, check_classes, check_members, check_varies
from tttab.models.tabicl.building import Weights, write_checkpoint
from tttab.models.tabicl.costs import Costs
from tttab.models.tabicl.ensemble import Ensemble
from tttab.models.tabicl.inputs import (
    PreparedContext,
    PreparedQueries,
    context_tensors,
    fit_estimator,
    query_tensor,
)
from tttab.models.tabicl.passes import SharedContext
from tttab.models.tabicl.predictor import Server
from tttab.text import shown

if TYPE_CHECKING:
    import pandas as pd


class TabICLSession(Ensemble, OpenedNetwork):
    """An opened TabICL classifier. Pretrained weights are never changed: adapt a fork."""

    task: Task = "classification"
    package, suffix, random_embeddings = "tabicl", "ckpt", False
    limits = Limits(classes=1_000, features=10_000, rows=1_000_000)
    """tabicl states none; beyond these no step would end."""

    def __init__(self, info: ModelInfo, weights: Weights, device: torch.device, seed: int = 0) -> None:
        super().__init__(device)
        self.info, self.seed, self._weights = info, seed, weights
        weights.module.to(device).eval().requires_grad_(False)

    @property
    def module(self) -> TabICL:
        """The network whose parameters a rule selects."""
        return self._weights.module

    @property
    def layers(self) -> torch.nn.ModuleList:
        """The in-context layers, first to last: those before them make vectors of rows."""
        return self.module.icl_predictor.tf_icl.blocks

    @property
    def members(self) -> int:
        """The ensemble members that serve; of a table with few columns and classes tabicl makes fewer."""
        return self._weights.members

    def with_members(self, members: int) -> Self:
        """Return the same model, its weights shared, with another number of ensemble members.

        Raises:
            ModelError: fewer than one or more than `opened.MOST_MEMBERS`.
        """
        check_members(members)
        twin = copy.copy(self)
        twin._weights = replace(self._weights, members=members)
        return twin

    @property
    def cost_model(self) -> Costs:
        """What a training step costs."""
        return Costs(self)

    def fork(self) -> Self:
        """Return an independent copy, weights included, that may be trained."""
        weights = replace(self._weights, module=copy.deepcopy(self.module))
        twin = type(self)(self.info, weights, self.device, self.seed)
        twin.log_temperature.data.copy_(self.log_temperature.data)
        return twin

    def context(self, x: pd.DataFrame, y: np.ndarray, classes: int = 0) -> PreparedContext:
        """Fit tabicl's preprocessing on the context rows; y holds class codes.

        Raises:
            SplitError: a class has no row, or all features are constant.
            ModelError: the table is beyond the model's limits, or tabicl cannot take it.
        """
        self.check_fits(classes, x.shape[1], len(y))
        check_classes(y, classes)
        check_varies(x)
        try:
            estimator = fit_estimator(self.module, x, y, self.members, self.seed, cache=False)
        except ValueError as error:
            raise ModelError(
                f"{self.info.name} cannot take this context: {shown(error, 160)}",
                f"--n {2 * len(y)}, or --model auto",
            ) from error
        return PreparedContext(x, y, classes, estimator, *context_tensors(estimator))

    def queries(self, context: PreparedContext, x: pd.DataFrame, y: np.ndarray) -> PreparedQueries:
        """Transform labelled query rows under `context`, once; unseen categories count as missing."""
        labels = torch.as_tensor(y, dtype=torch.long, device=self.device)
        return PreparedQueries(query_tensor(context.estimator, x), labels)

    def parameters(self, group: Group) -> list[torch.nn.Parameter]:
        """Return the parameters of a group, in the network's order; attention is that of `layers`."""
        icl = self.module.icl_predictor
        if group == "temperature":
            return [self.log_temperature]
        if group == "head":
            return [*(icl.ln.parameters() if icl.norm_first else ()), *icl.decoder.parameters()]
        if group == "attention":
            return [p for name, p in self.layers.named_parameters() if ".attn." in name]
        # Rotary frequencies are parameters that tabicl itself never trains.
        return [p for name, p in self.module.named_parameters() if not name.endswith("rope.freqs")]

    def serve(self, context: PreparedContext) -> Server:
        """Return a predictor on a copy of the weights as they are now, with a cache where tabicl has one."""
        cache = context.classes <= self.module.max_classes
        served = fit_estimator(self._plain(), context.x, context.y, self.members, self.seed, cache=cache)
        return Server(served, self.members)

    def row_vectors(self, context: PreparedContext, x: pd.DataFrame) -> np.ndarray:
        """Return the members' vectors of rows, which the in-context layers would read, side by side."""
        queries, rows = query_tensor(context.estimator, x), []
        with torch.no_grad():
            for member, inputs in enumerate(queries):
                own = slice(member, member + 1)
                read = context.inputs[own], context.labels[own], context.classes
                rows.append(SharedContext(self.module, *read).rows(inputs[None])[0])
        return torch.cat(rows, dim=-1).cpu().numpy()

    def tuned(self, what: Tuning, context: PreparedContext, rows: int = 0) -> None:
        """Return nothing: there is no such thing for TabICL here."""

    def finetuned(
        self,
        x: pd.DataFrame,
        y: np.ndarray,
        classes: int,
        seed: int,
        seconds: float | None = None,
        rows: int | None = None,
    ) -> Server | None:
        """Return what tabicl's own fine-tuner makes of labelled rows, by its defaults.

        None where there are more classes than outputs: its loss is of those alone.

        Raises:
            MissingExtra: transformers, whose learning rates it takes, is not installed.
        """
        from tttab.models.tabicl.finetuning import finetune, serve_finetuned

        self.check_fits(classes, x.shape[1], len(y))
        if classes > self.module.max_classes:
            return None
        with tempfile.TemporaryDirectory() as folder:
            self.save(path := Path(folder) / f"model.{self.suffix}")
            model = finetune(path, self.device, x, y, seed, seconds, self.members)
        return serve_finetuned(model, x, y, rows, self.members)

    def fresh_network(self) -> TabICL:
        """Return a network of this architecture with weights drawn from torch's own stream."""
        return TabICL(**self._weights.config)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write the weights as a file that plain tabicl loads; a trained temperature is in the last layer."""
        terms = {"license": self.info.license} if self.info.license else {}
        extra = {"members": self.members} | terms | dict(metadata or {})
        write_checkpoint(path, self._plain(), self._weights.config, extra)

    def _plain(self) -> TabICL:
        """Return a copy of the network that answers under tabicl's own temperature as this one does here."""
        module = self._served_module()
        last = module.icl_predictor.decoder[-1]
        for parameter in last.parameters():
            parameter.data = parameter.data * self._scale().detach()
        return module
