"""Chooses how a checkpoint predicts: tabpfn's feature transforms, ensemble size and temperature.

The choice is made on synthetic tables that no training run draws: half from our own prior, half from
tabicl's. Real tables are never used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tttab.core import Task
from tttab.models import open_model
from tttab.models.tabpfn.session import OpenedModel
from tttab.pretrain.draw import Draw
from tttab.pretrain.held_out import KINDS
from tttab.pretrain.pool import made_apart
from tttab.pretrain.prior import Size, batch
from tttab.pretrain.settings import Mixture, PoolUse, Recipe, recipe

SEED = 31_415
QUERIES = 100
CONTEXTS = (60, 200, 400)
COLUMNS = (3, 8, 20)
TEMPERATURES = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5)
MOST_LEVELS = 30
CLOSE = 0.005
"""A cheaper way to serve is taken when its loss is at most this much above the best, nats."""
_SERVED: dict[str, Any] = {
    "device": "cpu",
    "inference_precision": torch.float32,  # by itself tabpfn takes bf16 on processors that have it
    "random_state": 0,
    "ignore_pretraining_limits": True,
}


def _plain(*names: str, members: int = 1, categories: str = "numeric") -> dict[str, Any]:
    transforms = [{"name": name, "categorical_name": categories} for name in names]
    return {"PREPROCESS_TRANSFORMS": transforms, "N_ESTIMATORS": members, "SOFTMAX_TEMPERATURE": 1.0}


CANDIDATES: dict[str, dict[str, Any]] = {
    "none": _plain("none"),
    "quantiles": _plain("quantile_uni_coarse"),
    "power": _plain("safepower"),
    "squash": _plain("squashing_scaler_default"),
    "none, fingerprint": _plain("none") | {"FINGERPRINT_FEATURE": True},
    "none twice": _plain("none", members=2),
    "none + quantiles": _plain("none", "quantile_uni_coarse", members=2),
    "none + squash": _plain("none", "squashing_scaler_default", members=2),
    "none + quantiles, 4": _plain("none", "quantile_uni_coarse", members=4),
}
"""What is tried, cheapest first within one size; overrides of the file's own configuration."""
SHUFFLED, COMMON = "ordinal_shuffled", "ordinal_very_common_categories_shuffled"
OF_CATEGORIES: dict[str, dict[str, Any]] = {
    "none, shuffled": _plain("none", categories=SHUFFLED),
    "none, one-hot": _plain("none", categories="onehot"),
    "none + quantiles, common shuffled": _plain("none", "quantile_uni_coarse", members=2, categories=COMMON),
    "none + quantiles, shuffled": _plain("none", "quantile_uni_coarse", members=2, categories=SHUFFLED),
    "none + quantiles, one-hot": _plain("none", "quantile_uni_coarse", members=2, categories="onehot"),
    "none + quantiles, shuffled, 4": _plain("none", "quantile_uni_coarse", members=4, categories=SHUFFLED),
}
"""What is tried besides where tables have categories."""


@dataclass(frozen=True)
class HeldOut:
    """One synthetic table, divided."""

    x: np.ndarray
    y: np.ndarray
    x_query: np.ndarray
    y_query: np.ndarray
    named: tuple[int, ...] = ()
    """Columns that are given to tabpfn as categories."""


@dataclass(frozen=True)
class Tried:
    """One way to serve and what it gave."""

    name: str
    overrides: dict[str, Any]
    losses: tuple[float, ...]
    """Mean loss per table, nats per query."""
    probabilities: tuple[np.ndarray, ...]
    """Of the query rows of each table; empty for regression."""

    @property
    def loss(self) -> float:
        """Return the mean over the tables."""
        return float(np.mean(self.losses))

    @property
    def members(self) -> int:
        """Return the number of ensemble members."""
        return int(self.overrides["N_ESTIMATORS"])


