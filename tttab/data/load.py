"""From what a user types to a `Table`: an OpenML id, a known name, or a path.

What does not belong here: how a file is read, a server asked, a column converted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tttab.core import Table, Task
from tttab.data.build import Origin, table_from_frame
from tttab.data.reading import SUFFIXES, RawFrame, read_frame
from tttab.data.registry import Entry, catalog, nearest
from tttab.data.remote import RemoteTable, RemoteTask, Unreachable, fetch_table, fetch_task
from tttab.errors import DataError, UnknownDataset

_OPENML_ID = re.compile(r"[0-9]{1,10}", re.ASCII)


def load_table(
    spec: str | int, *, target: str | None = None, task: Task | None = None, refresh: bool = False
) -> Table:
    """Load a table.

    A bundled name needs no network. An id asks OpenML's cache, then OpenML; data set 31 falls back
    on the copy in the package. `Table.source` says which one served, `Table.notes` what was decided.

    Args:
        spec: an OpenML id (`31`), a name in `datasets.yaml`, or a path (CSV, TSV, Parquet, ARFF).
        target: the target column; None: the one in the catalogue, OpenML's default, or the last.
        task: None: the one in the catalogue, or guessed by `guess_task`.
        refresh: fetch an OpenML data set anew.

    Raises:
        UnknownDataset: nothing of that name, id or path.
        DataError: it cannot be read or used as a table.
    """
    text = str(spec).strip()
    if _OPENML_ID.fullmatch(text):
        return _load_openml(int(text), target, task, refresh)
    entry = catalog().tables.get(text)
    if entry is not None:
        return _load_entry(entry, target, task, refresh)
    path = Path(text)
    if not (path.suffix.lower() in SUFFIXES or "/" in text):
        raise _unknown_name(text)
    raw = read_frame(path)
    origin = Origin(path.name, "file", target=target, task=task, notes=raw.notes)
    return table_from_frame(raw.frame, origin)


def load_task(task_id: int, fold: int = 0, *, repeat: int = 0) -> Table:
    """Load the data set of an OpenML task with the task's target and `official_split`.

    Raises:
        UnknownDataset: no such task or fold.
        DataError: OpenML cannot be reached, or the data set cannot be used.
    """
    prescribed = fetch_task(task_id, fold, repeat)
    remote, raw = _fetch(prescribed.openml_id)
    return _from_remote(remote, raw, prescribed.target, prescribed.task, prescribed)


@dataclass(frozen=True)
class Delivery:
    """What became of one of several data sets to get."""

    spec: str
    table: Table | None
    """None where it failed."""
    error: str = ""


def get_tables(specs: Iterable[str], *, refresh: bool = False) -> Iterator[Delivery]:
    """Load one data set after the other, so that OpenML's cache holds them; failures do not stop it."""
    for spec in specs:
        try:
            yield Delivery(spec, load_table(spec, refresh=refresh))
        except DataError as error:
            yield Delivery(spec, None, error.message)


def bundled_table(
    entry: Entry, source: str = "bundled", *, target: str | None = None, task: Task | None = None
) -> Table:
    """Load a table that ships with the package.

    Raises:
        UnknownDataset: `entry` does not ship.
        DataError: no such target, or a task that its values do not allow.
    """
    if entry.file is None:
        raise UnknownDataset(f"{entry.name} does not ship with the package", "tttab data list --local")
    origin = Origin(entry.name, source, entry.openml, target or entry.target, task or _task_of(entry, target))
    return table_from_frame(read_frame(entry.file).frame, origin)


def _load_entry(entry: Entry, target: str | None, task: Task | None, refresh: bool) -> Table:
    if entry.bundled and not refresh:
        return bundled_table(entry, target=target, task=task)
    if entry.openml is None:
        raise DataError(f"{entry.name} ships with the package: there is nothing to fetch", "tttab data list")
    return _load_openml(entry.openml, target, task, refresh)


def _load_openml(openml_id: int, target: str | None, task: Task | None, refresh: bool) -> Table:
    entry = catalog().by_openml_id(openml_id)
    try:
        remote, raw = _fetch(openml_id, refresh)
    except UnknownDataset as error:
        raise _unknown_id(openml_id, error) from error
    except DataError as error:
        if entry is None or not entry.bundled:
            raise
        reason = "could not be reached" if isinstance(error, Unreachable) else "gave a damaged answer"
        return bundled_table(entry, f"bundled copy (OpenML {reason})", target=target, task=task)
    if entry is not None:
        target, task = target or entry.target, task or _task_of(entry, target)
    return _from_remote(remote, raw, target, task)


def _fetch(openml_id: int, refresh: bool = False) -> tuple[RemoteTable, RawFrame]:
    """Return what OpenML sent, read; a cached file that cannot be read is fetched once more."""
    remote = fetch_table(openml_id, refresh=refresh)
    try:
        return remote, read_frame(remote.file)
    except DataError:
        if remote.source != "OpenML cache":
            raise
    remote = fetch_table(openml_id, refresh=True)
    return remote, read_frame(remote.file)


def _from_remote(
    remote: RemoteTable,
    raw: RawFrame,
    target: str | None,
    task: Task | None,
    prescribed: RemoteTask | None = None,
) -> Table:
    origin = Origin(
        name=remote.name,
        source=remote.source,
        openml_id=remote.openml_id,
        target=target or _single_target(remote),
        task=task,
        ignored=remote.ignored,
        notes=(*remote.notes, *raw.notes),
        official_split=prescribed.split if prescribed else None,
    )
    return table_from_frame(raw.frame, origin)


def _single_target(remote: RemoteTable) -> str | None:
    if remote.target is None or "," not in remote.target:
        return remote.target
    first = remote.target.split(",")[0].strip()
    raise DataError(
        f"OpenML data set {remote.openml_id} has several targets: {remote.target}", f"--target '{first}'"
    )


def _task_of(entry: Entry, target: str | None) -> Task | None:
    """Return the entry's task, unless another target was asked for."""
    return entry.task if target in (None, entry.target) else None


def _unknown_id(openml_id: int, error: UnknownDataset) -> UnknownDataset:
    near = nearest(str(openml_id), [str(e.openml) for e in catalog().tables.values() if e.openml])
    if near is None:
        return error
    return UnknownDataset(f"{error.message}; the nearest known id is {near}", f"tttab data show {near}")


def _unknown_name(name: str) -> UnknownDataset:
    near = nearest(name, catalog().tables)
    return UnknownDataset(
        f"there is no data set {name!r}" + (f"; the nearest known name is {near!r}" if near else ""),
        (f"tttab data show {near}; " if near else "tttab data list; ")
        + f"a file needs its ending: ./{name}.csv",
    )
