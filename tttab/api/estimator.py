"""scikit-learn estimators: `TTTClassifier` and `TTTRegressor`.

`fit` divides the rows into a short context and training queries, adapts the model to them and keeps
what serves: a `tttab.bundle.Bundle`. What does not belong here: the adaptation itself (`training`) and
the files (`bundle`).
"""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from tttab.api.estimator_input import (
    class_names,
    divide,
    numbered,
    restored_labels,
    result_of,
    target_name,
    training_rows,
    whole_number,
    whole_seed,
    without_infinities,
)
from tttab.api.hints import in_python_words
from tttab.blend.blending import check_kind, fit_blend
from tttab.bundle import Bundle, bundle_record, load_bundle, save_bundle
from tttab.core import Task
from tttab.data.context_selection import choose_context
from tttab.data.features import convert_features
from tttab.data.frames import as_frame
from tttab.data.reading import check_names
from tttab.data.schema import Schema
from tttab.data.splits import Split
from tttab.errors import BundleError, DataError
from tttab.evaluation.teacher import teacher_of
from tttab.models import open_model
from tttab.rules import get_rule
from tttab.system.resources import parse_bytes, parse_seconds
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation, check_schedule
from tttab.training.recipes import schedule_of
from tttab.training.result import Adapted

if TYPE_CHECKING:
    from sklearn.utils import Tags

    from tttab.explain.shapley import Explanation


