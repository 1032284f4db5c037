"""Which model files are known, where they are looked for, and what their weights have seen.

Facts about the official files follow the model pages of Prior Labs' TabPFN v2. What does not belong
here: opening a file (`checkpoint`) and running it (`session`).
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from tttab.core import Task
from tttab.errors import ModelError
from tttab.models import environment

SYNTHETIC = "trained on synthetic tables only"
REAL = "trained on synthetic tables, then further on real tables"
UNKNOWN = "a file of yours: what it was trained on is not known"
WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class KnownModel:
    """A model that can be asked for by name."""

    name: str
    task: Task
    file: str
    provenance: str
    bundled: bool = False


KNOWN = (
    KnownModel("tabpfn-v2", "classification", "tabpfn-v2-classifier.ckpt", SYNTHETIC),
    KnownModel("tabpfn-v2-finetuned", "classification", "tabpfn-v2-classifier-finetuned-zk73skhh.ckpt", REAL),
    KnownModel("tabpfn-v2", "regression", "tabpfn-v2-regressor.ckpt", SYNTHETIC),
    KnownModel("tttab-tiny", "classification", "tttab-tiny-classifier.safetensors", SYNTHETIC, bundled=True),
)


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
    path = Path(spec).expanduser()
    if path.suffix in (".ckpt", ".safetensors") or path.exists() or os.sep in spec:
        if not path.is_file():
            raise ModelError(f"no model file at {path}", f"--model auto, or one of: {', '.join(names(task))}")
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

    Raises:
        ModelError: it could not be downloaded.
    """
    environment.prepare()
    from tabpfn.constants import ModelVersion
    from tabpfn.model_loading import download_model

    place = place_of(model)
    place.parent.mkdir(parents=True, exist_ok=True)
    which = "classifier" if model.task == "classification" else "regressor"
    answer = download_model(place, version=ModelVersion.V2, which=which, model_name=model.file)
    if answer != "ok" or not place.is_file():
        with contextlib.suppress(FileNotFoundError):
            place.unlink()
        raise ModelError(f"{model.file} could not be downloaded", f"put the file at {place}")
    return place


def _resolve_auto(task: Task) -> tuple[Path, KnownModel]:
    candidates = [model for model in KNOWN if model.task == task]
    official = next(model for model in candidates if not model.bundled)
    if place_of(official).is_file():
        return place_of(official), official
    if _hub_answers():
        with contextlib.suppress(ModelError):
            return download(official), official
    for model in candidates:
        if model.bundled:
            return _require(model), model
    raise ModelError(f"no {task} model is on this machine", f"put {official.file} at {place_of(official)}")


def _require(model: KnownModel) -> Path:
    place = place_of(model)
    if not place.is_file():
        raise ModelError(f"the file of {model.name} is not on this machine", f"put {model.file} at {place}")
    return place


def _hub_answers() -> bool:
    """Tell within two seconds whether the model hub can be reached (never where offline mode is set)."""
    if any(os.environ.get(name, "0") not in ("", "0") for name in ("HF_HUB_OFFLINE", "TTTAB_OFFLINE")):
        return False
    try:
        socket.create_connection(("huggingface.co", 443), timeout=2).close()
    except OSError:
        return False
    return True
