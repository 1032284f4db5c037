"""The four nouns: Table, Session, Rule, Row. Read this file first.

A `Table` is data, a `Session` is an opened foundation model, a `Rule` says which weights may move,
a `Row` is one result. Plain in-context learning is the rule `none`, so untouched and adapted
results have one form. What does not belong here: anything that computes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

Task = Literal["classification", "regression"]
Kind = Literal["number", "level", "date", "duration", "boolean", "empty"]


@dataclass(frozen=True)
class Column:
    """What a column of a table is: how its cells become values, in this table and in later rows."""

    name: str
    kind: Kind
    """`level`: one of several texts. `empty`: all cells are missing, so nothing can be known of it."""
    levels: tuple[str, ...] = ()
    """The texts that a level or boolean column held, sorted; empty for the others."""
    format: str = ""
    """How texts are written: numbers by an example (`1.234,5%`), dates as in `strftime`; plain if empty."""
    missing: tuple[str, ...] = ()
    """Texts that stand for a missing cell in this column, besides those that do everywhere."""


@dataclass(frozen=True)
class Table:
    """A data set in memory."""

    name: str
    task: Task
    x: pd.DataFrame
    """The features. float64 columns are numeric (NaN: missing; dates are days since 1970-01-01, durations
    days), `category` columns hold strings."""
    y: np.ndarray
    """Classification: int64 codes into `classes`, shape (rows,). Regression: float64 values."""
    classes: tuple[str, ...]
    """The class names in sorted order; empty for regression."""
    target: str
    """The name of the target column."""
    fingerprint: str
    """SHA-256 of the content: names, dtypes, values and target."""
    source: str
    """Where it came from, in words: `bundled`, `OpenML`, `OpenML cache`, `file`."""
    openml_id: int | None = None
    notes: tuple[str, ...] = ()
    """What the loader decided on its own (target guessed, columns dropped), a sentence each."""
    official_split: tuple[np.ndarray, np.ndarray] | None = None
    """(train rows, test rows) where an OpenML task prescribes them."""
    columns: tuple[Column, ...] = ()
    """What each column of x was, in its order; empty for a table that was made from values."""
    label: Column | None = None
    """What the target column was; None as above."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.y)

    @property
    def dates(self) -> tuple[str, ...]:
        """The columns of x that were dates."""
        return tuple(column.name for column in self.columns if column.kind == "date")


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model file."""

    name: str
    file: str
    """The file's name without its folder."""
    sha256: str
    provenance: str
    """What the weights have seen: `synthetic tables only`, `further trained on real tables`, …"""
    task: Task
    parameters: int = 0
    notes: tuple[str, ...] = ()


class Context(Protocol):
    """The n labelled rows a model reads, with the preprocessing fitted on them, once."""

    n: int
    x: pd.DataFrame
    y: np.ndarray
    constant: float | None
    """Regression: the one target of all rows; None where they differ."""


class Queries(Protocol):
    """Labelled rows prepared for one context: transformed once, kept for all steps."""

    def __len__(self) -> int:
        """Return the number of query rows."""
        ...


class Session(Protocol):
    """An opened foundation model. Pretrained weights are never changed: adapt a fork."""

    info: ModelInfo
    task: Task

    @property
    def module(self) -> torch.nn.Module:
        """The network whose parameters a rule selects."""
        ...

    def fork(self) -> Session:
        """Return an independent copy, weights included, that may be trained."""
        ...

    def context(self, x: pd.DataFrame, y: np.ndarray, classes: int = 0) -> Context:
        """Fit the preprocessing on the context rows. `classes`: number of classes, 0 for regression."""
        ...

    def queries(self, context: Context, x: pd.DataFrame, y: np.ndarray) -> Queries:
        """Transform labelled query rows under `context`."""
        ...

    def loss(self, context: Context, queries: Queries, rows: np.ndarray) -> torch.Tensor:
        """Return the differentiable summed loss, nats, of the query rows numbered `rows`, as it is served."""
        ...

    def predict(self, context: Context, x: pd.DataFrame) -> np.ndarray:
        """Return class probabilities, shape (rows, classes), or what `predict_regression` documents."""
        ...


class Rule(Protocol):
    """Which parameters may move."""

    name: str
    rate: float = 1.0
    """Learning rate of these parameters, as a multiple of the schedule's."""

    def parameters(self, session: Session) -> list[torch.nn.Parameter]:
        """Return the parameters to train; empty only for the rule `none`."""
        ...

    def finish(self, session: Session) -> None:
        """Turn what `parameters` put into the network back into plain weights."""


@dataclass(frozen=True)
class Row:
    """One result. `identity` holds exactly what changes the numbers; device and time are not in it."""

    identity: Mapping[str, Any]
    """Table fingerprint, split, model file's hash, arm, rule, schedule, seed."""
    arm: str
    """`icl@n`, `ttt@n+k`, `icl@n+k`, `gbt`, `logistic`, …"""
    n_context: int
    """Rows read at prediction time; 0 for models that read none."""
    k: int
    """Labelled rows used beside the context."""
    metrics: Mapping[str, float]
    """accuracy, roc_auc, log_loss, brier, ece; or rmse, mae, r2, crps, nll."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """open, adapt, predict."""
    ms_per_1000_rows: float | None = None
    cache_bytes: int | None = None
    """Size of the key-value cache of the context; None where there is none."""
    steps: int = 0
    accepted: bool | None = None
    """False where the guard kept the pretrained weights; None where nothing was trained."""
    error: str = ""
    """Why the cell failed; empty when it is done."""

    @property
    def key(self) -> str:
        """SHA-256 of the identity: equal keys mean equal numbers."""
        return identity_hash(self.identity)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain data, with its key."""
        return {"key": self.key, **asdict(self)}


def identity_hash(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 of `identity` in canonical JSON."""
    return hashlib.sha256(_CANONICAL.encode(identity).encode()).hexdigest()


def row_from_dict(data: Mapping[str, Any]) -> Row:
    """Return the row that `to_dict` wrote; unknown fields are left out."""
    return Row(**{name: data[name] for name in _ROW_FIELDS if name in data})


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"an identity holds plain data, not {type(value).__name__}")


_ROW_FIELDS = tuple(Row.__dataclass_fields__)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
