"""From what a user types to a `Table`: an OpenML id, a known name, or a path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tttab.core import Table, Task
from tttab.data.build import Origin, table_from_frame
from tttab.data.packages import PACKAGES, read_packaged
from tttab.data.reading import SUFFIXES, RawFrame, read_frame
from tttab.data.registry import Entry, catalog, nearest
from tttab.data.remote import RemoteTable, RemoteTask, Unreachable, fetch_table, fetch_task
from tttab.errors import DataError, UnknownDataset
from tttab.text import brief, shell_word

_OPENML_ID = re.compile(r"[0-9]{1,10}", re.ASCII)


@dataclass(frozen=True)
class Wishes:
    """What a user asks of a table beyond its name."""

    target: str | None = None
    """The target column; None: the one in the catalogue, OpenML's default, or the last."""
    task: Task | None = None
    """None: the one in the catalogue, or guessed by `guess_task`."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """What single columns are, as `guess.declared_column` reads it; the others are guessed."""

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns of a CSV file whose cells must stay texts until they are converted."""
        return tuple(
            name for name, text in self.columns.items() if text not in ("number", "date", "duration")
        )

    def of(self, entry: Entry | None) -> Wishes:
        """Return what is asked where a catalogue's entry answers what the user left open."""
        if entry is None:
            return self
        task = entry.task if self.target in (None, entry.target) else None
        return replace(self, target=self.target or entry.target, task=self.task or task)


def load_table(
    spec: str | int,
    *,
    target: str | None = None,
    task: Task | None = None,
    columns: Mapping[str, str] | None = None,
    refresh: bool = False,
) -> Table:
    """Load a table.

    A bundled name needs no network. An id asks OpenML's cache, then OpenML; data set 31 falls back
    on the copy in the package. `Table.source` says which one served, `Table.notes` what was decided.

    Args:
        spec: an OpenML id (`31`), a name in `datasets.yaml`, or a path (CSV, TSV, Parquet, ARFF).
        target: the target column; None: the one in the catalogue, OpenML's default, or the last.
        task: None: the one in the catalogue, or guessed by `guess_task`.
        columns: what single columns are: `{"zip": "level", "price": "number:1.234,5",
            "when": "date:%d.%m.%Y"}`; the kinds are number, level, date, duration and boolean;
            `ignore` leaves the column out.
        refresh: fetch an OpenML data set anew.

    Raises:
        UnknownDataset: nothing of that name, id or path.
        DataError: it cannot be read or used as a table.
        RequestError: a column is declared that is not there, or as what it cannot be.
    """
    text, wishes = str(spec).strip(), Wishes(target, task, dict(columns or {}))
    if _OPENML_ID.fullmatch(text):
        return _load_openml(int(text), wishes, refresh)
    entry = catalog().tables.get(text)
    if entry is not None:
        return _load_entry(entry, wishes, refresh)
    path = Path(text).expanduser()
    if not (path.suffix.lower() in SUFFIXES or "/" in text):
        raise _unknown_name(text)
    raw = read_frame(path, text_columns=wishes.text_columns)
    return _table_of(raw, Origin(path.name, "file", notes=raw.notes), wishes)


def load_task(
    task_id: int, fold: int = 0, *, repeat: int = 0, columns: Mapping[str, str] | None = None
) -> Table:
    """Load the data set of an OpenML task with the task's target and `official_split`.

    Raises:
        UnknownDataset: no such task or fold.
        DataError: OpenML cannot be reached, or the data set cannot be used.
    """
    prescribed = fetch_task(task_id, fold, repeat)
    wishes = Wishes(prescribed.target, prescribed.task, dict(columns or {}))
    remote, raw = _fetch(prescribed.openml_id, wishes)
    return _from_remote(remote, raw, wishes, prescribed)


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


