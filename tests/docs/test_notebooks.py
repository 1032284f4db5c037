"""The notebooks in examples/ run from top to bottom, and are kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.forked import forked

ROOT = Path(__file__).parents[2]
nbformat = pytest.importorskip("nbformat")
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def show(cells):
    """Run cells in a kernel of this process; print what kinds of things they show."""
    from ipykernel.inprocess import InProcessKernelManager

    manager = InProcessKernelManager()
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    for source in ("%matplotlib inline", *cells):
        client.execute(source)
        answer = client.get_shell_msg()["content"]
        assert answer["status"] == "ok", answer["traceback"]
    contents = [message["content"] for message in client.iopub_channel.get_msgs()]
    print(json.dumps([kind for content in contents for kind in content.get("data", {})]))
    assert not [content for content in contents if content.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_figures_and_frames(path, monkeypatch, tmp_path):
    for name, value in {"TTTAB_SMALL": "1", "TTTAB_OFFLINE": "1", "IPYTHONDIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    status, out, err = forked(lambda: show([cell.source for cell in code])).end(seconds=300)
    assert not status, err
    kinds = json.loads(out.splitlines()[-1])
    least = {"your-table-in-ten-minutes": (2, 4), "theory-in-ten-figures": (10, 10)}[path.stem]
    assert (kinds.count("image/png"), kinds.count("text/html")) >= least
