"""`tttab run` as a user meets it: the main job, its output, and one line for every mistake."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pandas as pd
import pytest

from tttab.cli import run
from tttab.errors import ModelError

N20 = ["--n", "20"]
TINY = ["--steps", "2", "--device", "cpu", "--model", "tttab-tiny"]
SMALL = ["--n", "60", "--k", "60", "--test-size", "60", *TINY]


@pytest.fixture
def messy_csv(tmp_path):
    """A table with all that real tables hold: strings, dates, booleans, gaps, constants, duplicates."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 240)
    frame = pd.DataFrame(
        {
            "amount": (y + rng.normal(0, 0.7, 240)).round(3),
            "city": np.array(["Oslo", "Rome", "Lima"])[rng.integers(0, 3, 240)],
            "rare": [f"v{i}" for i in range(240)],
            "member": rng.random(240) < 0.5,
            "since": pd.date_range("2020-01-01", periods=240).astype(str),
            "constant": 1,
            "gaps": np.where(rng.random(240) < 0.5, np.nan, rng.normal(0, 1, 240)),
            "empty": np.nan,
        }
    )
    frame["twin"] = frame["amount"]
    frame["label"] = np.array(["no", "yes"])[y]
    path = tmp_path / "messy.csv"
    frame.to_csv(path, index=False)
    return path


def test_a_messy_table_runs_and_json_is_alone_on_stdout(messy_csv, capfd):
    assert run(["run", "--dataset", str(messy_csv), "--json", *SMALL]) == 0
    captured = capfd.readouterr()
    document = json.loads(captured.out)
    assert captured.err == ""
    assert run(["schema", "run"]) == 0
    schema = json.loads(capfd.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError, match="'dataset' is a required property"):
        jsonschema.validate({name: part for name, part in document.items() if name != "dataset"}, schema)
    assert set(schema["properties"]) == set(document)
    for part, kind in (("dataset", "Dataset"), ("split", "Rows"), ("model", "Model")):
        assert set(schema["$defs"][kind]["properties"]) == set(document[part])
    assert set(document["arms"][1]) == set(schema["$defs"]["Arm"]["properties"]), "ttt@n+k tells all"
    assert document["dataset"]["target"] == "label"
    assert document["dataset"]["classes"] == ["no", "yes"]
    assert document["split"] == {"n": 60, "k": 60, "test": 60, "notes": []}
    assert [arm["arm"] for arm in document["arms"]] == ["icl@n", "ttt@n+k", "icl@n+k", "gbt", "logistic"]
    assert [arm["n_context"] for arm in document["arms"]] == [60, 60, 120, 0, 0]
    for arm in document["arms"]:
        assert {"accuracy", "balanced_accuracy", "average_precision", "log_loss"} < set(arm["metrics"])
        assert all(np.isfinite(value) for value in arm["metrics"].values())
        assert set(arm["seconds"]) == {"open", "adapt", "predict"}
    assert document["arms"][0]["cache_bytes"] < document["arms"][2]["cache_bytes"]
    assert len(document["model"]["sha256"]) == 64
    assert document["peak_rss_mb"] > 100
    assert set(document) == {
        "dataset", "request", "split", "model", "arms", "peak_rss_mb", "versions", "warnings"
    }  # fmt: skip


def test_equal_seeds_give_equal_figures(messy_csv, capfd):
    figures = []
    for _ in range(2):
        assert run(["run", "--dataset", str(messy_csv), "--json", "--seed", "1", *SMALL]) == 0
        document = json.loads(capfd.readouterr().out)
        figures.append([arm["metrics"] for arm in document["arms"]])
    assert figures[0] == figures[1]


