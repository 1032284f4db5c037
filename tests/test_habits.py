"""The files around the package agree with it: versions, commands, what a release takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import tttab

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / ".github").exists(), reason="an sdist has no files of a forge")


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"] and project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "tttab/__init__.py"
    assert re.search(r"^## (\d+\.\d+\.\d+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == (
        tttab.__version__
    )


def test_the_forge_runs_the_readmes_test_command():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    steps = [step.get("run", "") for step in workflow["jobs"]["newest"]["steps"]]
    assert 'pip install -c constraints.txt ".[test]" && python -m pytest' in steps


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_a_forges_file_can_be_read_and_gives_a_workflow_no_more_than_it_needs(path):
    found = yaml.safe_load(path.read_text())
    if path.parent.name == "workflows":
        assert found["permissions"] == {"contents": "read"}
        assert all("runs-on" in job for job in found["jobs"].values())
    else:
        assert {"name", "description", "body"} <= found.keys()


def test_the_rule_in_the_guide_for_contributors_works():
    """Its code block is run as it stands."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    space = {}
    exec(code, space)
    from tttab.testing import ToySession

    rule = next(made for made in space.values() if isinstance(made, type) and made.__module__ == "builtins")()
    session = ToySession()
    assert rule.parameters(session) == list(session.layers[0].parameters()) != []
    assert rule.name == "first-layer"


def test_every_figure_of_the_theory_is_drawn_from_rows_that_are_here():
    from tools.figures import FIGURES, rows_of

    drawn = {path.name for path in (ROOT / "docs").glob("theory-*.*") if path.suffix in (".svg", ".png")}
    assert set(FIGURES) == drawn
    assert all(rows_of(names) for names in FIGURES.values())
