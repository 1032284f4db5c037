"""The rule `lora`: low-rank additions to the layers' matrices move (Hu et al. 2021), through peft.

While training, the layers hold peft's modules. `finish` adds the products to the matrices and takes
the modules out: what is served and saved are plain weights that load anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tttab.contracts import Rule, Session
from tttab.errors import MissingExtra, RuleError
from tttab.seeding import stream_seed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Lora(Rule):
    """Rank-`rank` additions to every matrix of the transformer's layers."""

    name: str = "lora"
    rate: float = 10.0
    rank: int = 8

    def parameters(self, session: Session) -> list[torch.nn.Parameter]:
        """Put the additions into the layers and return their factors; the first product is zero.

        Raises:
            MissingExtra: peft is not installed.
            RuleError: the layers hold no matrices.
        """
        import torch

        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise MissingExtra("peft", "lora") from error
        layers = session.layers
        parts = dict(layers.named_modules())
        # torch's own attention reads its matrices without calling a module that could add to them.
        read = {
            f"{name}.out_proj"
            for name, part in parts.items()
            if isinstance(part, torch.nn.MultiheadAttention)
        }
        names = [
            name for name, part in parts.items() if isinstance(part, torch.nn.Linear) and name not in read
        ]
        if not names:
            raise RuleError(f"{session.info.name} has no matrices to add to", "--rule full")
        config = LoraConfig(r=self.rank, lora_alpha=self.rank, target_modules=names, lora_dropout=0.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(session.seed, "lora"))
            inject_adapter_in_model(config, layers)
        return [p for name, p in layers.named_parameters() if ".lora_" in name]

    def finish(self, session: Session) -> None:
        """Add the products to the matrices and put the plain matrices back."""
        from peft.tuners.lora import LoraLayer

        found = [(name, part) for name, part in session.layers.named_modules() if isinstance(part, LoraLayer)]
        for name, part in found:
            part.merge()
            owner, _, last = name.rpartition(".")
            setattr(session.layers.get_submodule(owner), last, part.get_base_layer())