def test_every_way_of_adapting_can_be_asked_for(messy_csv, tmp_path, capfd):
    ways = "--optimizer sgd-1 --context kcenter --split fixed --guard loss+ece --precision fp32"
    ways += " --loss members --recipe fast"
    out = tmp_path / "kept"
    command = ["run", "--dataset", str(messy_csv), "--json", *SMALL, *ways.split(), "--out", str(out)]
    assert run(command) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["request"]["optimizer"] == "sgd-1" and document["request"]["loss"] == "members"
    assert document["request"]["recipe"] == "fast"
    assert json.loads(next(out.glob("result*.json")).read_text()) == document
    predictions = pd.read_csv(next(out.glob("predictions*.csv")))
    assert len(predictions) == 60
    assert np.allclose(predictions[["ttt@n+k:no", "ttt@n+k:yes"]].sum(axis=1), 1, atol=1e-5)
    assert run(["inspect", str(out)]) == 0


def test_the_main_command_prints_rows_into_a_pipe_and_says_what_it_decided(capfd):
    """Data set 31 comes from the package when OpenML cannot be reached; k shrinks and says so."""
    small = ["--top-features", "3", "--test-size", "60", *TINY]
    assert run(["run", "--dataset", "31", "--n", "200", "--k", "1000", *small]) == 0
    printed = capfd.readouterr()
    assert [line.split("\t")[0] for line in printed.out.splitlines()][1:3] == ["icl@n", "ttt@n+k"]
    for said in ("k shrank from 1,000 to 740", "source: bundled copy", "sha256"):
        assert said in printed.err
    assert "TTT" in printed.err.splitlines()[-1]


def csv(tmp_path, frame):
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    return str(path)


def numbers(rows=100, classes=2):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"a": rng.normal(size=rows), "b": rng.normal(size=rows), "y": np.arange(rows) % classes}
    )


