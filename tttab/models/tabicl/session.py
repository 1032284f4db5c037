"""An opened TabICL classifier behind `tttab.contracts.Session`, with the loss it is served with.

tabicl averages its members' logits, divides by its temperature and takes the softmax; so do training and
scores. What does not belong here: running the network (`passes`), which weights move (rules) and how
(training).
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from tabicl._model.tabicl import TabICL

from tttab.contracts import Execution, Group, Limits, RowScores
from tttab.core import ModelInfo, Task
from tttab.errors import ModelError, SplitError
from tttab.models.tabicl.building import MOST_MEMBERS, Weights, write_checkpoint
from tttab.models.tabicl.costs import Costs
from tttab.models.tabicl.inputs import (
    PreparedContext,
    PreparedQueries,
    context_tensors,
    fit_estimator,
    query_tensor,
)
from tttab.models.tabicl.passes import TEMPERATURE, SharedContext, decoded
from tttab.models.tabicl.predictor import Server
from tttab.seeding import stream_seed
from tttab.text import shown

if TYPE_CHECKING:
    import pandas as pd

Opened = tuple[slice, SharedContext | None]
"""Some members and what their queries read of the context; None where all that reads it is frozen."""
AS_SERVED = Execution()
"""All rows and members at once, in float32."""


class TabICLSession:
    """An opened TabICL classifier. Pretrained weights are never changed: adapt a fork."""

    task: Task = "classification"
    package, suffix, random_embeddings = "tabicl", "ckpt", False
    limits = Limits(classes=1_000, features=10_000, rows=1_000_000)
    """tabicl states none; beyond these no step would end."""

    def __init__(self, info: ModelInfo, weights: Weights, device: torch.device, seed: int = 0) -> None:
        self.info, self.device, self.seed = info, device, seed
        self._weights = weights
        weights.module.to(device).eval().requires_grad_(False)
        self._start = torch.tensor(math.log(TEMPERATURE), device=device)
        self.log_temperature = torch.nn.Parameter(self._start.clone(), False)

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
            ModelError: fewer than one or more than `MOST_MEMBERS`.
        """
        if not 1 <= members <= MOST_MEMBERS:
            raise ModelError(f"an ensemble has 1 to {MOST_MEMBERS} members, not {members}", "--members 4")
        twin = copy.copy(self)
        twin._weights = replace(self._weights, members=members)
        return twin

    @property
    def cost_model(self) -> Costs:
        """What a training step costs."""
        return Costs(self)

    def check_fits(self, classes: int, features: int, rows: int = 0) -> None:
        """Raise ModelError where a table is beyond the model's limits."""
        self.limits.check(classes, features, rows)

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
        missing = sorted(set(range(classes)) - set(np.unique(y).tolist()))
        if missing:
            raise SplitError(f"class number {missing[0]} has no row in the context", f"--n {2 * len(y)}")
        if all(x[name].nunique() < 2 for name in x.columns):
            raise SplitError("all features of the context are constant", f"--n {2 * len(y)}")
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

    def logits(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        how: Execution = AS_SERVED,
    ) -> torch.Tensor:
        """Return logits by class of query rows, shape (members, rows, classes), to divide by tabicl's 0.9."""
        opened = [self.open(context, queries, part, how) for part in self.parts(context, how)]
        return self._logits(context, queries, rows, opened)

    def accumulate_gradients(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        scale: float,
        how: Execution = AS_SERVED,
    ) -> float:
        """Add the gradient of `scale` times the summed loss to the parameters; return that product.

        The gradients of chunks add up exactly. With `how.by_member` one member's activations are held at a
        time: a first pass without gradients gives the mean logits, and the loss's gradient in them is every
        member's share.
        """
        chunks, parts = chunks_of(rows, how.chunk), self.parts(context, how)
        if how.by_member and len(context.inputs) > 1:
            return self._by_member(context, queries, chunks, scale, how)
        total = 0.0
        with self._precision(how):
            opened = [self.open(context, queries, part, how) for part in parts]
            for chunk in chunks:
                mean = self._logits(context, queries, chunk, opened).mean(dim=0)
                loss = self._losses(mean, queries, chunk).sum() * scale
                if torch.isfinite(loss):
                    loss.backward()
                total += loss.item()
        _push(opened)
        return total

    def row_scores(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        how: Execution = AS_SERVED,
    ) -> RowScores:
        """Return how well the query rows numbered `rows` are predicted, in float32."""
        found = []
        with torch.no_grad():
            opened = [self.open(context, queries, part, how) for part in self.parts(context, how)]
            for chunk in chunks_of(rows, how.chunk):
                mean = self._logits(context, queries, chunk, opened).mean(dim=0)
                top, guess = torch.softmax(mean / TEMPERATURE, dim=-1).max(dim=-1)
                loss = self._losses(mean, queries, chunk)
                correct = guess == queries.y[self._places(chunk)]
                found.append(RowScores(loss.cpu().numpy(), top.cpu().numpy(), correct.cpu().numpy()))
        return RowScores.joined(found)

    def serve(self, context: PreparedContext) -> Server:
        """Return a predictor on a copy of the weights as they are now, with a cache where tabicl has one."""
        cache = context.classes <= self.module.max_classes
        served = fit_estimator(self._plain(), context.x, context.y, self.members, self.seed, cache=cache)
        return Server(served)

    def predict(self, context: PreparedContext, x: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, shape (rows, classes)."""
        return self.serve(context).predict(x)

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Return the parameters that are set to train, by name."""
        return {name: parameter for name, parameter in self._named() if parameter.requires_grad}

    def load_trainable(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put the values of `state`, by the names of `trainable`, into the parameters."""
        own = dict(self._named())
        with torch.no_grad():
            for name, tensor in state.items():
                own[name].copy_(tensor)

    def reinitialise(self, seed: int) -> None:
        """Replace all weights by the architecture's own random ones: the papers' cold start."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(seed, "cold start"))
            fresh = TabICL(**self._weights.config)
        self.module.load_state_dict(fresh.state_dict())

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write the weights as a file that plain tabicl loads; a trained temperature is in the last layer."""
        terms = {"license": self.info.license} if self.info.license else {}
        extra = {"members": self.members} | terms | dict(metadata or {})
        write_checkpoint(path, self._plain(), self._weights.config, extra)

    def parts(self, context: PreparedContext, how: Execution) -> list[slice]:
        """Return the members that run together: each alone where every one has a tree of its own."""
        members = len(context.inputs)
        if how.by_member or context.classes > self.module.max_classes:
            return [slice(member, member + 1) for member in range(members)]
        return [slice(0, members)]

    def open(self, context: PreparedContext, queries: PreparedQueries, part: slice, how: Execution) -> Opened:
        """Return some members with what their queries read."""
        if queries.last is not None:
            return part, None
        rows = None if queries.context_rows is None else queries.context_rows[part]
        return part, SharedContext(
            self.module,
            context.inputs[part],
            context.labels[part],
            context.classes,
            rows=rows,
            recompute=how.recompute_activations and torch.is_grad_enabled(),
        )

    def _logits(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        opened: list[Opened],
    ) -> torch.Tensor:
        icl, places, found, scale = self.module.icl_predictor, self._places(rows), [], self._scale()
        for part, shared in opened:
            if shared is None:
                assert queries.last is not None, "`open` gives no context where there is a last layer"
                logits = decoded(icl, queries.last[part][:, places], scale)
            elif queries.rows is not None:
                logits = shared.outputs(queries.rows[part][:, places], scale)
            else:
                logits = shared.outputs(shared.rows(queries.inputs[part][:, places]), scale)
            order = context.columns[part][:, None].expand(-1, len(places), -1)
            found.append(logits.gather(-1, order))
        return torch.cat(found)

    def _by_member(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        chunks: list[np.ndarray],
        scale: float,
        how: Execution,
    ) -> float:
        parts, members = self.parts(context, how), len(context.inputs)
        means = [torch.zeros((), device=self.device) for _ in chunks]
        with torch.no_grad():
            for part in parts:
                opened = [self.open(context, queries, part, how)]
                logits = (self._logits(context, queries, chunk, opened)[0] for chunk in chunks)
                means = [mean + part / members for mean, part in zip(means, logits, strict=True)]
        leaves = [mean.requires_grad_() for mean in means]
        pairs = zip(leaves, chunks, strict=True)
        loss = torch.stack([self._losses(leaf, queries, chunk).sum() for leaf, chunk in pairs]).sum() * scale
        if not torch.isfinite(loss):
            return loss.item()
        shares = torch.autograd.grad(loss, leaves)
        for part in parts:
            with self._precision(how):
                opened = [self.open(context, queries, part, how)]
                for chunk, share in zip(chunks, shares, strict=True):
                    self._logits(context, queries, chunk, opened)[0].backward(share / members)
            _push(opened)
        return loss.item()

    def _losses(self, mean: torch.Tensor, queries: PreparedQueries, rows: np.ndarray) -> torch.Tensor:
        """Return the losses of rows, nats, from the members' mean logits."""
        return torch.nn.functional.cross_entropy(
            mean / TEMPERATURE, queries.y[self._places(rows)], reduction="none"
        )

    def _precision(self, how: Execution) -> Any:
        if how.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _places(self, rows: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(rows, dtype=torch.long, device=self.device)

    def _named(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        yield from self.module.named_parameters()
        yield "log_temperature", self.log_temperature

    def _scale(self) -> torch.Tensor:
        """Return what the network's logits are multiplied with: exactly 1 at tabicl's own temperature."""
        return (self._start - self.log_temperature).exp()

    def _plain(self) -> TabICL:
        """Return a copy of the network that answers under tabicl's own temperature as this one does here."""
        module = copy.deepcopy(self.module).requires_grad_(False)
        last = module.icl_predictor.decoder[-1]
        for parameter in last.parameters():
            parameter.data.mul_(self._scale().detach())
        return module


def _push(opened: list[Opened]) -> None:
    """Push what the chunks have left through the contexts."""
    for _, shared in opened:
        if shared is not None:
            shared.backward()


def chunks_of(rows: np.ndarray, chunk: int | None) -> list[np.ndarray]:
    """Return the rows, `chunk` at a time."""
    step = chunk or len(rows)
    return [rows[start : start + step] for start in range(0, len(rows), step)]
