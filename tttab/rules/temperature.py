"""The rule `temperature`: one scalar, the softmax temperature; the control for calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tttab.contracts import Rule, Session
from tttab.errors import RuleError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Temperature(Rule):
    """The logarithm of the softmax temperature."""

    name: str = "temperature"
    rate: float = 100.0

    def parameters(self, session: Session) -> list[torch.nn.Parameter]:
        """Return the logarithm of the temperature.

        Raises:
            RuleError: the model has no softmax temperature.
        """
        chosen = session.parameters("temperature")
        if not chosen:
            raise RuleError(f"{session.info.name} has no temperature to fit", "--rule head")
        return chosen
