"""An opened TabPFN model behind `tttab.core.Session`: the only module that touches tabpfn's estimators.

The tensors that training sees are captured from tabpfn's own `predict`: for one call the network's
`forward` is replaced by a recorder, so preprocessing, ensembling and outlier clipping are exactly
those of inference, in every tabpfn version. What does not belong here: which weights move (rules)
and how (adapt).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tttab.core import ModelInfo, Task
from tttab.errors import ModelError, SplitError

if TYPE_CHECKING:
    import pandas as pd

PREDICT_CHUNK = 4096
"""Query rows per served forward pass, so that memory stays flat on large inputs."""


@dataclass(frozen=True)
class Member:
    """One ensemble member's place in the recorded calls, and its class order."""

    call: int
    batch: int
    columns: torch.Tensor
    """Shape (classes,): which of the network's outputs is class c."""


@dataclass
class Call:
    """One recorded call of the network: the context part of its input and its other arguments."""

    context: torch.Tensor
    """Shape (n, members, columns)."""
    y: torch.Tensor
    kwargs: dict[str, Any]


@dataclass
class PreparedContext:
    """n labelled rows with the preprocessing fitted on them, once; see `tttab.core.Context`."""

    x: pd.DataFrame
    y: np.ndarray
    classes: int
    estimator: Any
    """The fitted tabpfn estimator that holds the preprocessing."""
    module: torch.nn.Module
    """The network inside that estimator: its inputs are recorded, its weights are never read."""
    calls: list[Call] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Number of context rows."""
        return len(self.y)


@dataclass
class PreparedQueries:
    """Query rows transformed under one context; see `tttab.core.Queries`."""

    inputs: list[torch.Tensor]
    """One tensor of shape (rows, members, columns) per recorded call."""
    y: torch.Tensor
    """Shape (rows,): class codes."""

    def __len__(self) -> int:
        """Return the number of query rows."""
        return len(self.y)


@dataclass
class Weights:
    """What a checkpoint holds once it is built."""

    module: torch.nn.Module
    config: Any
    inference_config: Any
    criterion: Any = None


class TabPFNSession:
    """An opened TabPFN classifier. Pretrained weights are never changed: adapt a fork.

    `temperature` is the softmax temperature that is served; it is part of the session so that a
    rule may train it.
    """

    task: Task = "classification"

    def __init__(self, info: ModelInfo, weights: Weights, device: torch.device, seed: int = 0) -> None:
        self.info = info
        self.device = device
        self.seed = seed
        self.checkpointing = False
        """Recompute activations in the backward pass: less memory, more time."""
        self._weights = weights
        weights.module.to(device).eval().requires_grad_(False)
        start = float(weights.inference_config.SOFTMAX_TEMPERATURE)
        self.log_temperature = torch.nn.Parameter(torch.tensor(math.log(start), device=device), False)

    @property
    def module(self) -> torch.nn.Module:
        """The network whose parameters a rule selects."""
        return self._weights.module

    @property
    def temperature(self) -> float:
        """The softmax temperature that is served."""
        return float(self.log_temperature.detach().exp())

    def fork(self) -> TabPFNSession:
        """Return an independent copy, weights included, that may be trained."""
        twin = TabPFNSession(
            self.info, replace(self._weights, module=copy.deepcopy(self.module)), self.device, self.seed
        )
        twin.log_temperature.data.copy_(self.log_temperature.data)
        twin.checkpointing = self.checkpointing
        return twin

    def state(self) -> dict[str, torch.Tensor]:
        """Return a copy of everything a rule may change."""
        tensors = {**dict(self.module.named_parameters()), "log_temperature": self.log_temperature}
        return {name: tensor.detach().clone() for name, tensor in tensors.items() if tensor.requires_grad}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what `state` returned."""
        own = {**dict(self.module.named_parameters()), "log_temperature": self.log_temperature}
        with torch.no_grad():
            for name, tensor in state.items():
                own[name].copy_(tensor)

    def check_fits(self, classes: int, features: int, rows: int = 0) -> None:
        """Refuse tables beyond the model's limits.

        Raises:
            ModelError: too many classes, features or context rows; the hint names a way on.
        """
        limits = self._weights.inference_config
        most = int(limits.MAX_NUMBER_OF_CLASSES)
        if classes > most:
            raise ModelError(
                f"the table has {classes} classes, the model can tell {most} apart",
                f"--top-classes {most}, or in Python sklearn.multiclass.OneVsRestClassifier(TTTClassifier())",
            )
        if features > limits.MAX_NUMBER_OF_FEATURES:
            raise ModelError(
                f"the table has {features} features, the model reads {limits.MAX_NUMBER_OF_FEATURES}",
                f"--top-features {limits.MAX_NUMBER_OF_FEATURES}",
            )

        if rows > limits.MAX_NUMBER_OF_SAMPLES:
            raise ModelError(
                f"a context of {rows:,} rows is more than the {limits.MAX_NUMBER_OF_SAMPLES:,} the model reads",
                f"--n {limits.MAX_NUMBER_OF_SAMPLES // 2} --k {limits.MAX_NUMBER_OF_SAMPLES // 2}",
            )

    def context(self, x: pd.DataFrame, y: np.ndarray, classes: int = 0) -> PreparedContext:
        """Fit the preprocessing on the context rows; y holds the codes 0..classes-1.

        Raises:
            SplitError: a class has no row in the context. TabPFN would read its logits for another
                class without a word.
            ModelError: the table is beyond the model's limits.
        """
        self.check_fits(classes, x.shape[1], len(y))
        missing = sorted(set(range(classes)) - set(np.unique(y).tolist()))
        if missing:
            raise SplitError(f"class number {missing[0]} has no row in the context", f"--n {2 * len(y)}")
        x = _drop_unused_categories(x)
        estimator = self._estimator("fit_preprocessors", self.module).fit(x, y)
        prepared = PreparedContext(x, y, classes, estimator, self.module)
        # One row is enough to record how the context enters the network.
        calls, prepared.members = self._record(prepared, x.iloc[:1])
        prepared.calls = [Call(call.context[: len(y)], call.y, call.kwargs) for call in calls]
        return prepared

    def queries(self, context: PreparedContext, x: pd.DataFrame, y: np.ndarray) -> PreparedQueries:
        """Transform labelled query rows under `context`, once; unseen categories count as missing."""
        calls, _ = self._record(context, x)
        inputs = [
            _freeze_constant_columns(own.context, call.context[context.n :])
            for own, call in zip(context.calls, calls, strict=True)
        ]
        return PreparedQueries(inputs, torch.as_tensor(y, dtype=torch.long, device=self.device))

    def logits(self, context: PreparedContext, queries: PreparedQueries, rows: np.ndarray) -> torch.Tensor:
        """Return raw logits of query rows, shape (members, rows, classes), before the temperature."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.device)
        outputs = []
        for call, inputs in zip(context.calls, queries.inputs, strict=True):
            x = torch.cat([call.context, inputs[index]])
            outputs.append(self.module(x, call.y, **self._options(call.kwargs)))
        return torch.stack([outputs[m.call][:, m.batch].float()[:, m.columns] for m in context.members])

    def log_probabilities(
        self, context: PreparedContext, queries: PreparedQueries, rows: np.ndarray
    ) -> torch.Tensor:
        """Return log p(class), shape (rows, classes), as served: the mean over members after softmax."""
        scaled = self.logits(context, queries, rows) / self.log_temperature.exp()
        log_p = torch.log_softmax(scaled, dim=-1)
        return torch.logsumexp(log_p, dim=0) - math.log(len(log_p))

    def loss(self, context: PreparedContext, queries: PreparedQueries, rows: np.ndarray) -> torch.Tensor:
        """Return the summed log loss, nats, of the query rows numbered `rows`, as it is served."""
        log_p = self.log_probabilities(context, queries, rows)
        return torch.nn.functional.nll_loss(log_p, queries.y[torch.as_tensor(rows)], reduction="sum")

    def serve(self, context: PreparedContext) -> Server:
        """Return a predictor with the context's key-value cache, on a copy of the weights as they are now."""
        module = copy.deepcopy(self.module).requires_grad_(False)
        estimator = self._estimator("fit_with_cache", module).fit(context.x, context.y)
        return Server(estimator, context.x)

    def predict(self, context: PreparedContext, x: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, shape (rows, classes)."""
        return self.serve(context).predict(x)

    def bytes_per_row(self, context: PreparedContext) -> int:
        """Estimate the activation memory of one row in a training step, bytes, over all members.

        About 30 values of the embedding's width are kept per layer and cell: two attentions with
        their projections, an MLP of width four and the residual stream. With checkpointing one
        layer's worth and one value per layer remain.
        """
        width = getattr(self.module, "emsize", self.module.embedding_dim)
        layers = len(self.module.blocks)
        group = getattr(self.module, "features_per_group", 1)
        cells = sum(c.context.shape[1] * (-(-c.context.shape[2] // group) + 1) for c in context.calls)
        kept = 30 + layers if self.checkpointing else 30 * layers
        return 4 * cells * width * kept

    def save(self, path: str, extra: dict[str, Any] | None = None) -> None:
        """Write the weights as a file that plain `TabPFNClassifier(model_path=…)` loads."""
        import dataclasses

        from tttab.models.checkpoint import write_checkpoint

        config = {**dataclasses.asdict(self._weights.config), "architecture_name": self.architecture}
        inference = dataclasses.replace(self._weights.inference_config, SOFTMAX_TEMPERATURE=self.temperature)
        write_checkpoint(path, self.module.state_dict(), config, inference, extra)

    @property
    def architecture(self) -> str:
        """tabpfn's name of the network's architecture, `tabpfn_v2` for example."""
        return type(self.module).__module__.rsplit(".", 1)[-1]

    def _estimator(self, fit_mode: str, module: torch.nn.Module) -> Any:
        from tabpfn import ModelSpecs, TabPFNClassifier

        specs = ModelSpecs(
            module, self._weights.config, self._weights.inference_config, self._weights.criterion
        )
        return TabPFNClassifier(
            model_path=specs,
            device=str(self.device),
            fit_mode=fit_mode,
            softmax_temperature=self.temperature,
            inference_precision=torch.float32,
            ignore_pretraining_limits=True,
            random_state=self.seed,
        )

    def _options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        from dataclasses import replace as change

        options = kwargs.get("performance_options")
        if options is None or not torch.is_grad_enabled():
            return kwargs
        training = change(options, save_peak_memory_factor=None, force_recompute_layer=self.checkpointing)
        return {**kwargs, "performance_options": training}

    def _record(self, context: PreparedContext, x: pd.DataFrame) -> tuple[list[Call], list[Member]]:
        """Return the network's inputs for context and `x`, and where each member stands in them.

        The recorder answers logit c of batch entry b in call i with the number i·2^16 + b·2^8 + c;
        what comes out of `predict_raw_logits` then tells each member's place and class order.
        """
        with _recorder(context.module) as calls:
            answer = context.estimator.predict_raw_logits(match_categories(x, context.x))
        codes = torch.as_tensor(answer[:, 0, : context.classes]).long()
        members = [
            Member(int(row[0] >> 16), int(row[0] >> 8 & 255), (row & 255).to(self.device)) for row in codes
        ]
        return calls, members


class Server:
    """A fitted tabpfn estimator with its key-value cache and weights of its own."""

    def __init__(self, estimator: Any, reference: pd.DataFrame) -> None:
        self._estimator = estimator
        self._reference = reference

    def predict(self, x: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, shape (rows, classes), in chunks."""
        return np.concatenate(list(self.predict_chunks(x)))

    def predict_chunks(self, x: pd.DataFrame) -> Iterator[np.ndarray]:
        """Yield class probabilities chunk by chunk."""
        x = match_categories(x, self._reference)
        for start in range(0, len(x), PREDICT_CHUNK):
            yield self._estimator.predict_proba(x.iloc[start : start + PREDICT_CHUNK])

    @property
    def cache_bytes(self) -> int:
        """Size of the key-value cache, bytes."""
        return sum(_tensor_bytes(cache) for cache in self._estimator.executor_.kv_caches)


def match_categories(x: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Give `x` the categories of `reference`; values that it never saw become missing."""
    import pandas as pd

    columns = {name: _as_category(x[name], reference[name].dtype) for name in reference.columns}
    return pd.DataFrame(columns, index=x.index)


def _as_category(column: pd.Series, dtype: Any) -> Any:
    import pandas as pd

    if not isinstance(dtype, pd.CategoricalDtype):
        return column
    return pd.Categorical.from_codes(dtype.categories.get_indexer(column), dtype=dtype)


def _drop_unused_categories(x: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    columns = {
        name: x[name].cat.remove_unused_categories()
        if isinstance(x[name].dtype, pd.CategoricalDtype)
        else x[name]
        for name in x.columns
    }
    return pd.DataFrame(columns, index=x.index)


def _freeze_constant_columns(context: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Give the queries the context's value where a column is constant in the context.

    The key-value cache drops such columns; the plain forward would fit its mask on the queries too.
    """
    constant = (context == context[:1]).all(dim=0, keepdim=True)
    return torch.where(constant, context[:1], queries)


@contextmanager
def _recorder(module: torch.nn.Module) -> Iterator[list[Call]]:
    """Replace the network's forward by one that records its inputs and answers with place numbers."""
    calls: list[Call] = []

    def record(x: torch.Tensor, y: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        batch = x.shape[1]
        rows = x.shape[0] - y.shape[0]
        width = module.n_out
        place = len(calls) * 65536 + torch.arange(batch)[:, None] * 256 + torch.arange(width)
        calls.append(Call(x.detach().clone(), y.detach().clone(), kwargs))
        return place.float().to(x.device).expand(rows, batch, width)

    module.forward = record
    try:
        yield calls
    finally:
        del module.forward


def _tensor_bytes(thing: Any) -> int:
    """Return the bytes of all tensors inside a cache object."""
    if isinstance(thing, torch.Tensor):
        return thing.numel() * thing.element_size()
    if isinstance(thing, dict):
        return sum(map(_tensor_bytes, thing.values()))
    if isinstance(thing, list | tuple):
        return sum(map(_tensor_bytes, thing))
    return sum(map(_tensor_bytes, vars(thing).values())) if hasattr(thing, "__dict__") else 0
