"""`tttab serve` as a process: it listens, answers, ends and refuses."""

from __future__ import annotations

import json
import re
import signal
import socket
import urllib.request

import numpy as np
import pandas as pd
import pytest

from tests.support.forked import forked, typed
from tttab.bundle import Bundle, load_bundle, save_bundle
from tttab.cli import run
from tttab.data import Origin, schema_of, table_from_frame


@pytest.fixture(scope="module")
def folder(tiny_model, mixed_frame, tmp_path_factory):
    frame, y = mixed_frame
    table = table_from_frame(frame.assign(kind=np.array(["a", "b", "c"])[y]), Origin("mixed", "file"))
    place = tmp_path_factory.mktemp("serve") / "kinds"
    save_bundle(place, Bundle(tiny_model, table.x.iloc[:40], table.y[:40], schema_of(table)))
    return place


def ask(place, path, rows=None):
    body = None if rows is None else json.dumps({"rows": rows}).encode()
    request = urllib.request.Request(f"{place}{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_a_server_answers_as_the_bundle_does_and_ends_at_a_signal(folder, mixed_frame):
    server = forked(typed("serve", folder, "--port", "0", "--device", "cpu"))
    try:
        place = next(found[0] for line in server.stderr if (found := re.search(r"http://[\d.:]+", line)))
        assert ask(place, "/health")["bundles"] == ["kinds"]
        raw = mixed_frame[0].tail(5)
        got = ask(place, "/predict", json.loads(raw.to_json(orient="records")))["predictions"]
        p = load_bundle(folder, device="cpu").predict(raw)
        assert np.allclose(pd.DataFrame(got)[["p(a)", "p(b)", "p(c)"]], p, atol=1e-5)
        assert server.end(signal.SIGINT)[0] in (0, 130)
    finally:
        server.process.kill()


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["{none}"], "there is no bundle", "tttab adapt"),
        (["{folder}", "{folder}"], "two bundles are called", "another name"),
        (["{folder}", "--host", "0.0.0.0"], "without a token", "TTTAB_SERVE_TOKEN"),
        (["{folder}", "--host", "no.such.host.invalid"], "cannot be listened on", "--port 0"),
        (["{folder}", "--port", "{taken}"], "cannot be listened on", "--port 0"),
        (["{folder}", "--max-body", "much"], "much", "--max-body 16M"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_a_hint(
    folder, tmp_path, capsys, monkeypatch, arguments, message, hint
):
    monkeypatch.delenv("TTTAB_SERVE_TOKEN", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        names = {"none": tmp_path, "folder": folder, "taken": taken.getsockname()[1]}
        assert run(["serve", *[word.format(**names) for word in arguments], "--device", "cpu"]) == 2
    error, advice = capsys.readouterr().err.splitlines()[-2:]
    assert message in error
    assert hint in advice
