"""Checks and converts what scikit-learn users pass: whole numbers, seeds, frames, targets, weights."""

from __future__ import annotations

import re
from collections.abc import Container, Generator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.validation import check_X_y, validate_data

from tttab.core import Column, Task
from tttab.data.apart import Apart, apart_of, split_apart
from tttab.data.cells import cells_of, label_text
from tttab.data.columns import LARGEST, convert
from tttab.data.frames import as_frame, as_series
from tttab.data.reading import check_names
from tttab.data.schema import NewRows, Schema
from tttab.data.splits import Split, SplitRequest, split_rows
from tttab.data.target import check_targets
from tttab.data.weights import check_weights
from tttab.errors import DataError, RequestError
from tttab.text import brief, decoded

T = TypeVar("T")
_DTYPE = re.compile(r"[<|>](i|u|f|b|U|O)\d*")
FEWEST_QUERIES = 20
"""With fewer rows left than this, all rows become context and nothing is trained."""


def whole_seed(random_state: int | np.random.RandomState | None) -> int:
    """Return the seed of scikit-learn's `random_state`: a number, a generator or None.

    Raises:
        RequestError: it is a negative number.
    """
    if isinstance(random_state, Integral):
        return whole_number("random_state", random_state, least=0)
    return int(check_random_state(random_state).randint(2**31 - 1))


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number that may be written as a float; raise RequestError for all else."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or value != int(value) or value < least:
        raise RequestError(f"{name} must be a whole number, at least {least}, got {value!r:.40}")
    return int(value)


def days_for_dates(y: Any) -> Any:
    """Return dates and durations in days, as the command line has them; all other targets as they are."""
    values = as_series(y)
    if values is None or (cells := cells_of(values)).form not in ("date", "duration"):
        return y
    return pd.Series(convert(cells, Column("y", cells.form)), index=values.index, name=values.name)


def numbered(X: np.ndarray) -> pd.DataFrame:
    """Return an array of shape (rows, features) as a frame with the columns x0, x1, …."""
    return pd.DataFrame(X, columns=[f"x{number}" for number in range(X.shape[1])])


def without_infinities(X: pd.DataFrame) -> pd.DataFrame:
    """Return a shallow copy with text as column names.

    Raises:
        ValueError: a value is infinite or too large, those among objects included.
    """
    frame = X.set_axis([decoded(name) for name in X.columns], axis=1).reset_index(drop=True)
    for name, values in frame.items():
        if values.dtype.kind == "O":
            numbers = np.array([value for value in values if isinstance(value, float)])
        else:
            numbers = (
                values.to_numpy(dtype=float, na_value=np.nan) if values.dtype.kind == "f" else np.zeros(0)
            )
        if (np.abs(numbers) > LARGEST).any():
            raise ValueError(f"Input X contains infinity in column {name!r}, or a value beyond {LARGEST:g}")
    return frame


def target_name(y: Any, taken: Container[str]) -> str:
    """Return what the target is called: its own name where it has one and no feature has it."""
    name = str(getattr(y, "name", None) or "target")
    while name in taken:
        name += "_"
    return name


def class_names(classes: np.ndarray) -> tuple[str, ...]:
    """Return a text for every label, each different."""
    names = [label_text(label) for label in classes]
    if len(set(names)) < len(names):  # `true` and `True` are two labels with one text
        names = [f"{number}: {label}" for number, label in enumerate(classes)]
    return tuple(names)


def restored_labels(state: Mapping[str, Any], names: Sequence[str]) -> np.ndarray:
    """Return the distinct labels that a bundle keeps, shape (classes,).

    Args:
        own: what the estimator wrote; a bundle of `tttab adapt` has nothing of it.
        names: the classes' texts.

    Raises:
        ValueError: it is not what an estimator writes.
    """
    dtype = state.get("dtype", "|O")
    if not _DTYPE.fullmatch(dtype):
        raise ValueError(f"labels of dtype {dtype!r:.20}")
    labels = np.array(state.get("classes", list(names)), dtype=dtype)
    if labels.shape != (len(names),):
        raise ValueError("labels and classes differ in number")
    return labels


def divide(
    y: np.ndarray, n: int, k: int | None, classes: int, seed: int, apart: Apart | None = None, held: int = 0
) -> Split:
    """Divide all rows into context and queries; all become context where too few would be queries.

    Args:
        y: labels, shape (rows + held,).
        n: context rows.
        k: query rows; None: all that are left.
        classes: 0 for regression.
        seed: names the split.
        apart: groups or times that must not stand on two sides of the split.
        held: number of rows at the end that the user gave to choose the step.

    Raises:
        RequestError: there are both groups or times and validation rows.
        SplitError: a part would have too few rows.
    """
    if apart is not None and held:
        raise RequestError("X_val already says which rows are held out", "in Python fit(X, y, groups=groups)")
    SplitRequest(n, 1 if k is None else k).check()
    rows, none = np.arange(len(y) - held), np.arange(0)
    if len(rows) - n < FEWEST_QUERIES:
        return Split(rows, none, none, seed)
    request = SplitRequest(n, len(rows) if k is None else k)
    if apart is not None:
        return split_apart(y, request, seed, apart, classes=classes, keep_test=False)
    held_rows = np.arange(len(rows), len(y)) if held else None
    return split_rows(y[rows], request, seed, classes=classes, prescribed=(rows, none), held=held_rows)


