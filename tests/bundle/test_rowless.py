"""Bundles without rows: equal predictions, no row in them, what no longer works, files that lie."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load, save

from tests.bundle.test_bundle import forge, forge_file
from tests.support.small_models import small_model
from tttab.bundle import Bundle, load_bundle, save_bundle
from tttab.bundle.manifest import read_manifest
from tttab.bundle.rowless import check_rowless, without_rows
from tttab.cli import run
from tttab.data.levels import levels_of
from tttab.errors import BundleError
from tttab.serve.batching import predict_together
from tttab.testing import ToySession


@pytest.fixture(scope="module")
def table(mixed_frame):
    from tttab.data import Origin, table_from_frame

    frame, y = mixed_frame
    return table_from_frame(frame.assign(kind=np.array(["a", "b", "c"])[y]), Origin("mixed", "file"))


@pytest.fixture(scope="module")
def saved(tiny_model, table, tmp_path_factory):
    """A bundle with its rows; beside it one without."""
    from tttab.data import schema_of

    folder = tmp_path_factory.mktemp("rowless") / "people"
    rows = (table.x.iloc[:40], table.y[:40]), (table.x.iloc[40:60], table.y[40:60])
    save_bundle(folder, Bundle(tiny_model, *rows[0], schema_of(table), held=rows[1]))
    assert run(["bundle", "pack", str(folder), "--no-rows", "--out", str(folder.with_name("bare"))]) == 0
    return folder


@pytest.fixture
def bare(saved, tmp_path):
    return shutil.copytree(saved.with_name("bare"), tmp_path / "bare")


def test_it_predicts_to_the_bit_and_holds_no_row(saved, bare, mixed_frame):
    found, wanted = (load_bundle(folder, device="cpu") for folder in (bare, saved))
    assert np.array_equal(found.predict(mixed_frame[0]), wanted.predict(mixed_frame[0]))
    assert levels_of(found.x) == levels_of(wanted.x)  # trees that are mixed in read codes of them
    rows = wanted.schema.apply(mixed_frame[0].tail(9))
    assert predict_together(found, [rows])[0].equals(predict_together(wanted, [rows])[0])
    assert found.rows == 40 and not len(found.x) and not len(found.y) and found.held is None
    assert set(read_manifest(bare)["files"]) == {"weights", "moved", "cache"}
    assert {path.suffix for path in bare.iterdir()} == {".json", ".safetensors", ""}
    content = load(next(bare.glob("cache-*")).read_bytes())
    state = content.pop("state")
    labels = [t for t in content.values() if t.shape == (40,)]
    assert labels and not any(t.any() for t in labels)
    assert {t.ndim for t in content.values() if 40 in t.shape} == {1, 4}  # labels left out, keys and values
    assert str(float(wanted.x["size"].iloc[7]))[:8].encode() not in bytes(state.numpy())


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_all_of_v2s_preprocessing_comes_back(task, mixed_frame):
    x, y = mixed_frame
    x = x.assign(many=pd.Categorical(np.array(list("abcdefghijkl"))[np.arange(120) % 12]))
    y, classes = (y, 3) if task == "classification" else (x["size"].to_numpy(), 0)
    session = small_model(task=task, members=2)
    context = session.context(x[:40], y[:40], classes)
    wanted = session.serve(context)
    found = session.rowless.serve(session.rowless.pack(context))
    assert np.array_equal(found.predict(x), wanted.predict(x))
    if task == "regression":
        levels = (0.1, 0.5, 0.9)
        assert np.array_equal(found.predict_quantiles(x, levels), wanted.predict_quantiles(x, levels))


def test_commands_say_what_no_longer_works(saved, bare, table, tmp_path, capfd):
    rows = tmp_path / "rows.csv"
    table.x.assign(kind=np.array(table.classes)[table.y]).tail(20).to_csv(rows, index=False)
    answers = []
    for folder in (saved, bare):
        assert run(["predict", str(folder), str(rows), "--device", "cpu"]) == 0
        answers.append(capfd.readouterr())
    assert answers[0].out == answers[1].out and "keeps no rows" in answers[1].err
    for command in ("explain", "update"):
        assert run([command, str(bare), str(rows)]) == 2
        told = capfd.readouterr().err
        assert "made with --no-rows" in told and "Traceback" not in told
    assert run(["inspect", str(bare)]) == 0
    assert "40, not in the bundle" in capfd.readouterr().out
    assert run(["inspect", str(saved)]) == 0
    assert "contains its 40 context rows, unencrypted" in capfd.readouterr().out


def test_a_model_that_reads_rows_at_every_prediction_is_refused(table):
    from tttab.data import schema_of

    bundle = Bundle(ToySession(), table.x.iloc[:40], table.y[:40], schema_of(table))
    for refused in (lambda: without_rows(bundle), lambda: check_rowless(small_model("tabpfn_v2_5"))):
        with pytest.raises(BundleError, match="without the rows"):
            refused()


def test_other_packages_than_those_it_was_written_with_are_refused(bare):
    forge(bare, lambda manifest: manifest["versions"].update(tabpfn="1.0"))
    with pytest.raises(BundleError, match="other packages") as caught:
        load_bundle(bare, device="cpu")
    assert caught.value.hint.startswith("pip install 'tabpfn==1.0 ")


def named(change):
    def changed(tensors):
        text = json.dumps(change(json.loads(bytes(tensors["state"].numpy()))))
        return tensors | {"state": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)}

    return changed


LIES = {
    "another class": named(lambda _: {"object": ["subprocess.Popen", {"dict": []}]}),
    "a function": named(lambda _: {"object": ["tabpfn.preprocessing.steps.utils._identity", {"dict": []}]}),
    "nothing": named(lambda _: None),
    "a deep nest": named(lambda _: json.loads("[" * 500 + "]" * 500)),
    "no members": named(lambda state: {"dict": [[k, [] if k == "members" else v] for k, v in state["dict"]]}),
    "short keys": lambda tensors: {n: t[..., :5] if t.ndim == 4 else t for n, t in tensors.items()},
    "no state": lambda tensors: {"0": tensors["0"]},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_under_fitting_hashes_is_one_error(bare, lie):
    content = load(next(bare.glob("cache-*")).read_bytes())
    forge_file(bare, "cache", save({n: t.clone() for n, t in LIES[lie](content).items()}))
    with pytest.raises(BundleError, match="keys and values"):
        load_bundle(bare, device="cpu").warm_up()


def test_rows_or_a_cache_and_not_both(saved, bare):
    forge(bare, lambda manifest: manifest["files"].pop("cache"))
    with pytest.raises(BundleError, match="must be there, or"):
        read_manifest(bare)
    context = read_manifest(saved)["files"]["context"]
    shutil.copytree(saved.with_name("bare"), bare, dirs_exist_ok=True)
    forge(bare, lambda manifest: manifest["files"].update(context=context))
    with pytest.raises(BundleError, match="must be there, or"):
        read_manifest(bare)
