"""What the store keeps: one finished cell with the labels a reader groups by, and the machine it ran on.

What does not belong here: files (see `store`) and any computing.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from typing import Any

from tttab.core import Row, Task, identity_hash, row_from_dict

PACKAGES = ("tttab", "torch", "tabpfn", "scikit-learn", "pandas", "numpy")


@dataclass(frozen=True)
class Cell:
    """One number to measure: an arm on one split of one table."""

    table: str
    seed: int
    n: int
    """Context rows of the split."""
    k: int
    """Query rows of the split, after shrinking."""
    arm: str
    key: str
    """Hash of everything that changes the number, see `tttab.core.Row`."""
    fingerprint: str
    """The start of the table's fingerprint: one content may have several names, one name several contents."""
    model: str = ""
    """The model file's name and the start of its SHA-256; empty where the arm opens none."""
    budget: str = ""
    """`paper k=1000` or `equal`; empty where the arm reads no query rows and so belongs to every budget."""
    rule: str = ""
    """The rule asked for; empty where the arm has one of its own or trains nothing."""
    recipe: str = ""
    """The schedule in words; empty where nothing is trained."""
    test_asked: int = 0
    """Test rows asked for; 0: the default share of the table."""
    classes: int = 0
    """Number of classes; 0 for regression."""

    @property
    def place(self) -> tuple[str | int, ...]:
        """Its place in a store: the number and every label that a report groups by.

        Two requests may ask for one number under two labels, for instance where k shrinks to the same rows.
        """
        labels = (self.table, self.fingerprint, self.model, self.budget, self.rule, self.recipe)
        return self.key, *labels, self.test_asked

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
        """Return plain data for one line of the store; JSON has no NaN, so an undefined metric is None."""
        data = {"kind": "row", **asdict(self)}
        metrics = {name: None if math.isnan(x) else x for name, x in self.row.metrics.items()}
        data["row"]["metrics"] = metrics
        return data


@dataclass(frozen=True)
class Machine:
    """Where rows were measured. Changes no number that is promised to be equal, so it is in no identity."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    versions: Mapping[str, str] = field(default_factory=dict)
    accelerator: str = ""

    @property
    def id(self) -> str:
        """A short name: the hash of the description."""
        return identity_hash(asdict(self))[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for one line of the store."""
        return {"kind": "machine", "id": self.id, **asdict(self)}


def record_from_dict(data: Mapping[str, Any]) -> Record:
    """Return the record `to_dict` wrote.

    Raises:
        KeyError, TypeError, AttributeError: the data is no record.
    """
    rest = {name: data[name] for name in ("wall_seconds", "finished", "machine")}
    metrics = {name: math.nan if x is None else x for name, x in data["row"]["metrics"].items()}
    return Record(Cell(**data["cell"]), row_from_dict({**data["row"], "metrics": metrics}), **rest)


def machine_from_dict(data: Mapping[str, Any]) -> Machine:
    """Return the machine `to_dict` wrote.

    Raises:
        KeyError: the data is no machine.
    """
    return Machine(**{name: data[name] for name in Machine.__dataclass_fields__})


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
