"""The README keeps its promises: its commands exist, its figures come out again, CI runs its tests."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tttab.cli import run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "results").rglob("*.md")),
]
INSTALL_AND_TEST = 'pip install -c constraints.txt ".[test]" && python -m pytest'


def commands():
    for line in re.findall(r"^(?:\$ )?((?:pip install .* && )?tttab .*)$", README, re.MULTILINE):
        yield shlex.split(line.split(" && ")[-1])[1:]


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_of_the_readme_exists_with_its_options(words, capfd):
    path = []
    while words and re.fullmatch("[a-z-]+", words[0]) and not words[0].startswith("-"):
        if run([*path, words[0], "--help"]) != 0:
            break
        path.append(words.pop(0))
    capfd.readouterr()
    assert path
    assert run([*path, "--help"]) == 0
    shown = capfd.readouterr().out
    missing = [word for word in words if word.startswith("--") and word not in shown]
    assert not missing


def test_the_figures_in_the_readme_come_out_again(capfd):
    block = re.search(r"<!-- output: tttab (run [^>]+?) -->(.*?)<!-- end -->", README, re.DOTALL)
    printed = {
        line.split()[0]: [float(figure) for figure in re.findall(r"\d\.\d{4}", line)]
        for line in block[2].splitlines()
        if re.match(r"(icl|ttt|gbt|logistic)\S*\s+[\d-]", line)
    }
    chosen = ["--model", "tttab-tiny", "--precision", "fp32", "--device", "cpu"]
    assert run([*shlex.split(block[1]), *chosen]) == 0
    done = capfd.readouterr()
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert [line[0] for line in lines] == ["arm", "icl@n", "ttt@n+k", "icl@n+k", "gbt", "logistic"]
    assert {len(line) for line in lines} == {len(lines[0])}
    assert "TTT" in done.err.splitlines()[-1]
    shown = [lines[0].index(name) for name in ("accuracy", "roc_auc", "log_loss", "brier", "ece")]
    for arm, *cells in lines[1:]:
        again = [float(cells[place - 1]) for place in shown]
        # Another processor adds in another order; 50 steps of training let that grow a little.
        assert again == pytest.approx(printed[arm], abs=0.01), arm
    assert len(printed) == 5


def test_ci_runs_the_readmes_test_command_and_nothing_weaker():
    assert INSTALL_AND_TEST in README
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert INSTALL_AND_TEST in script.splitlines()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
@pytest.mark.skipif(not (ROOT / "results").exists(), reason="an sdist has no results and no pictures")
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (document.parent / target).exists(), target
