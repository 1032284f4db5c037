"""No key, token or password reaches stdout, stderr, the result store or the report."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress

import pytest

from tttab import text
from tttab.bench.records import Cell
from tttab.bench.work import failed_record
from tttab.cli import run
from tttab.errors import DataError, MissingExtra, RequestError, TttabError, UnknownDataset
from tttab.text import keep_secret, shown, without_secrets

KEY = "5ec2e7a9c0ffee00deadbeef12345678"


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """What one test keeps secret is not secret in the next."""
    monkeypatch.setattr(text, "_kept", set())


@pytest.fixture
def refusing(monkeypatch, tmp_path):
    """An OpenML that takes one connection, tttab's probe, and refuses all that follow; openml has a key."""
    import openml

    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]

    def serve():
        listening.accept()[0].close()
        listening.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    monkeypatch.setattr(openml.config, "server", f"http://127.0.0.1:{port}/api/v1/xml")
    monkeypatch.setattr(openml.config, "apikey", KEY)
    monkeypatch.setattr(openml.config, "_root_cache_directory", tmp_path / "openml")
    monkeypatch.delenv("TTTAB_OFFLINE", raising=False)
    monkeypatch.setattr("openml._api_calls._human_delay", lambda n: 0.0)
    yield port
    if thread.is_alive():
        socket.create_connection(("127.0.0.1", port)).close()
    thread.join()


