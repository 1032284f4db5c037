"""What serves without its context rows, as plain data: fitted preprocessing, keys and values.

A tabpfn estimator that was fitted with a cache reads no row any more. What it holds is written as JSON and
tensors: no pickle, and reading makes objects of the classes named here alone. Labels are left out, TabPFN v2
does not read them again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum
from functools import cache
from importlib import import_module
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd
import torch

from tttab.errors import ModelError

STATE = "state"
"""The tensor that holds the JSON; the others are numbered."""
FITTED = (
    "feature_names_in_",
    "n_features_in_",
    "inferred_feature_schema_",
    "ordinal_encoder_",
    "date_transformer_",
    "text_transformer_",
    "categorical_features_indices_",
    "n_train_samples_",
    "label_encoder_",
    "classes_",
    "n_classes_",
    "class_counts_",
    "n_estimators_",
    "ensemble_configs_",
    "is_constant_target_",
    "constant_value_",
    "y_train_std_",
    "y_train_mean_",
)
"""What an estimator learned from rows, beside its executor's members and caches."""
_MODULES = {
    "sklearn.compose._column_transformer": "ColumnTransformer make_column_selector",
    "sklearn.decomposition._truncated_svd": "TruncatedSVD",
    "sklearn.pipeline": "FeatureUnion Pipeline",
    "sklearn.preprocessing._data": "PowerTransformer QuantileTransformer RobustScaler StandardScaler",
    "sklearn.preprocessing._encoders": "OneHotEncoder OrdinalEncoder",
    "sklearn.preprocessing._function_transformer": "FunctionTransformer",
    "sklearn.preprocessing._label": "LabelEncoder",
    "tabpfn.architectures.kv_cache": "KVCacheEntry",
    "tabpfn.architectures.tabpfn_v2": "TabPFNV2Cache",
    "tabpfn.preprocessing.configs": "ClassifierEnsembleConfig PreprocessorConfig RegressorEnsembleConfig",
    "tabpfn.preprocessing.datamodel": "Feature FeatureModality FeatureSchema",
    "tabpfn.preprocessing.datetimes": "DateTransformer",
    "tabpfn.preprocessing.ensemble": "TabPFNEnsembleMember",
    "tabpfn.preprocessing.label_encoder": "TabPFNLabelEncoder",
    "tabpfn.preprocessing.pipeline_interface": "PreprocessingPipeline",
    "tabpfn.preprocessing.text": "TextTransformer",
    "tabpfn.preprocessing.torch.pipeline_interface": "TorchPreprocessingPipeline",
    "tabpfn.preprocessing.torch.steps": "TorchSoftClipOutliersStep",
    "tabpfn.preprocessing.torch.torch_soft_clip_outliers": "TorchSoftClipOutliers",
    "tabpfn.preprocessing.steps.adaptive_quantile_transformer": "AdaptiveQuantileTransformer",
    "tabpfn.preprocessing.steps.add_fingerprint_features_step": "AddFingerprintFeaturesStep",
    "tabpfn.preprocessing.steps.add_svd_features_step": "AddSVDFeaturesStep",
    "tabpfn.preprocessing.steps.encode_categorical_features_step": "EncodeCategoricalFeaturesStep",
    "tabpfn.preprocessing.steps.preprocessing_helpers": (
        "EfficientColumnTransformer OrderPreservingColumnTransformer"
    ),
    "tabpfn.preprocessing.steps.remove_constant_features_step": "RemoveConstantFeaturesStep",
    "tabpfn.preprocessing.steps.reshape_feature_distribution_step": "ReshapeFeatureDistributionsStep",
    "tabpfn.preprocessing.steps.safe_power_transformer": "SafePowerTransformer",
    "tabpfn.preprocessing.steps.shuffle_features_step": "ShuffleFeaturesStep",
    "tabpfn.preprocessing.steps.squashing_scaler_transformer": "SquashingScaler",
    "tabpfn.preprocessing.steps.utils": "_NoInverseImputer _identity _replace_inf_with_nan",
    "numpy": "float64 float32",
}
"""Classes and functions that a file may name: what TabPFN v2's preprocessing is made of."""


def write(estimator: Any, reference: pd.DataFrame) -> bytes:
    """Return what a fitted estimator needs to predict, as a safetensors file's content.

    Args:
        estimator: tabpfn's, of TabPFN v2, fitted with a cache.
        reference: its context rows; of them the names and the categories are kept.

    Raises:
        ModelError: it holds something that is not kept.
    """
    from safetensors.torch import save

    executor, writer = estimator.executor_, _Writer()
    document = {
        "fitted": {name: getattr(estimator, name) for name in FITTED if hasattr(estimator, name)},
        "members": [
            replace(member, X_train=None, y_train=np.zeros_like(member.y_train))
            for member in executor.ensemble_members
        ],
        "groups": executor.cache_groups,
        "caches": executor.kv_caches,
        "columns": [(name, _levels(reference[name])) for name in reference.columns],
    }
    text = json.dumps(writer.plain(document), allow_nan=False).encode()
    return save({**writer.tensors, STATE: torch.frombuffer(bytearray(text), dtype=torch.uint8)})


