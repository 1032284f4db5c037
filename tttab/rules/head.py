"""The rule `head`: only what turns the last layer's embeddings into outputs moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tttab.contracts import Rule, Session
from tttab.errors import RuleError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Head(Rule):
    """The parameters of the network's output projection."""

    name: str = "head"
    rate: float = 10.0

    def parameters(self, session: Session) -> list[torch.nn.Parameter]:
        """Return the parameters of the output projection.

        Raises:
            RuleError: the model has none under a known name.
        """
        chosen = session.parameters("head")
        if not chosen:
            raise RuleError(f"{session.info.name} has no output projection to train", "--rule full")
        return chosen
