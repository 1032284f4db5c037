"""Soft targets for training queries: what trees and the pretrained model predict for rows they have not seen.

The queries are divided into folds; the context and the other folds teach each. Half of a target is the label,
half the teachers' mixture with the smallest log loss (distillation: Hinton et al. 2015; the mixture is ours).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tttab.contracts import Context, Session
from tttab.data.splits import stratified_order
from tttab.errors import RequestError
from tttab.evaluation.baselines import baseline
from tttab.seeding import numpy_stream
from tttab.training.config import Schedule
from tttab.training.context_policy import stacked

if TYPE_CHECKING:
    import pandas as pd

FOLDS = 5
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""What the trees may count in the mixture."""
HARD = 0.5
"""What the label counts in a target."""
SMALLEST = 1e-6
"""The least probability that a teacher is held to."""


def teacher_of(
    session: Session,
    context: Context,
    queries: tuple[pd.DataFrame, np.ndarray],
    schedule: Schedule,
    seed: int,
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return what makes the targets of the queries, or None where the schedule asks for no teacher.

    Raises:
        RequestError: it does, and the table is for regression.
    """
    if not schedule.taught:
        return None
    if not context.classes:
        raise RequestError("teachers tell classes; this table is for regression", "--recipe default")
    return partial(soft_targets, session, context, *queries, seed)


def soft_targets(
    session: Session, context: Context, x: pd.DataFrame, y: np.ndarray, seed: int, train: np.ndarray
) -> np.ndarray:
    """Return targets of the queries, shape (queries, classes); the label where a query does not train.

    Args:
        session: the untouched model.
        context: the rows that serve; they teach every fold.
        x: the queries.
        y: their class codes.
        seed: names the folds and the trees' random stream.
        train: numbers of the queries that train; only these teach.
    """
    targets = np.eye(context.classes)[y]
    by_model, by_trees = np.zeros_like(targets), np.zeros_like(targets)
    order = stratified_order(y, train, context.classes, numpy_stream(seed, "teacher"))
    for fold in range(min(FOLDS, len(order))):
        fold_rows = order[fold::FOLDS]
        others = np.setdiff1d(train, fold_rows)
        x_known = stacked(context.x, x.iloc[others])
        y_known = np.concatenate([context.y, y[others]])
        rows = x.iloc[fold_rows]
        by_model[fold_rows] = session.serve(session.context(x_known, y_known, context.classes)).predict(rows)
        trees = baseline("gbt", x_known, "classification", seed).fit(x_known, y_known)
        by_trees[fold_rows] = trees.predict_proba(rows)
    mixtures = [share * by_trees + (1 - share) * by_model for share in SHARES]
    best = min(mixtures, key=lambda p: -np.log(np.maximum(p[train, y[train]], SMALLEST)).mean())
    targets[train] = HARD * targets[train] + (1 - HARD) * best[train]
    return targets
