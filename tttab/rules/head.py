"""The rule `head`: only the output projection moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tttab.errors import RuleError

if TYPE_CHECKING:
    import torch

    from tttab.core import Session


@dataclass(frozen=True)
class Head:
    """The parameters of the network's output projection."""

    name: str = "head"

    def parameters(self, session: Session) -> list[torch.nn.Parameter]:
        """Return the parameters of the output projection.

        Raises:
            RuleError: the architecture has none under a known name.
        """
        chosen = [p for name, p in session.module.named_parameters() if name.startswith("output_projection")]
        if not chosen:
            raise RuleError(f"{session.info.name} has no output projection to train", "--rule full")
        return chosen
