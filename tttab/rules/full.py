"""The rule `full`: every weight of the network moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from tttab.core import Session


@dataclass(frozen=True)
class Full:
    """All parameters of the network."""

    name: str = "full"

    def parameters(self, session: Session) -> list[torch.nn.Parameter]:
        """Return every parameter of the network."""
        return list(session.module.parameters())
