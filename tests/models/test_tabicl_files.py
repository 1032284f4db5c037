"""TabICL's files: opened by content, fetched from the hub, refused in one line with the next command."""

from __future__ import annotations

import builtins
import json

import numpy as np
import pytest
import torch

from tests.models.test_downloads import online, server  # noqa: F401
from tests.support.small_tabicl import small_network, small_tabicl
from tttab.cli import run
from tttab.errors import MissingExtra, ModelError
from tttab.models import open_model
from tttab.models.catalog import KNOWN, download, local_path, verify
from tttab.models.tabicl.family import TabICL


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A folder with a small file under the newest official name."""
    folder = tmp_path_factory.mktemp("official")
    small_tabicl().save(folder / "tabicl-classifier-v2-20260212.ckpt")
    return folder


def written(path, **changes):
    """Write a small network's file with changes of its configuration, or with another dict."""
    network, config = small_network()
    content = {"config": config, "state_dict": network.state_dict()}
    for name, change in changes.items():
        content[name] = {**content[name], **change} if isinstance(change, dict) else change
    torch.save({name: part for name, part in content.items() if part is not None}, path)
    return path


def test_a_file_as_tabicl_writes_it_opens_with_plain_tabicls_members(tmp_path):
    session = open_model(str(written(tmp_path / "plain.ckpt")), device="cpu", members=None)
    assert (session.members, session.info.parameters > 0) == (8, True)
    assert open_model(str(tmp_path / "plain.ckpt"), device="cpu", members=3).members == 3


def test_an_official_file_is_fetched_with_the_hash_that_the_hub_states(server, capfd):  # noqa: F811
    model = next(known for known in KNOWN if (known.name, known.task) == ("tabicl", "classification"))
    download(model)
    assert verify(model)[1] == "ok: as the hub stated"
    session = open_model("tabicl", device="cpu")
    assert session.info.license == "BSD 3-Clause, the package's"
    assert session.info.provenance == "trained on synthetic tables only"
    local_path(model).unlink()
    server.way = "refusing"
    assert run(["models", "get", "tabicl"]) == 2
    told = capfd.readouterr().err
    assert "could not be downloaded" in told and str(local_path(model)) in told.replace("\n", "")


BAD = {
    "damaged": (lambda p: p.write_bytes(written(p).read_bytes()[:-3000]), "not a readable checkpoint"),
    "a regressor": (lambda p: written(p, config={"max_classes": 0}), "is a regressor"),
    "another width": (lambda p: written(p, config={"embed_dim": 32}), "that tabicl can build"),
    "huge": (lambda p: written(p, config={"embed_dim": 10**9}), "embed_dim = 1000000000"),
    "endless": (lambda p: written(p, config={"icl_num_blocks": 10**6}), "icl_num_blocks = 1000000"),
    "unknown word": (lambda p: written(p, config={"wings": 2}), "that tabicl can build"),
    "no plain data": (lambda p: written(p, config={"activation": [1]}), "activation = [1]"),
    "no numbers": (
        lambda p: written(p, state_dict={"icl_predictor.ln.bias": torch.full((32,), np.nan)}),
        "not all numbers",
    ),
    "members": (lambda p: written(p, members=10**6), "1000000 ensemble members"),
    "no weights": (lambda p: written(p, state_dict=None), "not a model's checkpoint"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_line_with_the_next_command_and_exits_2(tmp_path, capfd, kind):
    make, message = BAD[kind]
    make(file := tmp_path / "bad.ckpt")
    assert run(["run", "--dataset", "contraceptive", "--n", "40", "--k", "40", "--model", str(file)]) == 2
    error, hint = [line for line in capfd.readouterr().err.splitlines() if line.strip()][-2:]
    assert error.startswith("error: ") and message in error and "bad.ckpt" in error
    assert hint.strip().startswith("hint: --model auto")


def test_no_code_of_a_file_is_run(tmp_path):
    class Runs:
        def __reduce__(self):
            return (print, ("ran",))

    with pytest.raises(ModelError, match="never loaded"):
        open_model(str(written(tmp_path / "code.ckpt", extra=Runs())), device="cpu")


def test_regression_is_refused_with_its_reason(tmp_path):
    for spec in (
        written(tmp_path / "classifier.ckpt"),
        written(tmp_path / "r.ckpt", config={"max_classes": 0}),
    ):
        with pytest.raises(ModelError, match="classifiers only, since its regressors") as caught:
            open_model(str(spec), "regression", device="cpu")
        assert caught.value.hint == "--model tabpfn-v2, or tttab-tiny"


def test_without_tabicl_its_models_are_listed_and_opening_one_names_the_extra(tmp_path, monkeypatch, capfd):
    real = builtins.__import__

    def without(name, *rest):
        if name == "tabicl":
            raise ImportError(name)
        return real(name, *rest)

    file = written(tmp_path / "m.ckpt")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match="needs the package tabicl") as caught:
        open_model(str(file), device="cpu")
    assert caught.value.hint == "pip install 'tttab[tabicl]'"
    assert run(["models", "list", "--json"]) == 0
    listed = {m["name"]: m for m in json.loads(capfd.readouterr().out)["models"]}
    assert listed["tabicl-v1"]["license"] == "BSD 3-Clause, the package's"


def test_there_is_no_licence_to_accept():
    model = TabICL().known()[0]
    assert TabICL().access(model).state == "open"
    with pytest.raises(ModelError, match="needs no log-in"):
        TabICL().login(model)


def test_adapt_predict_and_inspect_go_through_a_bundle(tmp_path, capfd):
    from tabicl import TabICLClassifier

    file, out = str(written(tmp_path / "m.ckpt")), tmp_path / "bundle"
    options = ["--n", "60", "--k", "80", "--steps", "2", "--members", "2", "--model", file, "--device", "cpu"]
    assert run(["adapt", "contraceptive", *options, "--guard", "off", "--out", str(out)]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    weights = manifest["files"]["weights"]["file"]
    assert weights.endswith(".ckpt") and manifest["versions"]["tabicl"].startswith("2.")
    assert "tabpfn" not in manifest["versions"]
    TabICLClassifier(model_path=out / weights, device="cpu")._load_model()
    assert run(["inspect", str(out)]) == 0
    capfd.readouterr()

    from tttab.bundle import load_bundle

    bundle = load_bundle(out, device="cpu")
    assert bundle.notes == () and bundle.session.members == 2
    assert bundle.server.predict(bundle.x).shape == (60, 3)
