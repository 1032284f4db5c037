"""A bundle's manifest: what the folder holds, from what and how it was made, with the hash of each file.

A manifest is plain JSON. Every name in it must be the one its hash gives, so that no path can be told
through it. What does not belong here: writing files and opening models (`bundle`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tttab.core import Task
from tttab.errors import BundleError
from tttab.files import sha256_of

FORMAT = "tttab-bundle/1"
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 32 * 1024**2
"""Bytes; a schema with many texts is far below."""
HEX = 16
"""Digits of a file's SHA-256 that stand in its name."""
ATTACHMENT = re.compile(r"[a-z][a-z0-9_]{0,31}\.(csv|json|parquet)")
"""Names that further files of a bundle may have."""
AGAIN = "write the bundle again: tttab adapt TABLE --target Y --out "


def read_manifest(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a bundle's manifest, its form and own hash checked; the files it names are not read.

    Raises:
        BundleError: there is none, or it is damaged.
    """
    path = Path(directory) / MANIFEST
    if not path.is_file():
        raise BundleError(f"there is no bundle in {directory}: it has no {MANIFEST}", f"{AGAIN}{directory}")
    if path.stat().st_size > LARGEST_MANIFEST:
        raise BundleError(f"{path} is too large for a manifest", f"{AGAIN}{directory}")
    try:
        manifest = json.loads(path.read_bytes())
        _check_manifest(manifest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"{path} is damaged or was changed: {type(error).__name__} {str(error)[:120]}",
            f"{AGAIN}{directory}",
        ) from error
    return manifest


def check_files(directory: str | os.PathLike[str]) -> list[tuple[str, str, str]]:
    """Return (role, file name, verdict) per file of a bundle; the verdict of a whole file is `ok`.

    Raises:
        BundleError: there is no bundle, or its manifest is damaged.
    """
    files = read_manifest(directory)["files"]
    return [(role, about["file"], verdict_on(Path(directory), about)) for role, about in files.items()]


def verdict_on(directory: Path, about: Mapping[str, Any]) -> str:
    """Return `ok` if a file has the hash that its manifest entry `about` tells, else what is wrong."""
    path = directory / about["file"]
    if not path.is_file():
        return "is missing"
    return "ok" if sha256_of(path) == about["sha256"] else "was changed: its hash is not the manifest's"


def digest_of(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest's content in canonical JSON, its own `sha256` field left out."""
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that change numbers."""
    import platform
    from importlib.metadata import version

    packages = ("tabpfn", "torch", "numpy", "pandas", "scikit-learn")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _check_manifest(manifest: dict[str, Any]) -> None:
    """Raise ValueError, KeyError or TypeError where the manifest is not one that `save_bundle` wrote."""
    if manifest["format"] != FORMAT:
        raise ValueError(f"format {manifest['format']!r:.40}, this version reads {FORMAT}")
    if manifest["sha256"] != digest_of(manifest):
        raise ValueError("its content does not match its own SHA-256")
    if manifest["task"] not in Task.__args__ or manifest["schema"]["task"] != manifest["task"]:
        raise ValueError("task")
    base, model = manifest["base"], manifest["model"]
    texts = (base["name"], base["file"], base["sha256"], base["provenance"], model["device"], model["dtype"])
    numbers = (manifest["rows"], model["seed"])
    if not all(isinstance(value, str) for value in texts) or not all(type(value) is int for value in numbers):
        raise TypeError("a field of base, model or rows has another type")
    if not isinstance(manifest["record"], dict) or not isinstance(manifest["versions"], dict):
        raise TypeError("record or versions")
    if not {"weights", "context"} <= manifest["files"].keys():
        raise ValueError("it names no weights or no context")
    for role, about in manifest["files"].items():
        _check_file_entry(role, about)


def _check_file_entry(role: str, about: dict[str, Any]) -> None:
    """Refuse every name but the one `save_bundle` gives: no path can be told through it."""
    suffix = {"weights": "safetensors", "context": "parquet"}.get(role, about["file"].rpartition(".")[2])
    named = f"{role}-{about['sha256'][:HEX]}.{suffix}"
    plain = role in ("weights", "context") or ATTACHMENT.fullmatch(f"{role}.{suffix}")
    if about["file"] != named or not plain or not re.fullmatch("[0-9a-f]{64}", about["sha256"]):
        raise ValueError(f"file name {about['file']!r:.60} is not the one its hash gives")
