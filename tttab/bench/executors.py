"""Where units run: in this process, in processes of this machine (joblib), or on a Ray cluster.

Whatever the engine, a cell is on disk before it is yielded, and cells compute with the same number of
threads, so numbers are equal.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from tttab.bench.records import Cell, Machine, Record
from tttab.bench.store import Writer
from tttab.bench.work import failed_record
from tttab.errors import BadAnswer, MissingExtra, RequestError

if TYPE_CHECKING:
    from ray import ObjectRefGenerator

Work = Callable[[tuple[Cell, ...]], Iterator[tuple[Record, Machine]]]
"""Runs the cells of one unit, in any process; it must be picklable."""
RETRIES = 3
"""How often Ray starts a unit again when its worker dies."""


@dataclass(frozen=True)
class Engine:
    """Where to run."""

    name: str = "local"
    jobs: int = 1
    """Processes on this machine; with Ray and no address, the size of the local cluster."""
    address: str | None = None
    """A Ray cluster's address; None starts a local one."""
    cpus: float = 1.0
    """CPU cores one Ray task needs: its threads."""
    gpus: float = 0.0
    """GPUs, or a share of one, that a Ray task needs."""
    memory_gib: float = 0.0
    """Memory one Ray task needs; 0: not counted."""

    def check(self) -> None:
        """Raise RequestError where a value makes no sense."""
        if self.jobs < 1:
            raise RequestError(f"jobs must be at least 1, got {self.jobs}", "--jobs 2")
        if self.cpus < 1:
            raise RequestError(f"threads must be at least 1, got {self.cpus:g}", "--threads 1")
        if self.name not in ("local", "ray"):
            raise RequestError(f"there is no engine {self.name!r}", "--engine local, or --engine ray")
        if self.address and self.name != "ray":
            raise RequestError("--address is for --engine ray", f"--engine ray --address {self.address}")


def execute(
    units: Sequence[tuple[Cell, ...]], work: Work, folder: str | os.PathLike[str], engine: Engine
) -> Iterator[Record]:
    """Run every unit and yield each cell's record once it is in the store.

    Closing the generator, or Ctrl-C, drops the cells in hand and stops the workers.

    Raises:
        StoreError: the store cannot be written.
        BadAnswer: a worker process died; what is done stays done.
        MissingExtra: Ray is asked for and not installed.
    """
    engine.check()
    if engine.name == "ray":
        yield from _on_ray(units, work, Path(folder), engine)
    elif engine.jobs == 1:
        yield from _in_this_process(units, work, Path(folder))
    else:
        yield from _in_processes(units, work, Path(folder), engine.jobs)


def _in_this_process(units: Sequence[tuple[Cell, ...]], work: Work, folder: Path) -> Iterator[Record]:
    with Writer(folder) as writer:
        for unit in units:
            for record, machine in work(unit):
                writer.append(record, machine)
                yield record


def _in_processes(units: Sequence[tuple[Cell, ...]], work: Work, folder: Path, jobs: int) -> Iterator[Record]:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    parallel = Parallel(jobs, backend="loky", return_as="generator_unordered", batch_size=1)
    tasks = (delayed(_run_and_store)(unit, work, folder, os.getpid()) for unit in units)
    try:
        with closing(parallel(tasks)) as results:
            for records in results:
                yield from records
    except TerminatedWorkerError as error:
        raise BadAnswer(
            "a worker process died, most often for want of memory; finished cells are kept",
            f"the same command again with --jobs {max(1, jobs // 2)}",
        ) from error
    finally:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


def _run_and_store(unit: tuple[Cell, ...], work: Work, folder: Path, parent: int) -> list[Record]:
    """Run one unit in a worker process, which writes a file of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it stops the workers
    end_with(parent)
    writer = _own_writer(folder)
    done = []
    for record, machine in work(unit):
        writer.append(record, machine)
        done.append(record)
    return done


@lru_cache
def end_with(parent: int) -> None:
    """End this process within a second of `parent`: a killed benchmark must not go on computing unseen."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@lru_cache
def _own_writer(folder: Path) -> Writer:
    return Writer(folder)


def _on_ray(units: Sequence[tuple[Cell, ...]], work: Work, folder: Path, engine: Engine) -> Iterator[Record]:
    """Run units as Ray tasks that stream their cells; this process writes them."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray") from error
    with _ray_cluster(ray, engine), Writer(folder) as writer:
        remote = ray.remote(
            num_cpus=engine.cpus,
            num_gpus=engine.gpus,
            memory=int(engine.memory_gib * 2**30) or None,  # ty: ignore[invalid-argument-type]  # ray's default
            max_retries=RETRIES,
            num_returns="streaming",
        )(_stream)
        streams = {remote.remote(unit, work): unit for unit in units}
        seen: set[str] = set()
        while streams:
            (stream,), _ = ray.wait(list(streams), num_returns=1, fetch_local=False)
            for record, machine in _next_of(ray, stream, streams, seen):
                seen.add(record.cell.key)
                writer.append(record, machine)
                yield record


def _stream(unit: tuple[Cell, ...], work: Work) -> Iterator[tuple[Record, Machine]]:
    yield from work(unit)


def _next_of(
    ray: ModuleType,
    stream: ObjectRefGenerator,
    streams: dict[ObjectRefGenerator, tuple[Cell, ...]],
    seen: set[str],
) -> list[tuple[Record, Machine]]:
    """Return the stream's next cell; its missing cells as failed where its worker died too often."""
    try:
        record, machine = ray.get(next(stream))
    except StopIteration:
        del streams[stream]
        return []
    except ray.exceptions.RayError as error:
        from tttab.bench.records import this_machine

        lost = [cell for cell in streams.pop(stream) if cell.key not in seen]
        return [(failed_record(cell, error), this_machine()) for cell in lost]
    return [] if record.cell.key in seen else [(record, machine)]


@contextmanager
def _ray_cluster(ray: ModuleType, engine: Engine) -> Generator[None]:
    """Connect to a cluster, or start one on this machine that ends with the run."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if engine.address:
        ray.init(address=engine.address, **quiet)
    else:
        paths = os.pathsep.join(filter(None, [str(_import_root()), os.environ.get("PYTHONPATH")]))
        ray.init(
            num_cpus=engine.jobs,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",  # else it listens to the network
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
            **quiet,
        )
    try:
        yield
    finally:
        ray.shutdown()


def _import_root() -> Path:
    """Return the folder tttab is imported from: workers of a local cluster must find the same one."""
    import tttab

    return Path(tttab.__file__).parents[1]
