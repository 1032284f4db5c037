"""Which device `auto` takes, with fakes of those that tests have not, and no float64 where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.support.small_models import small_model
from tttab.cli import run
from tttab.contracts import Execution, Objective
from tttab.errors import RequestError
from tttab.models import pick_device
from tttab.models.devices import widest
from tttab.system.resources import is_out_of_memory
from tttab.training.optimizers import _Ray
from tttab.training.precision import fitting_precision


@pytest.mark.parametrize(
    ("present", "taken"),
    [((), "cpu"), (("mps",), "mps"), (("mps", "xpu"), "xpu"), (("mps", "xpu", "cuda"), "cuda")],
)
def test_auto_takes_the_first_accelerator_that_is_there(monkeypatch, present, taken):
    for kind in ("cuda", "xpu", "mps"):
        backend = torch.backends.mps if kind == "mps" else getattr(torch, kind)
        monkeypatch.setattr(backend, "is_available", lambda kind=kind: kind in present)
    assert pick_device("auto").type == taken
    monkeypatch.delattr(torch, "xpu")
    assert pick_device("auto").type == ("cuda" if "cuda" in present else "mps" if "mps" in present else "cpu")


def test_other_accelerators_train_in_float32_and_run_out_of_memory_in_their_own_words():
    assert [fitting_precision("auto", kind) for kind in ("mps", "xpu")] == ["fp32", "fp32"]
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"))
    assert not is_out_of_memory(RuntimeError("a shape is wrong"))
    assert [widest(torch.device(kind)) for kind in ("cpu", "cuda", "mps", "xpu")] == [torch.float64] * 2 + [
        torch.float32
    ] * 2


def test_a_device_that_holds_nothing_or_too_little_is_told_in_a_line(monkeypatch, tmp_path, capfd):
    with pytest.raises(RequestError, match="there is no device 'meta'"):
        pick_device("meta")

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("tttab.bundle.manifest.read_manifest", full)
    assert run(["predict", str(tmp_path), "rows.csv"]) == 2
    told = capfd.readouterr().err
    assert "too little memory: CUDA out of memory. Tried to allocate 2.00 GiB" in told
    assert "--device cpu" in told


class NoDoubles(TorchDispatchMode):
    """A device without float64: an operation that answers with such numbers is an error.

    `lift_fresh` is none of the device's: there a NumPy array is still on the host.
    """

    def __torch_dispatch__(self, operation, types, arguments=(), settings=None):
        found = operation(*arguments, **(settings or {}))
        for tensor in tree_leaves(found):
            double = isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64
            assert not double or operation is torch.ops.aten.lift_fresh.default, operation
        return found


def prepared(task, mixed_frame):
    x, y = mixed_frame
    classes = 3 if task == "classification" else 0
    y = y if classes else y + np.linspace(0, 1, len(y))
    session = small_model(task=task, members=2).fork()
    for parameter in session.parameters("head"):
        parameter.requires_grad_(True)
    context = session.context(x[:40], y[:40], classes)
    return session, context, session.queries(context, x[40:], y[40:])


def test_no_step_and_no_score_holds_float64(mixed_frame):
    session, context, queries = prepared("classification", mixed_frame)
    asked = Objective(weights=np.linspace(0.5, 1.5, 80))
    with NoDoubles():
        session.accumulate_gradients(context, queries, np.arange(80), 1 / 80, Execution(16), asked)
        scores = session.row_scores(context, queries, np.arange(80), Execution(16))
    assert np.isfinite(scores.loss).all()
    parameters = session.parameters("head")
    expected = float(sum((p.grad**2).sum() for p in parameters))
    assert _Ray(parameters).square == pytest.approx(expected, rel=1e-4)


def test_a_regressor_keeps_its_targets_as_wide_as_the_device_can(mixed_frame, monkeypatch):
    losses = []
    for wide in (torch.float64, torch.float32):
        monkeypatch.setattr("tttab.models.tabpfn.regressor.widest", lambda device, wide=wide: wide)
        session, context, queries = prepared("regression", mixed_frame)
        assert queries.y.dtype == wide
        assert all(member.borders.dtype == torch.float32 for member in context.members)
        losses.append(session.row_scores(context, queries, np.arange(80), Execution()).loss)
    np.testing.assert_allclose(*losses, rtol=1e-4)
