"""scikit-learn estimators: `TTTClassifier` and `TTTRegressor`.

This module has labels and predictions; `fitting` fits, saves and loads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, clone
from sklearn.utils.multiclass import check_classification_targets

from tttab.api.estimator_input import (
    class_names,
    restored_labels,
    target_name,
    training_rows,
    whole_seed,
)
from tttab.api.fitting import AdaptingEstimator
from tttab.api.hints import in_python_words
from tttab.core import Table
from tttab.data.features import convert_features
from tttab.data.frames import check_kind_of_frame, like_rows
from tttab.errors import DataError
from tttab.metrics import decided

if TYPE_CHECKING:
    import pandas as pd

    from tttab.bundle import Bundle
    from tttab.evaluation.advice import Advice


class TTTClassifier(ClassifierMixin, AdaptingEstimator):
    """Test-time training of a tabular foundation model, as a scikit-learn classifier.

    The model reads `n_context` rows at prediction time (drawn at random, by class). Up to `n_queries` further
    rows are the training queries; a held-out part of them chooses the step, or keeps the pretrained weights.
    With too few rows for both, all rows are context and nothing is trained.

    Args:
        n_context: rows the model reads at prediction time.
        n_queries: largest number of rows to train on; None: all that are left.
        columns: kinds of single columns, if the guess is wrong: `{"zip": "level",
            "price": "number:1.234,5", "when": "date:%d.%m.%Y"}`.
        rule: which weights to train; `none` is plain in-context learning.
        recipe: `default`, `single`, `fast` or `thorough`; gives steps, lr, optimizer, loss if they are None.
        steps: largest number of gradient steps.
        lr: learning rate.
        optimizer: `adamw`, `race`, or `sgd-1`, one step whose size a line search finds.
        context: `stratified`, `random`, `kcenter` or `nearest`: how the context rows are chosen.
        split: `fixed`, `redraw` or `kfold`: the contexts during training.
        guard: `loss`, `loss+ece` or `off`: how held-out rows choose the step.
        loss: `ensemble` trains on the averaged prediction's loss, `members` on the mean of the members' own.
        metric: what chooses the step instead of the loss, by the name of scikit-learn's scorer:
            `roc_auc`, `accuracy`, `balanced_accuracy`, …
        model: `auto`, a name of `tttab models list`, or the path of a checkpoint.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
        max_memory: memory limit, such as `4G`.
        n_members: ensemble members that predict; None: as many as the model's file says.
        max_seconds: time limit of training; None: all steps.
        blend: `trees` averages the predictions with those of boosted trees trained on the same rows.
        threshold: with two classes, the metric that chooses the decision threshold on held-out rows:
            `balanced_accuracy`, `accuracy` or `f1`; None: the likeliest class.
        class_weight: `balanced` gives every class the same weight in training and in the choice of the step.
        random_state: random seed for the split and for training.

    Attributes:
        classes_: the labels, sorted, shape (classes,).
        n_features_in_: number of features.
        feature_names_in_: their names, if X was a DataFrame.
        history_: one mapping per step: number, loss, held_out, best, seconds, …
        accepted_: False if the pretrained weights were kept; None if nothing was trained.
        n_context_, n_queries_: rows used as context and as queries.
        bundle_: the adapted model with its context.
    """

    _task = "classification"
    classes_: np.ndarray

    def set_output(self, *, predict_proba: str = "default") -> Self:
        """Say as what `predict_proba` returns probabilities; a clone keeps it.

        Args:
            predict_proba: `default`, an array; `pandas`, `polars` or `pyarrow`, a frame whose columns are the
                classes' texts; `input`, a frame of the library that X comes from. scikit-learn's scorers and
                meta-estimators want the array.

        Raises:
            RequestError: there is no such kind, or its package is not installed.
        """
        with in_python_words():
            check_kind_of_frame(predict_proba)
        self._sklearn_output_config = {"predict_proba": predict_proba}
        return self

    @in_python_words()
    def advise(self, X: Any, y: Any) -> Advice:
        """Say before `fit` what the model could still learn from these rows; nothing is fitted.

        Args:
            X: as for `fit`.
            y: as for `fit`.

        Raises:
            ValueError: the rows cannot be used, or too few are left beside the context.
            ModelError: the model file is missing or does not fit the table.
        """
        from tttab.evaluation.advice import advise
        from tttab.evaluation.trial import Trial

        seed, sizes, probe = whole_seed(self.random_state), self._sizes(), clone(self)
        frame, labels = training_rows(probe, X, y, numeric=False)
        x = convert_features(frame, list(frame.columns), declared=self.columns).x
        codes, classes, _ = self._encode(labels)
        split = self._divided(x, codes, len(classes), sizes, seed)
        table = Table("X", "classification", x, codes, classes, target_name(y, x.columns), "", "memory")
        session = self._open(len(classes), seed)
        session.check_fits(len(classes), x.shape[1])
        return advise(Trial(table, split, session, self.rule, self._schedule(), seed))

    @in_python_words()
    def predict_proba(self, X: Any) -> Any:
        """Return class probabilities, shape (rows, classes), in the order of `classes_`; see `set_output`.

        Raises:
            ValueError: columns are missing, or a cell is of another kind than in the rows of `fit`.
        """
        p = _probabilities(*self._check_rows(X))
        kind = getattr(self, "_sklearn_output_config", {}).get("predict_proba", "default")
        return like_rows(p, self.bundle_.schema.classes, kind, X)

    @in_python_words()
    def predict(self, X: Any) -> np.ndarray:
        """Return the likeliest class of each row, or what the threshold decides, shape (rows,)."""
        p = _probabilities(*self._check_rows(X))
        return self.classes_[decided(p, self.bundle_.threshold)]

    def _encode(self, y: np.ndarray) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
        """Return the codes of the labels, the classes' texts and the distinct labels."""
        check_classification_targets(y)
        odd = next((label for label in y.tolist() if not isinstance(label, str | int | float)), None)
        if odd is not None:
            raise DataError(f"labels must be texts or numbers, not {type(odd).__name__}", "y.astype(str)")
        distinct, codes = np.unique(y, return_inverse=True)
        if len(distinct) < 2:
            raise DataError(
                "y has 1 class; a classifier needs at least 2 classes", "add rows of another class"
            )
        return codes.astype(np.int64), class_names(distinct), distinct

    def _label_record(self) -> dict[str, Any]:
        return {"classes": self.classes_.tolist(), "dtype": self.classes_.dtype.str}

    def _restore_labels(self, state: Mapping[str, Any]) -> None:
        self.classes_ = restored_labels(state, self.bundle_.schema.classes)


class TTTRegressor(RegressorMixin, AdaptingEstimator):
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

    def _restore_labels(self, state: Mapping[str, Any]) -> None:
        return


def _probabilities(bundle: Bundle, x: pd.DataFrame) -> np.ndarray:
    p = bundle.server.predict(x).astype(np.float64)
    return p / p.sum(axis=1, keepdims=True)
