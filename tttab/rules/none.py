"""The rule `none`: plain in-context learning, so that untouched and adapted results have one form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from tttab.core import Session


@dataclass(frozen=True)
class Untouched:
    """No parameters."""

    name: str = "none"

    def parameters(self, session: Session) -> list[torch.nn.Parameter]:
        """Return nothing: the weights stay as they are."""
        return []
