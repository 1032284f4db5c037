"""From a checkpoint that was read to the network it holds, checked before anything is allocated.

tabpfn's own loader opens the file by itself and lets torch decide whether it may run code. So the steps of
`tabpfn.model_loading.load_model` are taken here with the tensors that were read; a test holds both equal.
`ranges` says what a header may contain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.overrides import TorchFunctionMode

from tttab.core import Task
from tttab.errors import ModelError
from tttab.models.tabpfn import environment
from tttab.models.tabpfn.checkpoint import CRITERION, check_weights
from tttab.models.tabpfn.ranges import BLOCKS, RANGES, check_ranges, is_plain
from tttab.models.tabpfn.session import Weights
from tttab.text import shown

if TYPE_CHECKING:
    from tabpfn.architectures.interface import Architecture, ArchitectureConfig
    from tabpfn.architectures.shared.bar_distribution import FullSupportBarDistribution
    from tabpfn.inference_config import InferenceConfig

OLD_NAMES = {"CONSTANT_FEATURE_COUNT": "FEATURE_SUBSAMPLING_CONSTANT_FEATURE_COUNT"}
"""tabpfn's earlier names of entries of the inference configuration."""
REMOVED = ("adaptive",)
"""Transforms that tabpfn still names and no longer has."""


def build(checkpoint: Mapping[str, Any], task: Task, file: str) -> Weights:
    """Return the network of a checkpoint that `read_checkpoint` returned, on the CPU.

    Args:
        checkpoint: left as it is; its tensors are copied.
        task: what the network is for.
        file: the file's name, for messages.

    Raises:
        ModelError: the header is out of range or tells of another network than its weights, or the weights
            are no numbers.
    """
    environment.prepare()
    try:
        return _build(checkpoint, task, file)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{file} does not hold a {task} model that tabpfn can build: {_reason(error)}", "--model auto"
        ) from error


def _reason(error: Exception) -> str:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return shown(f"{'.'.join(map(str, first['loc'])) or 'config'}: {first['msg']}", 160)
    return shown(error, 160)


def _build(checkpoint: Mapping[str, Any], task: Task, file: str) -> Weights:
    make, config = _architecture(checkpoint, file)
    inference = _inference_config(checkpoint, task, file)
    state = {name: value for name, value in checkpoint["state_dict"].items() if CRITERION not in name}
    _check_shapes(make, state)
    with _Unfilled():
        module = make()
    module.load_state_dict(state)
    module.eval()
    check_weights(module.state_dict(), file)
    return Weights(module, config, inference, _criterion(checkpoint, module, config, task, file))


def _architecture(
    checkpoint: Mapping[str, Any], file: str
) -> tuple[Callable[[], Architecture], ArchitectureConfig]:
    """Return what makes the header's network, and its configuration, parsed and checked.

    v2 files name no architecture, v2.5 files name theirs differently. Entries that tabpfn does not read
    may be anything.
    """
    from tabpfn.architectures import ARCHITECTURES

    name = checkpoint.get("architecture_name", "tabpfn_v2")
    known = isinstance(name, str) and {"base": "tabpfn_v2_5"}.get(name, name) in ARCHITECTURES
    if not known:
        raise ModelError(f"the installed tabpfn does not know the architecture of {file}", "--model auto")
    architecture = ARCHITECTURES[{"base": "tabpfn_v2_5"}.get(name, name)]
    written = checkpoint["config"]
    plain = {key: value for key, value in written.items() if isinstance(key, str) and is_plain(value)}
    config, _ = architecture.parse_config(plain)
    if any(field.name in written and field.name not in plain for field in dataclasses.fields(config)):
        raise ModelError(f"the header of {file} holds something else than plain data", "--model auto")
    check_ranges(config, file)
    blocks = sum(getattr(config, field, 0) for field, bounds in RANGES.items() if bounds is BLOCKS)
    if blocks > len(checkpoint["state_dict"]):
        raise ModelError(
            f"{file} tells of {blocks} blocks and holds {len(checkpoint['state_dict'])} tensors",
            "--model auto",
        )
    return lambda: architecture.get_architecture(config), config


def _inference_config(checkpoint: Mapping[str, Any], task: Task, file: str) -> InferenceConfig:
    """Return how tabpfn serves the network, parsed and checked: the file's way, else that of its version."""
    from tabpfn.constants import ModelVersion
    from tabpfn.inference_config import InferenceConfig

    written = checkpoint.get("inference_config")
    if not is_plain(written):
        raise ModelError(f"the header of {file} holds something else than plain data", "--model auto")
    if written:
        renamed = {OLD_NAMES.get(name, name): value for name, value in written.items()}
        config = InferenceConfig(**renamed)
    else:
        first = checkpoint.get("architecture_name", "tabpfn_v2") == "tabpfn_v2"
        kind = "regression" if task == "regression" else "multiclass"
        config = InferenceConfig.get_default(kind, ModelVersion.V2 if first else ModelVersion.V2_5)
    check_ranges(config, file)
    _check_transforms(config, file)
    return config


