"""A raw DataFrame into a `Table`: target, task, columns, labels, fingerprint.

What does not belong here: files and servers (`reading`, `remote`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tttab.core import Table, Task
from tttab.data.columns import Kind, column_kind, to_category, to_days, to_numbers
from tttab.data.reading import check_names
from tttab.errors import DataError
from tttab.text import decoded

if TYPE_CHECKING:
    from collections.abc import Sequence

MANY_VALUES = 20
"""A numeric target with more distinct values than this is a regression target."""


@dataclass(frozen=True)
class Origin:
    """What is known of a table besides its cells."""

    name: str
    source: str
    """`bundled`, `OpenML`, `OpenML cache`, `file`, … as `Table.source` says it."""
    openml_id: int | None = None
    target: str | None = None
    """The target column; None: the last one, with a note."""
    task: Task | None = None
    """None: guessed from the target by `guess_task`."""
    ignored: Collection[str] = ()
    """Columns that are no features: row ids and ignored attributes."""
    notes: tuple[str, ...] = ()
    official_split: tuple[np.ndarray, np.ndarray] | None = None
    """(train, test) row numbers in the file, where an OpenML task prescribes them."""


def table_from_frame(frame: pd.DataFrame, origin: Origin) -> Table:
    """Convert `frame` to a `Table`.

    Raises:
        DataError: no rows, fewer than 2 rows with a target, no feature, two columns of one name, no
            such target, one class only, or a cell that is no number, date or text.
    """
    frame = frame.set_axis([decoded(name) for name in frame.columns], axis=1).reset_index(drop=True)
    check_names(frame.columns, origin.name)
    target, notes = _choose_target(frame, origin)
    task = origin.task or guess_task(frame[target])
    if task == "regression" and origin.task is None:
        notes.append(f"the target {target!r} has many different numbers, so the task is regression")
    kept = _rows_with_target(frame[target], task)
    if len(kept) < len(frame):
        notes.append(f"{len(frame) - len(kept):,} rows without a target are left out")
        frame = frame.iloc[kept].reset_index(drop=True)
    if len(frame) < 2:
        raise DataError(f"{origin.name} has {len(frame)} rows with a target; at least 2 are needed", _LIST)
    y, classes = encode_target(frame[target], task)
    if task == "classification" and len(classes) < 2:
        raise DataError(
            f"the target {target!r} has one class only, {classes[0]!r}", _other_target(frame, target)
        )
    ignored = set(origin.ignored) - {target}
    features = [name for name in frame.columns if name != target and name not in ignored]
    x, kinds, more = convert_features(frame, features)
    if x.empty:
        raise DataError(f"{origin.name} has no column besides the target {target!r}", _LIST)
    dates = tuple(name for name, kind in kinds.items() if kind == "date")
    return Table(
        name=origin.name,
        task=task,
        x=x,
        y=y,
        classes=classes,
        target=target,
        fingerprint=fingerprint(x, y, classes, target),
        source=origin.source,
        openml_id=origin.openml_id,
        notes=(*origin.notes, *notes, *more),
        official_split=_renumber(origin.official_split, kept),
        dates=dates,
    )


def guess_task(target: pd.Series) -> Task:
    """Guess the task from the target's values.

    Text and booleans are classes. Numbers are classes unless more than 20 differ, or they have
    fractions and more than a tenth of the rows (at least 3) differ.
    """
    if column_kind(target) != "number":
        return "classification" if column_kind(target) == "category" else "regression"
    values = to_numbers(target)
    values = values[np.isfinite(values)]
    distinct = np.unique(values)
    fractions = bool((distinct != np.round(distinct)).any())
    if len(distinct) > MANY_VALUES or (fractions and len(distinct) > max(2, len(values) // 10)):
        return "regression"
    return "classification"


def encode_target(target: pd.Series, task: Task) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return (int64 codes, sorted classes), or (float64 values, ()) for regression.

    Raises:
        DataError: a regression target holds something that is no number.
    """
    if task == "regression":
        return (to_days(target) if column_kind(target) == "date" else to_numbers(target)), ()
    labels = to_category(target)
    return labels.codes.astype(np.int64), tuple(labels.categories)


