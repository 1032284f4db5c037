"""Which model files are known, where they are looked for, fetching and verifying them.

What does not belong here: which files a family has and how it downloads them (the family), reading a file
(`checkpoint`) and opening it.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tttab.contracts import ModelFamily
from tttab.core import KnownModel, Task
from tttab.errors import ModelError
from tttab.models.families import FAMILIES
from tttab.models.hub import address, stated_sha256
from tttab.system.files import cache_folder, flush_to_disk, sha256_of, switch, write_text_atomically
from tttab.system.network import obstacle

__all__ = ["KNOWN", "UNKNOWN", "KnownModel", "download", "local_path", "names", "resolve", "verify"]

UNKNOWN = "a file of yours: what it was trained on is not known"
STATED = "stated by the hub"
"""Under this name the hub's hash of a file is kept; a hash that was only seen here stands alone."""
WEIGHTS = Path(__file__).parent / "weights"


KNOWN: tuple[KnownModel, ...] = tuple(model for family in FAMILIES for model in family.known())


def names(task: Task | None = None) -> list[str]:
    """Return the names `--model` takes, `auto` first."""
    return ["auto", *dict.fromkeys(model.name for model in KNOWN if task in (None, model.task))]


def resolve(spec: str, task: Task) -> tuple[Path, KnownModel | None]:
    """Return the file that `spec` (a name, `auto` or a path) means, and what is known of it.

    `auto` is the first official file, TabPFN v2's, if it is on disk or can be downloaded, else the one that
    ships with tttab. A name never falls back to another model.

    Raises:
        ModelError: no such name, or the file is not there; the hint says where to put it.
    """
    if spec == "auto":
        return _resolve_auto(task)
    for model in KNOWN:
        if model.name == spec and model.task == task:
            return _require(model), model
    if Path(spec).suffix in (".ckpt", ".safetensors") or os.sep in spec or os.path.exists(spec):
        path = Path(os.path.expanduser(spec))
        if not os.path.isfile(path):  # unlike Path's, it takes a name that is too long for a missing file
            raise ModelError(f"no model file at {path}", "--model auto, or a name of: tttab models list")
        return path, next((model for model in KNOWN if model.file == path.name), None)
    close = get_close_matches(spec, names(task), n=1)
    raise ModelError(
        f"no model is called {spec!r} for {task}", f"--model {close[0] if close else 'auto'}, or a path"
    )


def local_path(model: KnownModel) -> Path:
    """Return where the file of a known model is looked for."""
    return (WEIGHTS if model.bundled else _family_of(model).folder()) / model.file


def download(model: KnownModel) -> Path:
    """Fetch an official file through its family's own downloader and return its place.

    The file appears whole and readable, or not at all; where the hub states a SHA-256, with that one, which
    is remembered.

    Raises:
        ModelError: it could not be downloaded, or what came is no checkpoint or not what the hub states.
    """
    if model.bundled:
        raise ModelError(f"{model.name} ships with tttab: there is nothing to fetch", "tttab models list")
    if switch("TTTAB_OFFLINE"):
        raise ModelError(
            f"TTTAB_OFFLINE forbids fetching {model.file}", f"put the file at {local_path(model)}"
        )
    from tttab.models.checkpoint import read_checkpoint

    place = local_path(model)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".getting-") as folder:
        part = Path(folder) / model.file
        _family_of(model).fetch(model, part)
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


def _family_of(model: KnownModel) -> ModelFamily:
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
    try:
        known = json.loads(_memory().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(model: KnownModel, digest: str, stated: bool = False) -> None:
    entry = {model.file: {STATED: digest} if stated else digest}
    text = json.dumps(_remembered() | entry, indent=2, sort_keys=True)
    write_text_atomically(_memory(), text + "\n")


def _memory() -> Path:
    return cache_folder() / "model-hashes.json"


def _resolve_auto(task: Task) -> tuple[Path, KnownModel]:
    candidates = [model for model in KNOWN if model.task == task]
    official = next(model for model in candidates if not model.bundled)
    if local_path(official).is_file():
        return local_path(official), official
    if _hub_answers():
        with contextlib.suppress(ModelError, OSError):  # OSError: the folder for models cannot be written
            return download(official), official
    bundled = next(model for model in candidates if model.bundled)
    return _require(bundled), bundled


def _require(model: KnownModel) -> Path:
    place = local_path(model)
    if not place.is_file():
        hint = f"put {model.file} at {place}, or: tttab models get {model.name}"
        raise ModelError(f"the file of {model.name} is not on this machine", hint)
    return place


def _hub_answers() -> bool:
    """Tell within two seconds whether the model hub can be reached (never where a switch forbids it)."""
    if any(map(switch, ("HF_HUB_OFFLINE", "TTTAB_OFFLINE"))):
        return False
    try:
        return not obstacle(*address(), 2.0)
    except ValueError:  # HF_ENDPOINT is no address
        return False
