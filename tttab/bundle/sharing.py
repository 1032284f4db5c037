"""Bundles on the model hub: upload, and download with the checks for any stranger's bundle.

huggingface_hub makes the requests, so tokens, mirrors (HF_ENDPOINT) and proxies work as usual.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tttab.bundle.card import model_card
from tttab.bundle.manifest import MANIFEST, OWN_FILES, read_manifest
from tttab.bundle.packing import copies, publish
from tttab.errors import BundleError, ModelError, RequestError
from tttab.models.hub import fetch, offline, reason_of
from tttab.text import keep_secret

CARD = "README.md"
_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_STALE = [f"{role}-*.*" for role in OWN_FILES]


def push(directory: Path, repository: str, *, private: bool = True) -> str:
    """Upload a bundle with a model card and return its address.

    Context rows go with it, unencrypted; held-out rows and the files of `tttab run --out` stay here.

    Args:
        directory: of the bundle.
        repository: `USER/NAME`; made if it is not there.
        private: of a repository that is made.

    Raises:
        BundleError: the bundle is damaged.
        ModelError: the hub does not take it.
    """
    _check(repository)
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import disable_progress_bars

    manifest = read_manifest(directory)
    excluded = tuple(role for role in manifest["files"] if role not in OWN_FILES or role == "held")
    published = {name: value for name, value in manifest.items() if name != "held"}
    published["record"] = _without_paths(manifest["record"])
    disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="tttab-") as part:
        folder = Path(part, "bundle")
        without = (*excluded, "weights") if "packed" in manifest else excluded
        unwritten = {"weights": manifest["files"]["weights"]} if "packed" in manifest else {}
        publish(folder, published, copies(directory, manifest, without), unwritten)
        (folder / CARD).write_text(model_card(read_manifest(folder)), encoding="utf-8")
        with _hub_errors(f"{repository} cannot be pushed"):
            api = HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(
                folder_path=folder, repo_id=repository, commit_message="tttab push",
                ignore_patterns=[".lock"], delete_patterns=_STALE,
            )  # fmt: skip
    return f"{constants.ENDPOINT}/{repository}"


def pull(repository: str, out: Path) -> dict[str, Any]:
    """Download a bundle, every hash checked before anything stands in `out`, and return its manifest.

    A foreign manifest is held to its form first, and only the files it names are asked for.

    Raises:
        BundleError: what lies there is no bundle, or not whole.
        ModelError: the hub does not give it.
    """
    _check(repository)
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="tttab-") as part, _hub_errors(f"{repository} cannot be pulled"):
        folder = Path(part, "bundle")
        folder.mkdir()
        _get(repository, MANIFEST, folder)
        manifest = read_manifest(folder)
        without = ("weights",) if "packed" in manifest else ()
        for role, entry in manifest["files"].items():
            if role not in without:
                _get(repository, entry["file"], folder)
        unwritten = {role: manifest["files"][role] for role in without}
        publish(out, manifest, copies(folder, manifest, without), unwritten)
    return read_manifest(out)


def _check(repository: str) -> None:
    if not _REPOSITORY.fullmatch(repository):
        raise RequestError(f"{repository!r} is no repository of the hub", "USER/NAME")
    if forbids := offline():
        raise RequestError(f"{forbids} forbids asking the hub", f"unset {forbids}")


def _without_paths(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record whose estimator names no file of this machine as its model."""
    estimator = record.get("estimator", {})
    parameters = estimator.get("parameters", {})
    if os.sep not in str(parameters.get("model", "")):
        return record
    return {**record, "estimator": {**estimator, "parameters": {**parameters, "model": "auto"}}}


def _get(repository: str, file: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        fetch(repository, file, Path(place)).rename(folder / file)


@contextmanager
def _hub_errors(message: str) -> Generator[None]:
    """Turn every error of the hub or the network into one line without the token."""
    from huggingface_hub import get_token

    keep_secret(get_token())
    try:
        yield
    except ModelError as error:
        raise ModelError(error.message, error.hint or "hf auth login, or check the name") from error
    except (BundleError, RequestError, OSError) as error:
        if not hasattr(error, "server_message"):
            raise
        raise ModelError(f"{message}: {reason_of(error)}", "hf auth login, or check the name") from error
    except Exception as error:  # huggingface_hub and httpx raise nearly everything
        raise ModelError(f"{message}: {reason_of(error)}", "hf auth login, or check the name") from error
