"""Tables of tabicl's prior: made by worker processes into files, read as they arrive.

The files are the queue: a worker that dies loses at most one file, several trainings may read one folder, and
a resumed run finds its tables again. Table number i is a function of the seed and i alone.
"""

from __future__ import annotations

import math
import os
import signal
import time
import warnings
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import count
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch

from tttab.errors import MissingExtra, RequestError
from tttab.pretrain.draw import Draw
from tttab.pretrain.pool_file import PoolTable, read_file
from tttab.pretrain.settings import PoolUse
from tttab.seeding import numpy_stream, stream_seed
from tttab.system.files import atomic_path

KINDS = {"graph_scm": 0.45, "mlp_scm": 0.2, "tree_scm": 0.35}
"""tabicl's priors and how often each is asked for a table."""

PER_FILE = 4
NO_SIGNAL = 0.98
"""A table is dropped when extremely random trees leave more than this share of the prior's error."""


def require_tabicl() -> None:
    """Raise `MissingExtra` unless tabicl's prior can be imported."""
    try:
        import tabicl.prior  # noqa: F401
    except ImportError as error:
        raise MissingExtra(error.name or "tabicl", "pretrain") from error


def make_table(seed: int, number: int, use: PoolUse) -> tuple[str, PoolTable | None]:
    """Return the prior's kind and table `number` of `seed`, None where it holds no signal to learn.

    The same in every process that hashes strings alike (`PYTHONHASHSEED`).
    """
    rng = numpy_stream(seed, "pool", number)
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    named = bool(rng.random() < 0.4)
    columns = int(rng.choice(use.features))
    _seed_globals(stream_seed(seed, "pool", number, "tabicl"))
    x, y = _ask_tabicl(kind, columns, use.rows, int(rng.integers(2, 11)) if named else 0)
    largest = np.abs(x).max(initial=0.0)  # NaN where one is
    if not largest <= np.finfo(np.float16).max or not np.isfinite(y).all():
        return kind, None
    if _share_left(x, y, named) > NO_SIGNAL:
        return kind, None
    return kind, PoolTable(x.astype(np.float16), y.astype(np.float32), named)


