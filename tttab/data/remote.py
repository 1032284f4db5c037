"""OpenML through the `openml` package and its own cache, without its long waits.

`openml` sets no timeout on its requests and `minio`, which it uses for Parquet, waits five minutes:
`_impatient` gives both short ones while a call runs. Files are read by `reading`, never from the pickles
`openml` can keep.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import warnings
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tttab.core import Task
from tttab.data.reading import first_line
from tttab.errors import DataError, UnknownDataset
from tttab.system.files import PART, switch
from tttab.system.network import obstacle
from tttab.text import keep_secret

CONNECT_SECONDS = 3.0
READ_SECONDS = 20.0
"""Longest silence of the server; a long download that keeps sending is not cut."""
TRIES = 3
OFFLINE = "TTTAB_OFFLINE"
"""Environment variable, a switch: on forbids the network; the cache and the bundled tables still serve."""
_SKIP_PARQUET = "OPENML_SKIP_PARQUET"
_UNKNOWN_CODES = (110, 111, 113, 150, 151)


class Unreachable(DataError):
    """OpenML cannot be reached, is too slow, or the network is forbidden."""


@dataclass(frozen=True)
class RemoteTable:
    """A data set as it lies in OpenML's cache."""

    openml_id: int
    name: str
    file: Path
    source: str
    """`OpenML` or `OpenML cache`."""
    target: str | None
    """OpenML's default target; None where there is none."""
    ignored: tuple[str, ...]
    """The row id and the attributes to ignore."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class RemoteTask:
    """An OpenML task: a data set, its target and one of its prescribed splits."""

    openml_id: int
    target: str
    task: Task
    split: tuple[np.ndarray, np.ndarray]
    """(train, test) row numbers."""


def fetch_table(openml_id: int, *, refresh: bool = False) -> RemoteTable:
    """Return a data set from OpenML's cache, filling it from the server where needed.

    Args:
        openml_id: OpenML's number of the data set.
        refresh: fetch anew; what is cached is replaced only once that has worked.

    Raises:
        UnknownDataset: OpenML has no such data set.
        Unreachable: it is not in the cache and the server cannot be reached.
        DataError: the server's answer is damaged, or the cache cannot be written.
    """
    openml = _openml()
    what = f"data set {openml_id}"
    folder = cache_folder() / "datasets" / str(openml_id)
    if not is_cached(openml_id):
        _put_back(folder)
    refresh = refresh or _cut_short(folder)
    cached = is_cached(openml_id) and not refresh
    if not cached:
        _check_reachable(openml.config.server, what)
    aside = _set_aside(folder) if refresh else nullcontext()
    without = _without_parquet(cached and (folder / "dataset.arff").exists())
    with aside, _errors(what), _impatient(openml), without:
        found = openml.datasets.get_dataset(
            openml_id,
            download_data=True,
            download_qualities=False,
            download_features_meta_data=False,
        )
    file = found.parquet_file or found.data_file
    return RemoteTable(
        openml_id=openml_id,
        name=found.name,
        file=Path(file),
        source="OpenML cache" if cached else "OpenML",
        target=found.default_target_attribute,
        ignored=_split_names(found.row_id_attribute, found.ignore_attribute),
        notes=_status_notes(folder / "description.xml"),
    )


def fetch_task(task_id: int, fold: int, repeat: int = 0) -> RemoteTask:
    """Return a task and its split number `fold` of repetition `repeat`.

    Raises:
        UnknownDataset: OpenML has no such task, or it prescribes no such fold.
        Unreachable: it is not in the cache and the server cannot be reached.
        DataError: it is neither classification nor regression, or the answer is damaged.
    """
    openml = _openml()
    what = f"task {task_id}"
    folder = cache_folder() / "tasks" / str(task_id)
    if not (folder / "datasplits.arff").exists():
        _check_reachable(openml.config.server, what)
    with _errors(what), _impatient(openml):
        found = openml.tasks.get_task(task_id, download_splits=True, download_data=False)
        kinds: dict[int, Task] = {1: "classification", 2: "regression"}
        if found.task_type_id.value not in kinds:
            raise DataError(
                f"OpenML {what} is neither classification nor regression",
                f"--dataset {found.dataset_id} uses its data set alone",
            )
        repeats, folds, _ = found.get_split_dimensions()
        if not (0 <= fold < folds and 0 <= repeat < repeats):
            raise UnknownDataset(f"OpenML {what} has the folds 0 to {folds - 1}, not {fold}", "--fold 0")
        train, test = found.get_train_test_split_indices(fold=fold, repeat=repeat)
    return RemoteTask(
        int(found.dataset_id),
        found.target_name,
        kinds[found.task_type_id.value],
        (np.asarray(train, dtype=np.int64), np.asarray(test, dtype=np.int64)),
    )


def _cut_short(folder: Path) -> bool:
    """Tell whether a cached ARFF is not the file that its description names: openml writes it in place."""
    arff, description = folder / "dataset.arff", folder / "description.xml"
    if not (arff.exists() and description.exists()):
        return False
    named = re.search(r"<oml:md5_checksum>\s*(\w+)\s*<", description.read_text("utf-8", "replace"))
    return named is not None and named[1] != hashlib.md5(arff.read_bytes(), usedforsecurity=False).hexdigest()


@contextmanager
def _set_aside(folder: Path) -> Generator[None]:
    """Rename a folder for the time its successor is made; it comes back where that fails."""
    _put_back(folder)
    old, done_with = _names_aside(folder)
    if folder.exists():
        folder.rename(old)
    try:
        yield
    except BaseException:
        _put_back(folder)
        raise
    if old.exists():
        old.rename(done_with)
    shutil.rmtree(done_with, ignore_errors=True)


def _put_back(folder: Path) -> None:
    """Bring back what a refresh that was killed had set aside; its own half of the work goes."""
    old, done_with = _names_aside(folder)
    shutil.rmtree(done_with, ignore_errors=True)
    if old.exists():
        shutil.rmtree(folder, ignore_errors=True)
        old.rename(folder)


def _names_aside(folder: Path) -> tuple[Path, Path]:
    """Return what a folder is called while its successor is made, and when it is to go."""
    return folder.with_name(f"{PART}{folder.name}.old"), folder.with_name(f"{PART}{folder.name}.gone")


def is_cached(openml_id: int) -> bool:
    """Say whether a data set can be had without the network."""
    try:
        folder = cache_folder() / "datasets" / str(openml_id)
    except Unreachable:
        return False
    files = (folder / f"dataset_{openml_id}.pq", folder / "dataset.pq", folder / "dataset.arff")
    return (folder / "description.xml").exists() and any(file.exists() for file in files)


def cache_folder() -> Path:
    """Return the folder `openml` keeps its files in."""
    return Path(_openml().config.get_cache_directory())


def server_error() -> str:
    """Return why OpenML cannot be reached, or nothing if it can."""
    try:
        return _obstacle(_openml().config.server)
    except Unreachable as error:
        return error.message


def _openml() -> ModuleType:
    if os.environ.get("XDG_CACHE_HOME") == "":  # openml would take it for the working directory
        del os.environ["XDG_CACHE_HOME"]
    try:
        with _quiet():
            import openml
    except (OSError, RuntimeError) as error:  # it looks for the home folder and makes others in it
        raise Unreachable(
            f"the openml package cannot make its cache folder: {_first(error)}", _OTHER_CACHE
        ) from error
    keep_secret(openml.config.apikey)
    return openml


def _check_reachable(server: str, what: str) -> None:
    """Raise Unreachable unless the server takes a connection in time."""
    if reason := _obstacle(server):
        raise Unreachable(f"{what} is not in OpenML's cache and {reason}", _LOCAL)


def _obstacle(server: str) -> str:
    """Return why the server, or the proxy before it, takes no connection in time; nothing if it does."""
    if switch(OFFLINE):
        return f"{OFFLINE}={os.environ[OFFLINE]} forbids the network"
    try:
        host, port = _address(server)
    except ValueError:
        return "the server's address, or HTTPS_PROXY's, is not of the form http://HOST:PORT"
    reason = obstacle(host, port, CONNECT_SECONDS)
    return f"{host} cannot be reached: {reason}" if reason else ""


def _address(server: str) -> tuple[str, int]:
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(server, get_environ_proxies(server))
    url = urlsplit(proxy or server)
    return url.hostname or "www.openml.org", url.port or (443 if url.scheme == "https" else 80)


@contextmanager
def _impatient(openml: ModuleType) -> Generator[None]:
    """Give every request of `openml` and `minio` a timeout and few tries, and keep their logs quiet."""
    import minio
    import requests
    import urllib3

    class Session(requests.Session):
        def request(self, method: str, url: str, **kwargs: Any) -> requests.Response:  # ty: ignore[incompatible-method-override] -- what it passes on
            kwargs["timeout"] = (CONNECT_SECONDS, READ_SECONDS)
            return super().request(method, url, **kwargs)

    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        retries=urllib3.Retry(total=TRIES - 1, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
    )

    def client(*args: Any, http_client: Any = None, **kwargs: Any) -> minio.Minio:
        return _minio(*args, http_client=http_client or pool, **kwargs)

    _minio = minio.Minio
    with (
        _quiet(),
        _replaced(requests, "Session", Session),
        _replaced(minio, "Minio", client),
        _replaced(openml.config, "connection_n_retries", TRIES),
        _replaced(openml.config, "retry_policy", "human"),
    ):
        yield


@contextmanager
def _replaced(owner: ModuleType, name: str, value: Any) -> Generator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _without_parquet(wanted: bool) -> Generator[None]:
    """Keep `openml` from asking for a Parquet file where its cache holds the ARFF one."""
    before = os.environ.get(_SKIP_PARQUET)
    if wanted:
        os.environ[_SKIP_PARQUET] = "true"
    try:
        yield
    finally:
        if wanted:
            os.environ.pop(_SKIP_PARQUET)
            os.environ.update({_SKIP_PARQUET: before} if before is not None else {})


@contextmanager
def _quiet() -> Generator[None]:
    """Keep openml's log lines and warnings off the terminal: what matters comes as an exception."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)  # else logging.warning would install one that prints
    before = root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)


