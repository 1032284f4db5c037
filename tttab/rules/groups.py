"""The rules that train the parameters of one role: `full`, `head`, `attention` and `temperature`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tttab.contracts import Group, Rule, Session
from tttab.errors import RuleError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class GroupRule(Rule):
    """All parameters of one group; see `tttab.contracts.Group`."""

    group: Group = "all"
    purpose: str = "weights to train"
    """What a model without such parameters lacks, in words."""
    fallback: str = "full"
    """The rule to try instead."""

    def parameters(self, session: Session) -> list[torch.nn.Parameter]:
        """Return the parameters of the group.

        Raises:
            RuleError: the model has none.
        """
        chosen = session.parameters(self.group)
        if not chosen:
            raise RuleError(f"{session.info.name} has no {self.purpose}", f"--rule {self.fallback}")
        return chosen


@dataclass(frozen=True)
class Full(GroupRule):
    """Every weight of the network."""

    name: str = "full"


@dataclass(frozen=True)
class Head(GroupRule):
    """The output projection: what turns the last layer's embeddings into outputs."""

    name: str = "head"
    rate: float = 10.0
    group: Group = "head"
    purpose: str = "output projection to train"


@dataclass(frozen=True)
class Attention(GroupRule):
    """Query, key, value and output projections of the transformer's layers."""

    name: str = "attention"
    group: Group = "attention"
    purpose: str = "attention projections to train"


@dataclass(frozen=True)
class Temperature(GroupRule):
    """The logarithm of the softmax temperature: one scalar, the control for calibration."""

    name: str = "temperature"
    rate: float = 100.0
    group: Group = "temperature"
    purpose: str = "temperature to fit"
    fallback: str = "head"
