"""Which model files are known, where they are looked for, and how they are downloaded and verified.

Each family lists its own files and downloads them; `checkpoint` reads them.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from tttab.contracts import ModelFamily
from tttab.core import KnownModel, Task
from tttab.errors import ModelError
from tttab.models.families import FAMILIES
from tttab.models.hub import offline, stated_sha256
from tttab.system.files import cache_folder, flush_to_disk, sha256_of, write_text_atomically
from tttab.text import shown

__all__ = [
    "KNOWN",
    "UNKNOWN",
    "Found",
    "KnownModel",
    "download",
    "family_of",
    "local_path",
    "names",
    "resolve",
    "verify",
]

UNKNOWN = "a file of yours: what it was trained on is not known"
STATED = "stated by the hub"
"""Under this name the hub's hash of a file is kept; a hash that was only seen here stands alone."""
AUTO_SECONDS = 60.0
"""The most that a download nobody asked for by name may take from each server."""
FAILURE_SECONDS = 3600.0
"""How long a failed download is not tried again by `auto`."""
WEIGHTS = Path(__file__).parent / "weights"


KNOWN: tuple[KnownModel, ...] = tuple(model for family in FAMILIES for model in family.known())


def names(task: Task | None = None) -> list[str]:
    """Return the names `--model` takes, `auto` first."""
    return ["auto", *dict.fromkeys(model.name for model in KNOWN if task in (None, model.task))]


class Found(NamedTuple):
    """A model file, and how it was chosen."""

    path: Path
    known: KnownModel | None
    why: str = ""
    """Where `auto` chose: what it took, and why not what comes before."""
    failed: str = ""
    """Why a download failed, where that is why the model is another; the same command may give other
    numbers elsewhere."""


def resolve(spec: str, task: Task, *, strict: bool = False) -> Found:
    """Return the file that `spec` (a name, `auto` or a path) means, and what is known of it.

    `auto` is the first of: what TTTAB_MODEL names; an official TabPFN v2 file on disk; its download; the
    model that ships with tttab. A name never falls back to another model.

    Args:
        spec: a name of `names()`, or a path.
        task: what the model is for.
        strict: where the download fails, raise instead of taking the model that ships with tttab.

    Raises:
        ModelError: no such name, or the file is not there; the hint says where to put it.
    """
    named = os.environ.get("TTTAB_MODEL", "")
    if spec == "auto" and named not in ("", "auto"):
        try:
            return resolve(named, task)._replace(why=f"{shown(named)} is what TTTAB_MODEL names")
        except ModelError as error:
            raise ModelError(f"{error.message} (TTTAB_MODEL names it)", error.hint) from error
    if spec == "auto":
        return _resolve_auto(task, strict)
    for model in KNOWN:
        if model.name == spec and model.task == task:
            return Found(_require(model), model)
    if Path(spec).suffix in (".ckpt", ".safetensors") or os.sep in spec or os.path.exists(spec):
        path = Path(os.path.expanduser(spec))
        if not os.path.isfile(path):  # unlike Path's, it takes a name that is too long for a missing file
            raise ModelError(f"no model file at {path}", "--model auto, or a name of: tttab models list")
        return Found(path, next((model for model in KNOWN if model.file == path.name), None))
    close = get_close_matches(spec, names(task), n=1)
    raise ModelError(
        f"no model is called {spec!r} for {task}", f"--model {close[0] if close else 'auto'}, or a path"
    )


def local_path(model: KnownModel) -> Path:
    """Return where the file of a known model is looked for."""
    return (WEIGHTS if model.bundled else family_of(model).folder()) / model.file


def download(model: KnownModel, *, seconds: float | None = None) -> Path:
    """Fetch an official file through its family and return its place.

    The file appears whole and readable, or not at all; where the hub states a SHA-256, with that one, which
    is remembered.

    Args:
        model: the file.
        seconds: the most it may take from each server; None: as long as bytes keep coming.

    Raises:
        ModelError: it could not be downloaded, or what came is no checkpoint or not what the hub states.
    """
    if model.bundled:
        raise ModelError(f"{model.name} is in the package: nothing to download", "tttab models list")
    place = local_path(model)
    if forbids := offline():
        raise ModelError(f"{forbids} forbids fetching {model.file}", f"put the file at {place}")
    from tttab.models.checkpoint import read_checkpoint

    place.parent.mkdir(parents=True, exist_ok=True)
    # A download that was given up may still be writing: what it leaves goes with the next one.
    with tempfile.TemporaryDirectory(
        dir=place.parent, prefix=".getting-", ignore_cleanup_errors=True
    ) as folder:
        try:
            part = family_of(model).fetch(model, Path(folder), seconds)
        except ModelError as error:
            hint = error.hint or f"put the file at {place}, or --model tttab-tiny"
            raise ModelError(error.message, hint) from error
        digest, stated = read_checkpoint(part)["sha256"], stated_sha256(model.repository, model.file)
        if stated not in (None, digest):
            raise ModelError(
                f"what came as {model.file} is another file than the hub's: SHA-256 {digest[:12]}…, "
                f"the hub states {stated[:12]}…",
                f"later: tttab models get {model.name}; or put the file at {place}",
            )
        flush_to_disk(part)
        os.replace(part, place)
    if stated:
        _remember(model, digest, stated=True)
    return place


