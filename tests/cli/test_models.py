"""`tttab models`: the known files, a download from a local stand-in, and hashes that are remembered."""

from __future__ import annotations

import json
import re
from importlib import metadata

import pytest

from tttab.cli import run
from tttab.errors import ModelError
from tttab.models import names, open_model
from tttab.models.catalog import KNOWN, local_path, verify
from tttab.models.tabicl.family import TabICL
from tttab.models.tabpfn.family import TabPFN
from tttab.models.tabpfn.known_files import VERSIONS
from tttab.system.files import cache_folder


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """A model cache of this test alone: a file in it would change what `auto` means elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def known(name, task="classification"):
    return next(model for model in KNOWN if (model.name, model.task) == (name, task))


def test_every_official_file_of_the_installed_tabpfn_has_one_name():
    from tabpfn.constants import ModelVersion
    from tabpfn.model_loading import ModelType, _get_model_source

    for task, kind in (("classification", ModelType.CLASSIFIER), ("regression", ModelType.REGRESSOR)):
        theirs = [file for version in ModelVersion for file in _get_model_source(version, kind).filenames]
        ours = [model for model in TabPFN().known() if model.task == task and not model.bundled]
        assert sorted(theirs) == sorted(model.file for model in ours)
        assert len({model.name for model in ours}) == len(ours)
        for model in ours:
            version = ModelVersion(model.release.version)
            assert model.repository == _get_model_source(version, kind).repo_id
    assert {family.version for family in VERSIONS} == {version.value for version in ModelVersion}
    assert {"tabpfn-v2", "tabpfn-v2-finetuned", "tabpfn-v2.5-real", "tabpfn-v3.5-fast"} < set(names())


def test_every_official_file_of_the_installed_tabicl_has_a_name():
    """tabicl has no list of them: its estimators' texts and defaults name each."""
    import inspect

    from tabicl import TabICLClassifier, TabICLRegressor

    kinds = {"classification": TabICLClassifier, "regression": TabICLRegressor}
    for task, kind in kinds.items():
        theirs = set(re.findall(r"tabicl-\w+-v[\d.]+-\d+\.ckpt", inspect.getsource(kind)))
        ours = {model.file for model in TabICL().known() if model.task == task}
        assert ours == theirs
        default = inspect.signature(kind).parameters["checkpoint_version"].default
        assert known("tabicl", task).file == default
        assert f'"{known("tabicl", task).repository}"' in inspect.getsource(kind)
    assert {model.license for model in TabICL().known()} == {"BSD 3-Clause, the package's"}
    assert "BSD 3-Clause License" in metadata.metadata("tabicl")["License"]


def test_list_tells_licence_provenance_and_place(capfd):
    assert run(["models", "list", "--json"]) == 0
    listed = {(m["name"], m["task"]): m for m in json.loads(capfd.readouterr().out)["models"]}
    assert listed["tabpfn-v2", "classification"]["provenance"] == "trained on synthetic tables only"
    assert "real tables" in listed["tabpfn-v2-finetuned", "classification"]["provenance"]
    assert "non-commercial" in listed["tabpfn-v3.5", "regression"]["license"]
    assert not listed["tabpfn-v2", "regression"]["here"]
    assert listed["tttab-tiny", "classification"]["here"]
    assert listed["tttab-tiny", "classification"]["megabytes"] > 0.5
    assert run(["models", "list", "--here"]) == 0
    captured = capfd.readouterr()
    assert {line.split("\t")[0] for line in captured.out.splitlines()} == {"name", "tttab-tiny"}
    assert "looked for in" in captured.err


def test_bundled_files_are_those_on_record(capfd):
    assert run(["models", "verify", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)["models"]
    assert rows
    assert {row["verdict"] for row in rows} == {"ok"}


# tabpfn keeps the exception of a 404 answer, and with it urllib's socket, until it is collected.


@pytest.mark.parametrize("text", ['{"F": [1]}', '{"F": {"stated by the hub": 1}}', "[]", "{", "[" * 10**5])
def test_a_damaged_memory_of_hashes_is_an_empty_one(tmp_path, text):
    model = known("tabpfn-v2-gn2p4bpt")
    local_path(model).parent.mkdir(parents=True)
    local_path(model).write_bytes(b"one")
    memory = cache_folder() / "model-hashes.json"
    memory.write_text(text.replace("F", model.file))
    assert [verify(model)[1] for _ in range(2)] == ["remembered", "ok"]


@pytest.mark.parametrize("spec", ["a" * 5000, "a" * 5000 + ".ckpt", "~nobody-of-that-name/m.ckpt", "."])
def test_a_path_that_cannot_be_one_is_a_missing_file(spec):
    with pytest.raises(ModelError, match="no model"):
        open_model(spec, device="cpu")


def test_a_name_with_one_of_its_two_files_is_verified(capfd):
    place = local_path(known("tabpfn-v2"))
    place.parent.mkdir(parents=True)
    place.write_bytes(b"one")
    assert run(["models", "verify", "tabpfn-v2", "--json"]) == 0
    assert [row["task"] for row in json.loads(capfd.readouterr().out)["models"]] == ["classification"]


def test_a_file_copied_in_is_remembered_and_a_change_is_noticed(capfd):
    model = known("tabpfn-v2-gn2p4bpt")
    place = local_path(model)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"one")
    assert verify(model)[1] == "remembered"
    assert verify(model)[1] == "ok"
    place.write_bytes(b"two")
    assert run(["models", "verify", model.name]) == 1
    captured = capfd.readouterr()
    assert "changed: " in captured.out
    assert model.file in captured.err


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["get", "tabpfn-v22"], "no model is called", "tabpfn-v2"),
        (["get", "tttab-tiny"], "", ""),
        (["verify", "tabpfn-v3"], "is not on this machine", "tttab models get tabpfn-v3"),
    ],
)
def test_mistakes(capfd, arguments, message, hint):
    code = run(["models", *arguments])
    told = " ".join(capfd.readouterr().err.split())
    assert code == (0 if not message else 2)
    assert message in told
    assert hint in told
