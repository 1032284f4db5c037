"""TabICL as a `ModelFamily`: its official files, downloads, and opening a checkpoint.

Importing this imports neither torch nor tabicl.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tttab.contracts import Session
from tttab.core import Access, KnownModel, ModelInfo
from tttab.errors import MissingExtra, ModelError
from tttab.models import hub
from tttab.models.tabicl.known_files import official_models
from tttab.system.files import cache_folder

if TYPE_CHECKING:
    import torch

_KNOWN = official_models()


@dataclass(frozen=True)
class TabICL:
    """Inria's TabICL, versions 1 and 2, and networks of its architecture; classification only."""

    name: str = "tabicl"

    def known(self) -> tuple[KnownModel, ...]:
        """Return the official files."""
        return _KNOWN

    def folder(self) -> Path:
        """Return a folder in tttab's cache: tabicl itself keeps files under names of the hub's."""
        return cache_folder() / "tabicl"

    def fetch(self, model: KnownModel, folder: Path, seconds: float | None = None) -> Path:
        """Download an official file from the hub.

        Raises:
            ModelError: it could not be downloaded.
        """
        return hub.fetch(model.repository, model.file, folder, seconds=seconds)

    def access(self, model: KnownModel) -> Access:
        """Return that no licence is asked for."""
        return Access("open")

    def login(self, model: KnownModel) -> None:
        """Raise ModelError: there is no licence to accept."""
        raise ModelError(f"{model.name} needs no log-in", f"tttab models get {model.name}")

    def recognises(self, checkpoint: Mapping[str, Any]) -> bool:
        """Tell whether there are weights of TabICL's in-context layers: a header may name no part of it."""
        return any(name.startswith("icl_predictor.") for name in checkpoint["state_dict"])

    def open(
        self, checkpoint: Mapping[str, Any], info: ModelInfo, device: torch.device, seed: int
    ) -> Session:
        """Build the network of a checkpoint for classification.

        Raises:
            MissingExtra: tabicl is not installed.
            ModelError: tabicl cannot build it, or it is a regressor or asked to be one.
        """
        try:
            import tabicl  # noqa: F401
        except ImportError as error:
            raise MissingExtra("tabicl", "tabicl") from error
        from tttab.models.tabicl.building import build
        from tttab.models.tabicl.session import TabICLSession

        return TabICLSession(info, build(checkpoint, info.task, info.file), device, seed)
