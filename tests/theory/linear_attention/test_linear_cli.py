"""`tttab theory` in the terminal: rows, exit codes, figures, the resumable folder."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace

import pytest

from tttab.cli import run
from tttab.theory import registry
from tttab.theory.folder import Folder
from tttab.theory.linear_attention import curves
from tttab.theory.linear_attention.samples import EXPERIMENT as SAMPLES
from tttab.theory.linear_attention.settings import MatrixSimulation
from tttab.theory.plots import draw

SMALL = ["--d", "8", "--trials", "300"]
COMMANDS = {
    "phase": ["--alpha", "0.5", "--gamma", "0.5,2"],
    "samples": ["--n", "4", "--k", "4,16"],
    "context": ["--n", "2,4,8"],
    "alignment": ["--share", "0,1"],
    "steps": ["--count", "3", "--decay", "0.4"],
    "noise": ["--levels", "0,1"],
    "step-size": ["--multiple", "0,1"],
}


def test_phase_rows_have_the_documented_fields(capsys):
    assert run(["theory", "phase", *COMMANDS["phase"], *SMALL, "--json"]) == 0
    *rows, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    wanted = (
        "experiment convention d n k alpha gamma init noise eta loss_limit loss_exact loss_measured stderr"
    )
    assert all(set(wanted.split()) <= set(row) for row in rows)
    assert last["kind"] == "threshold"
    assert {"alpha", "d", "gamma_limit", "gamma_exact", "gamma_measured", "interval"} <= set(last)


def test_a_wrong_law_is_marked_and_exits_with_1(monkeypatch, capsys):
    monkeypatch.setattr(curves, "best_loss", lambda p, convention: 0.5)
    assert run(["theory", "samples", *COMMANDS["samples"], *SMALL]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("DISAGREES") == 2
    assert "2 of 2 rows disagree" in captured.err


def hint_of(captured):
    lines = captured.err.strip().splitlines()
    return shlex.split(next(line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")))


def test_the_next_command_after_a_disagreement_has_every_option_of_this_one(monkeypatch, capsys):
    monkeypatch.setattr(curves, "best_loss", lambda p, convention: 0.5)
    options = ["--d", "8", "--n", "4", "--k", "4", "--convention", "C", "--noise", "0.3"]
    assert run(["theory", "samples", *options, "--trials=300", "--seed", "7"]) == 1
    wanted = ["tttab", "theory", "samples", *options, "--trials", "1200", "--seed", "8"]
    assert hint_of(capsys.readouterr()) == wanted


def test_the_next_command_of_a_folder_is_quoted_and_spares_what_disagreed(tmp_path, monkeypatch, capsys):
    samples = {"samples": SAMPLES}
    monkeypatch.setattr(registry, "EXPERIMENTS", samples)
    monkeypatch.setattr(curves, "best_loss", lambda p, convention: 0.5)
    out = str(tmp_path / "my folder")
    options = ["theory", "all", "--d", "4", "--trials", "100", "--convention", "C"]
    assert run([*options, "--out", out]) == 1
    captured = capsys.readouterr()
    assert hint_of(captured) == ["tttab", *options, "--seed", "1", "--out", f"{out}-seed-1"]

    def stop(settings):
        raise KeyboardInterrupt
        yield

    monkeypatch.setitem(samples, "samples", replace(SAMPLES, rows=stop))
    assert run([*options, "--out", f"{out} 2"]) == 130
    assert hint_of(capsys.readouterr()) == ["tttab", *options, "--out", f"{out} 2"]


def test_steps_beyond_the_largest_float_are_marked_and_nothing_warns(tmp_path, capsys):
    command = ["theory", "steps", "--d", "6", "--trials", "200", "--count", "600", "--decay", "0.9"]
    assert run([*command, "--plot", str(tmp_path / "steps.svg")]) == 0
    captured = capsys.readouterr()
    (marked,) = [line for line in captured.out.splitlines() if line.endswith("not finite")]
    assert marked.startswith("constant")
    assert not re.search("warning", captured.err, re.IGNORECASE)


def test_all_fills_a_folder_and_keeps_what_is_there(tmp_path, capsys, monkeypatch):
    def draw_one(panels, path, title):
        return draw(panels, path, title) if path.stem == "noise" else path.touch()

    monkeypatch.setattr("tttab.theory.folder.draw", draw_one)
    command = ["theory", "all", "--out", str(tmp_path / "out"), "--d", "6", "--trials", "200", "--json"]
    assert run(command) == 0
    first = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["experiment"] for row in first] == list(COMMANDS)
    assert {row["made"] for row in first} == {"now"}
    assert all(
        (tmp_path / "out" / f"{name}.{suffix}").exists() for name in COMMANDS for suffix in ("svg", "png")
    )
    assert (tmp_path / "out" / "noise.png").read_bytes()[1:4] == b"PNG"
    (tmp_path / "out" / "noise.png").unlink()
    assert run(command) == 0
    second = {row["experiment"]: row["made"] for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {name for name, made in second.items() if made == "now"} == {"noise"}
    assert "![phase](phase.svg)" in (tmp_path / "out" / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["index.md", "phase.tsv", "manifest.json"])
def test_all_replaces_no_file_of_another_origin(tmp_path, capsys, name):
    (tmp_path / name).write_text('{"name": "mine"}')
    assert run(["theory", "all", "--out", str(tmp_path), "--d", "6", "--trials", "200"]) == 2
    assert f"{name} was not made by tttab theory all" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, '{"name": "mine"}')]


def test_what_an_earlier_release_wrote_is_kept(tmp_path):
    written = {
        "phase": "88f1ea869466426783fc94c290648b8bc88dbf28696c88caf2821e8b5f111ec7",
        "steps": "61079b2ea57d44abc0df987c042e93c78caf1d7a4e7324204f9a88bba18959b4",
        "noise": "f" * 64,
    }
    (tmp_path / "manifest.json").write_text(json.dumps(written))
    for name in written:
        for suffix in ("jsonl", "tsv", "svg", "png"):
            (tmp_path / f"{name}.{suffix}").touch()
    experiments = {name: registry.EXPERIMENTS[name] for name in written}
    assert Folder(tmp_path, MatrixSimulation(d=4, trials=100), experiments).missing() == ["noise"]
