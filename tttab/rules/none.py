"""The rule `none`: plain in-context learning, so that untouched and adapted results have one form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tttab.contracts import Rule, Session

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Untouched(Rule):
    """No parameters."""

    name: str = "none"

    def parameters(self, session: Session) -> list[torch.nn.Parameter]:
        """Return nothing: the weights stay as they are."""
        return []
