"""From a run's model to a file for the package: stored small, with its prediction settings and its card."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tttab.core import Task
from tttab.errors import RequestError
from tttab.models import open_model
from tttab.pretrain import checkpoint
from tttab.pretrain.card import read_card, write_card
from tttab.pretrain.curve import read_log
from tttab.pretrain.features import FAMILIES
from tttab.pretrain.functions import KINDS
from tttab.pretrain.loop import LOG, STATE
from tttab.pretrain.pool import KINDS as TABICL
from tttab.pretrain.reading import parse_json, parse_yaml, read_text
from tttab.pretrain.settings import Recipe
from tttab.seeding import numpy_stream
from tttab.system.files import atomic_path, sha256_of
from tttab.text import shell_word

LARGEST_CHANGE = 1e-3
"""Half precision is stored only if no reference prediction moves by this much."""

REFERENCE_ROWS = (80, 40)


def reference_table(task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (context x, context y, query x) of a fixed synthetic table: 80 context rows, 40 queries."""
    rng = numpy_stream(0, "reference predictions", task)
    x = rng.normal(size=(sum(REFERENCE_ROWS), 5))
    x[:, 3] = rng.integers(0, 4, len(x))
    score = x[:, 0] + np.sin(2.0 * x[:, 1]) + 0.3 * rng.normal(size=len(x))
    y = np.digitize(score, [-0.5, 0.7]) if task == "classification" else 10.0 + 3.0 * score
    return x[: REFERENCE_ROWS[0]], y[: REFERENCE_ROWS[0]], x[REFERENCE_ROWS[0] :]


def reference_predictions(model: Path, task: Task) -> np.ndarray:
    """Return what plain tabpfn predicts with `model` on the reference table, in fp32 on every machine.

    Probabilities, shape (queries, classes), or means in units of the context's deviation, (queries,).
    """
    from tabpfn import TabPFNClassifier, TabPFNRegressor

    x, y, queries = reference_table(task)
    settings: dict[str, Any] = {"device": "cpu", "inference_precision": torch.float32, "random_state": 0}
    if task == "classification":
        return TabPFNClassifier(model_path=model, **settings).fit(x, y).predict_proba(queries)
    means = TabPFNRegressor(model_path=model, **settings).fit(x, y).predict(queries)
    return (means - y.mean()) / y.std()


def bundle(source: Path, target: Path, recipe: Recipe, served: dict[str, Any], facts: dict[str, Any]) -> str:
    """Write `source` to `target` with its way of serving and a card; return the stored precision.

    Stored as float16 where reference predictions move by less than `LARGEST_CHANGE`, else float32. What was
    at `target` stays until the new file is whole.

    Raises:
        RequestError: tabpfn cannot serve with `served`.
        ModelError: `source` or an older card beside `target` cannot be read.
    """
    network = checkpoint.new_network(recipe, 0)
    checkpoint.load_weights(network, source)
    card = target.with_suffix(".md")
    if card.is_file():
        read_card(card)
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / target.name
        checkpoint.write_model(part, network, recipe, served, torch.float32)
        exact = _predictions_of(part, recipe.task)
        checkpoint.write_model(part, network, recipe, served, torch.float16)
        storage = "float16"
        if np.abs(_predictions_of(part, recipe.task) - exact).max() >= LARGEST_CHANGE:
            checkpoint.write_model(part, network, recipe, served, torch.float32)
            storage = "float32"
        with atomic_path(target) as whole:
            shutil.copyfile(part, whole)
    write_card(card, _head(target, network, recipe, served, storage) | facts, "\n")
    return storage


def read_served(path: Path) -> dict[str, Any]:
    """Return what `tttab pretrain choose` wrote: fields of the inference configuration.

    Raises:
        RequestError: the file holds something else.
    """
    found = parse_json(read_text(path, _CHOOSE), path, "way of serving", _CHOOSE)
    if not isinstance(found, dict):
        raise RequestError(f"{path} is no way of serving: it holds no fields", _CHOOSE)
    return found


