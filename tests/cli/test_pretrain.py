"""`tttab pretrain` from the command line: files, table on stdout, hints, refusal of nonsense."""

import json
import os

import pytest

from tests.support.cards import head_of
from tttab.cli import run


def test_a_run_writes_its_files_and_says_what_it_did(tmp_path, capsys):
    out = tmp_path / "run"
    assert run(["pretrain", "--preset", "tiny", "--steps", "2", "--out", str(out)]) == 0
    answer = capsys.readouterr()
    cells = dict(line.split("\t") for line in answer.out.splitlines())
    assert cells["steps"] == "2"
    assert float(cells["held-out loss, n=32"]) > 0
    assert "100 %" in answer.err
    for name in ("model.safetensors", "state.pt", "log.jsonl", "loss.png"):
        assert (out / name).stat().st_size > 0


def test_bundle_writes_the_file_and_its_card(tmp_path, capsys):
    out, target = tmp_path / "run", tmp_path / "small.safetensors"
    run(["pretrain", "--preset", "tiny", "--steps", "1", "--out", str(out), "-q"])
    (tmp_path / "served.json").write_text(json.dumps({"SOFTMAX_TEMPERATURE": 0.9}))
    asked = ["pretrain", "bundle", str(out), str(target), "--preset", "tiny"]
    assert run([*asked, "--served", str(tmp_path / "served.json"), "--machine", "a test"]) == 0
    assert "float16" in capsys.readouterr().out
    head, wrong = head_of(target.with_suffix(".md"))
    assert not wrong
    assert head["training"][0]["steps"] == 1
    assert head["training"][0]["machine"] == "a test"


def test_what_was_made_for_another_task_is_not_bundled_or_served(tmp_path, capsys):
    out, served = tmp_path / "run", tmp_path / "served.json"
    run(["pretrain", "--preset", "tiny", "--task", "regression", "--steps", "1", "--out", str(out), "-q"])
    served.write_text("{}")
    asked = ["pretrain", "bundle", str(out), str(tmp_path / "m.safetensors"), "--preset", "tiny"]
    assert run([*asked, "--served", str(served)]) == 2
    assert "--preset tiny --task regression" in capsys.readouterr().err
    served.write_text("{half")
    assert run([*asked, "--task", "regression", "--served", str(served)]) == 2
    assert "is no way of serving" in capsys.readouterr().err
    assert run(["pretrain", "choose", str(out / "model.safetensors"), "--out", str(served)]) == 2
    assert "hint: a model that tttab pretrain wrote" in capsys.readouterr().err
    assert run(["pretrain", "choose", str(out / "model.safetensors"), "--tables", "0"]) == 2


def test_a_pool_is_filled_before_the_training(tmp_path, capsys):
    pytest.importorskip("tabicl.prior")
    (tmp_path / "tables-00000000.npz").touch()
    asked = ["pretrain", "fill", str(tmp_path), "--minutes", "0.01", "--workers", "1", "-q"]
    assert run(asked) == 0
    assert capsys.readouterr().out == f"1 files in {tmp_path}\n"
    assert run([*asked[:3], "--workers", "0"]) == 2
    assert "--workers 2 --minutes 12" in capsys.readouterr().err


def test_ctrl_c_names_the_whole_command(tmp_path, capsys, monkeypatch):
    def interrupted(run):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("tttab.pretrain.loop.train", interrupted)
    command = [
        "pretrain", "--preset", "tiny", "--steps", "7", "--device", "cpu", "--out", str(tmp_path / "o"),
    ]  # fmt: skip
    assert run(command) == 130
    assert (
        f"tttab pretrain --preset tiny --steps 7 --device cpu --out {tmp_path / 'o'}"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--preset", "huge"], "no preset 'huge'"),
        (["--task", "ranking"], "no task 'ranking'"),
        (["--steps", "3", "--minutes", "1"], "either steps or minutes"),
        (["--device", "abacus"], "no device 'abacus'"),
        (["--minutes", "0"], "the budget must be positive"),
    ],
)
def test_nonsense_is_refused_with_a_hint(tmp_path, capsys, arguments, said):
    assert run(["pretrain", "--preset", "tiny", "--out", str(tmp_path / "run"), *arguments]) == 2
    answer = capsys.readouterr()
    assert said in answer.err
    assert "hint" in answer.err
    assert not (tmp_path / "run").exists()


def test_where_nothing_can_be_written_is_told_before_the_work(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "served.json").write_text("{}")
    for name in (
        "tttab.cli.commands.pretrain._follow",
        "tttab.models.open_model",
        "tttab.pretrain.bundle.facts_of",
    ):
        monkeypatch.setattr(name, None)
    served = ["--served", str(tmp_path / "served.json")]
    for arguments, said in (
        (["--preset", "tiny", "--out", str(tmp_path / "file" / "run")], "Not a directory"),
        (["choose", "model.safetensors", "--out", str(tmp_path / "pipe.json")], "is a named pipe"),
        (["bundle", str(tmp_path), str(tmp_path / "pipe.json"), *served], "is a named pipe"),
    ):
        assert run(["pretrain", *arguments]) == 2
        assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe.json", "served.json"]