def family_of(model: KnownModel) -> ModelFamily:
    """Return the family that a known model belongs to."""
    return next(family for family in FAMILIES if model in family.known())


def verify(model: KnownModel) -> tuple[str, str]:
    """Return (SHA-256, verdict) of a known model's file.

    A bundled file is compared with the hash recorded beside it, an official one with the hash that the hub
    stated when it was fetched; of one that came another way the first hash seen is remembered and later
    ones are compared with it. The verdict is `ok`, `ok: as the hub stated`, `remembered` or `changed: …`.

    Raises:
        ModelError: the file is not there.
    """
    digest = sha256_of(_require(model))
    recorded, stated = _recorded(model)
    if recorded is None:
        _remember(model, digest)
        return digest, "remembered"
    if digest != recorded:
        return digest, f"changed: {recorded} is on record"
    return digest, "ok: as the hub stated" if stated else "ok"


def _recorded(model: KnownModel) -> tuple[str | None, bool]:
    """Return the hash on record, and whether the hub stated it."""
    if model.bundled:
        lines = (WEIGHTS / "SHA256SUMS").read_text(encoding="ascii").splitlines()
        return {file: digest for digest, file in map(str.split, lines)}[model.file], False
    known = _remembered().get(model.file)
    stated = isinstance(known, dict)
    digest = known.get(STATED) if stated else known
    return (digest, stated) if isinstance(digest, str) else (None, False)


def _remembered() -> dict[str, Any]:
    return _json_object(_memory())


def _json_object(path: Path) -> dict[str, Any]:
    """Return what a file of the cache holds; nothing where it is missing or damaged."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a memory that cannot be kept is none
        write_text_atomically(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _remember(model: KnownModel, digest: str, stated: bool = False) -> None:
    entry = {model.file: {STATED: digest} if stated else digest}
    _write_json(_memory(), _remembered() | entry)


def _memory() -> Path:
    return cache_folder() / "model-hashes.json"


def _resolve_auto(task: Task, strict: bool) -> Found:
    candidates = [model for model in KNOWN if model.task == task]
    officials = [model for model in candidates if model.by_default]
    for official in officials:
        if (place := local_path(official)).is_file():
            return Found(place, official, f"{official.name}, found at {shown(place)}: {official.provenance}")
    first, folder = officials[0], shown(local_path(officials[0]).parent)
    failed, why = "", f"no official TabPFN v2 file in {folder}"
    if forbids := offline():
        why += f", and {forbids} forbids a download"
    else:
        try:
            return Found(_download_once(first), first, f"{first.name}, downloaded: {why}")
        except ModelError as error:
            failed = error.message
            why += f", and its download failed: {failed}"
    if strict:
        raise ModelError(why, f"--model tttab-tiny, or: tttab models get {first.name}")
    bundled = next(model for model in candidates if model.bundled)
    why = f"{bundled.name}, included in the package: {why}; --model {bundled.name} makes the choice explicit"
    return Found(_require(bundled), bundled, why, failed)


def _download_once(model: KnownModel) -> Path:
    """Download within `AUTO_SECONDS`; what failed within the hour is not tried again by every command.

    Raises:
        ModelError: it failed, now or then.
    """
    failures = cache_folder() / "failed-downloads.json"
    found = _json_object(failures).get(model.file)
    before = found if isinstance(found, dict) else {}
    when = before.get("time")
    if isinstance(when, float) and 0 <= time.time() - when < FAILURE_SECONDS:
        again = f"tttab models get {model.name} tries again"
        raise ModelError(f"{before.get('why')}; that was within the last hour, {again}", again)
    try:
        return download(model, seconds=AUTO_SECONDS)
    except (ModelError, OSError) as error:  # OSError: the folder for models cannot be written
        why = error.message if isinstance(error, ModelError) else str(error)
        _write_json(failures, _json_object(failures) | {model.file: {"time": time.time(), "why": why}})
        raise ModelError(why, f"tttab models get {model.name}") from error


def _require(model: KnownModel) -> Path:
    place = local_path(model)
    if not place.is_file():
        hint = f"put {model.file} at {place}, or: tttab models get {model.name}"
        raise ModelError(f"the file of {model.name} is not on this machine", hint)
    return place
