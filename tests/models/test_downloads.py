"""Ways to weights: what `auto` takes and says, downloads on every bad day, licences and tokens."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import torch

from tests.support.hub_server import TOKEN, Hub, serving
from tests.support.small_models import small_model
from tttab.cli import run
from tttab.errors import ModelError
from tttab.models import catalog, hub, open_model, resolve
from tttab.models.catalog import KNOWN, download, local_path, verify
from tttab.system.files import cache_folder, sha256_of

ROOT = Path(__file__).parents[2]
V2_SIZE = {"emsize": 192, "nlayers": 12, "nhead": 6}


def known(name, task="classification"):
    return next(model for model in KNOWN if (model.name, model.task) == (name, task))


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A folder with a file of TabPFN v2's size and name, its weights random, and one of another version."""
    import dataclasses

    folder = tmp_path_factory.mktemp("official")
    session = small_model(**V2_SIZE)
    config = {**dataclasses.asdict(session._weights.config)}
    torch.save(
        {"state_dict": session.module.state_dict(), "config": config}, folder / "tabpfn-v2-classifier.ckpt"
    )
    small = small_model("tabpfn_v2_6")
    small.save(folder / "small.safetensors")
    (folder / "small.safetensors").rename(folder / "tabpfn-v2.6-classifier-v2.6_default.ckpt")
    return folder


@pytest.fixture(autouse=True)
def online(tmp_path, monkeypatch):
    """No switch forbids downloads, no model is named, no token is found, all caches are empty."""
    for name in (*hub.OFFLINE, "TTTAB_MODEL", "TABPFN_TOKEN", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    import tabpfn.browser_auth as auth

    for name in ("_TOKEN_FILE", "_CLIENT_TOKEN_FILE"):
        monkeypatch.setattr(auth, name, tmp_path / "home" / name)
    monkeypatch.setattr(auth, "_CACHE_DIR", tmp_path / "home")
    monkeypatch.setattr(auth, "_accepted_repos", set())


@pytest.fixture
def server(official, monkeypatch):
    """The hub and the licence server on loopback; the mirror is a port where nobody listens."""
    import huggingface_hub.constants as constants
    import tabpfn.model_loading
    from huggingface_hub import close_session
    from tabpfn.settings import settings

    with serving(Hub(official)) as found:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        template = found.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(tabpfn.model_loading, "FALLBACK_S3_BASE_URL", "http://127.0.0.1:9/files")
        monkeypatch.setattr(settings.tabpfn, "auth_api_url", found.address)
        # tabpfn asks the hub for a licence's name at its own address, whatever HF_ENDPOINT says.
        real = urllib.request.urlopen

        def at_loopback(request, *arguments, **options):
            if isinstance(request, urllib.request.Request):
                request.full_url = request.full_url.replace("https://huggingface.co", found.address)
            return real(request, *arguments, **options)

        monkeypatch.setattr(urllib.request, "urlopen", at_loopback)
        yield found
        close_session()
    gc.collect()


def left_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_auto_downloads_v2_once_and_says_why(server, official):
    found = resolve("auto", "classification")
    assert found.path.read_bytes() == (official / found.path.name).read_bytes()
    assert found.why.startswith("tabpfn-v2, downloaded: no official TabPFN v2 file in ")
    assert verify(found.known) == (sha256_of(official / found.path.name), "ok: as the hub stated")
    asked = len(server.asked)
    again = resolve("auto", "classification")
    assert len(server.asked) == asked
    assert again.path == found.path
    assert "found at" in again.why
    assert "trained on synthetic tables only" in again.why
    session = open_model("auto", device="cpu")
    assert session.info.parameters > 7_000_000
    assert session.info.license == "Apache 2.0 with attribution"


def test_auto_takes_tabpfns_own_default_file_where_that_is_the_one_here(server, official):
    variant = known("tabpfn-v2-finetuned")
    local_path(variant).parent.mkdir(parents=True)
    local_path(variant).write_bytes((official / "tabpfn-v2-classifier.ckpt").read_bytes())
    found = resolve("auto", "classification")
    assert found.known == variant
    assert "further on real tables" in found.why
    assert server.asked == []


def test_what_tttab_model_names_goes_before_everything_else(server, official, monkeypatch):
    file = official / "tabpfn-v2-classifier.ckpt"
    monkeypatch.setenv("TTTAB_MODEL", str(file))
    found = resolve("auto", "classification")
    assert (found.path, found.why) == (file, f"{file} is what TTTAB_MODEL names")
    assert resolve("tttab-tiny", "classification").known.bundled, "what is named on the command line wins"
    monkeypatch.setenv("TTTAB_MODEL", str(file) + "x.ckpt")
    with pytest.raises(ModelError, match=r"no model file at .* \(TTTAB_MODEL names it\)"):
        resolve("auto", "classification")
    assert server.asked == []


@pytest.mark.parametrize("switch", hub.OFFLINE)
def test_offline_switches_forbid_and_are_named(server, monkeypatch, recwarn, switch):
    monkeypatch.setenv(switch, "1")
    session = open_model("auto", device="cpu")
    assert session.info.name == "tttab-tiny"
    assert f"{switch} forbids a download; --model tttab-tiny makes the choice explicit" in session.info.chosen
    with pytest.raises(ModelError, match=f"{switch} forbids fetching"):
        download(known("tabpfn-v2"))
    with pytest.raises(ModelError, match=f"{switch} forbids a download"):
        open_model("auto", device="cpu", strict=True)
    assert server.asked == []
    assert not recwarn.list


BAD_DAYS = {
    # How the server behaves, and what of it is said.
    "refusing": "500",
    "cut": "",
    "login page": "",
    "gated": "Access restricted",
}


@pytest.mark.parametrize("way", BAD_DAYS)
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_a_failed_download_is_told_and_leaves_nothing(server, way, capfd, monkeypatch):
    server.way = way
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's waiting between its own attempts
    with pytest.warns(UserWarning, match="its download failed: tabpfn-v2-classifier.ckpt could not be"):
        session = open_model("auto", device="cpu")
    assert session.info.name == "tttab-tiny"
    assert BAD_DAYS[way] in session.info.chosen
    assert "127.0.0.1:9: [Errno 111] Connection refused" in session.info.chosen, "the mirror's reason too"
    assert "--model tttab-tiny makes the choice explicit" in session.info.chosen
    assert left_in(local_path(known("tabpfn-v2")).parent) == []
    server.way = way
    capfd.readouterr()
    assert run(["models", "get", "tabpfn-v2"]) == 2
    told = capfd.readouterr().err
    assert "error: tabpfn-v2-classifier.ckpt could not be downloaded (127.0.0.1:" in told
    way_on = "accept the terms at http://127.0.0.1" if way == "gated" else "put the file at "
    assert f"hint: {way_on}" in told
    assert left_in(local_path(known("tabpfn-v2")).parent) == []


def test_another_file_than_the_hub_states_never_lands(server):
    server.way = "wrong hash"
    with pytest.raises(ModelError, match=r"another file than the hub.s: SHA-256 \w{12}…, .* states ffff"):
        download(known("tabpfn-v2"))
    assert left_in(local_path(known("tabpfn-v2")).parent) == []
    server.way, server.stated = "good", {"tabpfn-v2-classifier.ckpt": "a git tag, no hash"}
    download(known("tabpfn-v2"))
    assert verify(known("tabpfn-v2"))[1] == "remembered"


def test_a_hub_that_says_nothing_and_one_that_dribbles_are_given_up_in_time(server, monkeypatch):
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.3)
    server.way = "silent"
    with pytest.raises(ModelError, match="could not be downloaded"):
        download(known("tabpfn-v2"))
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 2.5)  # on a busy machine too it answers within them
    server.way = "slow"  # 64 KiB in half a second: minutes for the whole file
    with pytest.raises(ModelError, match=r"not done in 1 s"):
        download(known("tabpfn-v2"), seconds=1.0)