def _ask_tabicl(kind: str, columns: int, rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    from tabicl.prior._dataset import PriorDataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = PriorDataset(
            regression=not classes,
            batch_size=1,
            batch_size_per_gp=1,
            min_features=columns,
            max_features=columns,
            max_classes=max(classes, 2),
            max_seq_len=rows,
            prior_type=kind,
            n_jobs=1,
        )
        x, y, *_ = source.get_batch()
    return x[0].float().numpy(), y[0].float().numpy()


def _seed_globals(seed: int) -> None:
    """Seed the global generators tabicl draws from; worker processes own theirs."""
    import random

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _share_left(x: np.ndarray, y: np.ndarray, named: bool) -> float:
    """Return the share of the prior's error that trees fitted on half of the rows leave on the rest."""
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    half = len(y) // 2
    if named:
        rest = (y[half:] != np.bincount(y[:half].astype(int)).argmax()).mean()
        if rest == 0 or len(np.unique(y[:half])) < 2:
            return 1.0
        trees = ExtraTreesClassifier(24, max_depth=10, random_state=0).fit(x[:half], y[:half])
        return float((trees.predict(x[half:]) != y[half:]).mean() / rest)
    spread = float(np.square(y[half:] - y[:half].mean()).mean())
    trees = ExtraTreesRegressor(24, max_depth=10, random_state=0).fit(x[:half], y[:half])
    return float(np.square(trees.predict(x[half:]) - y[half:]).mean() / (spread + 1e-12))


def write_file(folder: Path, seed: int, first: int, use: PoolUse) -> Path:
    """Make tables `first` to `first + PER_FILE - 1` and write those with signal to one file."""
    content: dict[str, np.ndarray] = {}
    for number in range(first, first + PER_FILE):
        _, table = make_table(seed, number, use)
        if table is not None:
            content[f"x{number}"], content[f"y{number}"] = table.x, table.y
            content[f"n{number}"] = np.array(table.named)
    target = folder / f"tables-{first:08d}.npz"
    with atomic_path(target) as part, open(part, "wb") as stream:
        np.savez(stream, **content)  # ty: ignore[invalid-argument-type]  # no table is called allow_pickle
    return target


def made_apart(seed: int, use: PoolUse) -> Generator[tuple[str, PoolTable | None]]:
    """Yield what `make_table` gives for number 0, 1, … in a process like a worker: the same in every run."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as maker:
        with _fixed_hashes():
            maker.submit(require_tabicl).result()
        for number in count():
            yield maker.submit(make_table, seed, number, use).result()


@contextmanager
def _fixed_hashes() -> Generator[None]:
    """Let processes started inside hash strings alike: tabicl's graph prior draws in the order of sets."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "0"
    try:
        yield
    finally:
        del os.environ["PYTHONHASHSEED"]
        if before is not None:
            os.environ["PYTHONHASHSEED"] = before


def _work(parent: int, folder: str, seed: int, worker: int, workers: int, use: PoolUse) -> None:
    """Write every `workers`-th file for as long as the trainer lives; the body of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which ends its workers
    torch.set_num_threads(1)
    os.nice(10)  # the trainer comes first
    number = worker
    while os.getppid() == parent:
        first = number * PER_FILE
        if not (Path(folder) / f"tables-{first:08d}.npz").exists():
            write_file(Path(folder), seed, first, use)
        number += workers


class Workers:
    """The processes that fill a pool's folder; one that dies is started again."""

    def __init__(self, folder: Path, seed: int, count: int, use: PoolUse) -> None:
        if count:
            require_tabicl()
        folder.mkdir(parents=True, exist_ok=True)
        self._arguments = [(os.getpid(), str(folder), seed, worker, count, use) for worker in range(count)]
        self._processes: list[BaseProcess] = []
        self.count = count
        self.restarts = 0

    def __enter__(self) -> Workers:
        self._processes = [self._start(arguments) for arguments in self._arguments]
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()

    def revive(self) -> None:
        """Start every dead worker again, a limited number of times."""
        for number, process in enumerate(self._processes):
            if not process.is_alive() and self.restarts < 20 * len(self._processes):
                self.restarts += 1
                self._processes[number] = self._start(self._arguments[number])

    def check(self) -> None:
        """Raise `RequestError` where every worker has died and none is left to start."""
        if not any(process.is_alive() for process in self._processes):
            raise RequestError(
                f"the processes that make tables died {self.restarts} times", "tttab pretrain --workers 0"
            )

    def _start(self, arguments: tuple[int, str, int, int, int, PoolUse]) -> BaseProcess:
        process = get_context("spawn").Process(target=_work, args=arguments, daemon=True)
        with _fixed_hashes():
            process.start()
        return process


def fill(folder: Path, seed: int, workers: int, use: PoolUse, minutes: float) -> Iterator[int]:
    """Make tables for so many minutes, ahead of a training; yield how many files there are.

    Raises:
        MissingExtra: tabicl is not installed.
        RequestError: no worker and no time, or the workers died too often.
    """
    if workers < 1 or not 0 < minutes < math.inf:
        raise RequestError("a pool needs a worker and some minutes", "--workers 2 --minutes 12")
    end = time.monotonic() + 60.0 * minutes
    with Workers(folder, seed, workers, use) as makers:
        while time.monotonic() < end:
            yield len(list(folder.glob("tables-*.npz")))
            makers.revive()
            makers.check()
            time.sleep(0.5)


class Pool:
    """The tables that have arrived, on the training device, by number of features.

    Tables are taken over in the order of their numbers, so that the content is a function of how
    many there are.
    """

    def __init__(self, folder: Path, use: PoolUse, device: torch.device, regression: bool) -> None:
        self._folder, self._use, self._device = folder, use, device
        self._regression = regression
        self._next = 0
        self._shelves: dict[int, _Shelf] = {width: _Shelf(use.rows) for width in use.features}
        self.size = 0
        """Tables that can be used."""
        self.seen = 0
        """Tables that have been read or dropped for lack of signal."""

    def take_in(self, seen: int | None = None) -> None:
        """Read what has arrived; with `seen`, no more than that many tables in all.

        Raises:
            RequestError: a file is damaged, or the folder holds tables of fewer rows or of other widths than
                are asked for.
        """
        while seen is None or self.seen < seen:
            path = self._folder / f"tables-{self._next * PER_FILE:08d}.npz"
            if not path.exists():
                return
            for table in read_file(path):
                self._check_fits(table)
                if not (self._regression and table.named):
                    self._shelves[_shelf_for(table.x.shape[1], self._use)].add(table, self._device)
                    self.size += 1
            self._next += 1
            self.seen += PER_FILE

    def _check_fits(self, table: PoolTable) -> None:
        rows, width = table.x.shape
        if rows < self._use.rows:
            problem = f"tables of {rows} rows, {self._use.rows} are needed"
        elif width not in self._shelves:
            problem = f"tables of {width} columns, of {', '.join(map(str, self._shelves))} are needed"
        else:
            return
        raise RequestError(f"{self._folder} holds {problem}", "--pool ANOTHER-FOLDER --workers 1")

    def draw(
        self, draw: Draw, tables: int, rows: int, features: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
        """Return x (tables, rows, features), y (tables, rows), and whether y holds codes (tables, 1).

        Rows and columns are drawn anew at every use. None while too few tables of this width are there.
        """
        shelf = self._shelves.get(_shelf_for(features, self._use))
        if shelf is None or shelf.count < self._use.at_least:
            return None
        return shelf.draw(draw, tables, rows, features)


class _Shelf:
    """Tables of one width in tensors that double when full."""

    def __init__(self, rows: int) -> None:
        self.count = 0
        self._rows = rows
        self._x = torch.empty(0)
        self._y = torch.empty(0)
        self._named = torch.empty(0)

    def add(self, table: PoolTable, device: torch.device) -> None:
        if self.count == len(self._x):
            self._grow(table, device)
        self._x[self.count] = torch.from_numpy(table.x[: self._rows]).to(device)
        self._y[self.count] = torch.from_numpy(table.y[: self._rows]).to(device)
        self._named[self.count] = table.named
        self.count += 1

    def _grow(self, table: PoolTable, device: torch.device) -> None:
        room = max(16, 2 * self.count)
        x = torch.zeros(room, self._rows, table.x.shape[1], dtype=torch.float16, device=device)
        y = torch.zeros(room, self._rows, device=device)
        named = torch.zeros(room, dtype=torch.bool, device=device)
        if self.count:
            x[: self.count], y[: self.count], named[: self.count] = self._x, self._y, self._named
        self._x, self._y, self._named = x, y, named

    def draw(
        self, draw: Draw, tables: int, rows: int, features: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        which = draw.integers(self.count, tables)
        x, y = self._x[which].float(), self._y[which]
        order = draw.orders(tables, x.shape[1])[:, :rows]
        columns = draw.orders(tables, x.shape[2])[:, :features]
        x = torch.gather(x, 1, order.unsqueeze(-1).expand(-1, -1, x.shape[2]))
        x = torch.gather(x, 2, columns.unsqueeze(1).expand(-1, rows, -1))
        return x, torch.gather(y, 1, order), self._named[which].unsqueeze(1)


def _shelf_for(features: int, use: PoolUse) -> int:
    """Return the smallest stored width that holds `features` columns, 0 where none does."""
    return min((width for width in use.features if width >= features), default=0)


def wait_for(pool: Pool, seen: int, workers: Workers) -> float:
    """Wait until `seen` tables have arrived and return the seconds it took.

    Raises:
        RequestError: nobody makes them, or those who do have died too often.
    """
    start = time.perf_counter()
    pool.take_in(seen)
    while pool.seen < seen:
        if not workers.count:
            raise RequestError(f"the pool has {pool.seen} tables, {seen} are needed", "--workers 1")
        workers.revive()
        workers.check()
        time.sleep(0.02)
        pool.take_in(seen)
    return time.perf_counter() - start
