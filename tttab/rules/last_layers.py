"""The rule `last-layers:N`: the last N transformer layers and the output projection move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tttab.core import Rule, Session
from tttab.errors import RuleError
from tttab.rules.head import output_parameters

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
            RuleError: `count` is not between 1 and the number of layers.
        """
        depth = len(session.layers)
        if not 1 <= self.count <= depth:
            message = f"{session.info.name} has {depth} layers, not {self.count}"
            raise RuleError(message, f"--rule last-layers:{depth}")
        chosen = [p for layer in session.layers[depth - self.count :] for p in layer.parameters()]
        return [*chosen, *output_parameters(session)]

    def with_count(self, text: str) -> LastLayers:
        """Return the rule for `last-layers:TEXT`.

        Raises:
            RuleError: `text` is not a whole number.
        """
        if not text.isdecimal():
            raise RuleError(f"last-layers takes a number of layers, not {text!r}", "--rule last-layers:2")
        return LastLayers(f"last-layers:{int(text)}", int(text))