def test_a_failure_is_not_repeated_by_every_command_but_by_get(server, monkeypatch):
    server.way = "refusing"
    with pytest.warns(UserWarning, match="download failed"):
        open_model("auto", device="cpu")
    asked = len(server.asked)
    with pytest.warns(UserWarning, match="that was within the last hour, tttab models get tabpfn-v2 tries"):
        open_model("auto", device="cpu")
    assert len(server.asked) == asked
    server.way = "good"
    download(known("tabpfn-v2"))
    assert resolve("auto", "classification").known.name == "tabpfn-v2"
    local_path(known("tabpfn-v2")).unlink()
    monkeypatch.setattr(catalog, "FAILURE_SECONDS", 0.0)
    assert "downloaded" in resolve("auto", "classification").why


@pytest.mark.parametrize("text", ["{", "[]", '{"F": 1}', '{"F": {"time": "now"}}', '{"F": {}}'])
def test_a_damaged_memory_of_failures_is_an_empty_one(server, text):
    memory = cache_folder() / "failed-downloads.json"
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(text.replace("F", "tabpfn-v2-classifier.ckpt"))
    assert "downloaded" in resolve("auto", "classification").why


def test_strict_refuses_another_model(server, capfd):
    server.way = "refusing"
    with pytest.raises(ModelError, match="its download failed") as caught:
        open_model("auto", device="cpu", strict=True)
    assert caught.value.hint == "--model tttab-tiny, or: tttab models get tabpfn-v2"
    assert run(["run", "--n", "20", "--k", "30", "--strict"]) == 2
    assert "its download failed" in capfd.readouterr().err


