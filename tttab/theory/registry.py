"""Every experiment by its name. A line here gives an experiment its command, options, table and figure."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tttab.theory.experiment import Experiment

MODULES = (
    "linear_attention.phase",
    "linear_attention.samples",
    "linear_attention.context",
    "linear_attention.alignment",
    "linear_attention.calibration",
    "linear_attention.advise",
    "linear_attention.steps",
    "linear_attention.noise",
    "linear_attention.kfold",
    "linear_attention.semi",
    "linear_attention.softmax",
    "linear_attention.step_size",
    "network.experiment",
    "single_index.exponents",
    "single_index.projection",
    "single_index.weak",
    "single_index.strong",
    "single_index.link_stage",
    "single_index.pipeline",
    "single_index.beyond",
    "transformer.experiment",
)
"""The modules that hold an `EXPERIMENT`, in the order in which the help lists them."""


def _loaded(module: str) -> Experiment[Any]:
    found = import_module(f"tttab.theory.{module}").EXPERIMENT
    assert isinstance(found, Experiment)
    return found


EXPERIMENTS: dict[str, Experiment[Any]] = {found.name: found for found in map(_loaded, MODULES)}
