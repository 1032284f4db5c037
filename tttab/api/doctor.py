"""What tttab needs of this machine, what it found, and what to do about it.

Each check is a function that returns one `Finding`; `examine` yields them one by one. Nothing is repaired.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from tttab.core import KnownModel, Release
from tttab.system.files import sha256_of

State = Literal["ok", "note", "bad"]
SUPPORTED_TABPFN = (9, 10)
"""tabpfn's major versions: from, below."""
LEAST_DISK = 1024**3


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    subject: str
    state: State
    """`ok`; `note`: works, but you may want to know; `bad`: a command will fail."""
    found: str
    advice: str = ""
    """What to do about it; empty where nothing is to be done."""


def examine() -> Iterator[Finding]:
    """Yield every finding, the quick ones first."""
    yield _python()
    yield _tabpfn()
    yield from _torch()
    yield from _weights()
    yield from _folders()
    yield _openml()
    yield from _extras()


def _python() -> Finding:
    version = platform.python_version()
    good = sys.version_info >= (3, 11)
    return Finding("Python", "ok" if good else "bad", version, "" if good else "install Python 3.11 or newer")


def _tabpfn() -> Finding:
    advice = "pip install 'tabpfn>=9.2,<10'"
    try:
        version = metadata.version("tabpfn")
    except metadata.PackageNotFoundError:
        return Finding("tabpfn", "bad", "not installed", advice)
    low, high = SUPPORTED_TABPFN
    good = low <= int(version.split(".")[0]) < high
    return Finding("tabpfn", "ok" if good else "bad", version, "" if good else advice)


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:
        yield Finding("torch", "bad", f"cannot be imported: {error}", "pip install -c constraints.txt torch")
        return
    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    from tttab.models import pick_device

    device_type = pick_device("auto").type
    if device_type != "cpu":
        yield Finding("device", "ok", torch.cuda.get_device_name() if device_type == "cuda" else device_type)
    else:
        yield Finding(
            "device",
            "note",
            "CPU only",
            "large models adapt faster on a GPU; tttab-tiny needs none",
        )


def _weights() -> Iterator[Finding]:
    from tttab.models.catalog import KNOWN, local_path

    for model in (known for known in KNOWN if known.bundled):
        subject, place = f"{model.name} ({model.task})", local_path(model)
        if place.is_file():
            yield Finding(subject, "ok", f"bundled, sha256 {sha256_of(place)[:12]}…")
        else:
            advice = "pip install --force-reinstall tttab"
            yield Finding(subject, "bad", "missing from the package", advice)
    versions: dict[Release, list[KnownModel]] = {}
    for model in KNOWN:
        if model.release is not None:
            versions.setdefault(model.release, []).append(model)
    with ThreadPoolExecutor() as pool:  # each may wait for a licence server
        yield from pool.map(_version, versions.values())


def _version(models: Sequence[KnownModel]) -> Finding:
    """Say of one version which files are here, and whether others may be downloaded."""
    from tttab.models.catalog import family_of, local_path

    first = models[0]
    assert first.release is not None
    family = family_of(first)
    here = [model for model in models if local_path(model).is_file()]
    access = family.access(first)
    found = [f"{len(here)} of {len(models)} files in {family.folder()}", first.release.license]
    if access.state == "accepted":
        found.append("accepted")
    found += [access.reason] if access.reason else []
    advice = access.advice if access.reason else f"tttab models get {first.name}"
    subject = f"{family.name} {first.release.version}"
    return Finding(subject, "ok" if here else "note", "; ".join(found), "" if here else advice)


def _folders() -> Iterator[Finding]:
    from tttab.data.remote import cache_folder
    from tttab.errors import DataError
    from tttab.models.catalog import KNOWN, local_path

    official = next(model for model in KNOWN if not model.bundled)
    yield _folder("model cache", local_path(official).parent)
    try:
        yield _folder("OpenML cache", cache_folder())
    except DataError as error:
        yield Finding("OpenML cache", "note", error.message, error.hint)


def _folder(subject: str, folder: Path) -> Finding:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if not os.access(existing, os.W_OK):
        return Finding(
            subject, "note", f"{folder} cannot be written", "set XDG_CACHE_HOME to a folder you may write"
        )
    if free < LEAST_DISK:
        return Finding(
            subject, "note", f"{folder}: {free / 1024**2:.0f} MiB free", "make room: weights need up to 1 GiB"
        )
    return Finding(subject, "ok", f"{folder}, {free / 1024**3:.0f} GiB free")


def _openml() -> Finding:
    from tttab.data.remote import server_error

    if reason := server_error():
        filled = "`tttab data get` on a machine with a network fills the cache"
        return Finding("OpenML", "note", reason, f"tables in the package and in the cache work; {filled}")
    return Finding("OpenML", "ok", "the server answers")


def _extras() -> Iterator[Finding]:
    for extra, package, purpose in (
        ("lora", "peft", "the rule lora"),
        ("trees", "lightgbm", "--blend trees"),
        ("explain", "shap", "tttab explain"),
        ("intervals", "mapie", "docs/howto/intervals.md"),
        ("mlflow", "mlflow", "--log mlflow"),
        ("wandb", "wandb", "--log wandb"),
        ("serve", "fastapi", "tttab serve"),
        ("ray", "ray", "tttab bench --engine ray"),
        ("autogluon", "autogluon.core", "tttab.integrations.autogluon"),
        ("tabicl", "tabicl", "--model tabicl"),
        ("pretrain", "xgboost-cpu", "tttab pretrain"),
        ("transformer", "transformers", "tttab theory transformer"),
    ):
        try:
            yield Finding(f"extra {extra}", "ok", f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            advice = f"for {purpose}: pip install 'tttab[{extra}]'"
            yield Finding(f"extra {extra}", "note", f"{package} is not installed", advice)
