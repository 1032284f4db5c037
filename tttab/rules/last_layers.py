"""The rule `last-layers:N`: the last N transformer layers and the output projection move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tttab.contracts import Rule, Session
from tttab.errors import RuleError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LastLayers(Rule):
    """The parameters of the last `count` layers and of the output projection."""

    name: str = "last-layers"
    count: int = 2

    def parameters(self, session: Session) -> list[torch.nn.Parameter]:
        """Return the parameters of the last layers and of what follows them.

        Raises:
            RuleError: there are no layers, or `count` is not between 1 and their number.
        """
        depth = len(session.layers)
        if not depth:
            raise RuleError(f"{session.info.name} has no layers to choose from", "--rule full")
        if not 1 <= self.count <= depth:
            message = f"{session.info.name} has {depth} layers, not {self.count}"
            raise RuleError(message, f"--rule last-layers:{depth}")
        chosen = [p for layer in session.layers[depth - self.count :] for p in layer.parameters()]
        return [*chosen, *session.parameters("head")]

    @classmethod
    def parse(cls, argument: str) -> LastLayers:
        """Return the rule for `last-layers:COUNT`.

        Raises:
            RuleError: the count is not a whole number.
        """
        if not argument.isdecimal():
            raise RuleError(f"last-layers takes a number of layers, not {argument!r}", "--rule last-layers:2")
        return cls(f"last-layers:{int(argument)}", int(argument))
