"""The network of a recipe, the file tabpfn loads, and the state from which a killed run continues."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tttab.errors import ModelError
from tttab.models.tabpfn.checkpoint import CRITERION, check_weights, read_checkpoint, write_checkpoint
from tttab.pretrain.labels import MAX_CLASSES
from tttab.pretrain.settings import Recipe
from tttab.seeding import stream_seed, torch_stream
from tttab.system.files import atomic_path

if TYPE_CHECKING:
    from tabpfn.architectures.tabpfn_v2 import TabPFNV2, TabPFNV2Config
    from tabpfn.inference_config import InferenceConfig

LAST_LAYER = ("output_projection.2.weight", "output_projection.2.bias")
EMBEDDERS = ("feature_group_embedder.weight", "target_embedder.weight")
POSITIONS = "feature_positional_embedding_embeddings.weight"
BLOCK_OUTPUTS = ("out_projection.weight", "mlp.2.weight")
"""How the names of the matrices end whose results a block adds to what it was given."""


def new_network(recipe: Recipe, seed: int) -> TabPFNV2:
    """Return a freshly initialised TabPFN v2 network for `recipe`, on the CPU."""
    from tabpfn.architectures import tabpfn_v2

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "initial weights"))
        return tabpfn_v2.get_architecture(_config(recipe))


def bar_borders(recipe: Recipe) -> torch.Tensor:
    """Return the regressor's bucket borders, shape (bars + 1,), in units of the context's deviation.

    Equally likely buckets of a Student distribution with 3 degrees of freedom scaled to match
    synthetic targets, whose tails are heavier than normal; symmetric about 0.
    """
    from scipy.stats import t

    share = torch.linspace(0.0, 1.0, recipe.architecture.bars + 1, dtype=torch.float64)
    inner = torch.from_numpy(t.ppf(share[1:-1].numpy(), df=3)) * 0.75
    edge = inner[-1] * 2.0  # the outermost quantiles are infinite
    return torch.cat([-edge[None], inner, edge[None]]).float()


def write_model(
    target: Path,
    network: torch.nn.Module,
    recipe: Recipe,
    served: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a safetensors file that plain TabPFNClassifier or TabPFNRegressor loads.

    `served` overrides fields of the inference configuration; `dtype` is the stored precision.
    """
    state = {name: value.to(dtype) for name, value in network.state_dict().items()}
    if recipe.task == "regression":
        state["criterion.borders"] = bar_borders(recipe)
        state["criterion.losses_per_bucket"] = torch.zeros(recipe.architecture.bars)
    write_checkpoint(target, state, asdict(_config(recipe)), inference_config(recipe, served or {}))


def inference_config(recipe: Recipe, overrides: dict[str, Any]) -> InferenceConfig:
    """Return tabpfn's whole inference configuration: plain features and one member unless overridden."""
    from tabpfn.constants import ModelVersion
    from tabpfn.inference_config import InferenceConfig

    kind = "multiclass" if recipe.task == "classification" else "regression"
    plain = {
        "PREPROCESS_TRANSFORMS": [{"name": "none", "categorical_name": "numeric"}],
        "REGRESSION_Y_PREPROCESS_TRANSFORMS": (None,),
        "FINGERPRINT_FEATURE": False,
        "SOFTMAX_TEMPERATURE": 1.0,
        "N_ESTIMATORS": 1,
    }
    default = InferenceConfig.get_default(kind, ModelVersion.V2)
    return default.override_with_user_input_and_resolve_auto(plain | overrides)


