"""`tttab models`: the known files, a download from a local stand-in, and hashes that are remembered."""

from __future__ import annotations

import functools
import gc
import http.server
import json
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import ClassVar

import pytest

from tttab.cli import run
from tttab.errors import ModelError
from tttab.models import names, open_model, resolve
from tttab.models.catalog import KNOWN, download, local_path, verify
from tttab.models.hub import address as hub_address
from tttab.models.tabpfn.known_files import VERSIONS
from tttab.system.files import cache_folder, sha256_of


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """A model cache of this test alone: a file in it would change what `auto` means elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def stand_in(tmp_path, monkeypatch, tiny_model):
    """A server on loopback in the place of tabpfn's download address, with one v2 checkpoint."""
    import dataclasses

    import tabpfn.model_loading
    import torch

    folder = tmp_path / "served"
    folder.mkdir()
    checkpoint = {
        "state_dict": tiny_model.module.state_dict(),
        "config": dataclasses.asdict(tiny_model._weights.config),
    }
    torch.save(checkpoint, folder / "tabpfn-v2-classifier.ckpt")
    handler = functools.partial(Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(tabpfn.model_loading, "FALLBACK_S3_BASE_URL", address)
        monkeypatch.setattr(
            urllib.request, "urlopen", functools.partial(only_loopback, urllib.request.urlopen)
        )
        yield folder
        server.shutdown()


@pytest.fixture
def hub(stand_in, monkeypatch):
    """The same files from a stand-in for the hub, which states their SHA-256s or what it is told to."""
    import huggingface_hub.constants as constants

    class Hub(http.server.SimpleHTTPRequestHandler):
        stated: ClassVar = {}
        asked: ClassVar = []

        def translate_path(self, path):
            return str(stand_in / path.rpartition("/")[2])

        def end_headers(self):
            file = Path(self.translate_path(self.path))
            if file.is_file():
                self.asked.append((self.command, self.path))
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("ETag", f'"{self.stated.get(file.name, sha256_of(file))}"')
            super().end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield Hub
        server.shutdown()


def only_loopback(urlopen, url, **options):
    if not url.startswith("http://127.0.0.1"):
        raise urllib.error.URLError("no hub in tests")
    return urlopen(url, **options)


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def known(name, task="classification"):
    return next(model for model in KNOWN if (model.name, model.task) == (name, task))


def test_every_official_file_of_the_installed_tabpfn_has_one_name():
    from tabpfn.constants import ModelVersion
    from tabpfn.model_loading import ModelType, _get_model_source

    for task, kind in (("classification", ModelType.CLASSIFIER), ("regression", ModelType.REGRESSOR)):
        theirs = [file for version in ModelVersion for file in _get_model_source(version, kind).filenames]
        ours = [model for model in KNOWN if model.task == task and not model.bundled]
        assert sorted(theirs) == sorted(model.file for model in ours)
        assert len({model.name for model in ours}) == len(ours)
        for model in ours:
            version = ModelVersion(model.family.version)
            assert model.repository == _get_model_source(version, kind).repo_id
    assert {family.version for family in VERSIONS} == {version.value for version in ModelVersion}
    assert {"tabpfn-v2", "tabpfn-v2-finetuned", "tabpfn-v2.5-real", "tabpfn-v3.5-fast"} < set(names())


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
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_get_downloads_through_tabpfn_and_the_name_opens(stand_in, capfd):
    assert run(["models", "get", "tabpfn-v2", "--json"]) == 2  # the stand-in has no regressor
    assert "tabpfn-v2-regressor.ckpt could not be downloaded" in capfd.readouterr().err
    place = local_path(known("tabpfn-v2"))
    assert place.read_bytes() == (stand_in / place.name).read_bytes()
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    session = open_model("tabpfn-v2", device="cpu")
    assert session.info.provenance == "trained on synthetic tables only"
    assert resolve("auto", "classification")[1].name == "tabpfn-v2"


def test_a_download_is_held_against_the_hash_that_the_hub_states(hub, stand_in, capfd):
    model = known("tabpfn-v2")
    download(model)
    assert ("HEAD", f"/Prior-Labs/TabPFN-v2-clf/resolve/main/{model.file}") in hub.asked
    assert ("GET", f"/Prior-Labs/TabPFN-v2-clf/resolve/main/{model.file}") in hub.asked
    assert verify(model) == (sha256_of(stand_in / model.file), "ok: as the hub stated")
    assert run(["models", "verify", "tabpfn-v2"]) == 0
    assert "ok: as the hub stated" in capfd.readouterr().out
    local_path(model).write_bytes(b"another")
    assert verify(model)[1].startswith("changed: ")


def test_a_download_that_is_not_what_the_hub_states_never_lands(hub):
    model = known("tabpfn-v2")
    hub.stated[model.file] = "f" * 64
    with pytest.raises(
        ModelError, match=r"another file than the hub's: SHA-256 \w{12}…, the hub states ffff"
    ):
        download(model)
    assert not local_path(model).exists()
    hub.stated[model.file] = "a git tag, no hash"
    download(model)
    assert verify(model)[1] == "remembered"


@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_a_download_of_which_no_hash_is_stated_says_so(stand_in, capfd):
    assert run(["models", "get", "tabpfn-v2"]) == 2  # the stand-in has no regressor
    told = " ".join(capfd.readouterr().err.split())
    assert "tabpfn-v2-classifier.ckpt: the hub stated no SHA-256 to compare with" in told
    assert verify(known("tabpfn-v2"))[1] == "ok"
    gc.collect()


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


def test_the_hub_is_asked_where_it_is(monkeypatch):
    assert hub_address() == ("huggingface.co", 443)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:8080/mirror")
    assert hub_address() == ("127.0.0.1", 8080)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:port")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert resolve("auto", "classification")[1].bundled


def test_a_damaged_download_never_lands(stand_in):
    (stand_in / "tabpfn-v2-classifier.ckpt").write_bytes(b"half a file")
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        download(known("tabpfn-v2"))
    assert list(local_path(known("tabpfn-v2")).parent.iterdir()) == []


def test_offline_means_offline(monkeypatch):
    monkeypatch.setenv("TTTAB_OFFLINE", "1")
    with pytest.raises(ModelError, match="TTTAB_OFFLINE") as caught:
        download(known("tabpfn-v2"))
    assert "put the file at" in caught.value.hint


def test_a_gated_version_shows_its_terms_and_names_the_way(capfd, monkeypatch):
    import tabpfn.browser_auth

    def refuse(hf_repo_id):
        raise RuntimeError("the licence has not been accepted")

    monkeypatch.setattr(tabpfn.browser_auth, "ensure_license_accepted", refuse)
    assert run(["models", "get", "tabpfn-v2.6"]) == 2
    told = " ".join(capfd.readouterr().err.split())
    assert "tabpfn-2.6-license-v1.0, non-commercial" in told
    assert "no production use" in told
    assert "the licence has not been accepted" in told
    assert "TABPFN_TOKEN=… tttab models get tabpfn-v2.6" in told


def test_a_name_with_one_of_its_two_files_is_verified(stand_in, capfd):
    place = local_path(known("tabpfn-v2"))
    place.parent.mkdir(parents=True)
    place.write_bytes((stand_in / place.name).read_bytes())
    assert run(["models", "verify", "tabpfn-v2", "--json"]) == 0
    assert [row["task"] for row in json.loads(capfd.readouterr().out)["models"]] == ["classification"]


def test_auto_is_the_bundled_model_where_the_download_cannot_be_kept(monkeypatch, tmp_path):
    from tttab.models import catalog

    (tmp_path / "file").touch()
    monkeypatch.setenv("TABPFN_MODEL_CACHE_DIR", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(catalog, "_hub_answers", lambda: True)
    assert resolve("auto", "classification")[1].bundled


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