def tables(task: Task, count: int, preset: str = "nano") -> Iterator[HeldOut]:
    """Yield `count` held-out tables, from both priors in turn (tabicl's need the extra `pretrain`).

    The device's are `preset`'s: where those are of several kinds, each kind in turn.
    """
    use = PoolUse(rows=max(CONTEXTS) + QUERIES, features=COLUMNS)
    apart = made_apart(SEED, use)
    drawn = attempt = 0
    while drawn < count:
        context = CONTEXTS[drawn % len(CONTEXTS)]
        if drawn % 2:
            _, found = next(apart)
            if found is None or found.named != (task == "classification"):
                continue
            table = _divided(found.x.astype(np.float64), found.y.astype(np.float64), context)
        else:
            draw = Draw(SEED, "choice", drawn, *([attempt] if attempt else []))
            columns, made_by = _kind(recipe(preset, task), drawn // 2)
            made = batch(draw, Size(1, context, QUERIES, columns, 10), made_by, None)
            table = _divided(made.x[0].double().numpy(), made.y[0].double().numpy(), context)
            if table is not None and made_by.mixture != Mixture():
                table = replace(table, named=_codes(made.x[0].numpy()))
        attempt += 1
        if table is not None and len(np.unique(table.y)) > 1:
            drawn, attempt = drawn + 1, 0
            yield table
    apart.close()


def _kind(made_by: Recipe, number: int) -> tuple[int, Recipe]:
    """Return the columns of table `number` and the recipe it is made by; codes stay codes."""
    if made_by.mixture == Mixture():
        return COLUMNS[number % len(COLUMNS)], made_by
    columns, mixture = list(KINDS.values())[number % len(KINDS)]
    return columns, replace(made_by, mixture=mixture, shapes=replace(made_by.shapes, ranked=0.0))


def _codes(x: np.ndarray) -> tuple[int, ...]:
    """Return the columns of x (rows, columns) that hold few whole numbers."""
    known = [column[np.isfinite(column)] for column in x.T]
    return tuple(
        number
        for number, values in enumerate(known)
        if (values % 1 == 0).all() and 2 <= len(np.unique(values)) <= MOST_LEVELS
    )


def _divided(x: np.ndarray, y: np.ndarray, context: int) -> HeldOut | None:
    """Divide a table; query rows whose class the context lacks are left out."""
    query = np.arange(context, min(len(y), context + QUERIES))
    if (y % 1 == 0).all():
        query = query[np.isin(y[query], y[:context])]
    return HeldOut(x[:context], y[:context], x[query], y[query]) if len(query) else None


def compare(model: Path, task: Task, held_out: Sequence[HeldOut], most_members: int = 4) -> Iterator[Tried]:
    """Yield each candidate with its losses on the held-out tables, served by plain tabpfn.

    Raises:
        ModelError: `model` is no model file for `task`.
    """
    opened = open_model(str(model), task, device="cpu")  # read once, safely: tabpfn gets what was read
    assert isinstance(opened, OpenedModel), "tabpfn's is the only family"
    opened.module.requires_grad_(True)  # as tabpfn leaves what it loads: another kernel, another last bit
    serve = _class_losses if task == "classification" else _density_losses
    named = any(table.named for table in held_out)
    for name, overrides in candidates(most_members, named).items():
        answers = [serve(opened, overrides, table) for table in held_out]
        losses, probabilities = zip(*answers, strict=True)
        kept = tuple(p for p in probabilities if p is not None)
        yield Tried(name, overrides, losses, kept)


def best(tried: Sequence[Tried]) -> Tried:
    """Return the candidate with the fewest members, then the lowest loss, among those close to the best."""
    lowest = min(one.loss for one in tried)
    close = [one for one in tried if one.loss <= lowest + CLOSE]
    return min(close, key=lambda one: (one.members, one.loss))


def candidates(most_members: int, named: bool = False) -> dict[str, dict[str, Any]]:
    """Return the candidates with at most `most_members` ensemble members; time grows with them."""
    every = CANDIDATES | (OF_CATEGORIES if named else {})
    return {name: about for name, about in every.items() if about["N_ESTIMATORS"] <= most_members}


def temperature(chosen: Tried, held_out: Sequence[HeldOut]) -> float:
    """Return the softmax temperature with the lowest mean loss, for one member exact; 1 for regression."""
    if not chosen.probabilities:
        return 1.0
    pairs = [
        (np.log(np.clip(p, 1e-12, 1.0)), np.searchsorted(np.unique(t.y), t.y_query))
        for p, t in zip(chosen.probabilities, held_out, strict=True)
    ]
    means = [np.mean([_log_loss(log_p / heat, y) for log_p, y in pairs]) for heat in TEMPERATURES]
    return TEMPERATURES[int(np.argmin(means))]


def _log_loss(logits: np.ndarray, y: np.ndarray) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-log_p[np.arange(len(y)), y].mean())


def _class_losses(
    model: OpenedModel, overrides: dict[str, Any], table: HeldOut
) -> tuple[float, np.ndarray | None]:
    from tabpfn import TabPFNClassifier

    served = TabPFNClassifier(
        model_path=model.specs(),
        inference_config=overrides,
        categorical_features_indices=table.named or None,
        **_SERVED,
    )
    p = served.fit(table.x, table.y.astype(int)).predict_proba(table.x_query)
    codes = np.searchsorted(served.classes_, table.y_query.astype(int))
    return _log_loss(np.log(np.clip(p, 1e-12, 1.0)), codes), p


def _density_losses(
    model: OpenedModel, overrides: dict[str, Any], table: HeldOut
) -> tuple[float, np.ndarray | None]:
    """Return the negative log density in units of the context's standard deviation."""
    from tabpfn import TabPFNRegressor

    served = TabPFNRegressor(
        model_path=model.specs(),
        inference_config=overrides,
        categorical_features_indices=table.named or None,
        **_SERVED,
    )
    answer = served.fit(table.x, table.y).predict(table.x_query, output_type="full")
    y = torch.as_tensor(table.y_query, dtype=answer["logits"].dtype)
    with torch.no_grad():
        values = answer["criterion"](answer["logits"], y)
    return float(values.mean()) - float(np.log(table.y.std())), None