def load_weights(network: TabPFNV2, path: Path) -> str:
    """Load the weights of a model file into `network`; return the SHA-256 of the bytes they came from.

    The last layer of a file made for the other task does not fit and keeps its fresh weights. Where the
    network has more blocks than the file or twice its width, it computes what the file's network does
    (`_deepened`, `_widened`).

    Raises:
        ModelError: the file is missing, damaged or of another architecture, or its weights are no numbers.
    """
    try:
        stored = read_checkpoint(path)
    except ModelError as error:
        raise ModelError(error.message, "give the model.safetensors of a run") from error
    state = {k: v for k, v in stored["state_dict"].items() if not k.startswith(CRITERION)}
    check_weights(state, path.name)
    state = _deepened(_widened(state, network.emsize), len(network.blocks))
    fresh = network.state_dict()
    for name in LAST_LAYER:
        if name in state and state[name].shape != fresh[name].shape:
            state[name] = fresh[name]
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"{path.name} does not fit this preset and task: its network has other sizes",
            "use the preset and task it was made with",
        ) from error
    return stored["sha256"]


def _widened(state: dict[str, torch.Tensor], width: int) -> dict[str, torch.Tensor]:
    """Return `state` with every hidden number twice where `width` is twice its own: the same function.

    A matrix reads the two copies of a number in unequal parts, so that they learn apart (Net2Net: Chen et al.
    2016, arXiv 1511.05641). Norms see the mean and deviation they saw, heads come twice, the first one first.
    """
    if 2 * len(state.get("target_embedder.bias", ())) != width:
        return state
    stream, wider = torch_stream(0, "widening"), {}
    for name, value in state.items():
        rows = value if name in LAST_LAYER else torch.cat([value, value])
        if name == POSITIONS:
            wider[name] = torch.cat([rows, rows], dim=1) * 0.5**0.5
        elif rows.dim() == 1 or name in EMBEDDERS:
            wider[name] = rows
        else:
            part = 0.25 + 0.5 * torch.rand(rows.shape, generator=stream)
            wider[name] = torch.cat([rows * part, rows * (1.0 - part)], dim=1)
    return wider


def _deepened(state: dict[str, torch.Tensor], blocks: int) -> dict[str, torch.Tensor]:
    """Return `state` with blocks added until there are `blocks`: the same function, with room to learn.

    A new block is a copy of the one before it whose outputs are zero, so that it changes nothing at first and
    every matrix has a gradient after one step (block expansion: Wu et al. 2024, arXiv 2401.02415). The last
    block gets no copy: it computes only what the output reads.
    """
    have = 1 + max((int(name.split(".")[1]) for name in state if name.startswith("blocks.")), default=-1)
    if not 0 < have < blocks:
        return state
    copied = (have - 2 - number % max(have - 1, 1) for number in range(blocks - have))
    sources = sorted([*range(have), *(max(source, 0) for source in copied)])
    deeper = {name: value for name, value in state.items() if not name.startswith("blocks.")}
    for number, source in enumerate(sources):
        new = number > 0 and sources[number - 1] == source
        for name, value in state.items():
            if name.startswith(f"blocks.{source}."):
                silent = new and name.endswith(BLOCK_OUTPUTS)
                deeper[f"blocks.{number}.{name.split('.', 2)[2]}"] = value * 0 if silent else value
    return deeper


def write_state(target: Path, state: dict[str, Any]) -> None:
    """Write a run's state: tensors and plain data only."""
    with atomic_path(target) as part:
        torch.save(state, part)


def read_state(path: Path) -> object:
    """Read a run's state, or whatever the file holds, unpickling nothing but tensors and plain data.

    Raises:
        ModelError: the file is damaged, or holds something else than that.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"{path} cannot be read: {error}", "choose another --out to start afresh") from error


def _config(recipe: Recipe) -> TabPFNV2Config:
    from tabpfn.architectures.tabpfn_v2 import TabPFNV2Config

    sizes = recipe.architecture
    classes = MAX_CLASSES if recipe.task == "classification" else 0
    return TabPFNV2Config(
        emsize=sizes.emsize,
        nlayers=sizes.nlayers,
        nhead=sizes.nhead,
        max_num_classes=classes,
        num_buckets=-1 if classes else sizes.bars,
    )
