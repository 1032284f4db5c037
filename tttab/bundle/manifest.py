"""A bundle's manifest: what the folder holds, how it was made, and the hash of each file.

A manifest is plain JSON. Every file name in it must be the one its hash gives, so it cannot point elsewhere.
`manifest_form` checks the fields.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tttab.bundle.manifest_form import check_form
from tttab.errors import BundleError, RequestError
from tttab.system.files import sha256_of
from tttab.text import shell_word

FORMAT = "tttab-bundle/1"
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 32 * 1024**2
"""Bytes; a schema with many texts is far below."""
HEX = 16
"""Digits of a file's SHA-256 that stand in its name."""
OWN_FILES = {
    "weights": ("safetensors", "ckpt"),
    "moved": ("safetensors",),
    "context": ("parquet",),
    "cache": ("safetensors",),
    "held": ("parquet",),
    "trees": ("safetensors",),
}
"""How the names of tttab's own files may end; what moved stands for weights in packed bundles."""
ATTACHMENT = re.compile(r"[a-z][a-z0-9_]{0,31}\.(csv|json|parquet)")
"""Names that further files of a bundle may have."""
OTHER_FOLDER = "name another folder"


def rewrite_hint(directory: str | os.PathLike[str]) -> str:
    """Return the hint that says how to write a bundle again."""
    return f"write the bundle again: tttab adapt TABLE --target Y --out {shell_word(directory)}"


def read_manifest(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a bundle's manifest, its form and own hash checked; the files it names are not read.

    Raises:
        BundleError: there is none, or it is damaged.
    """
    path = Path(directory) / MANIFEST
    hint = rewrite_hint(directory)
    if not path.is_file():
        raise BundleError(f"there is no bundle in {directory}: it has no {MANIFEST}", hint)
    if path.stat().st_size > LARGEST_MANIFEST:
        raise BundleError(f"{path} is too large for a manifest", hint)
    try:
        manifest = json.loads(path.read_bytes(), parse_constant=_no_number)
        _check_manifest(manifest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__} {error}"
        raise BundleError(f"{path} is damaged or was changed: {reason:.160}", hint) from error
    return manifest


def check_replaceable(directory: str | os.PathLike[str]) -> None:
    """Raise RequestError where a bundle's manifest would replace a file that is none: other tools have one.

    A damaged manifest is one all the same: it names its format, or it was cut off before that.
    """
    path = Path(directory) / MANIFEST
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file():
        raise RequestError(
            f"{path} is a link or no regular file, so no bundle can be put there", OTHER_FOLDER
        )
    with open(path, "rb") as stream:
        head = stream.read(LARGEST_MANIFEST)
    if head.strip(b"\0 \t\r\n") and FORMAT.partition("/")[0].encode() not in head:
        raise RequestError(f"{path} is not the manifest of a bundle and would be replaced", OTHER_FOLDER)


def check_files(directory: str | os.PathLike[str]) -> list[tuple[str, str, str]]:
    """Return (role, file name, verdict) per file of a bundle; the verdict of a whole file is `ok`.

    Raises:
        BundleError: there is no bundle, or its manifest is damaged.
    """
    manifest = read_manifest(directory)
    files = {
        name: entry
        for name, entry in manifest["files"].items()
        if name != "weights" or "packed" not in manifest
    }
    return [(role, entry["file"], verdict_on(Path(directory), entry)) for role, entry in files.items()]


def verdict_on(directory: Path, entry: Mapping[str, Any]) -> str:
    """Return `ok` if a file has the hash that its manifest `entry` states, else what is wrong."""
    path = directory / entry["file"]
    if not path.is_file():
        return "is missing"
    return "ok" if sha256_of(path) == entry["sha256"] else "was changed: its hash is not the manifest's"


def check_file(directory: Path, entry: Mapping[str, Any]) -> None:
    """Raise BundleError where a file is missing or has another hash than its manifest entry."""
    if (verdict := verdict_on(directory, entry)) != "ok":
        raise BundleError(f"{directory / entry['file']} {verdict}", rewrite_hint(directory))


def checked_bytes(directory: Path, entry: Mapping[str, Any]) -> bytes:
    """Return a file's content, read once: what is hashed is what is used.

    Raises:
        BundleError: it is missing or has another hash.
    """
    path = directory / entry["file"]
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise BundleError(f"{path} is missing", rewrite_hint(directory)) from error
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise BundleError(f"{path} was changed: its hash is not the manifest's", rewrite_hint(directory))
    return content


def digest_of(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest's content in canonical JSON, its own `sha256` field left out."""
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def versions(package: str) -> dict[str, str]:
    """Return the versions of Python and of what changes numbers; `package`: the model family's."""
    import platform
    from importlib.metadata import version

    packages = (package, "torch", "numpy", "pandas", "scikit-learn")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def check_versions(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Raise BundleError where the packages are others than those whose fitted objects a cache holds."""
    names = ("tabpfn", "scikit-learn")
    wrote = {name: value for name, value in manifest["versions"].items() if name in names}
    here = {name: versions("tabpfn")[name] for name in wrote}
    if wrote != here:
        words = " ".join(f"{name}=={value}" for name, value in wrote.items())
        have = " ".join(f"{name} {value}" for name, value in here.items())
        raise BundleError(
            f"the bundle in {directory} keeps no rows to prepare anew, and was written with other packages "
            f"than these: {have}",
            f"pip install {shell_word(words)}",
        )


def _check_manifest(manifest: dict[str, Any]) -> None:
    """Raise ValueError, KeyError or TypeError where the manifest is not one that `save_bundle` wrote."""
    if manifest["format"] != FORMAT:
        raise ValueError(f"format {manifest['format']!r:.40}, this version reads {FORMAT}")
    if manifest["sha256"] != digest_of(manifest):
        raise ValueError("its content does not match its own SHA-256")
    check_form(manifest)
    if ("blend" in manifest) != ("trees" in manifest["files"]):
        raise ValueError("trees and their weight belong together")
    if ("packed" in manifest) != ("moved" in manifest["files"]):
        raise ValueError("what moved and its base belong together")
    if ("context" in manifest["files"]) == ("cache" in manifest["files"]):
        raise ValueError("files.context must be there, or files.cache in its place")
    if ("held" in manifest) != ("held" in manifest["files"]):
        raise ValueError("held-out rows and their number belong together")
    for role, entry in manifest["files"].items():
        _check_file_entry(role, entry)


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON's")


def _check_file_entry(role: str, entry: dict[str, Any]) -> None:
    """Refuse every file name but the one `save_bundle` gives: it cannot point outside the folder."""
    suffix = entry["file"].rpartition(".")[2]
    named = f"{role}-{entry['sha256'][:HEX]}.{suffix}"
    plain = suffix in OWN_FILES[role] if role in OWN_FILES else ATTACHMENT.fullmatch(f"{role}.{suffix}")
    if entry["file"] != named or not plain or not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
        raise ValueError(f"files.{role:.40}.file {entry['file']!r:.60} is not the one its hash gives")
