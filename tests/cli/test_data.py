"""`tttab data` as a user types it: stdout, stderr and exit codes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tttab import cli
from tttab.data import remote
from tttab.data.packages import wheel_path


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    import openml

    monkeypatch.setattr(openml.config, "_root_cache_directory", tmp_path / "openml")
    monkeypatch.setenv("TTTAB_CACHE", str(tmp_path / "tttab"))
    monkeypatch.setenv(remote.OFFLINE, "1")


@pytest.fixture
def tttab(capsys):
    def tttab(*words):
        code = cli.run(["data", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return tttab


def test_list_is_tab_separated_in_a_pipe(tttab):
    code, out, _ = tttab("list", "--suite", "offline")
    lines = [line.split("\t") for line in out.splitlines()]
    assert code == 0 and lines[0][:3] == ["name", "OpenML id", "place"] and len(lines) == 7
    assert ["spambase", "-", "bundled", "4597", "57", "2", "offline"] in lines


def test_list_local_shows_what_needs_no_network(tttab):
    code, out, _ = tttab("list", "--local", "--json")
    tables = json.loads(out)["tables"]
    assert code == 0 and len(tables) == 9 and {table["place"] for table in tables} == {"bundled"}
    places = {table["name"]: table["place"] for table in json.loads(tttab("list", "--json")[1])["tables"]}
    assert places["adult"] == "OpenML" and places["car-good"] == "KEEL"


def test_keel_s_tables_are_local_once_their_wheel_is_there(tttab):
    wheel_path("keel").parent.mkdir(parents=True)
    wheel_path("keel").touch()
    tables = json.loads(tttab("list", "--local", "--suite", "keel", "--json")[1])["tables"]
    assert len(tables) == 20 and {table["place"] for table in tables} == {"cache"}


def test_show(tttab):
    code, out, err = tttab("show", "credit-g")
    assert code == 0 and "rows\t1,000" in out and "bad: 300 · good: 700" in out and "model\tyes" in out
    code, out, err = tttab("show", "credit-g", "--columns")
    assert "checking_status\tlevel\t0\t4\t<0, 0<=X<200, no checking" in out
    code, out, err = tttab("show", "31", "--json")
    document = json.loads(out)
    assert document["source"] == "bundled copy (OpenML could not be reached)" and err == ""
    assert document["openml_id"] == 31 and document["classes"] == {"bad": 300, "good": 700}


def test_show_says_what_was_decided_and_what_does_not_fit(tttab, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x,y\n" + "".join(f"{n},class {n}\n" for n in range(12)))
    code, out, err = tttab("show", path)
    assert code == 0 and "no: 12 classes, the model reads at most 10" in out
    assert "note: no target was named: the last column, 'y', is the target" in err


def test_show_cuts_long_texts(tttab, tmp_path):
    path = tmp_path / "t.csv.gz"
    texts = ["a" * 5_000, "b" * 5_000]
    rows = "".join(f"{texts[n % 2]},{n},{texts[n % 2]}\n" for n in range(30))
    path.write_bytes(gzip.compress(("t,x,y\n" + rows).encode()))
    code, out, _ = tttab("show", path, "--columns")
    assert code == 0 and f"t\tlevel\t0\t2\t{'a' * 59}…, {'b' * 59}…" in out
    code, out, _ = tttab("show", path)
    assert code == 0 and f"classes\t{'a' * 59}…: 15 · {'b' * 59}…: 15" in out


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["show", "spambse"], "nearest known name is 'spambase'", "tttab data show spambase"),
        (["show", "44"], "data set 44 is not in OpenML's cache", "tttab data list --local"),
        (["show", "none.csv"], "there is no file none.csv", "ls"),
        (["show", "credit-g", "--target", "clas"], "the nearest is 'class'", "--target class"),
        (["list", "--suite", "cor"], "there is no suite 'cor'", "--suite core"),
        (["get"], "nothing to get", "tttab data get --suite core"),
        (["check", "none.yaml"], "none.yaml cannot be read", "tttab data check"),
    ],
)
def test_wrong_requests(tttab, words, message, hint):
    code, out, err = tttab(*words)
    assert code == 2 and out == "" and message in err and hint in err
    assert err.startswith("error: ") and len(err.splitlines()) == 2


def test_check(tttab, tmp_path):
    code, out, _ = tttab("check")
    assert code == 0 and "119 tables, 8 suites, no fault" in out
    path = tmp_path / "mine.yaml"
    path.write_text("tables:\n  a: {openml: x}\nsuites: {}\n")
    code, out, err = tttab("check", path)
    assert code == 2 and f"{path}:2: openml must be a positive whole number" in err


def test_get_goes_on_after_a_failure(tttab):
    code, out, err = tttab("get", "44", "banana", "--json")
    rows = json.loads(out)["tables"]
    assert code == 1 and rows[1]["rows"] == 5300 and "TTTAB_OFFLINE" in rows[0]["problem"]
    assert "1 of 2 failed" in err and "tttab data get 44" in err


def test_the_example_in_the_docs(tttab):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert f"$ tttab data show titanic | cat\n{tttab('show', 'titanic')[1]}```" in page
