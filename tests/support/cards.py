"""A model card beside its file."""

from __future__ import annotations

from tttab.models.tabpfn.checkpoint import read_checkpoint
from tttab.pretrain.card import read_card


def head_of(path):
    """Return a card's head, and what of it the model file beside it has otherwise."""
    head, _ = read_card(path)
    checkpoint = read_checkpoint(path.parent / head["file"])
    weights = {k: v for k, v in checkpoint["state_dict"].items() if not k.startswith("criterion.")}
    found = {
        "sha256": checkpoint["sha256"],
        "parameters": sum(value.numel() for value in weights.values()),
        "architecture": {name: checkpoint["config"][name] for name in head["architecture"]},
    }
    return head, {name for name, value in found.items() if head[name] != value}
