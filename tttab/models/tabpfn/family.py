"""TabPFN as a `ModelFamily`: its official files, tabpfn's own downloader, and opening a checkpoint.

Importing this imports neither torch nor tabpfn. What does not belong here: building the network (`building`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tttab.contracts import Session
from tttab.core import SYNTHETIC, KnownModel, ModelInfo
from tttab.errors import ModelError
from tttab.models.tabpfn import environment
from tttab.models.tabpfn.known_files import official_models
from tttab.text import keep_secret, shown

if TYPE_CHECKING:
    import torch

_BUNDLED = (
    KnownModel("tttab-tiny", "classification", "tttab-tiny-classifier.safetensors", SYNTHETIC, bundled=True),
    KnownModel("tttab-tiny", "regression", "tttab-tiny-regressor.safetensors", SYNTHETIC, bundled=True),
)
_KNOWN = (*official_models(), *_BUNDLED)


@dataclass(frozen=True)
class TabPFN:
    """Prior Labs' TabPFN, every version that the installed tabpfn has, and networks of its architectures."""

    name: str = "tabpfn"

    def known(self) -> tuple[KnownModel, ...]:
        """Return the official files and those that ship with tttab."""
        return _KNOWN

    def folder(self) -> Path:
        """Return tabpfn's own cache folder; TABPFN_MODEL_CACHE_DIR moves it."""
        environment.prepare()
        from tabpfn.model_loading import get_cache_dir

        return Path(get_cache_dir())

    def fetch(self, model: KnownModel, path: Path) -> None:
        """Download an official file with tabpfn's own downloader.

        For a gated version tabpfn asks for its licence to be accepted, with the token in TABPFN_TOKEN.

        Raises:
            ModelError: it could not be downloaded; the hint says how to get the file.
        """
        assert model.family is not None, "files that ship with tttab are not fetched"
        environment.prepare()
        from tabpfn.constants import ModelVersion
        from tabpfn.model_loading import download_model

        _keep_tokens()
        which = "classifier" if model.task == "classification" else "regressor"
        version = ModelVersion(model.family.version)
        answer = download_model(path, version=version, which=which, model_name=model.file)
        if answer != "ok" or not path.is_file():
            reason, place = _reason(answer), self.folder() / model.file
            raise ModelError(f"{model.file} could not be downloaded{reason}", _way_on(model, place))

    def recognises(self, checkpoint: Mapping[str, Any]) -> bool:
        """Tell whether a header names an architecture as tabpfn does, or has the width that v2's has."""
        return "architecture_name" in checkpoint or "emsize" in checkpoint["config"]

    def open(
        self, checkpoint: Mapping[str, Any], info: ModelInfo, device: torch.device, seed: int
    ) -> Session:
        """Build the network of a checkpoint, for classification or regression.

        Raises:
            ModelError: tabpfn cannot build it, or the header says what cannot be.
        """
        from tttab.models.tabpfn.building import build

        weights = build(checkpoint, info.task, info.file)
        if info.task == "regression":
            from tttab.models.tabpfn.regressor import TabPFNRegressionSession

            return TabPFNRegressionSession(info, weights, device, seed)
        from tttab.models.tabpfn.classifier import TabPFNSession

        return TabPFNSession(info, weights, device, seed)


def _reason(answer: object) -> str:
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
