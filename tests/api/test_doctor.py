"""`tttab doctor`: says what is there, and exits 1 only where a command would fail."""

from __future__ import annotations

import json

import pytest

from tttab.api import doctor
from tttab.cli import run
from tttab.data.remote import Unreachable


@pytest.fixture(autouse=True)
def openml_is_out_of_reach(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr("socket.create_connection", refuse)


def findings(capfd):
    return {line["subject"]: line for line in map(json.loads, capfd.readouterr().out.splitlines())}


def test_a_healthy_machine_without_a_network_exits_0(capfd):
    assert run(["doctor", "--json"]) == 0
    found = findings(capfd)
    assert found["OpenML"]["state"] == "note"
    assert "tttab data get" in found["OpenML"]["advice"]
    assert found["tttab-tiny (classification)"]["state"] == "ok"
    assert {"Python", "tabpfn", "torch", "device", "model cache", "OpenML cache"} <= set(found)
    assert {"tabpfn v2", "tabicl v2", "tabicl v1.1", "extra tabicl"} <= set(found)
    assert found["tabicl v2"]["found"].startswith("0 of 2 files in ")
    assert found["tabicl v2"]["advice"] == "tttab models get tabicl"


def test_what_is_not_installed_is_named_with_the_command_that_installs_it(capfd, monkeypatch):
    installed = doctor.metadata.version

    def version(name):
        if name == "tabicl":
            raise doctor.metadata.PackageNotFoundError
        return installed(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    run(["doctor", "--json"])
    advice = findings(capfd)["extra tabicl"]["advice"]
    assert advice == "for --model tabicl: pip install 'tttab[tabicl]'"


def test_a_machine_without_a_cache_folder_still_gets_its_findings(capfd, monkeypatch):
    def refuse():
        raise Unreachable("the openml package cannot make its cache folder", "set one")

    monkeypatch.setattr("tttab.data.remote._openml", refuse)
    assert run(["doctor", "--json"]) == 0
    found = findings(capfd)
    assert found["OpenML cache"]["state"] == found["OpenML"]["state"] == "note"


def test_offline_is_obeyed(capfd, monkeypatch):
    monkeypatch.setenv("TTTAB_OFFLINE", "1")
    run(["doctor", "--json"])
    assert "forbids the network" in findings(capfd)["OpenML"]["found"]


def test_an_unsupported_tabpfn_is_bad_and_exits_1(capfd, monkeypatch):
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "8.1.0")
    assert run(["doctor", "--json"]) == 1
    assert findings(capfd)["tabpfn"]["state"] == "bad"


def test_missing_bundled_weights_are_bad(capfd, monkeypatch, tmp_path):
    monkeypatch.setattr("tttab.models.catalog.WEIGHTS", tmp_path)
    assert run(["doctor", "--json"]) == 1
    assert findings(capfd)["tttab-tiny (classification)"]["state"] == "bad"


def test_a_full_disk_and_a_read_only_cache_are_noted(monkeypatch, tmp_path):
    assert doctor._folder("cache", tmp_path / "not" / "there").state == "ok"
    monkeypatch.setattr(doctor, "LEAST_DISK", float("inf"))
    assert "make room" in doctor._folder("cache", tmp_path).advice
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    assert "cannot be written" in doctor._folder("cache", tmp_path).found
