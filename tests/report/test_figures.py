"""What all figures share: SVG for a page that any page can hold, and labels that do not run together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from tttab.report.figures import COLOURS, label_log_axis, on_page, tip


def wave(axes):
    (line,) = axes.plot([1, 2, 3], [0.1, 0.9, 0.4], color=COLOURS[1])
    tip(line, 'a <b> & "c"\x1b')


def test_a_figure_is_well_formed_and_says_what_it_shows():
    root = ElementTree.fromstring(on_page("errors < 1 & $5", 300, 200, wave))
    assert (root.tag, root.get("viewBox"), root.get("width")) == ("svg", "0 0 300 200", "300")
    assert root.get("aria-label") == "errors < 1 & $5"
    assert "errors < 1 & $5" in [text.text for text in root.iter("text")]
    assert [title.text for title in root.iter("title")] == ['a <b> & "c"\\x1b']
    assert "var(--series-1)" in "".join(path.get("style") for path in root.iter("path"))
    assert not list(root.iter("style")), "it would hold for the whole page"


def test_equal_figures_are_equal_text_and_two_titles_share_no_id():
    one, again, other = (on_page(title, 300, 200, wave) for title in ("a", "a", "b"))
    assert one == again
    ids = [
        {element.get("id") for element in ElementTree.fromstring(svg).iter()} - {None} for svg in (one, other)
    ]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_settings_of_matplotlib_are_left_as_they_were():
    import matplotlib

    before = dict(matplotlib.rcParams)
    on_page("a", 300, 200, wave)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("places", "labels"),
    [
        ([50, 100, 200, 400, 600, 800, 1000], ["50", "100", "200", "400", "600", "1000"]),
        ([50, 51, 1000], ["51", "1000"]),
        ([0, 10, 100, 5000], ["100"]),
    ],
)
def test_labels_of_a_log_axis_stand_apart_and_the_larger_stays(places, labels):
    axes = Figure().subplots()
    axes.set(xscale="log", xlim=(45, 1100))
    label_log_axis(axes, places)
    assert [label.get_text() for label in axes.get_xticklabels()] == labels


def test_a_report_without_a_page_waits_for_neither_matplotlib_nor_jinja():
    code = "import sys, tttab.bench, tttab.report.page; print({'matplotlib', 'jinja2'} & {*sys.modules})"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.stdout == "set()\n", done.stderr
