"""`tttab theory transformer` in the terminal: checkpoints, pre-training into the cache, refusals."""

import json

import pytest

from tttab.cli import run
from tttab.theory.plots import draw
from tttab.theory.transformer import store as transformer_store
from tttab.theory.transformer.experiment import answer, context_panels, warm_cold_answer, warm_cold_panels
from tttab.theory.transformer.model import ModelSettings
from tttab.theory.transformer.pretrain import Pretraining, PretrainStep
from tttab.theory.transformer.store import shipped_path
from tttab.theory.transformer.tasks import Law


def lines_of(capsys):
    captured = capsys.readouterr()
    return [json.loads(line) for line in captured.out.splitlines()], captured.err


def pretraining_of(paper):
    model = ModelSettings("pair", 3, width=8, layers=1, heads=1, rows=40)
    law = Law("linear", 3, 3) if paper == "A" else Law("index", 3, 3)
    return Pretraining(law, model, steps=3, batch=2, rows=50)


def test_the_next_command_for_a_checkpoint_of_the_other_paper_names_it(capsys):
    command = ["theory", "transformer", "--paper", "A", "--checkpoint", str(shipped_path("B", 4))]
    assert run(command) == 2
    captured = capsys.readouterr()
    assert "was pre-trained for paper B" in captured.err
    assert captured.err.rstrip().endswith("--paper B")


def test_a_checkpoint_file_serves_its_own_paper(capsys):
    command = ["theory", "transformer", "--paper", "B", "--checkpoint", str(shipped_path("B", 8))]
    assert run([*command, "--tasks", "1", "--steps", "1", "--json"]) == 0
    assert {row["d"] for row in lines_of(capsys)[0]} == {8}


@pytest.mark.parametrize("paper", ["A", "B"])
def test_transformer_pretrains_into_the_cache_and_uses_it_again(paper, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(transformer_store, "recipe", lambda *_: pretraining_of(paper))
    command = ["theory", "transformer", "--paper", paper, "--d", "3", "--cache", str(tmp_path)]
    command += ["--tasks", "2", "--steps", "1", "--json", "--plot", str(tmp_path / "figure.png")]
    assert run(command) == 0
    rows, _ = lines_of(capsys)
    (checkpoint,) = tmp_path.glob("pair-d3-*.safetensors")
    written = checkpoint.stat().st_mtime_ns
    assert run(command) == 0
    assert lines_of(capsys)[0] == rows
    assert checkpoint.stat().st_mtime_ns == written
    assert {row["paper"] for row in rows} == {paper}
    assert rows[0].keys() >= {"checkpoint_key", "stuck", "lr", "steps", "seed", "device"}
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_panels_hold_every_method(tmp_path):
    row = {"model": "pair", "d": 4, "n": 16, "median": 0.5, "noise": 0.01, "shift": "none"}
    rows = [row | {"method": name} for name in ("icl", "ttt-full", "ttt-lora")]
    (panel,) = context_panels(rows)
    assert [series.label for series in panel.series if series.label] == [
        "in context, d = 4",
        "trained, all weights, d = 4",
        "trained, LoRA, d = 4",
        "noise",
    ]
    start = {
        "loss_same": 0.3,
        "stderr_same": 0.1,
        "loss_fresh": 0.4,
        "stderr_fresh": 0.1,
        "best_linear": 1 / 3,
    }
    panels = warm_cold_panels([start | {"k": k, "start": "warm"} for k in (0, 64, 128)])
    assert [panel.series[0].y for panel in panels] == [[0.4, 0.4], [0.3, 0.3]]
    draw(panels, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def cold(k, lead, same):
    return {"start": "cold", "k": k, "lead": lead, "loss_same": same}


@pytest.mark.parametrize(
    ("leads", "wanted"),
    [
        ((-0.1, 0.2), "overtakes the warm start between k = 64 and 128"),
        ((0.1, 0.2), "the cold start is better from the least k, 64, on"),
        ((-0.1, -0.2), "the warm start is better up to k = 128"),
    ],
)
def test_the_answer_of_paper_a_is_what_the_rows_say(leads, wanted):
    warm = [{"start": "warm", "k": k, "loss_same": 0.1} for k in (0, 64, 128)]
    rows = [*warm, cold(64, leads[0], 0.4), cold(128, leads[1], 0.2)]
    assert wanted in warm_cold_answer(rows)
    assert warm_cold_answer(rows).endswith("it stays behind up to k = 128")
    ahead = [*warm, cold(64, leads[0], 0.4), cold(128, leads[1], 0.05)]
    assert warm_cold_answer(ahead).endswith("it is ahead from k = 128 on")


def test_the_answer_of_paper_b_names_the_best_method_at_the_longest_context():
    row = {"shift": "none", "d": 4, "noise": 0.01}
    rows = [
        row | {"n": n, "method": method, "median": median}
        for n, method, median in ((16, "icl", 0.2), (64, "icl", 0.02), (64, "ttt-lora", 0.015))
    ]
    assert answer(rows) == (
        "in distribution, d = 4, N = 64: median in context 0.02 (2 times the noise, 10 times less than at"
        " N = 16); ttt-lora reaches 0.015"
    )
    assert answer(rows[:2]).endswith("no training is better")


def test_ctrl_c_while_pretraining_says_how_to_go_on(capsys, tmp_path, monkeypatch):
    def stopped(*arguments):
        yield PretrainStep(1, 3, 0.5, 0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(transformer_store, "recipe", lambda *_: pretraining_of("B"))
    monkeypatch.setattr(transformer_store, "pretrain_into_cache", stopped)
    command = ["theory", "transformer", "--paper", "B", "--d", "3", "--cache", str(tmp_path)]
    assert run(command) == 130
    note, error, hint = capsys.readouterr().err.strip().splitlines()
    assert note.startswith(f"pre-training into {tmp_path}")
    assert error == "error: pre-training interrupted; its state is kept"
    assert hint == f"hint: tttab {' '.join(command)}"