class _TestTimeEstimator(BaseEstimator, ABC):
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
        model: str = "auto",
        device: str = "auto",
        max_memory: str = "4G",
        n_members: int | None = None,
        max_seconds: float | None = None,
        blend: str | None = None,
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
        self.model = model
        self.device = device
        self.max_memory = max_memory
        self.n_members = n_members
        self.max_seconds = max_seconds
        self.blend = blend
        self.random_state = random_state

    @in_python_words()
    def fit(self, X: Any, y: Any) -> Self:
        """Adapt the model.

        Args:
            X: a frame of any library that narwhals knows (numbers, dates, durations, booleans, categories
                and text; missing values allowed) or an array of shape (rows, features).
            y: shape (rows,): class labels of any kind, or values for regression; dates and durations
                count in days.

        Raises:
            ValueError: the rows cannot be used, or there are too few of them for every class.
            ModelError: the model file is missing or does not fit the table.
        """
        seed = whole_seed(self.random_state)
        n, k = whole_number("n_context", self.n_context), self.n_queries
        k = k if k is None else whole_number("n_queries", k)
        frame, labels = training_rows(self, X, y, numeric=self._task == "regression")
        found = convert_features(frame, list(frame.columns), declared=self.columns)
        for doubt in found.doubts:
            warnings.warn(doubt, UserWarning, stacklevel=3)
        x, (codes, classes, labels) = found.x, self._encode(labels)
        schema = Schema(found.columns, target_name(y, x.columns), self._task, classes)
        split = divide(codes, n, k, len(classes), seed)
        if split.k:
            split = choose_context(split, self.context, x, codes, classes=len(classes))
        adapted = self._adapt(x, codes, len(classes), split, seed)
        record = bundle_record(split, adapted, self.rule, self._schedule(), seed)
        bundle = Bundle(adapted.session, x.iloc[split.context], codes[split.context], schema, record)
        if self.blend and split.k > 1:
            rows = (bundle.x, bundle.y), (x.iloc[split.queries], codes[split.queries])
            share = self._schedule().held_out
            bundle = replace(bundle, blend=fit_blend(bundle.server, *rows, len(classes), share, seed))
        fitted = {
            "n_context_": split.n,
            "n_queries_": split.k,
            "history_": [asdict(step) for step in adapted.history],
            "accepted_": adapted.accepted,
            "bundle_": bundle,
        }
        # All at once: another thread that predicts meanwhile sees the old fit or the new one.
        vars(self).update(fitted | ({} if labels is None else {"classes_": labels}))
        return self

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write the fitted estimator as a bundle, for `load` and `tttab predict`.

        Raises:
            BundleError: the weights cannot be written.
            OSError: the folder cannot be written to.
        """
        check_is_fitted(self)
        own = {"parameters": self._plain_parameters(), "history": self.history_, **self._label_record()}
        own["names"] = hasattr(self, "feature_names_in_")
        bundle = replace(self.bundle_, record={**self.bundle_.record, "estimator": own})
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
    def _from_bundle(cls, bundle: Bundle, own: Mapping[str, Any]) -> Self:
        estimator = cls(**own.get("parameters", {}))
        estimator.bundle_ = bundle
        names = [column.name for column in bundle.schema.columns]
        estimator.n_features_in_ = len(names)
        if own.get("names", True):
            estimator.feature_names_in_ = np.array(names, dtype=object)
        adaptation = bundle.record.get("adaptation", {})
        estimator.history_ = list(own.get("history", []))
        estimator.accepted_ = adaptation.get("accepted")
        estimator.n_context_ = len(bundle.y)
        estimator.n_queries_ = bundle.record.get("split", {}).get("k", 0)
        estimator._restore_labels(own)
        return estimator

    def _check_rows(self, X: Any) -> tuple[Bundle, pd.DataFrame]:
        """Return what was fitted and new rows in its form, with a warning on texts that a column never had.

        Raises:
            ValueError: columns are missing, or a cell is not of its column's kind.
        """
        check_is_fitted(self)
        bundle, frame = self.bundle_, as_frame(X)
        if frame is None:
            X = validate_data(self, X, reset=False, dtype=None, ensure_all_finite="allow-nan")
            frame = numbered(X)
        else:
            check_names(frame.columns, "X")
            validate_data(self, frame, reset=False, skip_check_array=True)
        frame = without_infinities(frame)
        # Positions rule, as everywhere in scikit-learn; names were compared above where there are any.
        frame.columns = [column.name for column in bundle.schema.columns]
        read = bundle.schema.read(frame)
        for remark in read.remarks:
            warnings.warn(remark, UserWarning, stacklevel=4)
        return bundle, read.x

    def _schedule(self) -> Schedule:
        names = ("steps", "lr", "optimizer", "split", "guard", "loss")
        limit = None if self.max_seconds is None else parse_seconds(self.max_seconds)
        return schedule_of(self.recipe, max_seconds=limit, **{name: getattr(self, name) for name in names})

    def _adapt(self, x: pd.DataFrame, y: np.ndarray, classes: int, split: Split, seed: int) -> Adapted:
        rule = get_rule(self.rule if split.k else "none")
        schedule = self._schedule()
        check_schedule(schedule)
        check_kind(self.blend)
        budget = parse_bytes(self.max_memory)
        session = open_model(self.model, self._task, device=self.device, seed=seed, members=self.n_members)
        context = session.context(x.iloc[split.context], y[split.context], classes)
        queries = x.iloc[split.queries], y[split.queries]
        teach = teacher_of(session, context, queries, schedule, seed)
        adaptation = Adaptation(session, rule, context, queries, schedule, seed, budget, teach=teach)
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
    def _restore_labels(self, own: Mapping[str, Any]) -> None:
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


class TTTClassifier(ClassifierMixin, _TestTimeEstimator):
    """Test-time training of a tabular foundation model, as a scikit-learn classifier.

    The first `n_context` rows (drawn, stratified) are what the model reads at prediction time; up to
    `n_queries` further rows are the training queries, of which a held-out part decides whether the
    adapted weights are kept. With too few rows for both, all rows are context and nothing is trained.

    Args:
        n_context: rows the model reads at prediction time.
        n_queries: rows to train on at most; None: all that are left.
        columns: what single columns are, where the guess is wrong: `{"zip": "level",
            "price": "number:1.234,5", "when": "date:%d.%m.%Y"}`.
        rule: which weights move; `none` is plain in-context learning.
        recipe: `default`, `fast`, `race` or `thorough`: what the next three and loss are where None.
        steps: gradient steps at most.
        lr: learning rate.
        optimizer: `adamw` over several steps, `race`, or `sgd-1`, one step whose size a line search finds.
        context: `stratified`, `random`, `kcenter` or `nearest`: how the context rows are chosen.
        split: `fixed`, `redraw` or `kfold`: the contexts that training sees.
        guard: `loss`, `loss+ece` or `off`: when held-out rows keep the pretrained weights.
        loss: `ensemble` trains on the averaged prediction's loss, `members` on the mean of the members' own.
        model: `auto`, a name of `tttab models list`, or the path of a checkpoint.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
        max_memory: the most memory to hold, such as `4G`.
        n_members: ensemble members that serve; None: as many as the model's file says.
        max_seconds: the most that training may take; None: all steps.
        blend: `trees` mixes the predictions with those of boosted trees fitted on the same rows.
        random_state: names the split and the training streams.

    Attributes:
        classes_: the labels, sorted, shape (classes,).
        n_features_in_: number of features.
        feature_names_in_: their names, where X was a DataFrame.
        history_: one mapping per step: number, loss, held_out, best, seconds, …
        accepted_: False where the guard kept the pretrained weights; None where nothing was trained.
        n_context_, n_queries_: rows used as context and as queries.
        bundle_: the adapted model with its context.
    """

    _task = "classification"
    classes_: np.ndarray

    @in_python_words()
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities, shape (rows, classes), in the order of `classes_`.

        Raises:
            ValueError: columns are missing, or a cell is of another kind than in the rows of `fit`.
        """
        bundle, x = self._check_rows(X)
        p = bundle.server.predict(x).astype(np.float64)
        return p / p.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """Return the likeliest class of each row, shape (rows,)."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def _encode(self, y: np.ndarray) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
        """Return the codes of the labels, the classes' texts and the distinct labels."""
        check_classification_targets(y)
        strange = next((label for label in y.tolist() if not isinstance(label, str | int | float)), None)
        if strange is not None:
            raise DataError(f"labels must be texts or numbers, not {type(strange).__name__}", "y.astype(str)")
        distinct, codes = np.unique(y, return_inverse=True)
        if len(distinct) < 2:
            raise DataError(
                "y has 1 class; a classifier needs at least 2 classes", "add rows of another class"
            )
        return codes.astype(np.int64), class_names(distinct), distinct

    def _label_record(self) -> dict[str, Any]:
        return {"classes": self.classes_.tolist(), "dtype": self.classes_.dtype.str}

    def _restore_labels(self, own: Mapping[str, Any]) -> None:
        self.classes_ = restored_labels(own, self.bundle_.schema.classes)


class TTTRegressor(RegressorMixin, _TestTimeEstimator):
    """Test-time training of a tabular foundation model, as a scikit-learn regressor.

    Parameters and attributes are those of `TTTClassifier`, without `classes_`.
    """

    _task = "regression"

    @in_python_words()
    def predict(self, X: Any) -> np.ndarray:
        """Return the mean of the predicted distribution, shape (rows,)."""
        bundle, x = self._check_rows(X)
        return bundle.server.predict(x).astype(np.float64)

    @in_python_words()
    def predict_quantiles(self, X: Any, quantiles: Sequence[float] = (0.1, 0.5, 0.9)) -> np.ndarray:
        """Return quantiles of the predicted distribution, shape (rows, quantiles)."""
        bundle, x = self._check_rows(X)
        return bundle.server.predict_quantiles(x, quantiles).astype(np.float64)

    def _encode(self, y: np.ndarray) -> tuple[np.ndarray, tuple[str, ...], None]:
        return np.asarray(y, dtype=np.float64), (), None

    def _label_record(self) -> dict[str, Any]:
        return {}

    def _restore_labels(self, own: Mapping[str, Any]) -> None:
        return
