import json

import pytest

from tttab.cli import run
from tttab.theory.plots import draw
from tttab.theory.single_index.figures import context_panels, warm_cold_panels
from tttab.theory.transformer import store as transformer_store
from tttab.theory.transformer.model import ModelSettings
from tttab.theory.transformer.pretrain import Pretraining
from tttab.theory.transformer.store import shipped_path
from tttab.theory.transformer.tasks import Law


def lines_of(capsys):
    captured = capsys.readouterr()
    return [json.loads(line) for line in captured.out.splitlines()], captured.err


def test_exponents_prints_rows_alone_as_json_and_a_sentence_otherwise(capsys):
    assert run(["theory", "exponents", "--link", "He3", "--powers", "3", "--json"]) == 0
    rows, _ = lines_of(capsys)
    assert [(row["j"], row["ie_of_power"], row["ie"], row["ge"]) for row in rows] == [
        (1, 3, 3, 1),
        (2, 2, 3, 1),
        (3, 1, 3, 1),
    ]
    assert run(["theory", "exponents", "--link", "He4"]) == 0
    assert "ie = 4, ge = 2 (even" in capsys.readouterr().out


SMALL = {
    "weak": ["--links", "He3", "--r", "4", "--n1", "64,128", "--queries", "64"],
    "strong": ["--r", "4", "--eps", "0.2,0.1"],
    "single-index": ["--n", "128,256", "--d", "4,6", "--r", "4", "--queries", "64"],
}


@pytest.mark.parametrize("name", SMALL)
def test_each_command_prints_json_lines_and_draws(name, capsys, tmp_path):
    plot = tmp_path / f"{name}.svg"
    assert run(["theory", name, *SMALL[name], "--tasks", "3", "--json", "--plot", str(plot)]) == 0
    rows, _ = lines_of(capsys)
    assert len(rows) >= 3
    assert {row["experiment"] for row in rows} == {name}
    assert all({"seed", "device", "tasks"} <= row.keys() for row in rows)
    assert plot.read_text().lstrip().startswith("<?xml")


def test_a_table_in_a_pipe_is_tab_separated(capsys):
    assert run(["theory", "weak", *SMALL["weak"], "--tasks", "3"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split("\t")[:6] == ["link", "ie", "ge", "r", "n1", "method"]
    assert len(lines) == 8


def test_ablations_change_the_first_stage_and_the_link(capsys):
    seen = {}
    for flag in ("", "--skip-stage-1", "--no-distill", "--link-fixed"):
        command = ["theory", "single-index", *SMALL["single-index"], "--tasks", "2", "--json"]
        assert run([*command, *flag.split()]) == 0
        rows, _ = lines_of(capsys)
        seen[flag] = (rows[0]["stage_1"], rows[0]["vary"])
    assert seen == {
        "": ("distill", 4),
        "--skip-stage-1": ("random", 4),
        "--no-distill": ("direct", 4),
        "--link-fixed": ("distill", 0),
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["exponents", "--link", "3"],
        ["exponents", "--powers", "0"],
        ["weak", "--r", "0"],
        ["weak", "--r", "8", "--d", "4", "--links", "He3", "--n1", "64"],
        ["weak", "--temp", "0"],
        ["weak", "--tilt", "2"],
        ["weak", "--temp", "nan"],
        ["weak", "--tilt", "nan"],
        ["weak", "--n1", "0.5"],
        ["weak", "--n1", "256.7"],
        ["weak", "--r", "0.5"],
        ["weak", "--d", "-1"],
        ["weak", "--links", "He3,foo"],
        ["weak", "--queries", "1000000000000"],
        ["weak", "--device", "cuda:99"],
        ["weak", "--device", "meta"],
        ["weak", "--device", "abacus"],
        ["weak", "--plot", "figure.txt"],
        ["strong", "--loss", "hinge"],
        ["strong", "--eps", "0.9"],
        ["strong", "--r", "1"],
        ["strong", "--r", "1000000"],
        ["strong", "--link", "foo"],
        ["single-index", "--n", "10"],
        ["single-index", "--n", "x"],
        ["single-index", "--n", "128,10"],
        ["single-index", "--n", "1e12"],
        ["single-index", "--d", "32,8"],
        ["single-index", "--noise", "nan"],
        ["single-index", "--noise", "-1"],
        ["single-index", "--skip-stage-1", "--no-distill"],
        ["transformer"],
        ["transformer", "--paper", "C"],
        ["transformer", "--paper", "A", "--model", "bert"],
        ["transformer", "--paper", "B", "--d", "four"],
        ["transformer", "--paper", "B", "--checkpoint", "absent.safetensors"],
        ["transformer", "--paper", "A", "--d", "30,60"],
        ["transformer", "--paper", "A", "--d", "5", "--minutes", "nan"],
        ["transformer", "--paper", "A", "--checkpoint", str(shipped_path("B", 4))],
        ["transformer", "--paper", "B", "--checkpoint", str(shipped_path("B", 4)), "--d", "8"],
        ["transformer", "--paper", "B", "--checkpoint", str(shipped_path("B", 4)), "--d", "4,8"],
        ["transformer", "--paper", "B", "--checkpoint", str(shipped_path("B", 4)), "--model", "gpt2"],
        ["transformer", "--paper", "B", "--checkpoint", str(shipped_path("B", 4)), "--retrain"],
    ],
)
def test_bad_requests_get_one_line_a_hint_and_exit_2(arguments, capsys):
    assert run(["theory", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second = captured.err.strip().splitlines()
    assert first.startswith("error:") and second.startswith("hint:")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["weak", "--r", "0.5"], "--r 1"),
        (["weak", "--n1", "256.7,512"], "--n1 257,512"),
        (["weak", "--d", "-1"], "--d 32"),
        (["weak", "--links", "foo"], "--links 'He3 + 0.5*He4'"),
        (["single-index", "--n", "10"], "--n 64"),
        (["single-index", "--d", "32,8"], "--r 8"),
    ],
)
def test_hints_name_an_option_and_a_value_that_work(arguments, hint, capsys):
    assert run(["theory", *arguments]) == 2
    assert f"hint: {hint}\n" in capsys.readouterr().err


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
    model = ModelSettings("pair", 3, width=8, layers=1, heads=1, rows=40)
    law = Law("linear", 3, 3) if paper == "A" else Law("index", 3, 3)
    made = Pretraining(law, model, steps=3, batch=2, rows=50)
    monkeypatch.setattr(transformer_store, "recipe", lambda *_: made)
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
    assert rows[0].keys() >= {"checkpoint_key", "stderr", "stuck", "lr", "steps", "seed", "device"}
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_panels_of_the_transformer_hold_every_method(tmp_path):
    row = {"model": "pair", "d": 4, "n": 16, "loss": 0.5, "stderr": None, "noise": 0.01, "shift": "none"}
    rows = [row | {"method": name} for name in ("icl", "ttt-full", "ttt-lora")]
    (panel,) = context_panels(rows)
    assert [series.label for series in panel.series if series.label] == [
        "icl, d = 4",
        "ttt-full, d = 4",
        "ttt-lora, d = 4",
        "noise",
    ]
    start = {"model": "pair", "d": 60, "n": 40, "loss": 0.3, "stderr": 0.1, "best_linear": 1 / 3}
    draw(warm_cold_panels([start | {"k": k, "start": "warm"} for k in (0, 64, 128)]), tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()
