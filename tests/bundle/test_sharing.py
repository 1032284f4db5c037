"""Bundles to and from a hub on loopback: what is sent, what is refused, and that no token is shown."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from tests.support.hub_server import Hub, serving
from tttab.bundle import Bundle, load_bundle, save_bundle, sharing
from tttab.bundle.manifest import read_manifest
from tttab.cli import run
from tttab.errors import BundleError
from tttab.models import hub

SECRET = "hf_0123456789abcdefghij"


class Repositories(Hub):
    """Takes what is pushed; its files are what the other servers' are."""

    def post(self, handler):
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.tokens = {*getattr(self, "tokens", ()), handler.headers["Authorization"]}
        if self.way == "refusing":
            return 403, {"error": f"the token {SECRET} may not write here"}
        if handler.path.endswith("/api/repos/create"):
            self.made = json.loads(body)
            return 200, {"url": f"{self.address}/me/people", "name": "me/people"}
        if "/preupload/" in handler.path:
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]
            return 200, {"files": modes}
        if "/commit/" in handler.path:
            for line in map(json.loads, body.decode().splitlines()):
                self.commit(line["key"], line["value"])
            return 200, {"commitUrl": f"{self.address}/me/people/commit/1", "commitOid": "1" * 40}
        return 200, {"warnings": [], "errors": []}

    def commit(self, key, value):
        if key == "file":
            (self.files / value["path"]).write_bytes(base64.b64decode(value["content"]))
        if key == "deletedFile":
            (self.files / value["path"]).unlink()

    def tree(self):
        names = [path.name for path in self.files.iterdir()]
        return [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in names]


@pytest.fixture(scope="module")
def saved(tiny_model, mixed_frame, tmp_path_factory):
    from tttab.data import Origin, schema_of, table_from_frame

    frame, y = mixed_frame
    table = table_from_frame(frame.assign(kind=np.array(["a", "b", "c"])[y]), Origin("mixed", "file"))
    rows = (table.x.iloc[:40], table.y[:40]), (table.x.iloc[40:60], table.y[40:60])
    own = {"parameters": {"model": "/home/me/mine.ckpt", "steps": 3}}
    record = {
        "estimator": own,
        "metrics": {"test": {"rows": 9, "before": {"accuracy": 0.5}, "after": {"accuracy": 0.75}}},
    }
    folder = tmp_path_factory.mktemp("sharing") / "people"
    bundle = Bundle(tiny_model, *rows[0], schema_of(table), record, held=rows[1])
    save_bundle(folder, bundle, {"result.json": lambda path: path.write_text("{}")})
    return folder


@pytest.fixture
def server(tmp_path, monkeypatch):
    from huggingface_hub import close_session, constants

    (tmp_path / "hub").mkdir()
    for name in hub.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with serving(Repositories(tmp_path / "hub")) as found:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        template = found.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield found
        close_session()


def test_what_is_pushed_is_pulled_whole_and_held_out_rows_stay(server, saved, tmp_path, mixed_frame, capfd):
    (server.files / "weights-0123456789abcdef.safetensors").write_text("of an older version")
    assert run(["push", str(saved), "me/people", "--yes", "--json"]) == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out) == {"address": f"{server.address}/me/people", "rows": 40}
    assert "uploaded unencrypted: 40 context rows with their labels" in captured.err
    assert "private" in (
        server.made.get("visibility"),
        server.made.get("private") and "private",
    ) and server.tokens == {f"Bearer {SECRET}"}
    kinds = sorted(path.name.partition("-")[0] for path in server.files.iterdir())
    assert kinds == ["README.md", "context", "manifest.json", "weights"]
    card = (server.files / "README.md").read_text()
    assert "/home/me" not in (server.files / "manifest.json").read_text()
    assert "license: mit" in card and "| accuracy | 0.5000 | 0.7500 |" in card and "40 context rows" in card
    assert run(["pull", "me/people", "--out", str(tmp_path / "got")]) == 0
    got = load_bundle(tmp_path / "got", device="cpu")
    expected = load_bundle(saved, device="cpu").predict(mixed_frame[0])
    assert np.array_equal(got.predict(mixed_frame[0]), expected) and got.held is None
    assert SECRET not in captured.out + captured.err


def test_rows_are_not_uploaded_unasked(server, saved, capfd):
    assert run(["push", str(saved), "me/people"]) == 2
    told = capfd.readouterr().err
    assert "40 context rows with their labels would be uploaded, unencrypted" in told
    assert f"hint: tttab push {saved} me/people --yes" in told
    assert not server.asked


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["push", "{saved}", "me", "--yes"], "'me' is no repository of the hub", "USER/NAME"),
        (["push", "{none}", "me/people", "--yes"], "there is no bundle", "tttab adapt"),
        (["pull", "me/../people"], "is no repository of the hub", "USER/NAME"),
        (
            ["pull", "me/people", "--out", "{none}/got"],
            "manifest.json could not be downloaded",
            "hf auth login",
        ),
    ],
)
def test_mistakes_get_a_line_and_a_hint(server, saved, tmp_path, capfd, words, message, hint):
    (tmp_path / "none").mkdir()
    places = {
        "{saved}": str(saved),
        "{none}": str(tmp_path / "none"),
        "{none}/got": str(tmp_path / "none/got"),
    }
    assert run([places.get(word, word) for word in words]) == 2
    told = capfd.readouterr().err
    assert message in told and hint in told and not list((tmp_path / "none").iterdir())


def test_a_refusal_tells_the_reason_and_no_token(server, saved, capfd):
    server.way = "refusing"
    assert run(["push", str(saved), "me/people", "--yes"]) == 2
    told = capfd.readouterr().err
    assert "me/people cannot be pushed" in told and "403" in told and SECRET not in told


def test_a_switch_forbids_both(server, saved, capfd, monkeypatch):
    monkeypatch.setenv("TTTAB_OFFLINE", "1")
    assert run(["push", str(saved), "me/people", "--yes"]) == 2
    assert run(["pull", "me/people"]) == 2
    assert capfd.readouterr().err.count("TTTAB_OFFLINE forbids asking the hub") == 2
    assert not server.asked


def test_a_foreign_bundle_that_was_changed_never_lands(server, saved, tmp_path):
    sharing.push(saved, "me/people")
    weights = next(server.files.glob("weights-*"))
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(BundleError, match="was changed: its hash"):
        sharing.pull("me/people", tmp_path / "got")
    manifest = read_manifest(saved)
    manifest["files"]["weights"]["file"] = "../../secret"
    (server.files / "manifest.json").write_text(json.dumps(manifest))
    asked = len(server.asked)
    with pytest.raises(BundleError, match="is damaged or was changed"):
        sharing.pull("me/people", tmp_path / "got")
    assert all("secret" not in path for _, path in server.asked[asked:])
    assert not (tmp_path / "got").exists()
