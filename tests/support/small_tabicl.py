"""Small TabICL networks with random weights, of both generations."""

from __future__ import annotations

import torch
from tabicl._model.tabicl import TabICL

from tttab.core import ModelInfo
from tttab.models.tabicl.building import Weights
from tttab.models.tabicl.session import TabICLSession

SIZES = {
    "embed_dim": 16,
    "col_num_blocks": 2,
    "col_nhead": 2,
    "col_num_inds": 6,
    "row_num_blocks": 2,
    "row_nhead": 2,
    "row_num_cls": 2,
    "icl_num_blocks": 3,
    "icl_nhead": 2,
}
VERSIONS = {
    "v2": SIZES | {"row_rope_interleaved": False, "zero_init": False},
    "v1": SIZES
    | {
        "col_affine": True,
        "col_feature_group": False,
        "col_target_aware": False,
        "col_ssmax": False,
        "icl_ssmax": False,
    },
}
"""As tabicl describes what sets its generations apart: columns, groups, labels in the columns, softmax."""


def small_network(version="v2", classes=10, seed=0):
    """Return (network, configuration), every weight random: tabicl starts some at zero."""
    config = VERSIONS[version] | {"max_classes": classes}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = TabICL(**config)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if not name.endswith("rope.freqs"):
                    spread = 0.7 * parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.05
                    parameter.add_(torch.randn_like(parameter) * spread)
    return network, config


def small_tabicl(version="v2", classes=10, members=2, seed=0):
    """Return a session around a small network."""
    name = f"small tabicl {version}"
    info = ModelInfo(name, "small", f"{version}-{classes}", "random", "classification")
    weights = Weights(*small_network(version, classes), members)
    return TabICLSession(info, weights, torch.device("cpu"), seed)
