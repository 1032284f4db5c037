"""datasets.yaml: what ships is right, and every fault is named with its line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tttab.data import catalog, load_table, names, read_catalog, suite_names
from tttab.data.registry import TABLES, catalog_path, parse_catalog
from tttab.errors import DataError

CORE = [23, 1067, 1489, 40975, 40984, 46, 40701, 28, 182, 4534, 44, 1497]


def test_the_shipped_suites():
    known = catalog()
    assert suite_names() == (
        "offline",
        "smoke",
        "core",
        "cc18",
        "tabarena",
        "keel",
        "wooldridge",
        "reference",
    )
    assert [entry.openml for entry in known.suite("core")] == CORE
    assert len(known.suite("cc18")) == 40 and len(known.suite("tabarena")) == 20
    assert all(entry.openml_task and entry.target for entry in known.suite("tabarena"))
    offline = known.suite("offline")
    assert len(offline) >= 6 and all(entry.bundled and "real" in entry.tags for entry in offline)
    assert all(entry.rows >= 1250 and entry.licence and entry.source for entry in offline)
    assert all(entry.bundled for entry in known.suite("smoke"))


def test_the_bundled_tables_are_as_said():
    bundled = [entry for entry in catalog().tables.values() if entry.bundled]
    assert {entry.file for entry in bundled} == set(TABLES.glob("*.parquet"))
    for entry in bundled:
        table = load_table(entry.name)
        said = (entry.rows, entry.features, entry.classes, entry.target, entry.task)
        assert said == (len(table), table.x.shape[1], len(table.classes), table.target, table.task)
        assert table.x.columns[-1] != table.target and table.source == "bundled"


def test_a_bundled_copy_serves_only_the_id_it_is():
    with_both = [entry.name for entry in catalog().tables.values() if entry.bundled and entry.openml]
    assert with_both == ["credit-g"] and catalog().by_openml_id(31).name == "credit-g"
    assert catalog().by_openml_id(44).name == "spambase-44" and catalog().by_openml_id(5) is None


def test_names_need_neither_pandas_nor_openml():
    code = (
        "import sys; from tttab.data import names, suite_names; names(); suite_names();"
        "from tttab.cli.completion import datasets; print(datasets('SPAM'));"
        "print({'pandas', 'openml', 'torch', 'sklearn', 'pyarrow', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['spambase', 'spambase-44']", "set()"]
    assert "spambase" in names()


GOOD = """\
tables:
  one: {openml: 1, tags: [a, b]}
  two:
    openml: 2
    target: y
    task: regression
suites:
  all: [one, two]
"""


def test_a_good_file():
    found = parse_catalog(GOOD)
    assert found.tables["two"].task == "regression" and found.tables["one"].tags == ("a", "b")
    assert found.suites == {"all": ("one", "two")}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("openml: 2", "openml: two", ":4: openml must be a positive whole number, got 'two'"),
        ("openml: 2", "openml: 0", ":4: openml must be a positive"),
        ("openml: 2", "openml: -2", ":4: openml must be a positive"),
        ("openml: 2", "openml: 1", ":3: 'two' and 'one' have one OpenML id"),
        ("openml: 2", "open_ml: 2", ":4: unknown field 'open_ml' (did you mean 'openml'?)"),
        ("openml: 2", "openml: [2]", ":4: openml must be text"),
        ("openml: 2", "openml:", ":4: openml must be text"),
        ("openml: 2", "rows: 2", ":3: table 'two' needs `openml`, `package` or `bundled: true`"),
        ("openml: 2", "bundled: true", ":3: table 'two' is bundled, but two.parquet is not in the package"),
        ("openml: 2", "bundled: maybe", ":4: bundled must be true or false"),
        ("task: regression", "task: rank", ":6: task must be classification or regression, got 'rank'"),
        ("task: regression", "target: z", ":6: table 'two' has the key 'target' twice"),
        ("tags: [a, b]", "tags: a", ":2: tags must be a list"),
        ("tags: [a, b]", "tags: [a, [b]]", ":2: an item of tags must be text"),
        ("[one, two]", "[one, tow]", ":8: suite 'all' names no known table: 'tow' (did you mean 'two'?)"),
        ("[one, two]", "[one, one]", ":8: suite 'all' is empty or names a table twice"),
        ("[one, two]", "[]", ":8: suite 'all' is empty"),
        ("[one, two]", "{one: two}", ":8: suite 'all' must be a list"),
        ("  two:", "  ../two:", ":3: '../two' is no name"),
        ("  two:", "  /etc/passwd:", ":3: '/etc/passwd' is no name"),
        ("  two:", "  31:", ":3: '31' is no name"),
        ("  two:", "  one:", ":3: tables has the key 'one' twice"),
        ("suites:", "sweets:", ":7: unknown field 'sweets' (did you mean 'suites'?)"),
        ("tables:", "tables: [", "not YAML"),
        ("openml: 2", "openml: !!python/object/apply:os.system [ls]", ":4: openml must be text"),
        ("openml: 2", "openml: *nowhere", ":4: not YAML: found undefined alias"),
        ("openml: 2", "openml: \x07", "not YAML"),
        ("    target: y", "\ttarget: y", ":5: not YAML"),
    ],
)
def test_faults_name_their_line(old, new, message):
    with pytest.raises(DataError) as caught:
        parse_catalog(GOOD.replace(old, new, 1), Path("d.yaml"))
    assert message in caught.value.message and caught.value.message.startswith("d.yaml")
    assert caught.value.hint == "tttab data check d.yaml"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a",
        "tables: {}",
        "suites: {}",
        "a: &a [*a]",
        "[" * 2000,
        "&a [" * 500,
        "? {a: b} : c",
        "---\n---\n",
    ],
)
def test_foreign_files_are_one_line(text):
    with pytest.raises(DataError) as caught:
        parse_catalog(text)
    assert "\n" not in caught.value.message


def test_bundled_needs_licence_and_source():
    with pytest.raises(DataError, match="needs `target`, `licence` and `source`"):
        parse_catalog("tables:\n  banana: {bundled: true}\nsuites: {}\n")


def test_unreadable_files(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_catalog(tmp_path / "none.yaml")
    (tmp_path / "big.yaml").write_text("#" * 1_000_001)
    with pytest.raises(DataError, match="too large or too deep"):
        read_catalog(tmp_path / "big.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"tables: {\xe9: 1}")
    with pytest.raises(DataError, match="cannot be read"):
        read_catalog(tmp_path / "latin.yaml")


def test_unknown_suite_names_the_nearest():
    with pytest.raises(DataError, match="no suite 'ofline'") as caught:
        catalog().suite("ofline")
    assert caught.value.hint == "--suite offline"


def test_the_file_is_found_in_a_checkout_and_in_an_installation(tmp_path, monkeypatch):
    assert read_catalog(catalog_path()).tables.keys() == catalog().tables.keys()
    (tmp_path / "tttab").mkdir()
    monkeypatch.setattr("tttab.data.registry.PACKAGE", tmp_path / "tttab")
    assert catalog_path() == tmp_path / "datasets.yaml"
    (tmp_path / "tttab" / "datasets.yaml").write_text(GOOD)
    assert catalog_path() == tmp_path / "tttab" / "datasets.yaml"
