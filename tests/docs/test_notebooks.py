"""The notebooks in examples/ run from top to bottom, and are kept without outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
nbformat = pytest.importorskip("nbformat")
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.fixture
def kernel(monkeypatch):
    """A notebook's kernel in this process, where everything is imported already."""
    from ipykernel.inprocess import InProcessKernelManager

    manager = InProcessKernelManager()
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.execute("%matplotlib inline")
    client.get_shell_msg()
    yield client
    client.execute("%matplotlib agg")
    client.stop_channels()
    manager.shutdown_kernel()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_figures_and_frames(path, kernel, monkeypatch):
    for name, value in {"TTTAB_SMALL": "1", "TTTAB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    for cell in code:
        kernel.execute(cell.source)
        assert kernel.get_shell_msg()["content"]["status"] == "ok"
    messages = kernel.iopub_channel.get_msgs()
    kinds = [kind for message in messages for kind in message["content"].get("data", {})]
    least = {"your-table-in-ten-minutes": (2, 4), "theory-in-ten-figures": (10, 10)}[path.stem]
    assert (kinds.count("image/png"), kinds.count("text/html")) >= least
    assert not [message["content"] for message in messages if message["content"].get("name") == "stderr"]
