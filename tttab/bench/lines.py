"""Checks a line of the store against what `Writer` writes: the type and range of every field, and the hashes.

Stores are copied, merged and edited, and their content becomes figures, pages and commands. So a line is used
whole or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from tttab.bench.records import Amount, Cell, Count, Machine, Record, Text
from tttab.core import row_from_dict

LARGEST = 1e150
"""Of a metric whose range has no end: its square is still a number."""
_SLACK = 1e-6
_RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("accuracy", "roc_auc", "ece"), (-_SLACK, 1.0 + _SLACK)),
    **dict.fromkeys(("log_loss", "rmse", "mae", "crps"), (-_SLACK, LARGEST)),
    "brier": (-_SLACK, 2.0 + _SLACK),
    "r2": (-LARGEST, 1.0 + _SLACK),
}
"""Of known metrics, with room for rounding."""
_ANY_FINITE = (-LARGEST, LARGEST)


@dataclass(frozen=True)
class Unavailable:
    """A table that could not be read."""

    table: Text
    reason: Text
    kind: Literal["unavailable"] = "unavailable"


class _RowForm(TypedDict):
    """The fields of `tttab.core.Row`; others are left out."""

    identity: dict[str, Any]
    arm: Text
    n_context: Count
    k: Count
    metrics: dict[Text, Annotated[float, Field(allow_inf_nan=False)] | None]
    seconds: NotRequired[dict[Text, Amount]]
    ms_per_1000_rows: NotRequired[Amount | None]
    cache_bytes: NotRequired[Count | None]
    steps: NotRequired[Count]
    accepted: NotRequired[bool | None]
    test_rows: NotRequired[Count]
    error: NotRequired[Text]


class _RecordForm(TypedDict):
    kind: Literal["row"]
    cell: Cell
    row: _RowForm
    wall_seconds: Amount
    finished: Text
    machine: Text


class _MachineForm(TypedDict):
    kind: Literal["machine"]
    id: Text


_LINE: TypeAdapter[_RecordForm | _MachineForm | Unavailable] = TypeAdapter(
    Annotated[_RecordForm | _MachineForm | Unavailable, Field(discriminator="kind")]
)
_MACHINE = TypeAdapter(Machine)


def read_line(line: bytes) -> Record | Machine | Unavailable:
    """Return what one line of a store says.

    Raises:
        ValueError: it is damaged, nested deeply, of an unknown kind, or one of its fields is not what it
            must be.
    """
    found = _LINE.validate_json(line, strict=True)
    if isinstance(found, Unavailable):
        return found
    if found["kind"] == "row":
        return _record(found)
    machine = _MACHINE.validate_json(line, strict=True)
    if machine.id != found["id"]:
        raise ValueError("id: not the hash of the machine")
    return machine


def _record(found: _RecordForm) -> Record:
    cell, row = found["cell"], row_from_dict(found["row"])
    datetime.fromisoformat(found["finished"])
    if (row.identity or not row.error) and row.key != cell.key:
        raise ValueError("key: not the hash of the identity")
    metrics = {name: _metric(name, value) for name, value in found["row"]["metrics"].items()}
    return Record(
        cell, replace(row, metrics=metrics), found["wall_seconds"], found["finished"], found["machine"]
    )


def _metric(name: str, value: float | None) -> float:
    low, high = _RANGES.get(name, _ANY_FINITE)
    if value is not None and not low <= value <= high:
        raise ValueError(f"{name}: out of its range")
    return math.nan if value is None else value
