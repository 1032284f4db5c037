"""Small models with random weights, one per architecture of the installed tabpfn."""

from __future__ import annotations

from dataclasses import replace

import torch
from tabpfn.architectures import ARCHITECTURES
from tabpfn.architectures.shared.bar_distribution import FullSupportBarDistribution
from tabpfn.constants import ModelVersion
from tabpfn.inference_config import InferenceConfig

from tttab.core import ModelInfo
from tttab.models.tabpfn.classifier import TabPFNSession
from tttab.models.tabpfn.session import Weights

BUCKETS = 40
OLD = {"emsize": 24, "nlayers": 3, "nhead": 2}
NEW = {
    "embed_dim": 16,
    "dist_embed_num_blocks": 1,
    "dist_embed_num_heads": 2,
    "dist_embed_num_inducing_points": 8,
    "feat_agg_num_blocks": 1,
    "feat_agg_num_heads": 2,
    "feat_agg_num_cls_tokens": 2,
    "nlayers": 3,
    "icl_num_heads": 2,
    "decoder_head_dim": 8,
    "decoder_num_heads": 2,
}
SIZES = {
    "tabpfn_v2": OLD,
    "tabpfn_v2_5": OLD | {"num_thinking_rows": 4},
    "tabpfn_v2_6": OLD | {"num_thinking_rows": 4},
    "tabpfn_v3": NEW,
    "tabpfn_v3_5": NEW,
}
VERSIONS = {"tabpfn_v2": ModelVersion.V2}


def small_model(architecture="tabpfn_v2", task="classification", members=2, seed=0, **sizes):
    """Return a session around a network whose weights are all random (tabpfn starts some at zero)."""
    outputs = {
        "max_num_classes": 10 if task == "classification" else 0,
        "num_buckets": BUCKETS if task == "regression" else -1,
    }
    if architecture == "tabpfn_v3_5":
        outputs = {"max_num_classes": 10, "num_buckets": BUCKETS}
    module = ARCHITECTURES[architecture]
    config, _ = module.parse_config(SIZES.get(architecture, NEW) | sizes | outputs)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = module.get_architecture(config)
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.3 * parameter.shape[-1] ** -0.5 * 2)
    kind = "multiclass" if task == "classification" else "regression"
    version = VERSIONS.get(architecture, ModelVersion.V2_5)
    inference = replace(InferenceConfig.get_default(kind, version), N_ESTIMATORS=members)
    info = ModelInfo(f"small {architecture}", "small", f"{architecture}-{task}-{sizes}", "random", task)
    criterion = FullSupportBarDistribution(torch.linspace(-3, 3, BUCKETS + 1))
    if task == "classification":
        return TabPFNSession(info, Weights(network, config, inference), torch.device("cpu"))
    from tttab.models.tabpfn.regressor import TabPFNRegressionSession

    return TabPFNRegressionSession(info, Weights(network, config, inference, criterion), torch.device("cpu"))
