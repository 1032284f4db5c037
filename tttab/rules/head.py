"""The rule `head`: only what turns the last layer's embeddings into outputs moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tttab.core import Rule, Session
from tttab.errors import RuleError

if TYPE_CHECKING:
    import torch

HEADS = ("output_projection", "many_class_decoder", "heads")
"""Names of the output modules, by architecture."""


@dataclass(frozen=True)
class Head(Rule):
    """The parameters of the network's output projection."""

    name: str = "head"
    rate: float = 10.0

    def parameters(self, session: Session) -> list[torch.nn.Parameter]:
        """Return the parameters of the output projection.

        Raises:
            RuleError: the architecture has none under a known name.
        """
        chosen = output_parameters(session)
        if not chosen:
            raise RuleError(f"{session.info.name} has no output projection to train", "--rule full")
        return chosen


def output_parameters(session: Session) -> list[torch.nn.Parameter]:
    """Return the parameters after the last layer; empty where no known name is found."""
    named = session.module.named_parameters()
    return [parameter for name, parameter in named if name.split(".")[0] in HEADS]
