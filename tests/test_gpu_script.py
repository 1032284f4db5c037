"""The script for a GPU goes on where it was stopped, and each of its commands is one that runs."""

from __future__ import annotations

import contextlib
import json
import sys

import psutil
import pytest

from benchmarks import gpu

PYTHON = (sys.executable, "-c")


def lines(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_what_is_done_is_not_done_again_and_what_failed_is(tmp_path):
    mark = tmp_path / "mark"
    cells = [
        gpu.Cell("fails once", (*PYTHON, f"open({str(mark)!r}); print('figure 7')")),
        gpu.Cell("works", (*PYTHON, "print('figure 8')")),
    ]
    assert gpu.follow(cells, gpu.Ledger(tmp_path, "cpu"), "cpu", 120) == 1
    mark.touch()
    assert gpu.follow(cells, gpu.Ledger(tmp_path, "cpu"), "cpu", 120) == 0
    rows = lines(tmp_path)
    states = [("fails once", "failed"), ("works", "done"), ("fails once", "done")]
    assert [(row["cell"], row["state"]) for row in rows] == states
    assert [row["tail"][-1] for row in rows[1:]] == ["figure 8", "figure 7"]
    assert rows[0]["machine"]["torch"] and "FileNotFoundError" in rows[0]["tail"][-1]
    assert gpu.follow(cells, gpu.Ledger(tmp_path, "cpu"), "cpu", 120) == 0
    assert len(lines(tmp_path)) == 3


def test_another_device_starts_afresh(tmp_path, monkeypatch):
    cells = [gpu.Cell("works", (*PYTHON, ""))]
    assert gpu.follow(cells, gpu.Ledger(tmp_path, "cpu"), "cpu", 120) == 0
    monkeypatch.setattr(gpu, "machine", lambda device: {"device": "another"})
    assert gpu.follow(cells, gpu.Ledger(tmp_path, "cpu"), "cpu", 120) == 0
    assert [row["state"] for row in lines(tmp_path)] == ["done", "done"]


def test_a_cell_is_ended_with_its_children_when_time_is_up(tmp_path, capsys):
    number = tmp_path / "number"
    child = f"import os, time; print(os.getpid(), file=open({str(number)!r}, 'w'), flush=True); time.sleep(9)"
    parent = f"import subprocess; print('begun', flush=True); subprocess.run({[*PYTHON, child]!r})"
    cells = [gpu.Cell("long", (*PYTHON, parent), 0), gpu.Cell("next", (*PYTHON, ""))]
    assert gpu.follow(cells, gpu.Ledger(tmp_path, "cpu"), "cpu", gpu.ENDING + 2) == gpu.TIME_IS_UP
    assert [(row["cell"], row["state"]) for row in lines(tmp_path)] == [("long", "cut")]
    assert "next: left" in capsys.readouterr().out
    with contextlib.suppress(psutil.NoSuchProcess):
        child = psutil.Process(int(number.read_text()))
        assert child.status() == psutil.STATUS_ZOMBIE or child.wait(5) is None


@pytest.mark.parametrize("small", [[], ["--small"]])
def test_every_part_has_cells_with_names_and_modules_of_their_own(tmp_path, small):
    args = gpu.parse(["all", "--out", str(tmp_path), *small])
    cells = [cell for part in gpu.PARTS for cell in gpu.cells_of(part, args)]
    assert len({cell.name for cell in cells}) == len(cells)
    assert all(cell.least < 60 * args.minutes - gpu.ENDING for cell in cells)
    ways = {cell.name.rsplit("-", 1)[1] for cell in gpu.speed(args)}
    assert ways == ({"fp32"} if small else {"fp32", "bf16"})


def test_a_part_runs_in_miniature(tmp_path):
    words = ["index", "--device", "cpu", "--small", "--out", str(tmp_path), "--minutes", "4"]
    assert gpu.main(words) == 0
    (row,) = lines(tmp_path)
    assert (row["cell"], row["state"]) == ("index", "done")
    assert json.loads((tmp_path / "theory_index.json").read_text())["tasks_per_second"] > 0
