"""Which arithmetic is chosen: what was asked for where the machine has it, else what a real step shows."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tttab.contracts import Execution
from tttab.errors import RequestError
from tttab.testing import INFO
from tttab.training import precision
from tttab.training.precision import choose_precision, fitting_precision, has_bfloat16

ROWS = np.arange(5)


@pytest.fixture
def machine(monkeypatch):
    """A machine with bfloat16 and a clock that only steps move on."""
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(precision, "time", clock)
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: device in ("cpu", "cuda"))
    monkeypatch.setattr(precision, "_measured", {})
    return clock


class Timed:
    """A session whose steps take the seconds that are given for each precision, in turn."""

    def __init__(self, clock, parameters=3, **seconds):
        self.clock, self.seconds, self.steps = clock, {name: iter(took) for name, took in seconds.items()}, []
        self.device, self.info = torch.device("cpu"), replace(INFO, parameters=parameters)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def trainable(self):
        return {"weight": self.weight}

    def accumulate_gradients(self, context, queries, rows, scale, how):
        self.weight.grad = torch.ones(1)
        self.steps.append((context, queries, rows, scale, how))
        self.clock.now += next(self.seconds[how.precision])
        return 0.0


def choose(session, asked="auto", n=7):
    how = Execution(3, by_member=True)
    return choose_precision(asked, session, SimpleNamespace(n=n), "queries", ROWS, how)


@pytest.mark.parametrize(("fp32", "chosen"), [(3.125, "bf16"), (3.0, "fp32"), (2.0, "fp32")])
def test_auto_takes_bfloat16_where_a_step_is_a_fifth_faster_and_no_less(machine, fp32, chosen):
    session = Timed(machine, fp32=[9.0, fp32, 5.0], bf16=[8.0, 4.0, 2.5])
    assert choose(session) == chosen, "the fastest of three steps each counts"
    ways = [how for *_, how in session.steps]
    assert ways == [Execution(None, True, False, name) for name in ("fp32", "bf16") for _ in range(3)]
    assert all((step[0].n, *step[1:4]) == (7, "queries", ROWS, 1.0) for step in session.steps)
    assert session.weight.grad is None


def test_on_a_gpu_a_step_is_over_when_the_gpu_is_done(machine, monkeypatch):
    waits = iter([3.0, 3.0, 3.0, 1.0, 1.0, 1.0])

    def synchronize():
        machine.now += next(waits)

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    session = Timed(machine, fp32=[0.0] * 3, bf16=[0.1] * 3)
    session.device = torch.device("cuda")
    assert choose(session) == "bf16" and next(waits, None) is None


def test_a_step_is_timed_once_per_device_size_of_model_and_context(machine, monkeypatch):
    slow = {"fp32": [1.0] * 99, "bf16": [2.0] * 99}
    session = Timed(machine, **slow)
    assert [choose(session), choose(session)] == ["fp32", "fp32"] and len(session.steps) == 6
    choose(session, n=8)
    assert len(session.steps) == 12
    larger = Timed(machine, parameters=4, **slow)
    choose(larger)
    assert len(larger.steps) == 6
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    on_gpu = Timed(machine, **slow)
    on_gpu.device = torch.device("cuda")
    choose(on_gpu)
    assert len(on_gpu.steps) == 6
    elsewhere = Timed(machine, **slow)
    elsewhere.device = torch.device("meta")
    assert choose(elsewhere) == "fp32" and not elsewhere.steps, "no bfloat16 there: nothing to time"


def test_what_is_asked_for_is_not_timed(machine):
    session = Timed(machine)
    assert [choose(session, asked) for asked in ("bf16", "fp32")] == ["bf16", "fp32"]


def test_a_precision_fits_where_the_machine_has_it(machine):
    found = {asked: fitting_precision(asked, "cpu") for asked in ("auto", "bf16", "fp32")}
    assert found == {"auto": "bf16", "bf16": "bf16", "fp32": "fp32"}
    assert [fitting_precision(asked, "meta") for asked in ("auto", "fp32")] == ["fp32", "fp32"]
    with pytest.raises(RequestError, match="meta has no fast bfloat16 here") as caught:
        fitting_precision("bf16", "meta")
    assert caught.value.hint == "--precision fp32"
    with pytest.raises(RequestError, match="no precision is called 'fp16'") as caught:
        fitting_precision("fp16", "cpu")
    assert caught.value.hint == "--precision auto|fp32|bf16"


@pytest.fixture
def fresh():
    has_bfloat16.cache_clear()
    yield
    has_bfloat16.cache_clear()


@pytest.mark.parametrize("known", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_processor_has_bfloat16_by_any_of_its_three_names(fresh, monkeypatch, known):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, known: True}, raising=False)
    assert has_bfloat16("cpu") is True


def test_a_processor_without_it_or_that_does_not_tell_has_none(fresh, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "bf16": False}, raising=False)
    assert has_bfloat16("cpu") is False
    has_bfloat16.cache_clear()
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert has_bfloat16("cpu") is False


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_has_bfloat16_from_its_eighth_generation_on(fresh, monkeypatch, capability, has):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert has_bfloat16("cuda") is has