def test_a_refused_request_shows_the_url_without_the_key(refusing, capsys, monkeypatch):
    monkeypatch.setenv("TTTAB_DEBUG", "1")
    assert run(["data", "show", "1001"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" in err and "requests.exceptions.ConnectionError" in err
    assert "/api/v1/xml/data/1001?…" in err.splitlines()[-2]
    assert KEY not in err
    assert err.count("tttab data list shows what needs no network") == 1


def test_a_benchmark_keeps_the_reason_without_the_key(refusing, capsys, tmp_path):
    store, page = tmp_path / "store", tmp_path / "report.html"
    words = ["--n", "5", "--k", "5", "--seeds", "1", "--arms", "gbt"]
    assert run(["bench", "--datasets", "1001", "--out", str(store), *words]) == 1
    assert run(["report", str(store), "--html", str(page), "--markdown", "-"]) == 0
    assert run(["report", str(store), "--json"]) == 0
    out, err = capsys.readouterr()
    assert out.count("/api/v1/xml/data/1001?…") == 2  # Markdown and JSON
    written = [path.read_text(encoding="utf-8") for path in (page, *store.rglob("*")) if path.is_file()]
    assert sum("/api/v1/xml/data/1001?…" in content for content in written) == 2
    assert all(KEY not in content for content in [out, err, *written])


def test_the_command_reads_the_key_from_openmls_file_and_does_not_tell_it(tmp_path):
    """The server names the key in its answers, and so does the traceback of every link of the chain."""
    answer = f"HTTP/1.1 500 {KEY}\r\nContent-Length: {len(KEY)}\r\nConnection: close\r\n\r\n{KEY}"
    asked = []

    def serve():
        while not over.is_set():
            with suppress(TimeoutError), listening.accept()[0] as connection:
                connection.settimeout(5)
                asked.append(connection.recv(65536).decode())
                if asked[-1]:
                    connection.sendall(answer.encode())

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        (tmp_path / "openml").mkdir()
        server = f"http://127.0.0.1:{listening.getsockname()[1]}/api/v1/xml"
        (tmp_path / "openml" / "config").write_text(
            f"server = {server}\ncachedir = {tmp_path / 'cache'}\napikey = {KEY}\n"
        )
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENML", "TTTAB"))}
        done = subprocess.run(
            [sys.executable, "-m", "tttab", "data", "show", "1001"],
            env=kept | {"XDG_CONFIG_HOME": str(tmp_path), "TTTAB_DEBUG": "1"},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        over.set()
        thread.join()
    assert done.returncode == 2
    assert any(KEY in request for request in asked)
    assert "Traceback" in done.stderr and "error: " in done.stderr
    assert KEY not in done.stdout + done.stderr


def test_a_failed_download_tells_no_token(monkeypatch, capsys, tmp_path):
    """Tokens may lie in files of the hub's and tabpfn's own, not in the environment."""
    import huggingface_hub
    import tabpfn.browser_auth
    import tabpfn.model_loading

    from tttab.models import catalog, hub

    def refuse(*_):
        raise RuntimeError("hub-token-of-a-file, tabpfn-token-of-a-file are refused")

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hub-token-of-a-file")
    monkeypatch.setattr(tabpfn.browser_auth, "get_cached_token", lambda: "tabpfn-token-of-a-file")
    monkeypatch.setattr(catalog, "offline", lambda: "")
    monkeypatch.setattr(hub, "_from_hub", refuse)
    monkeypatch.setattr(tabpfn.model_loading, "FALLBACK_S3_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TABPFN_MODEL_CACHE_DIR", str(tmp_path))
    assert run(["models", "get", "tabpfn-v2"]) == 2
    err = capsys.readouterr().err
    assert "could not be downloaded (huggingface.co: …, … are refused" in err and "token-of" not in err


def test_a_failed_cell_holds_no_secret(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    cell = Cell(
        table="t", seed=0, n=5, k=5, arm="gbt", key="k", fingerprint="f", model="", budget="", rule="",
        recipe="", test_asked=0, classes=2,
    )  # fmt: skip
    error = RuntimeError("https://hub.example/m?X-Amz-Signature=abc said hf_abcdefgh\n\x1b]52;c;eA==\x07 no")
    reason = failed_record(cell, error).row.error
    assert reason == "RuntimeError: https://hub.example/m?… said … \\x1b]52;c;eA==\\x07 no"
    long = failed_record(cell, RuntimeError("x" * 400)).row.error
    assert len(long) == 300


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("url: /api/v1/xml/data/31?api_key=abc (Caused by X)", "url: /api/v1/xml/data/31?… (Caused by X)"),
        ("https://a.example/b?c=d&e=f, then", "https://a.example/b?… then"),
        ("<https://a.example/b?token>", "<https://a.example/b?…>"),
        ("https://a.example/b#access_token=abc", "https://a.example/b#…"),
        ("https://a.example/b#section", "https://a.example/b#section"),
        ("proxy http://user:p@ss@proxy:3128/x", "proxy http://…@proxy:3128/x"),
        ("{'Authorization': 'Basic dXNlcg=='}", "{'Authorization': 'Basic …'}"),
        ("with Bearer abc.def", "with Bearer …"),
        ("{'api_key': '0123456789abcdef'}", "{'api_key': '…'}"),
        ("a file /data/what?.csv and who?.csv", "a file /data/what?.csv and who?.csv"),
        ("column 'password': 12 cells", "column 'password': 12 cells"),
    ],
)
def test_what_is_cut_and_what_stays(said, wanted):
    assert shown(said) == wanted
    assert shown(shown(said)) == wanted


def test_secrets_of_the_environment_are_cut_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://user:pa%2Fss-word@proxy.example:3128")
    monkeypatch.setenv("TABPFN_TOKEN", "tabpfn-token")
    keep_secret("kept key+")
    said = "user:pa%2Fss-word, pa%2Fss-word, pa/ss-word, tabpfn-token, kept key+, kept%20key%2B"
    assert shown(said) == "…, …, …, …, …, …"
    keep_secret("short")
    keep_secret(None)
    assert shown("short") == "short"


def test_a_proxy_that_is_no_address_is_one_line_without_its_password(monkeypatch, capsys, tmp_path):
    import openml

    monkeypatch.setattr(openml.config, "_root_cache_directory", tmp_path)
    monkeypatch.delenv("TTTAB_OFFLINE", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("https_proxy", "http://user:pass/word@proxy:3128")
    assert run(["data", "show", "1001"]) == 2
    err = capsys.readouterr().err
    assert "is not of the form http://HOST:PORT" in err and "pass" not in err


@pytest.mark.parametrize(
    "said",
    ["/" * 10**6, "://" * 300_000, "://a@" * 200_000, "a?b=c/" * 200_000, "Authorization: " * 70_000,
     "secret=" * 150_000, "api_key" * 150_000, "a:b@" * 200_000],
    ids=lambda said: said[:8],
)  # fmt: skip
def test_a_megabyte_is_cleaned_in_linear_time(said):
    start = time.perf_counter()
    without_secrets(said)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "error",
    [
        DataError("no such table", "tttab data list"),
        RequestError("n < 1", "--n 5"),
        MissingExtra("ray", "ray"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_its_message_and_a_traceback_shows_the_hint_once(error):
    (again,) = [pickle.loads(pickle.dumps(error))]
    for one in (error, again):
        assert type(one) is type(error)
        assert str(one) == one.message == error.message
        assert one.hint == error.hint
        printed = traceback.format_exception(one)
        assert printed[-2:] == [f"{type(one).__module__}.{type(one).__qualname__}: {error.message}\n",
                                f"hint: {error.hint}\n"]  # fmt: skip
        assert "".join(printed).count(error.hint) == 1


def test_an_error_without_a_hint_has_no_note_and_survives_joblib():
    from joblib import Parallel, delayed

    assert not hasattr(TttabError("m"), "__notes__")
    with pytest.raises(UnknownDataset) as caught:
        Parallel(2, backend="loky")(delayed(_raise)() for _ in range(2))
    assert (caught.value.message, caught.value.hint) == ("no such name", "tttab data list")
    assert caught.value.__notes__.count("hint: tttab data list") == 1


def _raise():
    raise UnknownDataset("no such name", "tttab data list")
