"""What the commands do, from Python: the same numbers, typed, without the terminal."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

import tttab
from tests.support.small_models import small_model
from tttab.cli import run as command
from tttab.data import Origin, table_from_frame
from tttab.errors import DataError, RequestError

RNG = np.random.default_rng(5)
FRAME = pd.DataFrame({"a": RNG.normal(size=90), "b": RNG.normal(size=90), "c": RNG.choice(list("xyz"), 90)})
FRAME["y"] = np.where(FRAME["a"] + 0.3 * RNG.normal(size=90) > 0, "yes", "no")
SIZES = {"n": 12, "k": 40, "steps": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a folder with a small classifier and a small regressor of random weights."""
    folder = tmp_path_factory.mktemp("models")
    small_model(members=1).save(str(folder / "small.safetensors"))
    small_model(task="regression", members=1).save(str(folder / "small-regressor.safetensors"))
    return folder


@pytest.fixture(scope="module")
def result(models, tmp_path_factory):
    table = table_from_frame(FRAME, Origin("made", "file"))
    out = tmp_path_factory.mktemp("run") / "out"
    return tttab.run(table, model=str(models / "small.safetensors"), out=out, **SIZES), out


def test_run_returns_what_the_command_prints_and_keeps(result, models, tmp_path, capsys):
    found, out = result
    FRAME.to_csv(tmp_path / "made.csv", index=False)
    options = ["--n", "12", "--k", "40", "--steps", "2", "--device", "cpu", "--json"]
    words = ["run", "--dataset", str(tmp_path / "made.csv"), "--model", str(models / "small.safetensors")]
    assert command([*words, *options]) == 0
    printed = json.loads(capsys.readouterr().out)
    kept = json.loads(
        (out / json.loads((out / "manifest.json").read_text())["files"]["result"]["file"]).read_text()
    )
    for one, other, third in zip(printed["arms"], found.to_dict()["arms"], kept["arms"], strict=True):
        assert one["metrics"] == pytest.approx(other["metrics"], rel=1e-12) == third["metrics"]
    assert printed["dataset"]["fingerprint"] == found.table.fingerprint
    assert list(printed) == list(kept) == list(found.to_dict())


def test_a_result_reads_well(result):
    found, _ = result
    frame = found.to_frame()
    assert list(frame.index) == ["icl@n", "ttt@n+k", "icl@n+k", "gbt", "logistic"]
    assert frame.loc["gbt", "accuracy"] == found["gbt"].metrics["accuracy"]
    assert found["icl@n"].predictions.shape == (len(found.split.test), 2)
    assert repr(found).startswith("made: 22 test rows") and found.verdict in repr(found)
    assert found._repr_html_().count("<tr") == 7 and "<script" not in found._repr_html_()
    assert found.break_even_predictions > 0 or math.isinf(found.break_even_predictions)
    with pytest.raises(KeyError):
        found["catboost"]


def test_the_bundle_of_a_result_predicts_what_the_arm_did(result):
    found, out = result
    rows = FRAME.iloc[found.split.test]
    loaded = tttab.load_bundle(out, device="cpu")
    assert np.abs(loaded.predict(rows) - found["ttt@n+k"].predictions).max() < 1e-5
    assert np.abs(found.bundle.predict(rows) - found["ttt@n+k"].predictions).max() < 1e-5


def test_adapt_measures_and_saves(models, tmp_path):
    frame = FRAME.assign(y=FRAME["a"] * 2 + FRAME["b"])
    frame.to_csv(tmp_path / "t.csv", index=False)
    model = str(models / "small-regressor.safetensors")
    adapted = tttab.adapt(
        tmp_path / "t.csv", target="y", model=model, out=tmp_path / "b", test_size=10, **SIZES
    )
    assert set(adapted.metrics) == {"held_out", "test"} and adapted.metrics["test"]["rows"] == 10
    assert str(adapted) == adapted.verdict
    losses = {"held_out_loss": {"before": 0.5, "after": 0.4}, "accepted": True, "seconds": 9.0}
    raced = {"chosen_step": 24, "rate": 1e-3, "softened": True, "steps": 132}
    raced["schedule"] = {"rates": [1e-3, 3e-3]}
    assert adapted._trained(losses | raced).startswith(
        "Step 24 at a rate of 0.001 on softened targets, in a race of 132 steps, "
        "lowered the held-out loss from 0.5000 to 0.4000"
    )
    loaded = tttab.load_bundle(tmp_path / "b", device="cpu")
    for part in ("table", "split", "metrics"):
        assert loaded.record[part] == adapted.bundle.record[part]
    assert loaded.record["adaptation"]["schedule"]["steps"] == 2
    assert np.allclose(loaded.predict(frame), adapted.bundle.predict(frame), atol=1e-5)


def test_mistakes_are_told_in_parameters(tmp_path):
    with pytest.raises(RequestError, match="no option 'steppes'"):
        tttab.run("31", steppes=3)
    with pytest.raises(RequestError, match="the seed must be at least 0, got -1; seed=0"):
        tttab.run("31", seed=-1)
    with pytest.raises(RequestError, match="no split is called 'mixed'; split='fixed' or"):
        tttab.adapt("31", split="mixed")
    with pytest.raises(DataError, match="there is no file"):
        tttab.adapt(tmp_path / "gone.csv", out=tmp_path / "b")
    assert not list(tmp_path.iterdir())
    table = tttab.load_table("titanic", columns={"x2": "level"})
    assert [column.kind for column in table.columns][1] == "level"
