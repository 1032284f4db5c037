"""How the files of a bundle come into its folder: whole or not at all, and only our files are ever removed.

They are written in a folder of their own inside the bundle's, moved to the names their content gives them,
and the manifest is replaced last. A list of the files written, and of those the old manifest named, lies
beside them. So the leftovers of a killed writer differ from foreign files. A file is removed if a list names
it, its content is still the one that was written, and no manifest needs it.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tttab.bundle.manifest import HEX, LARGEST_MANIFEST, MANIFEST, digest_of, read_manifest
from tttab.errors import BundleError
from tttab.system.files import PART, flush_folder, flush_to_disk, new_name, sha256_of

LIST, NEXT_LIST = "made.json", "new_made.json"
"""The list of files, name to SHA-256; and the next one, until it is whole."""
Writer = Callable[[Path], object]
_FOLDER = re.compile(re.escape(PART) + "([0-9a-f]{16}|[a-z0-9_]{8})")
_HARMLESS = {LIST, NEXT_LIST, "probe", "moved"}
"""What may lie in a writer's folder before its list does."""
_PART = re.compile(
    rf"({re.escape(PART)}[0-9a-f]{{16}}|[a-z][a-z0-9_]{{0,31}})\.(safetensors|ckpt|csv|json|parquet)"
)
_WHOLE = re.compile(r"[a-z][a-z0-9_]{0,31}-([0-9a-f]{16})\.(safetensors|ckpt|csv|json|parquet)")


class Staging:
    """A bundle on its way; see `staged`."""

    def __init__(self, folder: Path, part: Path) -> None:
        self._folder, self._part = folder, part
        self._listed = _manifest_files(folder) or {}
        self._written: dict[str, dict[str, Any]] = {}
        self._list()

    def write(self, writers: Mapping[str, Writer]) -> dict[str, dict[str, Any]]:
        """Write each file and return the manifest's entries by role: file name, hash and size."""
        files = {}
        for name, writer in writers.items():
            path = self._part / name
            writer(path)
            flush_to_disk(path)
            digest = sha256_of(path)
            role, suffix = name.split(".")
            files[role] = {
                "file": f"{role}-{digest[:HEX]}.{suffix}",
                "sha256": digest,
                "bytes": path.stat().st_size,
            }
        self._written |= files
        return files

    def publish(self, document: dict[str, Any]) -> None:
        """Move what was written to the names of the manifest `document`, then put that in place."""
        document = {**document, "sha256": digest_of(document)}
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        files = self._written
        self._listed |= {entry["file"]: entry["sha256"] for entry in files.values()}
        self._list()
        for role, entry in files.items():
            os.replace(
                self._part / f"{role}.{entry['file'].rpartition('.')[2]}", self._folder / entry["file"]
            )
        flush_folder(self._folder)
        _write(self._part / MANIFEST, text)
        os.replace(self._part / MANIFEST, self._folder / MANIFEST)
        flush_folder(self._folder)

    def _list(self) -> None:
        _write(self._part / NEXT_LIST, json.dumps(self._listed))
        os.replace(self._part / NEXT_LIST, self._part / LIST)


@contextmanager
def staged(folder: Path) -> Generator[Staging]:
    """Yield a bundle to write into `folder`, which the caller has claimed; at the end leftovers go.

    Raises:
        OSError: the folder cannot be written to; the old bundle in it is whole.
    """
    clear(folder)
    part = folder / new_name()
    try:
        part.mkdir(mode=0o700)
        yield Staging(folder, part)
    finally:
        with suppress(OSError):  # what is done is done: the next writer tries again
            clear(folder)


def clear(folder: Path) -> None:
    """Remove what writers that are gone have left in a claimed folder, and nothing that is not theirs."""
    needed = _manifest_files(folder)
    if needed is None:  # the manifest is damaged: no telling what it needs
        return
    for part in sorted(folder.iterdir()):
        if not (_FOLDER.fullmatch(part.name) and stat.S_ISDIR(part.lstat().st_mode)):
            continue
        with suppress(OSError):
            listed = _read_list(part / LIST)
            for name in listed.keys() - needed.keys():
                _remove(folder / name, listed[name])
            _remove_folder(part)  # not reached where a file could not be removed: its list stays


def _manifest_files(folder: Path) -> dict[str, str] | None:
    """Return the files that the folder's manifest names, with their hashes; None where it is damaged."""
    if not os.path.lexists(folder / MANIFEST):
        return {}
    try:
        return {entry["file"]: entry["sha256"] for entry in read_manifest(folder)["files"].values()}
    except BundleError:
        return None


def _read_list(path: Path) -> dict[str, str]:
    """Return what a list names; nothing where it was cut short or is none of ours."""
    if not path.is_file() or path.stat().st_size > LARGEST_MANIFEST:
        return {}
    try:
        listed = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    entries = listed.items() if isinstance(listed, dict) else ()
    return {name: digest for name, digest in entries if isinstance(digest, str) and _names(name, digest)}


def _names(name: str, digest: str) -> bool:
    """Tell whether a name is the one that this hash gives."""
    found = _WHOLE.fullmatch(name)
    return found is not None and digest[:HEX] == found[1]


def _remove(path: Path, digest: str) -> None:
    """Remove a file that still holds what was written."""
    with suppress(FileNotFoundError):
        if stat.S_ISREG(path.lstat().st_mode) and sha256_of(path) == digest:
            path.unlink()


def _remove_folder(part: Path) -> None:
    """Remove a writer's folder with what it wrote there; anything else in it stays, and so does it.

    The list goes last: without it nothing else is known to be ours.
    """
    has_list = (part / LIST).exists()
    for path in part.iterdir():
        ours = path.name in _HARMLESS or (has_list and _PART.fullmatch(path.name))
        if ours and path.name != LIST and stat.S_ISREG(path.lstat().st_mode):
            path.unlink()
    if {path.name for path in part.iterdir()} <= {LIST}:
        (part / LIST).unlink(missing_ok=True)
        part.rmdir()


def _write(path: Path, text: str) -> None:
    with open(path, "xb") as stream:
        stream.write(text.encode())
        stream.flush()
        os.fsync(stream.fileno())