def convert_features(
    frame: pd.DataFrame, names: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, Kind], list[str]]:
    """Return (features, kind of each, notes): the table conventions of `tttab.core.Table`."""
    kinds = {name: column_kind(frame[name]) for name in names}
    columns = {name: convert_column(frame[name], kind) for name, kind in kinds.items()}
    notes = []
    infinite = [name for name, (_, count) in columns.items() if count]
    if infinite:
        notes.append(f"infinite values count as missing: {_some(infinite)}")
    dates = [name for name, kind in kinds.items() if kind == "date"]
    if dates:
        notes.append(f"dates became days since 1970-01-01: {_some(dates)}")
    unique = [name for name in names if kinds[name] == "category" and _one_text_per_row(columns[name][0])]
    if unique:
        notes.append(f"a different text in every row, so nothing to learn from: {_some(unique)}")
    return pd.DataFrame({name: values for name, (values, _) in columns.items()}), kinds, notes


def convert_column(
    values: pd.Series, kind: Kind, known: Sequence[str] = ()
) -> tuple[np.ndarray | pd.Categorical, int]:
    """Return one converted column and how many infinite values became missing."""
    if kind == "category":
        return to_category(values, known), 0
    numbers = to_days(values) if kind == "date" else to_numbers(values)
    infinite = np.isinf(numbers)
    return np.where(infinite, np.nan, numbers), int(infinite.sum())


def fingerprint(x: pd.DataFrame, y: np.ndarray, classes: Sequence[str], target: str) -> str:
    """Return the SHA-256 of a table's content, the same in every process and from every file format.

    Hashed are the column names, kinds and values (level texts, not codes), the labels, the classes
    and the target's name; NaN is one value, whatever its bits.
    """
    digest = hashlib.sha256()
    for text in (target, str(len(classes)), *classes):
        _add(digest, text.encode())
    _add(digest, _bytes(y))
    for name in x.columns:
        _add(digest, name.encode())
        if not isinstance(x[name].dtype, pd.CategoricalDtype):
            _add(digest, _bytes(x[name].to_numpy()))
            continue
        for level in x[name].cat.categories:
            _add(digest, level.encode())
        _add(digest, _bytes(x[name].cat.codes.to_numpy().astype(np.int64)))
    return digest.hexdigest()


def _add(digest: hashlib._Hash, data: bytes) -> None:
    digest.update(len(data).to_bytes(8, "little"))
    digest.update(data)


def _bytes(values: np.ndarray) -> bytes:
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), np.nan, values)
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _choose_target(frame: pd.DataFrame, origin: Origin) -> tuple[str, list[str]]:
    names = list(frame.columns)
    if not names or frame.empty:
        raise DataError(f"{origin.name} has no rows", _LIST)
    if origin.target is None:
        return names[-1], [f"no target was named: the last column, {names[-1]!r}, is the target"]
    if origin.target not in names:
        near = get_close_matches(origin.target, names, n=1, cutoff=0.5) or names[-1:]
        raise DataError(
            f"{origin.name} has no column {origin.target!r}; the nearest is {near[0]!r}",
            f"--target '{near[0]}'",
        )
    return origin.target, []


def _rows_with_target(target: pd.Series, task: Task) -> np.ndarray:
    present = target.notna().to_numpy()
    if task == "regression" and column_kind(target) == "number":
        return np.flatnonzero(present & np.isfinite(to_numbers(target)))
    return np.flatnonzero(present)


def _renumber(
    split: tuple[np.ndarray, np.ndarray] | None, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the split in row numbers after rows without a target are gone."""
    if split is None:
        return None
    train, test = (np.searchsorted(kept, rows[np.isin(rows, kept)]) for rows in split)
    return train, test


def _other_target(frame: pd.DataFrame, target: str) -> str:
    others = [name for name in frame.columns if name != target and frame[name].nunique() > 1]
    return f"--target '{others[-1]}'" if others else _LIST


def _one_text_per_row(values: np.ndarray | pd.Categorical) -> bool:
    return isinstance(values, pd.Categorical) and MANY_VALUES < len(values) == len(values.categories)


def _some(names: Sequence[str], most: int = 5) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


_LIST = "tttab data list"
