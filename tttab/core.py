"""Plain data that every package knows: Table, ModelInfo, Row. Read this file first, then `contracts`.

A `Table` is data, a `Row` is one result. Between them are a `Session`, an opened foundation model, and a
`Rule`, which says which weights may move. Plain in-context learning is the rule `none`, so pretrained and
adapted results have one form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tttab.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Task = Literal["classification", "regression"]
Kind = Literal["number", "level", "date", "duration", "boolean", "empty"]
Loss = Literal["ensemble", "members"]
Precision = Literal["fp32", "bf16"]


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
    weights: np.ndarray | None = None
    """How much each row counts, shape (rows,); None: all alike."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.y)

    @property
    def dates(self) -> tuple[str, ...]:
        """The columns of x that were dates."""
        return tuple(column.name for column in self.columns if column.kind == "date")


@dataclass(frozen=True)
class Limits:
    """The largest table a model reads."""

    classes: int
    """0 for a model that does not classify."""
    features: int
    rows: int
    """Of a context."""

    def check(self, classes: int, features: int, rows: int = 0) -> None:
        """Refuse tables beyond the limits.

        Raises:
            ModelError: too many classes, features or context rows; the hint names a way on.
        """
        if classes > self.classes:
            raise ModelError(
                f"the table has {classes} classes, the model can tell {self.classes} apart",
                f"--top-classes {self.classes}",
            )
        if features > self.features:
            raise ModelError(
                f"the table has {features} features, the model reads {self.features}",
                f"--top-features {self.features}",
            )
        if rows > self.rows:
            raise ModelError(
                f"a context of {rows:,} rows is more than the {self.rows:,} the model reads",
                f"--n {self.rows // 2} --k {self.rows // 2}",
            )


@dataclass(frozen=True, eq=False)
class Objective:
    """Which loss trains; rows are numbered as the queries are."""

    loss: Loss = "ensemble"
    """`ensemble`: the loss of the members' average, as it is served; `members`: the mean of their losses."""
    weights: np.ndarray | None = None
    """Shape (queries,): how much each row counts; None: 1."""
    targets: np.ndarray | None = None
    """Shape (queries, classes): probabilities that are to be met; None: the labels."""


AS_LABELLED = Objective()


@dataclass(frozen=True)
class Execution:
    """How passes over the network are run, never what they compute; passed with every call."""

    chunk: int | None = None
    """Query rows at a time; None: all."""
    by_member: bool = False
    """Hold one ensemble member's activations at a time: less memory, more time."""
    recompute_activations: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    precision: Precision = "fp32"
    """`bf16` runs the matrix products in bfloat16 where gradients are taken; scores are always in float32."""


@dataclass(frozen=True)
class RowScores:
    """How well single query rows are predicted, as served."""

    loss: np.ndarray
    """Shape (rows,): log loss, nats; for regression the negative log density."""
    predicted: np.ndarray | None = None
    """Class probabilities, shape (rows, classes), or predictive means, shape (rows,); None: not computed."""


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
    chosen: str = ""
    """Where `auto` chose: what it took, and why not what comes before; empty where a model was named."""
    license: str = ""
    """The terms of the weights, in words; empty where they are not known."""


SYNTHETIC = "trained on synthetic tables only"
REAL = "trained on synthetic tables, then further on real tables"
"""Two values of `ModelInfo.provenance` that other modules compare with."""


@dataclass(frozen=True)
class Release:
    """Under which terms a version's files are published."""

    version: str
    """As the family counts."""
    license: str
    """In words."""
    license_url: str
    gated: bool
    """The licence must be accepted with an account before a file is downloaded."""

    @property
    def non_commercial(self) -> bool:
        """Whether the licence forbids production use."""
        return "non-commercial" in self.license


@dataclass(frozen=True)
class Access:
    """Whether an official file may be downloaded from here."""

    state: Literal["open", "accepted", "no token", "refused", "not accepted", "unknown"]
    """`open`: no licence is asked for; `accepted`: it was; `refused`: the token was; `unknown`: no server
    answers."""
    reason: str = ""
    """What stands in the way, in words."""
    advice: str = ""
    """What to type next; empty where nothing stands in the way."""


@dataclass(frozen=True)
class KnownModel:
    """A model that has a name."""

    name: str
    task: Task
    file: str
    provenance: str
    """What the weights have seen."""
    bundled: bool = False
    release: Release | None = None
    """Version and licence of an official file; None for one that ships with tttab."""
    megabytes: float | None = None
    """Size as its model page states it; None where none was found."""
    repository: str = ""
    """The hub's repository that an official file comes from; empty for one that ships with tttab."""
    by_default: bool = False
    """`auto` takes it where it is on disk; it downloads the first of a task."""

    @property
    def license(self) -> str:
        """The licence in words."""
        return self.release.license if self.release else "MIT"


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
    test_rows: int = 0
    """Rows that the metrics were measured on; 0: not recorded."""
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


def plain_value(value: Any) -> Any:
    """Return a NumPy scalar as a number and an iterable as a list, for JSON; TypeError for all else."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"JSON holds plain data, not {type(value).__name__}")


_ROW_FIELDS = tuple(Row.__dataclass_fields__)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, default=plain_value)
