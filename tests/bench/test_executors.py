"""Every engine gives each cell once, with the same number, and survives what kills a process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.support.bench_fakes import SlowWork, cell
from tests.support.forked import forked
from tttab.bench.executors import Engine, execute
from tttab.bench.plan import units
from tttab.bench.store import read_store
from tttab.errors import BadAnswer, RequestError

ROOT = Path(__file__).parents[2]
CELLS = [
    cell(table, arm, n, seed)
    for table in ("alpha", "beta")
    for seed in range(2)
    for n in (50, 200)
    for arm in ("icl@n", "ttt@n+k")
]


def run_missing(folder, jobs=1, pause=0.03):
    """Run what the store lacks and print the key of each cell."""
    done = read_store(folder).done
    missing = [cell for cell in CELLS if cell.place not in done]
    for record in execute(units(missing), SlowWork(pause), folder, Engine(jobs=jobs)):
        print(record.cell.key, flush=True)
    return 0


def start(folder, pause=0.03):
    """Run what is missing with two workers, in a process of its own."""
    paths = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    code = f"from tests.bench.test_executors import run_missing; run_missing({str(folder)!r}, 2, {pause})"
    command = [sys.executable, "-c", code]
    return subprocess.Popen(
        command, env=paths, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def lines_of(folder):
    """Every row line of every file: a cell that was run twice is here twice."""
    return [
        line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines() if '"row"' in line
    ]


def numbers(records):
    return {record.cell.key: dict(record.row.metrics) for record in records}


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """The numbers the in-process engine gives."""
    folder = tmp_path_factory.mktemp("truth")
    return numbers(execute(units(CELLS), SlowWork(), folder, Engine()))


def test_units_share_a_split_and_lose_no_cell():
    groups = units(CELLS)
    assert sorted(c.key for group in groups for c in group) == sorted(c.key for c in CELLS)
    assert all(len({(c.table, c.seed, c.n) for c in group}) == 1 for group in groups)
    assert len(groups) == 8


def test_here_writes_before_it_yields(tmp_path, truth):
    seen = []
    for record in execute(units(CELLS), SlowWork(), tmp_path, Engine()):
        seen.append(record.cell.key)
        assert set(seen) == set(read_store(tmp_path).numbers)
    assert len(seen) == len(CELLS)
    assert numbers(read_store(tmp_path).records) == truth


def test_processes_give_the_same_numbers(tmp_path, truth):
    records = [*execute(units(CELLS), SlowWork(), tmp_path, Engine(jobs=2))]
    assert numbers(records) == truth
    assert numbers(read_store(tmp_path).records) == truth
    assert len(lines_of(tmp_path)) == len(CELLS)


def test_a_dead_process_is_explained_and_what_is_done_is_kept(tmp_path, truth):
    work = SlowWork(0.01, die_once=str(tmp_path / "died"))
    with pytest.raises(BadAnswer, match="worker process died") as caught:
        [*execute(units(CELLS), work, tmp_path / "store", Engine(jobs=2))]
    assert "--jobs 1" in caught.value.hint
    done = read_store(tmp_path / "store").done
    missing = [c for c in CELLS if c.place not in done]
    assert 0 < len(missing) < len(CELLS)
    [*execute(units(missing), work, tmp_path / "store", Engine(jobs=2))]
    assert numbers(read_store(tmp_path / "store").records) == truth
    assert len(lines_of(tmp_path / "store")) == len(CELLS)


def test_kill_9_at_random_moments_loses_and_doubles_nothing(tmp_path, truth):
    rng = random.Random(5)
    promised = set()
    for _ in range(4):
        copy = forked(lambda: run_missing(tmp_path))
        copy.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.12))
        _, out, _ = copy.end(signal.SIGKILL)
        promised |= set(out.split())
        assert promised <= set(read_store(tmp_path).numbers)
    code, _, err = forked(lambda: run_missing(tmp_path)).end()
    assert code == 0, err
    contents = read_store(tmp_path)
    assert numbers(contents.records) == truth
    assert len(lines_of(tmp_path)) - len(contents.damaged) == len(CELLS)


def test_ctrl_c_stops_the_workers_and_keeps_what_is_done(tmp_path):
    process = start(tmp_path)
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode != 0
    done = len(read_store(tmp_path).done)
    assert 0 < done <= len(CELLS)
    time.sleep(0.3)
    assert len(read_store(tmp_path).done) == done


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    import psutil

    process = start(tmp_path, pause=2.0)  # the next units take 4 s: longer than we wait
    process.stdout.readline()
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.kill()
    process.communicate(timeout=120)
    _, alive = psutil.wait_procs(workers, timeout=2.5)
    assert alive == []


def test_ray_with_two_workers_one_killed_in_mid_run(tmp_path, truth, monkeypatch):
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'tttab[ray]'")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    work = SlowWork(0.01, die_once=str(tmp_path / "died"))
    records = [*execute(units(CELLS), work, tmp_path / "store", Engine("ray", jobs=2))]
    assert (tmp_path / "died").exists(), "no worker was killed: the test proves nothing"
    assert sorted(record.cell.key for record in records) == sorted(truth)
    assert numbers(read_store(tmp_path / "store").records) == truth
    assert len(lines_of(tmp_path / "store")) == len(CELLS)


@pytest.mark.parametrize(
    "engine", [Engine(jobs=0), Engine("slurm"), Engine(address="auto")], ids=["jobs", "name", "address"]
)
def test_engines_that_make_no_sense(engine, tmp_path):
    with pytest.raises(RequestError) as caught:
        [*execute([], SlowWork(), tmp_path, engine)]
    assert caught.value.hint.startswith("--")


def test_work_can_be_sent_to_another_process():
    import cloudpickle

    from tttab.bench import BenchRequest
    from tttab.bench.work import run_unit

    work = partial(run_unit, request=BenchRequest(("banana",)), threads=1)
    assert cloudpickle.loads(cloudpickle.dumps(work)).keywords == work.keywords
