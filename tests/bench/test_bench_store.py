"""The store: nothing lost, nothing twice, whatever happens to the writers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench_fakes import MACHINE, cell, fill, record, study

from tttab.bench.records import this_machine
from tttab.bench.store import Writer, read_store

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def run_python(code, *arguments, **options):
    paths = {"PYTHONPATH": f"{ROOT}:{HERE}", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=paths, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def test_what_is_written_is_read_back(tmp_path):
    records = [record(cell(seed=seed), 0.1 * seed, second=seed) for seed in range(3)]
    contents = read_store(fill(tmp_path, records))
    assert list(contents.done.values()) == records
    assert contents.machines == {MACHINE.id: MACHINE}
    assert contents.damaged == ()


def test_an_absent_folder_is_an_empty_store_and_idle_writers_leave_nothing(tmp_path):
    with Writer(tmp_path / "store"):
        pass
    assert not (tmp_path / "store").exists()
    assert read_store(tmp_path / "store").records == []


def test_this_machine_can_be_written_and_read(tmp_path):
    here = this_machine()
    with Writer(tmp_path) as writer:
        writer.append(record(cell()), here)
    assert read_store(tmp_path).machines == {here.id: here}
    assert here.cores >= 1
    assert "torch" in here.versions


def test_a_torn_last_line_is_left_out_and_named(tmp_path):
    fill(tmp_path, [record(cell(seed=0)), record(cell(seed=1))])
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-40])
    contents = read_store(tmp_path)
    assert [r.cell.seed for r in contents.records] == [0]
    assert contents.damaged == (f"{path.name}:3",)


def test_every_prefix_of_a_file_reads_without_an_error_and_loses_one_cell_at_most(tmp_path):
    fill(tmp_path, [record(cell(seed=seed)) for seed in range(3)])
    (path,) = tmp_path.glob("*.jsonl")
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        complete = max(0, whole[:size].count(b"\n") - 1)
        assert complete <= len(read_store(tmp_path).done) <= complete + 1


def test_a_failed_cell_is_kept_until_it_succeeds(tmp_path):
    at = cell()
    fill(tmp_path, [record(at, failed="no memory", second=1)])
    contents = read_store(tmp_path)
    assert contents.done == {}
    assert contents.failed[at.place].row.error == "no memory"
    fill(tmp_path, [record(at, 0.1, second=2)])
    contents = read_store(tmp_path)
    assert contents.failed == {}
    assert contents.done[at.place].row.metrics["accuracy"] == 0.9


def test_a_later_failure_does_not_undo_a_success(tmp_path):
    at = cell()
    fill(tmp_path, [record(at, 0.1, second=1), record(at, failed="late", second=2)])
    contents = read_store(tmp_path)
    assert at.place in contents.done
    assert contents.failed == {}


def test_two_writers_at_once_and_the_same_cell_twice(tmp_path):
    code = """
import sys
from bench_fakes import MACHINE, cell, record
from tttab.bench.store import Writer
with Writer(sys.argv[1]) as writer:
    for seed in range(int(sys.argv[2]), int(sys.argv[2]) + 20):
        writer.append(record(cell(seed=seed), 0.01 * seed), MACHINE)
"""
    for writer in [run_python(code, tmp_path, first) for first in (0, 10)]:
        assert writer.wait(180) == 0, writer.stderr.read()
        writer.communicate()
    contents = read_store(tmp_path)
    assert sorted(r.cell.seed for r in contents.records) == list(range(30))
    assert len([*tmp_path.glob("*.jsonl")]) == 2


def test_merging_is_copying_files(tmp_path):
    records = [*study()]
    fill(tmp_path / "a", records[:30])
    fill(tmp_path / "b", records[20:])
    for path in [*(tmp_path / "a").glob("*"), *(tmp_path / "b").glob("*")]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = read_store(tmp_path)
    assert {r.cell.key for r in whole.records} == {r.cell.key for r in records}


def test_a_full_disk_is_an_error_and_leaves_whole_lines(tmp_path):
    """A file size limit stands for the full disk: `write` stops in the middle of a line."""
    code = """
import resource, signal, sys
from bench_fakes import MACHINE, cell, record
from tttab.bench.store import Writer
from tttab.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
written = 0
with Writer(sys.argv[1]) as writer:
    try:
        while True:
            writer.append(record(cell(seed=written)), MACHINE)
            written += 1
    except StoreError as error:
        assert error.exit_code == 2 and error.hint
print(written)
"""
    process = run_python(code, tmp_path)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    contents = read_store(tmp_path)
    assert len(contents.done) == int(out) >= 2
    assert contents.damaged == ()


def test_tables_that_cannot_be_read_are_remembered_until_they_have_rows(tmp_path):
    with Writer(tmp_path) as writer:
        writer.unavailable("alpha", "no network")
    assert read_store(tmp_path).unavailable == {"alpha": "no network"}
    fill(tmp_path, [record(cell("alpha"))])
    assert read_store(tmp_path).unavailable == {}


def test_missing_numbers_are_null_and_come_back_as_nan(tmp_path):
    fill(tmp_path, [record(cell(), log_loss=float("nan"))])
    (path,) = tmp_path.glob("*.jsonl")
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    (found,) = read_store(tmp_path).records
    assert found.row.metrics["log_loss"] != found.row.metrics["log_loss"]