@contextmanager
def _errors(what: str) -> Generator[None]:
    """Turn whatever `openml` raises into one line."""
    import requests
    import urllib3
    from openml.exceptions import OpenMLCacheException, OpenMLHashException, OpenMLServerException

    hint = "try hint in a minute; tttab data list shows what needs no network"
    try:
        yield
    except DataError:
        raise
    except OpenMLServerException as error:
        if error.code in _UNKNOWN_CODES:
            raise UnknownDataset(f"OpenML has no {what}", _LOCAL) from error
        raise DataError(f"OpenML refused {what}: {_first(error)}", hint) from error
    except OpenMLHashException as error:
        raise DataError(f"what OpenML sent for {what} does not match its checksum", hint) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise Unreachable(f"OpenML did not deliver {what}: {_first(error)}", hint) from error
    except (OSError, OpenMLCacheException) as error:
        raise DataError(f"OpenML's cache cannot be used for {what}: {_first(error)}", _OTHER_CACHE) from error
    except Exception as error:  # a damaged answer surfaces as KeyError, ExpatError, BadDataFormat, …
        raise DataError(f"OpenML's answer for {what} is damaged: {_first(error)}", hint) from error


def _split_names(*attributes: str | list[str] | None) -> tuple[str, ...]:
    """Return the column names in OpenML's two ways of writing several: a list, or commas."""
    texts: list[str] = []
    for attribute in attributes:
        texts += [attribute] if isinstance(attribute, str) else attribute or []
    whole = [text.strip() for text in texts]
    return tuple(dict.fromkeys(whole + [part.strip() for text in whole for part in text.split(",")]))


def _status_notes(description: Path) -> tuple[str, ...]:
    import xmltodict

    found = xmltodict.parse(description.read_bytes())["oml:data_set_description"]
    if found.get("oml:status") == "deactivated":
        return ("OpenML has deactivated this data set: its maintainers found a fault in it",)
    return ()


def _first(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


_LOCAL = "tttab data list --local"
_OTHER_CACHE = "OPENML_CACHE_DIR=/a/folder/you/can/write tttab data list"
