"""The documentation site: complete, and readable in a browser, from a disk and without a network."""

from __future__ import annotations

import re

import pytest
from typer.main import get_command

import tttab
from tests.support.bench_fakes import fill, study
from tests.support.chromium import PROGRAM, Chromium
from tttab.bench import html_report, read_store
from tttab.cli.app import app


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if PROGRAM is None:
        pytest.skip("no Chromium")
    made = Chromium(tmp_path_factory.mktemp("chromium"))
    yield made
    made.close()


def test_every_command_and_every_public_name_stands_in_the_reference(site):
    commands = "".join((site / "reference" / f"{page}.html").read_text() for page in ("commands", "theory"))
    group = get_command(app)
    assert [name for name in group.commands if f'id="tttab-{name}"' not in commands] == []
    assert "--max-memory</span> &lt;str&gt;" in commands and "[default: 4G]" in commands
    python = (site / "reference" / "python.html").read_text()
    missing = [name for name in tttab.__all__ if not re.search(rf'id="tttab\.[\w.]+\.{name}"', python)]
    assert missing == ["__version__"]


def test_links_out_of_the_docs_lead_to_the_repository(site):
    page = (site / "theory-open.html").read_text()
    assert 'href="https://github.com/tttab/tttab/blob/main/results/theory/' in page
    assert not re.search(r'href="(?:\.\./)+(?:results|tttab|studies)/', page)


def test_every_page_is_read_without_complaint_and_nothing_is_wider_than_the_window(site, browser, tmp_path):
    report = tmp_path / "report.html"
    report.write_text(html_report(read_store(fill(tmp_path / "store", study()))), encoding="utf-8")
    faults = []
    # The page for wrong addresses is made for a server.
    for page in [*sorted(set(site.rglob("*.html")) - {site / "404.html"}), report]:
        browser.open(page.as_uri())
        for width in (1200, 400):
            if wider := browser.wider(width):
                faults.append((page.name, width, wider))
        if told := browser.complaints():
            faults.append((page.name, told))
    assert faults == []


def test_the_search_finds_a_page_from_a_disk(site, browser):
    browser.open((site / "index.html").as_uri())
    found = browser.run(
        """new Promise(done => {
          const asked = document.querySelector("input.md-search__input")
          asked.focus(); asked.value = "shapley"; asked.dispatchEvent(new Event("keyup"))
          const look = () => {
            const link = document.querySelector("a.md-search-result__link")
            link ? done(link.getAttribute("href")) : setTimeout(look, 50)
          }
          look()
        })"""
    )
    assert ".html" in found