def test_a_mirror_behind_a_proxy_is_the_hubs_own_affair(official, tmp_path):
    """In a process of its own: huggingface_hub reads the environment when it is imported."""
    with serving(Hub(official)) as found:
        environment = {
            "HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": found.address, "HF_HUB_DISABLE_XET": "1",
            "PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path / "c"), "HOME": str(tmp_path / "h"),
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        command = [sys.executable, "-m", "tttab", "models", "get", "tabpfn-v2", "--json"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        got = tmp_path / "c" / "tabpfn" / "tabpfn-v2-classifier.ckpt"
        assert got.read_bytes() == (official / got.name).read_bytes(), done.stderr
        assert ("GET", f"http://hub.invalid/Prior-Labs/TabPFN-v2-clf/resolve/main/{got.name}") in found.asked


GATED = "tabpfn-v2.6"


def test_a_gated_file_comes_with_an_accepted_licence(server, monkeypatch):
    monkeypatch.setenv("TABPFN_TOKEN", TOKEN)
    download(known(GATED))
    session = open_model(GATED, device="cpu")
    assert session.info.license == "tabpfn-2.6-license-v1.0, non-commercial"


@pytest.mark.parametrize(
    ("token", "accepted", "reason", "hint"),
    [
        (None, True, "there is no token of Prior Labs", "tttab models login tabpfn-v2.6"),
        ("another-token", True, "the token was refused", "tttab models login tabpfn-v2.6"),
        (
            TOKEN,
            False,
            "it has not been accepted at https://ux.priorlabs.ai/account/licenses",
            "models login",
        ),
    ],
)
def test_what_stands_between_a_user_and_a_gated_file_is_said(
    server, monkeypatch, capfd, token, accepted, reason, hint
):
    server.accepted = accepted
    if token is not None:
        monkeypatch.setenv("TABPFN_TOKEN", token)
    assert run(["models", "get", GATED]) == 2
    told = capfd.readouterr().err
    assert f"needs a licence: {reason}" in told
    assert hint in told
    assert "no production use" in told
    assert left_in(local_path(known(GATED)).parent) == []
    assert run(["doctor", "--json"]) in (0, 1)
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    found = next(line for line in lines if line["subject"] == "tabpfn v2.6")
    assert reason in found["found"]
    assert "0 of 2 files" in found["found"]
    assert hint in found["advice"]
    for text in (told, json.dumps(lines)):
        assert token is None or token not in text


def test_doctor_tells_what_is_here_and_accepted(server, monkeypatch, capfd):
    monkeypatch.setenv("TABPFN_TOKEN", TOKEN)
    download(known(GATED))
    run(["doctor", "--json"])
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    found = {line["subject"]: line for line in lines}
    assert found["tabpfn v2.6"]["state"] == "ok"
    assert "1 of 2 files" in found["tabpfn v2.6"]["found"]
    assert found["tabpfn v2.6"]["found"].endswith("tabpfn-2.6-license-v1.0, non-commercial; accepted")
    assert found["tabpfn v3"]["advice"] == "tttab models get tabpfn-v3"


def test_a_gate_of_the_hub_itself_names_its_page(server, monkeypatch, capfd):
    monkeypatch.setenv("TABPFN_TOKEN", TOKEN)
    server.way = "gated"
    assert run(["models", "get", GATED]) == 2
    told = capfd.readouterr().err
    assert "Access restricted" in told
    assert f"hint: accept the terms at {server.address}/Prior-Labs/tabpfn_2_6, then: hf auth login" in told


def test_login_goes_through_tabpfn_and_shows_no_token(server, monkeypatch, capfd):
    monkeypatch.delenv("TABPFN_NO_BROWSER")
    assert run(["models", "login", GATED]) == 2
    told = capfd.readouterr().err
    assert "no interactive terminal" in told
    assert "TABPFN_TOKEN=… tttab models login tabpfn-v2.6" in told
    monkeypatch.setenv("TABPFN_TOKEN", TOKEN)
    assert run(["models", "login", GATED]) == 0
    captured = capfd.readouterr()
    assert "is accepted: tttab models get tabpfn-v2.6" in captured.out + captured.err
    assert TOKEN not in captured.out + captured.err
    assert run(["models", "login", "tabpfn-v2"]) == 0
    assert "needs no log-in" in capfd.readouterr().err


def test_login_may_open_a_browser_and_nothing_else_may(server, monkeypatch):
    """tabpfn is told not to open one; its own log-in lifts that for as long as it takes."""
    from tabpfn import browser_auth

    from tttab.models.catalog import family_of
    from tttab.models.tabpfn import environment

    monkeypatch.delenv("TABPFN_NO_BROWSER", raising=False)
    environment.prepare()
    seen = []

    def log_in(gui_url, hf_repo_id=None):
        seen.append((os.environ.get("TABPFN_NO_BROWSER"), hf_repo_id))
        return TOKEN

    monkeypatch.setattr(browser_auth, "try_browser_login", log_in)
    family_of(known(GATED)).login(known(GATED))
    assert seen == [(None, "tabpfn_2_6")]
    assert os.environ["TABPFN_NO_BROWSER"]
    monkeypatch.setenv("TABPFN_NO_BROWSER", "1")
    browser_auth._accepted_repos.clear()
    browser_auth._TOKEN_FILE.unlink()
    with pytest.raises(ModelError, match="browser login is disabled"):
        family_of(known(GATED)).login(known(GATED))


def test_a_login_page_in_a_models_place_is_called_one(tmp_path):
    page = tmp_path / "tabpfn-v2-classifier.ckpt"
    page.write_text("<!DOCTYPE html><html><body>Log in</body></html>")
    with pytest.raises(ModelError, match="is a web page, not a checkpoint"):
        open_model(str(page), device="cpu")
