"""`tttab bench` and `tttab report` from the command line, with the bundled model on a small table."""

from __future__ import annotations

import json
import math
import os
import re
import resource
import signal
from dataclasses import replace

import numpy as np
import pytest

from tests.support.bench_fakes import cell, record
from tests.support.forked import forked, typed
from tttab.bench import read_store
from tttab.cli import run
from tttab.cli.live_table import Board

SIZES = ["--n", "20,40", "--k", "30", "--controls-at", "20", "--steps", "2", "--test-size", "40"]
ARMS = ["--arms", "icl@n,ttt@n+k,icl@n+k,logistic"]


@pytest.fixture(scope="module")
def table(tmp_path_factory, mixed_frame):
    path = tmp_path_factory.mktemp("tables") / "mixed.csv"
    frame, y = mixed_frame
    frame.assign(target=np.array(["a", "b", "c"])[y]).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def store(table, tmp_path_factory):
    """A finished small benchmark of one seed."""
    out = tmp_path_factory.mktemp("bench") / "store"
    assert run(bench(table, out, "--seeds", "1")) == 0
    return out


def bench(table, out, *more):
    return [
        "bench", "--datasets", str(table), "--model", "tttab-tiny", "--out", str(out), *SIZES, *ARMS, *more,
    ]  # fmt: skip


def test_each_cell_is_run_once_and_its_key_was_known_before(store):
    contents = read_store(store)
    assert contents.failed == {}
    places = [(r.cell.arm, r.cell.n) for r in contents.records]
    along = [(arm, n) for arm in ("icl@n", "ttt@n+k") for n in (20, 40)]
    assert sorted(places) == sorted([*along, ("icl@n+k", 20), ("logistic", 20)])
    assert all(r.row.key == r.cell.key for r in contents.records)


def test_the_same_command_again_does_nothing_and_more_seeds_add(table, store, capsys):
    before = {path.name: path.read_bytes() for path in store.glob("*.jsonl")}
    assert run(bench(table, store, "--seeds", "1")) == 0
    assert "6 cells, 0 to run" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in store.glob("*.jsonl")} == before
    assert run(bench(table, store, "--seeds", "2", "--arms", "logistic", "--dry-run")) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1].split("\t")[:3] == ["all", "2", "1"]
    assert re.search(r"time: about .* with 1 job, from measured cells", captured.err)


def test_processes_give_the_same_numbers_as_this_one(table, store, tmp_path):
    assert run(bench(table, tmp_path, "--seeds", "1", "--n", "20", "--jobs", "2", "--quiet")) == 0
    one, two = (
        {key: r.row.metrics for key, r in read_store(folder).done.items()} for folder in (store, tmp_path)
    )
    assert len(two) == 4
    assert {key: one[key] for key in two} == two


def test_dry_run_runs_nothing_and_says_that_nothing_is_measured(table, tmp_path, capsys):
    assert run(bench(table, tmp_path / "store", "--dry-run")) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1].split("\t")[:3] == ["all", "30", "30"]
    assert "unknown, the store has no measured cell" in captured.err
    assert not (tmp_path / "store").exists()


def test_json_is_one_line_per_cell(table, tmp_path, capsys):
    assert run(bench(table, tmp_path, "--seeds", "1", "--arms", "logistic,gbt", "--json")) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["cell"]["arm"] for line in lines] == ["logistic", "gbt"]


def test_a_folder_whose_name_is_not_utf_8_is_a_store_like_any_other(table, tmp_path, capsys):
    out = tmp_path / os.fsdecode(b"o\xe9")
    command = bench(table, out, "--seeds", "1", "--arms", "logistic")
    assert run(command) == 0
    assert len(read_store(out).done) == 1
    capsys.readouterr()
    assert run(command) == 0
    assert "1 cells, 0 to run" in capsys.readouterr().err
    assert run(["report", str(out)]) == 0


def test_a_store_that_cannot_be_written_is_said_before_any_table_is_read(
    table, tmp_path, capsys, monkeypatch
):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr("tttab.bench.plan.load", lambda name: pytest.fail("a table was read"))
    assert run(bench(table, tmp_path / "file" / "store")) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert "cannot write to" in error
    assert hint == "hint: --out ANOTHER-FOLDER"


def test_a_full_disk_in_the_middle_is_one_line_and_keeps_what_is_done(table, tmp_path):
    """A limit on the size of files stands for the full disk: the line of one cell does not fit."""
    words = bench(table, tmp_path / "store", "--seeds", "9", "--arms", "logistic", "--quiet")

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
        return run(words)

    code, _, err = forked(limited).end()
    assert code == 2, err
    error, hint = err.splitlines()
    assert error.startswith("error: cannot write to")
    assert hint.startswith("hint: ")
    contents = read_store(tmp_path / "store")
    assert 2 <= len(contents.done) < 9
    assert contents.damaged == ()
    assert run(words) == 0
    assert len(read_store(tmp_path / "store").done) == 9


