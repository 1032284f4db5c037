"""What a checkpoint's header may say: the numbers of tabpfn's configurations and their ranges, as data.

tabpfn checks types. A number of the right type can still fill the memory (a million layers), hang (a million
ensemble members) or make every answer NaN (temperature 0).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tttab.errors import ModelError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SIZE, COUNT, BLOCKS = (1, 65_536), (0, 1e9), (1, 256)
RANGES: dict[str, tuple[float, float]] = {
    # Architecture, every version: sizes. The weights must have them too.
    "max_num_classes": (-1, 65_536),
    "num_buckets": (-1, 65_536),
    "emsize": SIZE,
    "nlayers": BLOCKS,
    "nhead": (1, 1024),
    "features_per_group": (1, 1024),
    "seed": (0, 2**63 - 1),
    "num_thinking_rows": (0, 65_536),
    "encoder_mlp_hidden_dim": SIZE,
    "embed_dim": SIZE,
    "dist_embed_num_blocks": BLOCKS,
    "dist_embed_num_heads": (1, 1024),
    "dist_embed_num_inducing_points": SIZE,
    "feature_group_size": (1, 64),
    "feat_agg_num_blocks": BLOCKS,
    "feat_agg_num_heads": (1, 1024),
    "feat_agg_num_cls_tokens": (1, 1024),
    "icl_num_heads": (1, 1024),
    "icl_num_kv_heads": (1, 1024),
    "icl_num_kv_heads_test": (1, 1024),
    "decoder_head_dim": SIZE,
    "decoder_num_heads": (1, 1024),
    "ff_factor": (1, 1024),
    "softmax_scaling_mlp_hidden_dim": SIZE,
    "fourier_encoding_num_frequencies": (1, 1024),
    "cell_ecdf_num_frequencies": SIZE,
    # Architecture: how it computes. No weight shows them.
    "feat_agg_rope_base": (1.0, 1e12),
    "dropout": (0.0, 1.0),
    "cell_ecdf_num_buckets": (2, 1e9),
    "cell_embed_row_chunk_size": (256, 1e12),
    "inference_chunk_cells": (16_384, 1e12),
    "inference_col_chunk_size": (1, 1e9),
    "max_batched_estimator_rows": (0, 1e12),
    "max_batched_estimator_cells": (0, 1e12),
    # Inference.
    "SOFTMAX_TEMPERATURE": (1e-4, 1e4),
    "N_ESTIMATORS": (1, 64),  # each costs one pass; tttab tells at most 256 apart
    "OUTLIER_REMOVAL_STD": (0.5, 1e6),
    "_REGRESSION_DEFAULT_OUTLIER_REMOVAL_STD": (0.5, 1e6),
    "_CLASSIFICATION_DEFAULT_OUTLIER_REMOVAL_STD": (0.5, 1e6),
    "MAX_UNIQUE_FOR_CATEGORICAL_FEATURES": COUNT,
    "MIN_UNIQUE_FOR_NUMERICAL_FEATURES": COUNT,
    "MIN_NUMBER_SAMPLES_FOR_CATEGORICAL_INFERENCE": COUNT,
    "MIN_CARDINALITY_FOR_TEXT": COUNT,
    "TEXT_N_COMPONENTS": (1, 1000),
    "POLYNOMIAL_FEATURES": (1, 1000),
    "SUBSAMPLE_SAMPLES": (1000, 1e9),  # a limit; fewer or a share would choose context rows behind our back
    "FEATURE_SUBSAMPLING_CONSTANT_FEATURE_COUNT": COUNT,
    "FEATURE_SUBSAMPLING_IMPORTANCE_TOP_K_COUNT": (1, 1e9),
    "MAX_NUMBER_OF_CLASSES": (1, 1e9),
    "MAX_NUMBER_OF_FEATURES": (1, 1e9),
    "MAX_NUMBER_OF_SAMPLES": (1, 1e9),
    "MAX_CPU_SAMPLES": (1, 1e9),
    # One feature transform.
    "max_features_per_estimator": (10, 1e9),
    "max_onehot_cardinality": (1, 1e9),
}
"""Smallest and largest value, both allowed."""
SHARES = ("FEATURE_SUBSAMPLING_IMPORTANCE_TOP_K_COUNT",)
"""Fields whose whole numbers are counts and whose fractions are shares of all, above 0 and up to 1."""
ONLY_OFF = ("differentiable",)
"""Switches of tabpfn's own training, with which it cannot serve a table."""
LENGTHS = {"PREPROCESS_TRANSFORMS": (1, 64), "REGRESSION_Y_PREPROCESS_TRANSFORMS": (1, 64)}
"""How many entries a list may have; no other field may be a list, what tabpfn takes there being rows."""
UNKNOWN = (-1e12, 1e12)
"""For numbers of a tabpfn version that this table does not know: they are numbers, and no more is known."""
MOST_VALUES, LONGEST_TEXT = 20_000, 1000


def check_ranges(parsed: DataclassInstance, file: str) -> None:
    """Check every number of a parsed configuration, a dataclass of tabpfn's.

    Raises:
        ModelError: one is out of its range.
    """
    for field in dataclasses.fields(parsed):
        _check(field.name, getattr(parsed, field.name), file)


def is_plain(header: object) -> bool:
    """Tell whether what a header says is plain data of bounded size; to be asked before anything reads it.

    An archive's lists can hold one list many times over: 50 nested ones print as 10^15 values.
    """
    left, seen = [header], 0
    while left and seen + len(left) <= MOST_VALUES:
        value, seen = left.pop(), seen + 1
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            left += value
        elif not _is_scalar(value):
            return False
    return not left


def _is_scalar(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT
    return isinstance(value, float | None) or (isinstance(value, int) and abs(value) < 2**64)


def _check(name: str, value: object, file: str) -> None:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        check_ranges(value, file)
    elif isinstance(value, list | tuple):
        low, high = LENGTHS.get(name, (0, -1))
        if not low <= len(value) <= high:
            allowed = f"it takes from {low} to {high}" if high > 0 else "it is no list here"
            raise ModelError(f"{file} lists {len(value):,} values for {name}; {allowed}", "--model auto")
        for item in value:
            _check(name, item, file)
    elif name in ONLY_OFF and value:
        raise ModelError(f"{file} turns {name} on, which serves no table", "--model auto")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = RANGES.get(name, UNKNOWN)
        if name in SHARES and isinstance(value, float):
            low, high = 1e-9, 1.0
        if not low <= value <= high:
            raise ModelError(
                f"{file} sets {name} to {value}; it goes from {low:g} to {high:g}", "--model auto"
            )
