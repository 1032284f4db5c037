"""Which model files are known, where they are looked for, fetching and verifying them.

What does not belong here: the list of official files (`official`), opening a file (`checkpoint`) and
running it (`session`).
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tttab.core import Task
from tttab.errors import ModelError
from tttab.files import cache_folder, flush_to_disk, sha256_of, switch, write_text_atomically
from tttab.models.hub import address, stated_sha256
from tttab.models.tabpfn import environment
from tttab.models.tabpfn.known_files import FAMILIES, REAL, SYNTHETIC, Family, short_name
from tttab.network import obstacle
from tttab.text import keep_secret, shown

__all__ = ["KNOWN", "REAL", "SYNTHETIC", "UNKNOWN", "KnownModel", "download", "names", "resolve", "verify"]

UNKNOWN = "a file of yours: what it was trained on is not known"
STATED = "stated by the hub"
"""Under this name the hub's hash of a file is kept; a hash that was only seen here stands alone."""
WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class KnownModel:
    """A model that can be asked for by name."""

    name: str
    task: Task
    file: str
    provenance: str
    """What the weights have seen."""
    bundled: bool = False
    family: Family | None = None
    """Version and licence of an official file; None for a bundled one."""
    megabytes: float | None = None
    """Size as its model page states it; None where none was found."""

    @property
    def repository(self) -> str:
        """The hub's repository that an official file comes from; empty for a bundled one."""
        return self.family.repositories[self.task == "regression"] if self.family else ""

    @property
    def license(self) -> str:
        """The licence in words."""
        return self.family.license if self.family else "MIT"


_BUNDLED = (
    KnownModel("tttab-tiny", "classification", "tttab-tiny-classifier.safetensors", SYNTHETIC, bundled=True),
    KnownModel("tttab-tiny", "regression", "tttab-tiny-regressor.safetensors", SYNTHETIC, bundled=True),
)


def _official() -> Iterator[KnownModel]:
    for family in FAMILIES:
        for task, entries in (("classification", family.classifiers), ("regression", family.regressors)):
            for file, provenance, size in entries:
                name = short_name(file, family.version)
                yield KnownModel(name, task, file, provenance, family=family, megabytes=size)


KNOWN = (*_official(), *_BUNDLED)


def names(task: Task | None = None) -> list[str]:
    """Return the names `--model` takes, `auto` first."""
    return ["auto", *dict.fromkeys(model.name for model in KNOWN if task in (None, model.task))]


def resolve(spec: str, task: Task) -> tuple[Path, KnownModel | None]:
    """Return the file that `spec` (a name, `auto` or a path) means, and what is known of it.

    `auto` is the official TabPFN v2 file if it is on disk or can be downloaded, else the bundled one.
    A name never falls back to another model.

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


def place_of(model: KnownModel) -> Path:
    """Return where the file of a known model is looked for."""
    if model.bundled:
        return WEIGHTS / model.file
    environment.prepare()
    from tabpfn.model_loading import get_cache_dir

    return Path(get_cache_dir()) / model.file


def download(model: KnownModel) -> Path:
    """Fetch an official file through tabpfn's own downloader and return its place.

    The file appears whole and readable, or not at all; where the hub states a SHA-256, with that one, which
    is remembered. For a gated version tabpfn asks for its licence to be accepted, with the token in
    TABPFN_TOKEN.

    Raises:
        ModelError: it could not be downloaded, or what came is no checkpoint or not what the hub states.
    """
    if model.family is None:
        raise ModelError(f"{model.name} ships with tttab: there is nothing to fetch", "tttab models list")
    if switch("TTTAB_OFFLINE"):
        raise ModelError(f"TTTAB_OFFLINE forbids fetching {model.file}", f"put the file at {place_of(model)}")
    environment.prepare()
    from tabpfn.constants import ModelVersion
    from tabpfn.model_loading import download_model

    from tttab.models.tabpfn.checkpoint import read_checkpoint

    _keep_tokens()
    place = place_of(model)
    place.parent.mkdir(parents=True, exist_ok=True)
    which = "classifier" if model.task == "classification" else "regressor"
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".getting-") as folder:
        part = Path(folder) / model.file
        version = ModelVersion(model.family.version)
        answer = download_model(part, version=version, which=which, model_name=model.file)
        if answer != "ok" or not part.is_file():
            raise ModelError(f"{model.file} could not be downloaded{_reason(answer)}", _way_on(model, place))
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


def _reason(answer: Any) -> str:
    first = str(answer[-1]).strip().splitlines()[:1] if isinstance(answer, list) and answer else []
    return f": {shown(first[0], 160)}" if first else ""


def _keep_tokens() -> None:
    """Have the tokens that a download may send cut from whatever is shown."""
    from huggingface_hub import get_token
    from tabpfn.browser_auth import get_cached_token

    keep_secret(get_token())
    keep_secret(get_cached_token())


def _way_on(model: KnownModel, place: Path) -> str:
    copy = f"put the file at {place}"
    if model.family is None or not model.family.gated:
        return copy
    return (
        "accept the licence at https://ux.priorlabs.ai, then: "
        f"TABPFN_TOKEN=… tttab models get {model.name}; or {copy}"
    )


def _resolve_auto(task: Task) -> tuple[Path, KnownModel]:
    candidates = [model for model in KNOWN if model.task == task]
    official = next(model for model in candidates if not model.bundled)
    if place_of(official).is_file():
        return place_of(official), official
    if _hub_answers():
        with contextlib.suppress(ModelError, OSError):  # OSError: the folder for models cannot be written
            return download(official), official
    bundled = next(model for model in candidates if model.bundled)
    return _require(bundled), bundled


def _require(model: KnownModel) -> Path:
    place = place_of(model)
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
