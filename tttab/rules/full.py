"""The rule `full`: every weight of the network moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tttab.contracts import Rule, Session

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Full(Rule):
    """All parameters of the network."""

    name: str = "full"

    def parameters(self, session: Session) -> list[torch.nn.Parameter]:
        """Return every parameter of the network."""
        return session.parameters("all")