def _check_transforms(config: InferenceConfig, file: str) -> None:
    """Refuse transforms that tabpfn cannot make: it looks their names up only when a table comes."""
    from tabpfn.preprocessing.steps import reshape_feature_distribution_step as step

    known = set(step.get_all_reshape_feature_distribution_preprocessors(num_examples=2)) - set(REMOVED)
    asked: set[str] = {transform.name for transform in config.PREPROCESS_TRANSFORMS}
    asked |= {name for name in config.REGRESSION_Y_PREPROCESS_TRANSFORMS if name is not None}
    if asked - known:
        raise ModelError(
            f"{file} asks for the transform {min(asked - known)!r}, which the installed tabpfn does not have",
            "--model auto",
        )


def _check_shapes(make: Callable[[], Architecture], state: dict[str, torch.Tensor]) -> None:
    """Put the tensors in the place of the weights of a network that has none; tabpfn knows their older names.

    Raises:
        RuntimeError: names or shapes are others than the header's network has.
    """
    with _Unfilled(weightless=True):
        network = make()
    network.load_state_dict(state, assign=True)


class _Unfilled(TorchFunctionMode):
    """While it is active, new weights on this thread are not filled: all are loaded, and filling takes time.

    `weightless`: large ones have no memory either, and no random number is drawn. Building all on torch's
    meta device would import torch's compiler for the constants, which takes longer still.
    """

    def __init__(self, weightless: bool = False) -> None:
        super().__init__()
        self._weightless = weightless

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Leave a weight that `func` would fill as it is, and make a large new tensor without memory."""
        kwargs = kwargs or {}
        if func in FILLS:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta or isinstance(tensor, torch.nn.Parameter):
                return tensor
        if self._weightless and func in (torch.empty, torch.randn):
            kwargs = {**kwargs, "device": "meta"}
            made: torch.Tensor = torch.empty(*args, **kwargs)
            return made if made.numel() > LARGE else torch.zeros(made.shape, dtype=made.dtype)
        if self._weightless and func in ARITHMETIC and args[0].is_meta:
            return args[0]
        return func(*args, **kwargs)


LARGE = 2**20
"""Elements, from which a network whose shapes are checked gets no memory."""
ARITHMETIC = frozenset(
    {
        torch.Tensor.norm,
        torch.Tensor.clamp,
        torch.Tensor.div,
        torch.Tensor.__truediv__,
        torch.Tensor.copy_,
    }
)
"""What architectures make of random numbers. Of tensors without memory torch would load its compiler for it,
which takes seconds and makes a folder in the temporary directory; nobody reads the answer."""
FILLS = frozenset(
    {
        torch.nn.init.normal_,
        torch.nn.init.uniform_,
        torch.nn.init.kaiming_uniform_,
        torch.Tensor.normal_,
        torch.Tensor.uniform_,
        torch.Tensor.fill_,
        torch.Tensor.zero_,
    }
)


def _criterion(
    checkpoint: Mapping[str, Any], module: Architecture, config: ArchitectureConfig, task: Task, file: str
) -> FullSupportBarDistribution | None:
    """Return a regressor's bar distribution; None for a classifier, whose header must tell of classes.

    Borders lie beside the network in files up to v2.6, in it from v3 on.
    """
    from tabpfn.model_loading import get_loss_criterion

    if task == "classification":
        get_loss_criterion(config, estimator_type="classifier")
        return None
    stored = {
        name.replace(CRITERION, ""): value.clone()
        for name, value in checkpoint["state_dict"].items()
        if CRITERION in name
    }
    borders = stored.get("borders", getattr(module, "regression_borders", None))
    if borders is None:
        raise ModelError(f"{file} holds no regression model: it has no bucket borders", "--model auto")
    bars = config.num_buckets
    if borders.shape != (bars + 1,) or getattr(module, "n_out", bars) != bars:
        raise ModelError(f"{file} has another number of outputs than of buckets", "--model auto")
    if not (torch.isfinite(borders).all() and (borders.diff() >= 0).all() and borders[0] < borders[-1]):
        raise ModelError(f"the bucket borders in {file} are not finite and rising", "--model auto")
    made = get_loss_criterion(config, estimator_type="regressor", regression_borders=borders)
    criterion = cast("FullSupportBarDistribution", made)
    if stored:
        criterion.load_state_dict(stored)
    return criterion