def read_earlier(path: Path) -> list[dict[str, Any]]:
    """Return the runs that weights had behind them, as the list `training` of a card has them.

    Raises:
        RequestError: the file holds something else.
    """
    found = parse_yaml(read_text(path, _EARLIER), path, "list of runs", _EARLIER)
    if not isinstance(found, list) or not all(_is_stage(stage) for stage in found):
        raise RequestError(f"{path} is no list of runs: each needs a preset and texts as names", _EARLIER)
    return found


def _is_stage(stage: object) -> bool:
    return isinstance(stage, dict) and "preset" in stage and all(isinstance(name, str) for name in stage)


def _predictions_of(model: Path, task: Task) -> np.ndarray:
    """Return the reference predictions of a file whose configuration comes from a user."""
    open_model(str(model), task, device="cpu")
    try:
        return reference_predictions(model, task)
    except Exception as error:  # tabpfn takes what it does not know, and fails where it is used
        problem = f"{type(error).__name__}: {error}"
        raise RequestError(f"tabpfn cannot serve so: {problem}", _CHOOSE) from error


def facts_of(run: Path, recipe: Recipe, machine: str, earlier: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the card's `prior` and `training`, read from a run's log and state, after `earlier` runs.

    Raises:
        RequestError: the run was made with another preset or for another task, or its log is damaged or
            has no evaluation.
        ModelError: its state is damaged.
    """
    settings, own = _settings_of(run / STATE), json.loads(json.dumps(recipe.as_dict()))
    if (made := settings["recipe"]) != own:
        raise RequestError(
            f"{run} was not made with --preset {recipe.preset} --task {recipe.task}",
            f"--preset {shell_word(made['preset'])} --task {shell_word(made['task'])}",
        )
    lines = list(read_log(run / LOG))
    judged = [line for line in lines if line["held_out"]]
    if not judged:
        raise RequestError(f"{run / LOG} has no evaluation", "name the folder of a run that has ended")
    last = judged[-1]
    stage = {
        "preset": recipe.preset,
        "seed": settings["seed"],
        "machine": machine,
        "minutes": round(last["seconds"] / 60.0, 1),
        "steps": last["step"],
        "tables": last["tables"],
        "tables_from_tabicl": last["pooled"],
        "cells": last["tokens"],
        "waiting_share": round(last["waited"] / max(last["seconds"], 1e-9), 4),
        "curve": [{"tables": line["tables"], **_rounded(line["held_out"])} for line in judged],
    }
    prior = {
        "device": {
            "features": {family.__name__: share for family, share in FAMILIES.items()},
            "functions": {function.__name__: share for function, share in KINDS.items()},
            "mixture": own["mixture"],
        },
        "tabicl": {"share_asked": recipe.pool.share, "rows": recipe.pool.rows, "priors": dict(TABICL)},
        "shapes": own["shapes"],
    }
    return {"prior": prior, "training": [*earlier, stage]}


def _settings_of(path: Path) -> dict[str, Any]:
    """Return the recipe and the seed that a state was made with."""
    state = checkpoint.read_state(path)
    hint = "name the folder that tttab pretrain wrote"
    identity = state.get("identity") if isinstance(state, dict) else None
    settings = parse_json(identity if isinstance(identity, str) else "", path, "state of a run", hint)
    made = settings.get("recipe") if isinstance(settings, dict) and "seed" in settings else None
    if not isinstance(made, dict) or not {"preset", "task"} <= made.keys():
        raise RequestError(f"{path} is no state of a run", hint)
    return settings


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _head(
    target: Path, network: torch.nn.Module, recipe: Recipe, served: dict[str, Any], storage: str
) -> dict[str, Any]:
    sizes = recipe.architecture
    return {
        "name": target.stem,
        "file": target.name,
        "sha256": sha256_of(target),
        "task": recipe.task,
        "architecture": {"emsize": sizes.emsize, "nlayers": sizes.nlayers, "nhead": sizes.nhead},
        "parameters": sum(value.numel() for value in network.state_dict().values()),
        "storage": storage,
        "served": served,
        "licence": "MIT",
    }


_CHOOSE = "tttab pretrain choose MODEL"
_EARLIER = "give a YAML list, as under `training` on a card"