def test_failed_cells_are_kept_reported_and_tried_again(table, tmp_path, capsys, monkeypatch):
    import tttab.bench.work as work

    real = work._run_cell

    def broken(unit, cell, machine):
        if cell.arm == "logistic":
            return work.failed_record(cell, MemoryError("too large"), 0.1)
        return real(unit, cell, machine)

    monkeypatch.setattr(work, "_run_cell", broken)
    command = bench(table, tmp_path, "--seeds", "1", "--arms", "logistic,gbt")
    assert run(command) == 1
    captured = capsys.readouterr()
    assert "1 cells failed" in captured.err
    assert f"--datasets {table}" in captured.err
    monkeypatch.undo()
    assert "MemoryError: too large" in [r.row.error for r in read_store(tmp_path).failed.values()]
    assert run(command) == 0
    assert "2 cells, 1 to run" in capsys.readouterr().err
    assert read_store(tmp_path).failed == {}


def test_a_number_under_a_second_label_is_copied_and_not_computed_again(table, tmp_path, monkeypatch):
    import tttab.bench

    command = bench(table, tmp_path, "--seeds", "1", "--arms", "logistic", "--k")
    assert run([*command, "5000"]) == 0
    monkeypatch.setattr(tttab.bench, "run_unit", lambda *_, **__: 1 / 0)
    assert run([*command, "6000"]) == 0, "both shrink to the rows that are left"
    first, second = read_store(tmp_path).records
    assert {first.cell.budget, second.cell.budget} == {"paper k=5000", "paper k=6000"}
    assert first.cell.key == second.cell.key
    assert first.row == second.row


def test_a_table_that_cannot_be_read_does_not_stop_the_others(table, tmp_path, capsys):
    command = bench(table, tmp_path / "store", "--seeds", "1", "--arms", "logistic")
    command[2] = f"{tmp_path / 'nowhere.csv'},{table}"
    assert run(command) == 1
    assert "nowhere.csv" in capsys.readouterr().err
    contents = read_store(tmp_path / "store")
    assert len(contents.done) == 1
    assert [*contents.unavailable] == [str(tmp_path / "nowhere.csv")]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--arms", "icl@m"], "no arm is called 'icl@m'"),
        (["--budget", "huge"], "no label budget 'huge'"),
        (["--seeds", "many"], "--seeds takes"),
        (["--n", "20,twenty"], "--n takes numbers"),
        (["--jobs", "0"], "jobs must be at least 1"),
        (["--threads", "0"], "threads must be at least 1"),
        (["--rule", "fulll"], "no rule is called 'fulll'"),
        (["--device", "banana"], "no device 'banana'"),
        (["--precision", "auto"], "states its arithmetic"),
        (["--ttt-at", "30"], "--ttt-at 30 is none of the context sizes"),
        (["--test-size", "5000"], "nothing to run"),
        (["--suite", "smoke"], "exclude each other"),
        (["--seeds", "1" + "0" * 30], "more than 10,000 seeds"),
        (["--seeds", f"0-{10**30}"], "more than 10,000 seeds"),
        (["--export", "rows.xlsx"], "no results"),
    ],
)
def test_mistakes_are_one_line_with_a_hint(table, tmp_path, capsys, more, words):
    assert run(bench(table, tmp_path / "store", *more)) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert words in error
    assert hint.startswith("hint: ")


def test_ctrl_c_says_how_to_go_on(table, tmp_path):
    copy = forked(typed(*bench(table, tmp_path / "store", "--seeds", "50", "--arms", "gbt")))
    while "1/50" not in copy.stderr.readline():
        assert copy.process.is_alive()
    code, _, err = copy.end(signal.SIGINT)
    assert code == 130
    done = len(read_store(tmp_path / "store").done)
    assert f"{done} of 50 cells are done" in err or f"{done - 1} of 50 cells are done" in err
    assert "hint: tttab bench --datasets" in err and "--seeds 50" in err


def test_the_live_table_averages_the_scores_that_there_are():
    cells = [cell("prices", "icl@n", 50, seed, classes=0) for seed in range(3)]
    board = Board(cells)
    for at, score in zip(cells, (0.5, math.nan, 0.7), strict=True):
        made = record(at)
        board.add(replace(made, row=replace(made.row, metrics={"r2": score})), now=True)
    assert [list(column.cells) for column in board.table().columns][2] == ["60.0"]


def test_report_in_all_its_forms(store, tmp_path, capsys):
    html, markdown = tmp_path / "report.html", tmp_path / "report.md"
    assert run(["report", str(store), "--html", str(html), "--markdown", str(markdown)]) == 0
    assert html.read_text().startswith("<!doctype html>")
    assert "# Context reduction" in markdown.read_text()
    capsys.readouterr()
    assert run(["report", str(store)]) == 0
    assert "# Overall, at n = 20 (tttab-tiny" in capsys.readouterr().out
    assert run(["report", str(store), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"Failed cells", "Break-even"} <= {table["title"] for table in document}
    assert run(["report", str(tmp_path / "nothing")]) == 2


def test_export_from_the_command_line(store, tmp_path, capsys):
    target = tmp_path / "rows.csv"
    assert run(["bench", "--out", str(store), "--export", str(target)]) == 0
    assert len(target.read_text().splitlines()) == 1 + len(read_store(store).records)
