"""A raw DataFrame into a `Table`: features, target, labels, fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tttab.core import Table, Task
from tttab.data.features import check_declared, convert_features
from tttab.data.reading import check_names
from tttab.data.target import read_target
from tttab.errors import DataError
from tttab.text import brief, decoded, shell_word

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    columns: Mapping[str, str] = field(default_factory=dict)
    """What the user declares single columns to be, as `guess.declared_column` reads it, or `ignore`."""
    decimals: Mapping[str, str] = field(default_factory=dict)
    """As `reading.RawFrame.decimals`."""
    notes: tuple[str, ...] = ()
    official_split: tuple[np.ndarray, np.ndarray] | None = None
    """(train, test) row numbers in the file, where an OpenML task prescribes them."""


def table_from_frame(frame: pd.DataFrame, origin: Origin) -> Table:
    """Convert `frame` to a `Table`.

    Raises:
        DataError: no rows, fewer than 2 rows with a target, no feature, two columns of one name, no such
            target, one class only, a target too large to be one, or a cell that is no number, date or text.
        RequestError: a column is declared that is not there, or as what it cannot be.
    """
    frame = frame.set_axis([decoded(name) for name in frame.columns], axis=1).reset_index(drop=True)
    check_names(frame.columns, origin.name)
    name, notes = _choose_target(frame, origin)
    unwanted = {column for column in frame.columns if origin.columns.get(column) == "ignore"} - {name}
    ignored = {*origin.ignored, *unwanted} - {name}
    features = [other for other in frame.columns if other != name and other not in ignored]
    declared = {column: text for column, text in origin.columns.items() if column not in unwanted}
    check_declared(declared, [name, *features])
    target = read_target(
        frame[name], origin.name, origin.task, origin.columns.get(name), origin.decimals.get(name, "")
    )
    notes += target.notes
    if len(target.rows) < len(frame):
        notes.append(f"{len(frame) - len(target.rows):,} rows without a target are left out")
        frame = frame.iloc[target.rows].reset_index(drop=True)
    if not features:
        raise DataError(f"{origin.name} has no column besides the target {brief(name)}", _LIST)
    declared.pop(name, None)
    found = convert_features(frame, features, decimals=origin.decimals, declared=declared)
    return Table(
        name=origin.name,
        task=target.task,
        x=found.x,
        y=target.y,
        classes=target.classes,
        target=name,
        fingerprint=fingerprint(found.x, target.y, target.classes, name),
        source=origin.source,
        openml_id=origin.openml_id,
        notes=(*origin.notes, *notes, *found.notes),
        official_split=_renumber(origin.official_split, target.rows),
        columns=found.columns,
        label=target.column,
    )


def fingerprint(x: pd.DataFrame, y: np.ndarray, classes: Sequence[str], target: str) -> str:
    """Return the SHA-256 of a table's content, the same in every process and from every file format.

    Hashed are the column names, kinds and values (level texts, not codes), the labels, the classes
    and the target's name; NaN is one value, whatever its bits.
    """
    digest = hashlib.sha256()
    for text in (target, str(len(classes)), *classes):
        _add(digest, text.encode())
    _add(digest, _bytes(y))
    for name, values in x.items():
        _add(digest, str(name).encode())
        if not isinstance(values.dtype, pd.CategoricalDtype):
            _add(digest, _bytes(values.to_numpy()))
            continue
        cells = pd.Categorical(values)
        levels = iter(cells.categories.tolist())
        while some := b"".join(_framed(level.encode()) for level in islice(levels, 10_000)):
            digest.update(some)
        _add(digest, _bytes(cells.codes.astype(np.int64)))
    return digest.hexdigest()


def _add(digest: hashlib._Hash, data: bytes) -> None:
    digest.update(_framed(data))


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data


def _bytes(values: np.ndarray) -> bytes:
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), np.nan, values)
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _choose_target(frame: pd.DataFrame, origin: Origin) -> tuple[str, list[str]]:
    names = list(frame.columns)
    if not names or frame.empty:
        raise DataError(f"{origin.name} has no rows", _LIST)
    if origin.target is None:
        return names[-1], [f"no target was named: the last column, {brief(names[-1])}, is the target"]
    if origin.target not in names:
        near = get_close_matches(origin.target, names, n=1, cutoff=0.5) or names[-1:]
        raise DataError(
            f"{origin.name} has no column {brief(origin.target)}; the nearest is {brief(near[0])}",
            f"--target {shell_word(near[0])}",
        )
    return origin.target, []


def _renumber(
    split: tuple[np.ndarray, np.ndarray] | None, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the split in row numbers after rows without a target are gone."""
    if split is None:
        return None
    train, test = (np.searchsorted(kept, rows[np.isin(rows, kept)]) for rows in split)
    return train, test


_LIST = "tttab data list"