def wide(rows=60, features=501):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(rows, features)), columns=[f"f{i}" for i in range(features)])
    return frame.assign(y=np.arange(rows) % 2)


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--dataset", "banan"], "banan", "banana"),
        (["--dataset", "no/such/file.csv"], "no/such/file.csv", ""),
        (["--dataset", "{empty}"], "empty", ""),
        (["--dataset", "{table}", "--target", "z"], "z", "--target"),
        (["--dataset", "{one_class}"], "class", ""),
        (["--dataset", "{rare_class}", "--n", "20"], "class", ""),
        (["--dataset", "{many_classes}", "--n", "10"], "11 classes", "--n 11"),
        (["--dataset", "{wide}", *N20], "501 features", "--top-features 500"),
        (["--dataset", "{table}", "--n", "0"], "n must be at least 1", "--n 200"),
        (["--dataset", "{table}", "--k", "-5"], "k must be at least 1", "--k 1000"),
        (["--dataset", "{table}", "--n", "20", "--k", "500", "--strict"], "would shrink", "--k 55"),
        (["--dataset", "{table}", *N20, "--model", "{damaged}"], "not a readable checkpoint", "--model auto"),
        (["--dataset", "{table}", *N20, "--model", "{foreign}"], "not a model's checkpoint", "--model auto"),
        (["--dataset", "{table}", *N20, "--model", "{pickle}"], "not a readable checkpoint", "--model auto"),
        (["--dataset", "{table}", *N20, "--model", "gone.ckpt"], "no model file at gone.ckpt", "--model"),
        (["--dataset", "{table}", *N20, "--model", "tabpfn-v2"], "not on this machine", "put tabpfn-v2"),
        (["--dataset", "{table}", *N20, "--model", "tabpfn-v22"], "no model is called", "tabpfn-v2"),
        (["--dataset", "{table}", "--n", "20", "--device", "cuda:63"], "no device 'cuda:63'", "--device cpu"),
        (["--dataset", "{table}", "--n", "20", "--device", "abacus"], "no device 'abacus'", "--device cpu"),
        (["--dataset", "{table}", "--rule", "ful"], "no rule is called", "--rule full"),
        (["--dataset", "{table}", "--optimizer", "adam"], "adam", "--optimizer"),
        (["--dataset", "{table}", "--context", "kcentre"], "kcentre", "--context stratified|"),
        (["--dataset", "{table}", "--split", "new"], "new", "--split"),
        (["--dataset", "{table}", "--guard", "none"], "none", "--guard"),
        (["--dataset", "{table}", "--init", "warm"], "warm", "--init"),
        (["--dataset", "{table}", "--precision", "fp8"], "fp8", "--precision"),
        (["--dataset", "{table}", "--steps", "0"], "steps must be at least 1", "--steps 50"),
        (["--dataset", "{table}", "--max-memory", "lots"], "not a size in bytes", "--max-memory 4G"),
        (["--dataset", "{table}", *N20, "--max-memory", "1M"], "cannot hold a training step", "--max-memory"),
        (["--dataset", "{long}", *N20, "--k", "10000", "--test-size", "9"], "context of 10,020 rows", "--n "),
        (["--datasat", "31"], "--datasat", "tttab run --help"),
        (["my rows.csv", "--n", "50"], "my rows.csv", "tttab run --dataset 'my rows.csv'"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_a_hint_and_exit_code_2(tmp_path, capfd, arguments, message, hint):
    files = {
        "table": lambda: csv(tmp_path, numbers()),
        "one_class": lambda: csv(tmp_path, numbers(classes=1)),
        "many_classes": lambda: csv(tmp_path, numbers(220, classes=11)),
        "wide": lambda: csv(tmp_path, wide()),
        "rare_class": lambda: csv(tmp_path, numbers().assign(y=["rare"] + ["a", "b"] * 49 + ["a"])),
        "long": lambda: csv(tmp_path, numbers(10_029)),
        "empty": lambda: write(tmp_path / "empty.csv", b""),
        "damaged": lambda: write(tmp_path / "damaged.safetensors", b"\x00" * 500),
        "foreign": lambda: foreign(tmp_path / "foreign.safetensors"),
        "pickle": lambda: poisoned(tmp_path / "poisoned.ckpt"),
    }
    arguments = [
        files[argument[1:-1]]() if argument[1:-1] in files and argument[0] == "{" else argument
        for argument in arguments
    ]
    before = sorted(tmp_path.rglob("*"))
    out = [] if "--datasat" in arguments else ["--out", str(tmp_path / "kept")]
    code = run(["run", "--device", "cpu", "--model", "tttab-tiny", *arguments, *out, "--quiet"])
    captured = capfd.readouterr()
    assert code == 2, captured.err
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if not line.startswith("hint:")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert hint in captured.err
    assert "hint: " in captured.err
    assert sorted(tmp_path.rglob("*")) == before


def write(path, data):
    path.write_bytes(data)
    return str(path)


def foreign(path):
    import torch
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, str(path))
    return str(path)


def poisoned(path):
    """A pickle that would create a file if it were loaded."""
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(path.parent / "exploded"), "w"))

    path.write_bytes(pickle.dumps(Bomb()))
    return str(path)


def test_folds_say_what_serves_in_them_and_when_they_lose(capfd):
    command = ["run", "--n", "20", "--k", "40", "--test-size", "30", "--steps", "1", "--split", "kfold"]
    assert run([*command, "--model", "tttab-tiny", "--device", "cpu"]) == 0
    remark = "the folds of n rows take turns as the context, with all other rows as queries"
    assert remark in capfd.readouterr().err


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_why_auto_took_the_included_model_is_said_once(messy_csv, monkeypatch, capfd, quiet):
    def fails(model):
        raise ModelError("the hub sleeps")

    monkeypatch.setattr("tttab.models.catalog._download_once", fails)
    monkeypatch.setattr("tttab.models.catalog.offline", lambda: "")
    asked = [*SMALL[: SMALL.index("--model")], "--rule", "none", *quiet]
    assert run(["run", "--dataset", str(messy_csv), *asked]) == 0
    assert capfd.readouterr().err.count("the hub sleeps") == 1