def apart_of_rows(rows: int, groups: Any, times: Any) -> Apart | None:
    """Return the groups or the times, dates in days, of so many rows; None if there are neither.

    Raises:
        ValueError: there is not one value per row, or times are neither numbers nor dates.
    """
    values = groups if times is None else times
    if values is not None:
        check_consistent_length(np.empty(rows), values)
    return apart_of(groups, None if times is None else np.asarray(days_for_dates(times), dtype=np.float64))


def weights_of_rows(rows: int, sample_weight: Any, held: int) -> np.ndarray | None:
    """Return how much each row counts, shape (rows + held,), validation rows 1; None: all alike.

    Raises:
        ValueError: there is not one weight per row, or they are not numbers from 0 on.
    """
    if sample_weight is None:
        return None
    weights = column_or_1d(sample_weight, dtype=np.float64)
    check_consistent_length(np.empty(rows), weights)
    return np.concatenate([check_weights(weights, "sample_weight"), np.ones(held)])


def check_class_weight(class_weight: Any, task: Task) -> bool:
    """Return whether every class is to count alike; raise RequestError for what is neither None nor that."""
    if class_weight is None:
        return False
    if class_weight != "balanced":
        message = f"class_weight must be None or 'balanced', got {class_weight!r:.40}"
        raise RequestError(message, "in Python fit(X, y, sample_weight=…) for other weights")
    if task == "regression":
        raise RequestError("a regression target has no classes to balance", "leave out --class-weight")
    return True


def validation_rows(
    estimator: BaseEstimator, schema: Schema, X: Any, y: Any, labels: np.ndarray | None
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return a user's own validation rows in the form of the training rows, with their codes or values.

    Raises:
        ValueError: one of `X` and `y` is missing, they do not fit the rows of `fit`, or a label is not known.
    """
    if X is None or y is None:
        raise RequestError("validation rows need both X_val and y_val", "in Python fit(X, y, X_val, y_val)")
    read = new_rows(estimator, schema, X)
    y = column_or_1d(days_for_dates(y) if labels is None else y, warn=True)
    check_consistent_length(read.x, y)
    if labels is None:
        values = np.asarray(y, dtype=np.float64)
        check_targets(values, "y_val", np.arange(len(values)))
        return read.x, values
    place = {label: code for code, label in enumerate(labels.tolist())}
    unknown = next((label for label in y.tolist() if label not in place), None)
    if unknown is not None:
        raise DataError(f"y_val holds {brief(unknown)}, which is no label of y", "drop its rows")
    return read.x, np.array([place[label] for label in y.tolist()], dtype=np.int64)


def training_rows(
    estimator: BaseEstimator, X: Any, y: Any, *, numeric: bool
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return what `fit` was given as a frame and labels, and note names and number of features.

    Raises:
        ValueError: scikit-learn's checks refuse the rows, or a target cannot be used.
    """
    checks = {"ensure_min_samples": 2, "y_numeric": numeric}
    y = days_for_dates(y) if numeric else y
    frame = as_frame(X)
    if frame is None:
        X, y = validate_data(estimator, X, y, dtype=None, ensure_all_finite="allow-nan", **checks)
        frame = numbered(X)
    else:
        check_names(frame.columns, "X")
        validate_data(estimator, frame, y, skip_check_array=True)
        _, y = check_X_y(np.zeros((len(frame), frame.shape[1])), y, **checks)
    if numeric:
        check_targets(np.asarray(y, dtype=np.float64), target_name(y, ()), np.arange(len(y)))
    return without_infinities(frame), y


def new_rows(estimator: BaseEstimator, schema: Schema, X: Any) -> NewRows:
    """Return rows in the form of those that `fit` was given.

    Raises:
        ValueError: columns are missing, or a cell is not of its column's kind.
    """
    frame = as_frame(X)
    if frame is None:
        X = validate_data(estimator, X, reset=False, dtype=None, ensure_all_finite="allow-nan")
        frame = numbered(X)
    else:
        check_names(frame.columns, "X")
        validate_data(estimator, frame, reset=False, skip_check_array=True)
    frame = without_infinities(frame)
    # Positions rule, as everywhere in scikit-learn; names were compared above where there are any.
    frame.columns = [column.name for column in schema.columns]
    return schema.read(frame)


def result_of(steps: Generator[Any, None, T]) -> T:
    """Run a generator to its end and return what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
