"""How tabpfn's architectures call their parts: layers, attention projections, what follows the last layer."""

from __future__ import annotations

import torch

LAYERS = ("blocks", "icl_blocks")
PROJECTIONS = ("q_projection", "k_projection", "v_projection", "out_projection")
OUTPUT = "output_projection"
"""What follows the layers in TabPFN v2."""
HEADS = (OUTPUT, "many_class_decoder", "heads")
"""What follows the layers, by architecture."""


def layers_of(module: torch.nn.Module) -> torch.nn.ModuleList:
    """Return the transformer's layers, first to last; empty where no known name is found."""
    return next((getattr(module, name) for name in LAYERS if hasattr(module, name)), torch.nn.ModuleList())


def projections_of(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return query, key, value and output projections of every attention of the layers."""
    named = layers_of(module).named_parameters()
    return [parameter for name, parameter in named if any(part in PROJECTIONS for part in name.split("."))]


def head_of(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters after the last layer; empty where no known name is found."""
    return [parameter for name, parameter in module.named_parameters() if name.split(".")[0] in HEADS]
