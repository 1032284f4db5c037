"""The notebooks in examples/ run from top to bottom, and are kept without outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
nbformat = pytest.importorskip("nbformat")
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_figures_and_frames(path, monkeypatch):
    from nbclient import NotebookClient

    for name, value in {"TTTAB_SMALL": "1", "TTTAB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    kinds = [kind for cell in code for output in cell.outputs for kind in output.get("data", {})]
    least = {"your-table-in-ten-minutes": (2, 4), "theory-in-ten-figures": (10, 10)}[path.stem]
    assert (kinds.count("image/png"), kinds.count("text/html")) >= least
    assert not [output.text for cell in code for output in cell.outputs if output.get("name") == "stderr"]