def bundled_table(entry: Entry, source: str = "bundled", wishes: Wishes | None = None) -> Table:
    """Load a table that ships with the package.

    Raises:
        UnknownDataset: `entry` does not ship.
        DataError: no such target, or a task that its values do not allow.
    """
    if entry.file is None:
        raise UnknownDataset(f"{entry.name} is not in the package", "tttab data list --local")
    origin = Origin(entry.name, source, entry.openml)
    return _table_of(read_frame(entry.file), origin, (wishes or Wishes()).of(entry))


def _table_of(raw: RawFrame, origin: Origin, wishes: Wishes) -> Table:
    asked = replace(
        origin, target=wishes.target, task=wishes.task, columns=wishes.columns, decimals=raw.decimals
    )
    return table_from_frame(raw.frame, asked)


def _load_entry(entry: Entry, wishes: Wishes, refresh: bool) -> Table:
    if entry.bundled and not refresh:
        return bundled_table(entry, wishes=wishes)
    if entry.package:
        raw = read_packaged(entry.package, refresh=refresh)
        source = PACKAGES[entry.package.partition("/")[0]].source
        return _table_of(raw, Origin(entry.name, source, ignored=entry.ignore), wishes.of(entry))
    if entry.openml is None:
        raise DataError(f"{entry.name} is in the package: nothing to download", "tttab data list")
    return _load_openml(entry.openml, wishes, refresh)


def _load_openml(openml_id: int, wishes: Wishes, refresh: bool) -> Table:
    entry = catalog().by_openml_id(openml_id)
    try:
        remote, raw = _fetch(openml_id, wishes, refresh)
    except UnknownDataset as error:
        raise _unknown_id(openml_id, error) from error
    except DataError as error:
        if entry is None or not entry.bundled:
            raise
        reason = "could not be reached" if isinstance(error, Unreachable) else "gave a damaged answer"
        return bundled_table(entry, f"bundled copy (OpenML {reason})", wishes)
    return _from_remote(remote, raw, wishes.of(entry))


def _fetch(openml_id: int, wishes: Wishes, refresh: bool = False) -> tuple[RemoteTable, RawFrame]:
    """Return what OpenML sent, read; a cached file that cannot be read is fetched once more."""
    remote = fetch_table(openml_id, refresh=refresh)
    try:
        return remote, read_frame(remote.file, text_columns=wishes.text_columns)
    except DataError:
        if remote.source != "OpenML cache":
            raise
    remote = fetch_table(openml_id, refresh=True)
    return remote, read_frame(remote.file, text_columns=wishes.text_columns)


def _from_remote(
    remote: RemoteTable, raw: RawFrame, wishes: Wishes, prescribed: RemoteTask | None = None
) -> Table:
    origin = Origin(
        name=remote.name,
        source=remote.source,
        openml_id=remote.openml_id,
        ignored=remote.ignored,
        notes=(*remote.notes, *raw.notes),
        official_split=prescribed.split if prescribed else None,
    )
    return _table_of(raw, origin, replace(wishes, target=wishes.target or _single_target(remote)))


def _single_target(remote: RemoteTable) -> str | None:
    if remote.target is None or "," not in remote.target:
        return remote.target
    first = remote.target.split(",")[0].strip()
    raise DataError(
        f"OpenML data set {remote.openml_id} has several targets: {remote.target}",
        f"--target {shell_word(first)}",
    )


def _unknown_id(openml_id: int, error: UnknownDataset) -> UnknownDataset:
    near = nearest(str(openml_id), [str(e.openml) for e in catalog().tables.values() if e.openml])
    if near is None:
        return error
    return UnknownDataset(f"{error.message}; the nearest known id is {near}", f"tttab data show {near}")


def _unknown_name(name: str) -> UnknownDataset:
    near = nearest(name, catalog().tables)
    return UnknownDataset(
        f"there is no data set {brief(name)}"
        + (f"; the nearest known name is {brief(near)}" if near else ""),
        (f"tttab data show {shell_word(near)}; " if near else "tttab data list; ")
        + f"a file needs its ending: {shell_word(f'./{name}.csv')}",
    )
