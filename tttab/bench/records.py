"""What the store keeps: one finished cell with the labels a reader groups by, and the machine it ran on.

The types of `Cell` and `Machine` carry the ranges that `lines` checks.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from typing import Annotated, Any

from pydantic import ConfigDict, Field, with_config

from tttab.core import Row, Task, identity_hash
from tttab.text import decoded

PACKAGES = ("tttab", "torch", "tabpfn", "tabicl", "scikit-learn", "pandas", "numpy")
LONGEST_TEXT = 10_000
"""Characters; more than the longest path."""
LARGEST_WHOLE = 2**53 - 1
"""The whole numbers that every reader of JSON and Parquet holds."""

Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Count = Annotated[int, Field(ge=0, le=LARGEST_WHOLE)]
Positive = Annotated[int, Field(ge=1, le=LARGEST_WHOLE)]
Seed = Annotated[int, Field(ge=-LARGEST_WHOLE, le=LARGEST_WHOLE)]
Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
"""Seconds, milliseconds or GiB."""


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Cell:
    """One number to measure: an arm on one split of one table."""

    table: Text
    seed: Seed
    n: Positive
    """Context rows of the split."""
    k: Count
    """Query rows of the split, after shrinking."""
    arm: Text
    key: Text
    """Hash of everything that changes the number, see `tttab.core.Row`."""
    fingerprint: Text
    """The start of the table's fingerprint: one content may have several names, one name several contents."""
    model: Text = ""
    """The model file's name and the start of its SHA-256; empty where the arm opens none."""
    budget: Text = ""
    """`paper k=1000` or `equal`; empty where the arm reads no query rows and so belongs to every budget."""
    rule: Text = ""
    """The rule asked for; empty where the arm has one of its own or trains nothing."""
    recipe: Text = ""
    """The schedule in words; empty where nothing is trained."""
    test_asked: Count = 0
    """Test rows asked for; 0: the default share of the table."""
    classes: Count = 0
    """Number of classes; 0 for regression."""

    @property
    def place(self) -> tuple[str | int, ...]:
        """Its place in a store: the number and every label that a report groups by.

        Two requests may ask for one number under two labels, for instance where k shrinks to the same rows.
        Names of files count as a line of the store can hold them, so that a stored cell is found again.
        """
        names = decoded(self.table), self.fingerprint, decoded(self.model)
        return self.key, *names, self.budget, self.rule, self.recipe, self.test_asked

    @property
    def task(self) -> Task:
        """Classification or regression."""
        return "classification" if self.classes else "regression"


@dataclass(frozen=True)
class Record:
    """A finished (or failed) cell."""

    cell: Cell
    row: Row
    wall_seconds: float
    """All that the cell took, preparing and measuring latency included: what a time estimate needs."""
    finished: str
    """UTC time, ISO 8601."""
    machine: str
    """Id of the machine line in the same store."""

    @property
    def failed(self) -> bool:
        """Whether the cell ended in an error."""
        return bool(self.row.error)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for one line of the store; JSON knows finite numbers, other metrics are None."""
        data: dict[str, Any] = {"kind": "row", **asdict(self)}
        metrics = {name: x if math.isfinite(x) else None for name, x in self.row.metrics.items()}
        data["row"]["metrics"] = metrics
        return data


@dataclass(frozen=True)
class Machine:
    """Where rows were measured. Changes no number that is promised to be equal, so it is in no identity."""

    cpu: Text
    cores: Count
    memory_gib: Amount
    system: Text
    python: Text
    versions: Mapping[Text, Text] = field(default_factory=dict)
    accelerator: Text = ""

    @property
    def id(self) -> str:
        """A short name: the hash of the description."""
        return identity_hash(asdict(self))[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for one line of the store."""
        return {"kind": "machine", "id": self.id, **asdict(self)}


@cache
def this_machine(device: str = "cpu") -> Machine:
    """Describe the machine of this process; `device` is where the model runs."""
    import psutil

    return Machine(
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions={name: version for name in PACKAGES if (version := _version(name))},
        accelerator=_accelerator(device),
    )


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        if package == "tttab":
            import tttab

            return tttab.__version__
        return ""


def _accelerator(device: str) -> str:
    if not device.startswith("cuda"):
        return ""
    import torch

    return torch.cuda.get_device_name(device) if torch.cuda.is_available() else ""
