"""Fitting, saving and loading of the scikit-learn estimators: what classifier and regressor share.

`fit` divides the rows into a short context and training queries, adapts the model to them and keeps a
`tttab.bundle.Bundle`, from which it predicts.
"""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from tttab.api.estimator_input import (
    apart_of_rows,
    check_class_weight,
    divide,
    new_rows,
    result_of,
    target_name,
    training_rows,
    validation_rows,
    weights_of_rows,
    whole_number,
    whole_seed,
)
from tttab.api.hints import in_python_words
from tttab.blend.blending import check_blend, fit_blend
from tttab.bundle import Bundle, bundle_record, load_bundle, save_bundle
from tttab.bundle.record import threshold_record
from tttab.contracts import Objective
from tttab.core import Task
from tttab.data.context_selection import choose_context
from tttab.data.features import convert_features
from tttab.data.schema import Schema
from tttab.data.splits import Split, hold_out
from tttab.data.validation import append_rows
from tttab.errors import BundleError
from tttab.evaluation.teacher import teacher_of
from tttab.metrics import check_threshold
from tttab.models import for_classes, open_model
from tttab.rules import get_rule
from tttab.system.files import plain
from tttab.system.resources import parse_bytes, parse_seconds
from tttab.training.checks import check_schedule
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation
from tttab.training.recipes import schedule_of
from tttab.training.result import Adapted

if TYPE_CHECKING:
    from sklearn.utils import Tags

    from tttab.contracts import Session
    from tttab.data.apart import Apart
    from tttab.explain.shapley import Explanation


