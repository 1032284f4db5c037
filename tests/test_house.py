"""The shape of the house: one direction of imports, clean style, modules and functions of a readable size."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import tttab
from tttab.errors import MissingExtra

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "tttab").rglob("*.py"))
LOOSE = ("/" + "work/", "/" + "root/", "TO" + "DO", "FIX" + "ME", "XX" + "X")  # split, not to find themselves
LONGEST_MODULE, LONGEST_FUNCTION, MOST_PARAMETERS = 400, 60, 7


def check(*command):
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_imports_go_in_one_direction():
    check(sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")


def test_style_is_clean():
    check(sys.executable, "-m", "ruff", "check", ".")
    check(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_types_agree():
    check(sys.executable, "-m", "ty", "check", "tttab", "--python", sys.executable)


def test_what_scripts_take_of_the_package_is_there():
    """No test runs every benchmark and study."""
    scripts = [
        path
        for folder in ("benchmarks", "studies", "tools", "examples")
        for path in (ROOT / folder).rglob("*.py")
    ]
    taken = [
        (path.name, node.module, alias.name)
        for path in scripts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tttab"
        for alias in node.names
    ]
    assert len(taken) > 100
    assert [of for of in taken if not is_there(*of[1:])] == []


def test_every_public_name_loads():
    assert {"Rule", "Session", "TTTClassifier"} <= set(tttab.__all__)
    assert [name for name in tttab.__all__ if not is_there("tttab", name)] == []


def is_there(module, name):
    try:
        return hasattr(importlib.import_module(module), name) or bool(find_spec(f"{module}.{name}"))
    except MissingExtra:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_readable(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_MODULE
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    is_command = path.parent.name in ("cli", "commands")
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
        assert node.end_lineno - first.lineno < LONGEST_FUNCTION, node.name
        count = len(
            [
                a
                for a in node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                if a.arg not in ("self", "cls")
            ]
        )
        # A command's parameters are its options, an estimator's are scikit-learn's: both have many.
        if not is_command and node.name != "__init__":
            assert count <= MOST_PARAMETERS, node.name


def test_no_paths_of_a_machine_and_no_loose_ends():
    for path in [*MODULES, *sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]:
        text = path.read_text(encoding="utf-8")
        for word in LOOSE:
            assert word not in text, (path, word)
