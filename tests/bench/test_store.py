"""The store: nothing lost, nothing twice, whatever happens to the writers."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.bench_fakes import MACHINE, cell, fill, record, study
from tttab.bench import BenchRequest, Engine, start
from tttab.bench.records import this_machine
from tttab.bench.store import Writer, read_store
from tttab.cli import run
from tttab.errors import RequestError, StoreError

ROOT = Path(__file__).parents[2]


def run_python(code, *arguments, **options):
    paths = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
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
from tests.support.bench_fakes import MACHINE, cell, record
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
from tests.support.bench_fakes import MACHINE, cell, record
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


def test_an_infinite_metric_is_null_too_and_the_line_can_be_read(tmp_path):
    one = record(cell(classes=0))
    one = replace(one, row=replace(one.row, metrics={"rmse": 2.0, "nll": math.inf}))
    contents = read_store(fill(tmp_path, [one]))
    assert contents.damaged == ()
    (found,) = contents.records
    assert found.row.metrics["rmse"] == 2.0
    assert math.isnan(found.row.metrics["nll"])


def odd_files(folder):
    """Put things that are no files into a store; return their names and what must stay open."""
    os.mkfifo(folder / "cells-pipe.jsonl")
    (folder / "cells-folder.jsonl").mkdir()
    (folder / "cells-gone.jsonl").symlink_to(folder / "nowhere")
    (folder / "cells-loop.jsonl").symlink_to(folder / "cells-loop.jsonl")
    (folder / "cells-zero.jsonl").symlink_to("/dev/zero")
    plug = socket.socket(socket.AF_UNIX)
    plug.bind(os.path.relpath(folder / "cells-plug.jsonl"))
    return tuple(
        sorted(f"cells-{name}.jsonl" for name in ("pipe", "folder", "gone", "loop", "zero", "plug"))
    ), plug


@pytest.mark.timeout(60)
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, capsys):
    fill(tmp_path, [record(cell(seed=seed)) for seed in range(2)])
    names, plug = odd_files(tmp_path)
    with plug:
        contents = read_store(tmp_path)
        assert sorted(one.cell.seed for one in contents.records) == [0, 1]
        assert contents.damaged == names
        assert run(["report", str(tmp_path)]) == 0
        assert all(name in capsys.readouterr().err for name in names[:1])


def test_a_link_to_a_store_s_file_is_followed(tmp_path):
    fill(tmp_path / "a", [record(cell())])
    (path,) = (tmp_path / "a").iterdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / path.name).symlink_to(path)
    assert read_store(tmp_path / "b") == read_store(tmp_path / "a")


def test_a_file_for_a_folder_is_one_clear_line(tmp_path, capsys):
    (tmp_path / "store").write_text("x")
    with pytest.raises(StoreError, match=r"cannot read .*store: Not a directory"):
        read_store(tmp_path / "store")
    assert run(["report", str(tmp_path / "store")]) == 2
    assert run(["bench", "--datasets", "banana", "--out", str(tmp_path / "store" / "deeper")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"] * 2
    assert "cannot write to" in lines[2]


def test_a_store_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    """Else a benchmark would run everything again, and a report show half of the rows."""
    fill(tmp_path, [record(cell())])
    (path,) = tmp_path.iterdir()

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(StoreError, match="Permission denied") as caught:
        read_store(tmp_path)
    monkeypatch.undo()
    assert path.name in caught.value.message
    monkeypatch.setattr("os.listdir", refuse)
    with pytest.raises(StoreError, match="Permission denied"):
        read_store(tmp_path)


def nothing_is_run(*_, **__):
    pytest.fail("a cell was run")


@pytest.mark.parametrize("broken", ["write", "fsync", "open"])
def test_a_store_that_cannot_be_written_ends_it_before_the_first_cell(tmp_path, monkeypatch, broken):
    real = os.open

    def refuse(*arguments, **_):
        if broken == "open" and not str(arguments[0]).endswith(".jsonl"):
            return real(*arguments)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tttab.bench.run_unit", nothing_is_run)
    monkeypatch.setattr(f"os.{broken}", refuse)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        list(start([cell()], BenchRequest(("banana",)), tmp_path / "store", Engine()))
    monkeypatch.undo()
    assert "free some disk space" in caught.value.hint
    assert list((tmp_path / "store").iterdir()) == []


def test_the_proof_leaves_nothing_and_disturbs_no_reader(tmp_path):
    fill(tmp_path, [record(cell())])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    Writer(tmp_path).prove()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_names_that_are_not_utf_8_are_kept_apart_found_again_and_shown(tmp_path, capsys):
    """A path's undecodable bytes come as lone surrogates, which no line of JSON can hold."""
    names = "lat\udce9.csv", "lat\udcea.csv"
    cells = [
        cell(name, arm, model="mod\udce9l.ckpt", fingerprint=f"f{i}")
        for i, name in enumerate(names)
        for arm in ("icl@n", "ttt@n+k")
    ]
    folder = tmp_path / os.fsdecode(b"o\xe9")
    with Writer(folder) as writer:
        writer.unavailable("gon\udce9.csv", "no file gon\udce9.csv")
    contents = read_store(fill(folder, [record(at, 0.2) for at in cells]))
    assert [at.place in contents.done for at in cells] == [True] * 4
    assert contents.damaged == ()
    assert {one.cell.table for one in contents.records} == {"lat?.csv"}
    assert run(["report", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "lat?.csv f0" in out and "lat?.csv f1" in out and "gon?.csv" in out
    assert run(["bench", "--out", str(folder), "--export", str(folder / "rows.csv")]) == 0
    assert (folder / "rows.csv").read_text(encoding="utf-8").count("lat?.csv") == 4


def test_seeds_that_a_line_cannot_hold_are_refused():
    with pytest.raises(RequestError, match="below"):
        BenchRequest(("banana",), seeds=(2**53,)).check()
    BenchRequest(("banana",), seeds=(2**53 - 1, -1)).check()