class AdaptingEstimator(BaseEstimator, ABC):
    """What classifier and regressor share. See `TTTClassifier` for the parameters."""

    _task: ClassVar[Task]
    bundle_: Bundle
    history_: list[dict[str, Any]]
    accepted_: bool | None
    n_context_: int
    n_queries_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_context: int = 200,
        *,
        n_queries: int | None = 1000,
        columns: Mapping[str, str] | None = None,
        rule: str = "full",
        recipe: str = "default",
        steps: int | None = None,
        lr: float | None = None,
        optimizer: str | None = None,
        context: str = "stratified",
        split: str = "fixed",
        guard: str = "loss",
        loss: str | None = None,
        metric: str | None = None,
        model: str = "auto",
        device: str = "auto",
        max_memory: str = "4G",
        n_members: int | None = None,
        max_seconds: float | None = None,
        blend: str | None = None,
        threshold: str | None = None,
        class_weight: str | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.n_context = n_context
        self.n_queries = n_queries
        self.columns = columns
        self.rule = rule
        self.recipe = recipe
        self.steps = steps
        self.lr = lr
        self.optimizer = optimizer
        self.context = context
        self.split = split
        self.guard = guard
        self.loss = loss
        self.metric = metric
        self.model = model
        self.device = device
        self.max_memory = max_memory
        self.n_members = n_members
        self.max_seconds = max_seconds
        self.blend = blend
        self.threshold = threshold
        self.class_weight = class_weight
        self.random_state = random_state

    @in_python_words()
    def fit(
        self,
        X: Any,
        y: Any,
        X_val: Any = None,
        y_val: Any = None,
        *,
        groups: Any = None,
        times: Any = None,
        sample_weight: Any = None,
    ) -> Self:
        """Adapt the model.

        Args:
            X: a frame of any library that narwhals knows (numbers, dates, durations, booleans, categories
                and text; missing values allowed) or an array of shape (rows, features).
            y: shape (rows,): class labels of any kind, or values for regression; dates and durations
                count in days.
            X_val: further rows that choose the step, in the place of a part of the queries.
            y_val: their labels.
            groups: shape (rows,): rows of equal values are all held out to choose the step, or none is.
            times: shape (rows,), numbers or dates: the latest rows are held out.
            sample_weight: how much each row counts in training and in the choice of the step, shape (rows,).

        Raises:
            ValueError: the rows cannot be used, or there are too few of them for every class.
            ModelError: the model file is missing or does not fit the table.
        """
        seed = whole_seed(self.random_state)
        sizes = self._sizes()
        frame, labels = training_rows(self, X, y, numeric=self._task == "regression")
        found = convert_features(frame, list(frame.columns), declared=self.columns)
        for doubt in found.doubts:
            warnings.warn(doubt, UserWarning, stacklevel=3)
        x, (codes, classes, labels) = found.x, self._encode(labels)
        schema = Schema(found.columns, target_name(y, x.columns), self._task, classes)
        apart, held = apart_of_rows(len(codes), groups, times), 0
        if X_val is not None or y_val is not None:
            more, known = validation_rows(self, schema, X_val, y_val, labels)
            x, codes, held = append_rows(x, more), np.concatenate([codes, known]), len(known)
        split = self._divided(x, codes, len(classes), sizes, seed, apart, held)
        check_threshold(self.threshold, len(classes))
        weights = weights_of_rows(len(frame), sample_weight, held)
        adapted = self._adapt(x, codes, len(classes), split, weights, seed)
        record = bundle_record(split, adapted, self.rule, self._schedule(), seed)
        bundle = Bundle(adapted.session, x.iloc[split.context], codes[split.context], schema, record)
        if (self.blend or self.threshold) and split.k > 1:
            bundle = self._finished(bundle, x, codes, split, weights)
        fitted = {
            "n_context_": split.n,
            "n_queries_": split.k,
            "history_": [plain(asdict(step)) for step in adapted.history],
            "accepted_": adapted.accepted,
            "bundle_": bundle,
        }
        # All at once: another thread that predicts meanwhile sees the old fit or the new one.
        vars(self).update(fitted | ({} if labels is None else {"classes_": labels}))
        return self

    def _finished(
        self, bundle: Bundle, x: pd.DataFrame, y: np.ndarray, split: Split, weights: np.ndarray | None
    ) -> Bundle:
        """Return the bundle with what its held-out rows choose: the share of trees, the threshold."""
        share, classes, seed = self._schedule().held_out, len(bundle.schema.classes), split.seed
        queries, known = split.queries, y[split.queries]
        held = hold_out(known, share, seed, classes=classes, held=split.held)[1]
        if self.blend:
            parts = (bundle.x, bundle.y), (x.iloc[queries], known)
            count = None if weights is None else weights[np.concatenate([split.context, queries])]
            bundle = replace(bundle, blend=fit_blend(bundle.server, *parts, classes, held, seed, count))
        if self.threshold:
            count = None if weights is None else weights[queries[held]]
            rows = x.iloc[queries[held]], known[held], count
            bundle.record["threshold"] = threshold_record(self.threshold, bundle.server, *rows)
        return bundle

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write the fitted estimator as a bundle, for `load` and `tttab predict`.

        Raises:
            BundleError: the weights cannot be written.
            OSError: the folder cannot be written to.
        """
        check_is_fitted(self)
        state = {"parameters": self._plain_parameters(), "history": self.history_, **self._label_record()}
        state["names"] = hasattr(self, "feature_names_in_")
        bundle = replace(self.bundle_, record={**self.bundle_.record, "estimator": state})
        return save_bundle(directory, bundle)

    def explain(self, X: Any, *, background: int = 20) -> Explanation:
        """Return Shapley values of rows: what each feature adds to each prediction.

        Args:
            X: rows as for `predict`.
            background: context rows that stand for what is not known; time grows with them.

        Raises:
            MissingExtra: shap is not installed.
        """
        from tttab.explain.shapley import explain

        bundle, x = self._check_rows(X)
        return result_of(explain(bundle, x, background=background, seed=whole_seed(self.random_state)))

    @classmethod
    def load(cls, directory: str | os.PathLike[str], *, device: str = "auto") -> Self:
        """Read a bundle that `save` or `tttab adapt` wrote.

        Raises:
            BundleError: it is damaged, was tampered with, or is for another task.
        """
        bundle = load_bundle(directory, device=device)
        for note in bundle.notes:
            warnings.warn(note, UserWarning, stacklevel=2)
        if bundle.schema.task != cls._task:
            raise BundleError(
                f"the bundle in {directory} is for {bundle.schema.task}", "load it with the other estimator"
            )
        try:
            return cls._from_bundle(bundle, bundle.record.get("estimator", {}))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise BundleError(
                f"the bundle in {directory} does not describe an estimator: {str(error)[:120]}",
                "write it again with save()",
            ) from error

    @classmethod
    def _from_bundle(cls, bundle: Bundle, state: Mapping[str, Any]) -> Self:
        estimator = cls(**state.get("parameters", {}))
        estimator.bundle_ = bundle
        names = [column.name for column in bundle.schema.columns]
        estimator.n_features_in_ = len(names)
        if state.get("names", True):
            estimator.feature_names_in_ = np.array(names, dtype=object)
        adaptation = bundle.record.get("adaptation", {})
        estimator.history_ = list(state.get("history", []))
        estimator.accepted_ = adaptation.get("accepted")
        estimator.n_context_ = bundle.rows
        estimator.n_queries_ = bundle.record.get("split", {}).get("k", 0)
        estimator._restore_labels(state)
        return estimator

    def _check_rows(self, X: Any) -> tuple[Bundle, pd.DataFrame]:
        """Return what was fitted and new rows in its form, with a warning on texts that a column never had.

        Raises:
            ValueError: columns are missing, or a cell is not of its column's kind.
        """
        check_is_fitted(self)
        bundle = self.bundle_
        read = new_rows(self, bundle.schema, X)
        for remark in read.remarks:
            warnings.warn(remark, UserWarning, stacklevel=4)
        return bundle, read.x

    def _schedule(self) -> Schedule:
        names = ("steps", "lr", "optimizer", "split", "guard", "loss", "metric")
        limit = None if self.max_seconds is None else parse_seconds(self.max_seconds)
        names = {name: getattr(self, name) for name in names}
        balanced = check_class_weight(self.class_weight, self._task)
        return schedule_of(self.recipe, max_seconds=limit, balanced=balanced, **names)

    def _sizes(self) -> tuple[int, int | None]:
        n, k = whole_number("n_context", self.n_context), self.n_queries
        return n, k if k is None else whole_number("n_queries", k)

    def _divided(
        self,
        x: pd.DataFrame,
        y: np.ndarray,
        classes: int,
        sizes: tuple[int, int | None],
        seed: int,
        apart: Apart | None = None,
        held: int = 0,
    ) -> Split:
        split = divide(y, *sizes, classes, seed, apart, held)
        return choose_context(split, self.context, x, y, classes=classes) if split.k else split

    def _open(self, classes: int, seed: int) -> Session:
        session = open_model(self.model, self._task, device=self.device, seed=seed, members=self.n_members)
        return for_classes(session, classes)

    def _adapt(
        self,
        x: pd.DataFrame,
        y: np.ndarray,
        classes: int,
        split: Split,
        weights: np.ndarray | None,
        seed: int,
    ) -> Adapted:
        rule = get_rule(self.rule if split.k else "none")
        schedule = self._schedule()
        check_schedule(schedule, self._task)
        check_blend(self.blend)
        budget = parse_bytes(self.max_memory)
        session = self._open(classes, seed)
        context = session.context(x.iloc[split.context], y[split.context], classes)
        queries = x.iloc[split.queries], y[split.queries]
        teach = teacher_of(session, context, queries, schedule, seed)
        inputs = rule, context, queries, schedule, seed, budget
        objective = Objective(weights=None if weights is None else weights[split.queries])
        adaptation = Adaptation(session, *inputs, objective=objective, held=split.held, teach=teach)
        for _ in adaptation:
            pass
        return adaptation.result

    @abstractmethod
    def _encode(self, y: np.ndarray) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None]:
        """Return the targets as a model reads them, the classes' texts and, of labels, the distinct ones."""

    @abstractmethod
    def _label_record(self) -> dict[str, Any]:
        """Return what a bundle keeps of the labels."""

    @abstractmethod
    def _restore_labels(self, state: Mapping[str, Any]) -> None:
        """Take over what `_label_record` returned."""

    def _plain_parameters(self) -> dict[str, Any]:
        parameters = self.get_params(deep=False)
        plain = {name: value for name, value in parameters.items() if name != "random_state"}
        return plain | {"random_state": self.bundle_.record["split"]["seed"]}

    def __sklearn_tags__(self) -> Tags:
        """Declare what scikit-learn's checks should try: missing values, text and categories."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags
