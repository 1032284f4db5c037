"""scikit-learn estimators: `TTTClassifier` and `TTTRegressor`.

What does not belong here: how they are fitted, saved and loaded (`fitting`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, clone
from sklearn.utils.multiclass import check_classification_targets

from tttab.api.estimator_input import (
    class_names,
    divide,
    restored_labels,
    target_name,
    training_rows,
    whole_number,
    whole_seed,
)
from tttab.api.fitting import AdaptingEstimator
from tttab.api.hints import in_python_words
from tttab.core import Table
from tttab.data.context_selection import choose_context
from tttab.data.features import convert_features
from tttab.errors import DataError
from tttab.metrics import decided
from tttab.models import open_model

if TYPE_CHECKING:
    from tttab.evaluation.advice import Advice


class TTTClassifier(ClassifierMixin, AdaptingEstimator):
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
        metric: what the guard compares in the place of the loss, by the name of scikit-learn's scorer:
            `roc_auc`, `accuracy`, `balanced_accuracy`, …
        model: `auto`, a name of `tttab models list`, or the path of a checkpoint.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
        max_memory: the most memory to hold, such as `4G`.
        n_members: ensemble members that serve; None: as many as the model's file says.
        max_seconds: the most that training may take; None: all steps.
        blend: `trees` mixes the predictions with those of boosted trees fitted on the same rows.
        threshold: of two classes, choose on the held-out rows from which probability on `predict` tells the
            second, by `balanced_accuracy`, `accuracy` or `f1`; None: the likelier one.
        class_weight: `balanced` makes every class count alike in training and in the choice of the step.
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
    def advise(self, X: Any, y: Any) -> Advice:
        """Say before `fit` what the model could still learn from these rows; nothing is fitted.

        Args:
            X, y: as for `fit`.

        Raises:
            ValueError: the rows cannot be used, or too few are left beside the context.
            ModelError: the model file is missing or does not fit the table.
        """
        from tttab.evaluation.advice import advise
        from tttab.evaluation.trial import Trial

        seed, asked = whole_seed(self.random_state), clone(self)
        frame, labels = training_rows(asked, X, y, numeric=False)
        x = convert_features(frame, list(frame.columns), declared=self.columns).x
        codes, classes, _ = self._encode(labels)
        split = divide(codes, whole_number("n_context", self.n_context), self.n_queries, len(classes), seed)
        if split.k:
            split = choose_context(split, self.context, x, codes, classes=len(classes))
        table = Table("X", "classification", x, codes, classes, target_name(y, x.columns), "", "memory")
        session = open_model(self.model, self._task, device=self.device, seed=seed, members=self.n_members)
        session.check_fits(len(classes), x.shape[1])
        return advise(Trial(table, split, session, self.rule, self._schedule(), seed))

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
        """Return the likeliest class of each row, or what the threshold decides, shape (rows,)."""
        p = self.predict_proba(X)
        return self.classes_[decided(p, self.bundle_.threshold)]

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

    def _restore_labels(self, own: Mapping[str, Any]) -> None:
        return