def read(content: bytes, estimator: Any, device: torch.device) -> pd.DataFrame:
    """Put what `write` kept into an estimator, and return a frame without rows like its context.

    Args:
        content: of the file; it may be a stranger's.
        estimator: fitted with a cache on some rows around the network that serves.
        device: of that network.

    Raises:
        ModelError: the content is not what `write` gives.
    """
    from safetensors.torch import load

    try:
        tensors = load(content)
        found = _Reader(tensors, device).made(json.loads(bytes(tensors[STATE].numpy())))
        for name in FITTED:
            if name in found["fitted"]:
                setattr(estimator, name, found["fitted"][name])
        executor = estimator.executor_
        executor.ensemble_members, executor.cache_groups = found["members"], found["groups"]
        executor.kv_caches = found["caches"]
        if hasattr(estimator, "y_train_mean_"):
            estimator._rebuild_raw_space_bardist()
        return pd.DataFrame({name: _empty(levels) for name, levels in found["columns"]})
    except Exception as error:  # a stranger's file may hold anything in any place
        reason = f"{type(error).__name__} {error}"
        raise ModelError(f"keys and values cannot be read: {reason:.120}", "--model auto") from error


def _levels(column: pd.Series) -> tuple[list[Any], bool] | None:
    kind = column.dtype
    return (list(kind.categories), bool(kind.ordered)) if isinstance(kind, pd.CategoricalDtype) else None


def _empty(levels: tuple[list[Any], bool] | None) -> pd.Series:
    return pd.Series([], dtype=float if levels is None else pd.CategoricalDtype(*levels))


@cache
def _known() -> dict[str, Any]:
    """Return the classes and functions that a file may name, by module and name."""
    return {
        f"{module}.{name}": getattr(import_module(module), name)
        for module, names in _MODULES.items()
        for name in names.split()
    }


class _Writer:
    """Turns objects into JSON, arrays into numbered tensors. Every JSON object has one key, its kind."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._names = {id(thing): name for name, thing in _known().items()}

    def plain(self, thing: Any) -> Any:
        if thing is None or type(thing) in (bool, int, str):
            return thing
        if type(thing) is float:
            return thing if isfinite(thing) else {"float": repr(thing)}
        if type(thing) is list:
            return [self.plain(item) for item in thing]
        if type(thing) is tuple:
            return {"tuple": [self.plain(item) for item in thing]}
        if type(thing) is set:
            return {"set": [self.plain(item) for item in sorted(thing, key=repr)]}
        if type(thing) is dict:
            return {"dict": [[self.plain(key), self.plain(value)] for key, value in thing.items()]}
        if type(thing) is slice:
            return {"slice": [self.plain(part) for part in (thing.start, thing.stop, thing.step)]}
        if isinstance(thing, np.dtype):
            return {"dtype": thing.str}
        if isinstance(thing, np.generic):
            return {"number": [thing.dtype.str, self.plain(thing.item())]}
        if isinstance(thing, np.ndarray | torch.Tensor):
            return self._array(thing)
        if name := self._names.get(id(thing)):
            return {"known": name}
        return self._object(thing)

    def _array(self, thing: np.ndarray | torch.Tensor) -> dict[str, Any]:
        if isinstance(thing, torch.Tensor):
            return {"tensor": self._kept(thing)}
        if thing.dtype.kind not in "biuf":
            return {"objects": [list(thing.shape), [self.plain(item) for item in thing.flat]]}
        # Products of matrices in another order would have other last bits.
        turned = thing.flags.f_contiguous and not thing.flags.c_contiguous
        values = torch.from_numpy(np.array(thing.T if turned else thing, order="C"))
        return {"turned" if turned else "array": self._kept(values)}

    def _kept(self, values: torch.Tensor) -> str:
        name = str(len(self.tensors))
        self.tensors[name] = values.detach().cpu().contiguous().clone()
        return name

    def _object(self, thing: Any) -> dict[str, Any]:
        name = self._names.get(id(type(thing)))
        if name is None:
            raise ModelError(
                f"preprocessing holds {type(thing).__name__}, which is not kept without rows",
                "tttab bundle pack without --no-rows",
            )
        if isinstance(thing, Enum):
            return {"enum": [name, thing.name]}
        return {"object": [name, self.plain(dict(vars(thing)))]}


class _Reader:
    """Makes the objects again that `_Writer` turned into JSON."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], device: torch.device) -> None:
        self._tensors, self._device = tensors, device
        self._kinds: dict[str, Callable[[Any], Any]] = {
            "float": float,
            "tuple": lambda items: tuple(map(self.made, items)),
            "set": lambda items: set(map(self.made, items)),
            "dict": lambda pairs: {self.made(key): self.made(value) for key, value in pairs},
            "slice": lambda parts: slice(*map(self.made, parts)),
            "dtype": _plain_dtype,
            "number": lambda about: _plain_dtype(about[0]).type(self.made(about[1])),
            "tensor": lambda name: self._tensors[name].to(self._device),
            "array": lambda name: self._tensors[name].numpy(),
            "turned": lambda name: self._tensors[name].numpy().T,
            "objects": self._objects,
            "known": lambda name: _known()[name],
            "enum": lambda about: _known()[about[0]][about[1]],
            "object": self._object,
        }

    def made(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.made(item) for item in node]
        if not isinstance(node, dict):
            return node
        ((kind, about),) = node.items()
        return self._kinds[kind](about)

    def _objects(self, about: Any) -> np.ndarray:
        made = np.empty(len(about[1]), dtype=object)
        made[:] = [self.made(item) for item in about[1]]
        return made.reshape(about[0])

    def _object(self, about: Any) -> Any:
        kind = _known()[about[0]]
        if not isinstance(kind, type) or issubclass(kind, np.generic | Enum):
            raise TypeError(f"{about[0]} is no class of objects")
        made = object.__new__(kind)
        made.__dict__.update(self.made(about[1]))
        return made


def _plain_dtype(text: str) -> np.dtype:
    kind = np.dtype(text)
    if kind.kind not in "biufO":
        raise TypeError(f"{text!r:.20} is no dtype of numbers or objects")
    return kind
