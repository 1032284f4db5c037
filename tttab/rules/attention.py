"""The rule `attention`: the projections of every attention move, the rest of the network stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tttab.contracts import Rule, Session
from tttab.errors import RuleError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Attention(Rule):
    """Query, key, value and output projections of the transformer's layers."""

    name: str = "attention"

    def parameters(self, session: Session) -> list[torch.nn.Parameter]:
        """Return the attention projections of all layers.

        Raises:
            RuleError: the model has none under a known name.
        """
        chosen = session.parameters("attention")
        if not chosen:
            raise RuleError(f"{session.info.name} has no attention projections to train", "--rule full")
        return chosen
