"""Every section of the report: what it must give, and that a new one is a line in a list."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from tests.support.bench_fakes import fill, study
from tttab.bench import read_store, sections, summaries
from tttab.bench.sections import SECTIONS, STORE_SECTIONS
from tttab.cli import run
from tttab.report import ReportTable, Section
from tttab.report.figures import on_page

ALL = [*SECTIONS, *STORE_SECTIONS]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("sections") / "store", study(tables=("alpha", "beta"), seeds=(0, 1)))


@pytest.fixture(scope="module")
def subjects(store):
    """What a section is of, by the list that it stands in."""
    contents = read_store(store)
    (summary,) = summaries(contents)
    return {id(section): summary for section in SECTIONS} | {id(s): contents for s in STORE_SECTIONS}


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """The same of a store in which nothing succeeded."""
    failures = (one for one in study(tables=("beta",)) if one.failed)
    contents = read_store(fill(tmp_path_factory.mktemp("failures"), failures))
    (summary,) = summaries(contents)
    return {id(section): summary for section in SECTIONS} | {id(s): contents for s in STORE_SECTIONS}


def test_names_and_titles_are_there_once(subjects):
    titles = [table.title for section in ALL for table in section.tables(subjects[id(section)])]
    for names in (titles, [section.name for section in ALL]):
        assert all(names)
        assert len(names) == len(set(names))


@pytest.mark.parametrize("section", ALL, ids=lambda section: section.name)
def test_a_section_has_tables_that_say_something_and_figures_that_can_be_read(section, subjects, empty):
    tables = list(section.tables(subjects[id(section)]))
    assert tables
    assert all(table.rows or table.notes for table in tables)
    for subject in (subjects[id(section)], empty[id(section)]):
        for figure in section.figures(subject):
            root = ElementTree.fromstring(figure)
            assert root.tag == "svg"
            assert root.get("aria-label")
            assert root.get("role") == "img"


def harm(subject):
    return [
        ReportTable("Sums <of> it", ("what", "sum"), (("a | b", 0.25),), left=("what",), notes=("A remark.",))
    ]


def picture(subject):
    return [on_page("Sums in a picture", 200, 120, lambda axes: axes.plot([0, 1], [0, 1]))]


@pytest.mark.parametrize("where", ["SECTIONS", "STORE_SECTIONS"])
def test_a_new_section_is_one_line_and_stands_in_all_four_forms(where, store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sections, where, [*getattr(sections, where), Section("Sums", harm, picture)])
    assert run(["report", str(store)]) == 0
    text = capsys.readouterr()
    assert "# Sums <of> it" in text.out
    assert "a | b\t0.25" in text.out
    assert "A remark." in text.err
    assert run(["report", str(store), "--json"]) == 0
    (found,) = (t for t in json.loads(capsys.readouterr().out) if t["title"] == "Sums <of> it")
    assert found["rows"] == [{"what": "a | b", "sum": 0.25}]
    assert found["notes"] == ["A remark."]
    assert run(["report", str(store), "--markdown", "-"]) == 0
    markdown = capsys.readouterr().out
    assert (
        "### Sums \\<of\\> it\n\n| what | sum |\n| --- | ---: |\n| a \\| b | 0.25 |\n\nA remark.\n"
        in markdown
    )
    assert run(["report", str(store), "--html", str(tmp_path / "page.html"), "--quiet"]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for part in (
        "<h3>Sums</h3>",
        "<h4>Sums &lt;of&gt; it</h4>",
        ">a | b</td>",
        'aria-label="Sums in a picture"',
    ):
        assert part in page
