"""TabPFN as a `ModelFamily`: its official files, downloads and licences, and opening a checkpoint.

Importing this imports neither torch nor tabpfn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tttab.contracts import Session
from tttab.core import SYNTHETIC, Access, KnownModel, ModelInfo
from tttab.errors import ModelError
from tttab.models import hub
from tttab.models.tabpfn import environment
from tttab.models.tabpfn.known_files import official_models
from tttab.text import keep_secret

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

    def fetch(self, model: KnownModel, folder: Path, seconds: float | None = None) -> Path:
        """Download an official file from the hub; one of TabPFN v2, which is free, also from tabpfn's mirror.

        Raises:
            ModelError: it could not be downloaded, or its licence has not been accepted.
        """
        access = self.access(model)
        if access.state not in ("open", "accepted"):
            raise ModelError(f"{model.file} needs a licence: {access.reason}", access.advice)
        environment.prepare()
        _keep_tokens()
        from tabpfn.model_loading import FALLBACK_S3_BASE_URL

        mirror = FALLBACK_S3_BASE_URL if access.state == "open" else ""
        return hub.fetch(model.repository, model.file, folder, mirror=mirror, seconds=seconds)

    def access(self, model: KnownModel) -> Access:
        """Ask Prior Labs whether a version's licence was accepted, with the token that tabpfn keeps."""
        if model.release is None or not model.release.gated:
            return Access("open")
        environment.prepare()
        from tttab.models.tabpfn import licence

        return licence.access(model)

    def login(self, model: KnownModel) -> None:
        """Go through tabpfn's own log-in and licence, in a browser or here; tabpfn keeps the token.

        Raises:
            ModelError: the licence was not accepted, or there is no terminal to ask on.
        """
        environment.prepare()
        from tttab.models.tabpfn import licence

        licence.login(model)

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


def _keep_tokens() -> None:
    """Have the tokens that a download may send cut from whatever is shown."""
    from huggingface_hub import get_token
    from tabpfn.browser_auth import get_cached_token

    keep_secret(get_token())
    keep_secret(get_cached_token())
