"""The plan keeps its budget, the count is exact on what is known, and real steps stay below the plan."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import numpy as np
import pytest
import torch

from tests.support.small_models import small_model
from tttab.contracts import Execution
from tttab.errors import MemoryPlanError
from tttab.rules import get_rule
from tttab.testing import INFO, ToySession
from tttab.training import footprint
from tttab.training.config import Schedule
from tttab.training.footprint import (
    LARGEST_SAMPLE,
    SAMPLE_BYTES,
    SMALLEST_SAMPLE,
    PeakCounter,
    measure_step,
)
from tttab.training.loop import Adaptation
from tttab.training.memory_plan import (
    EXECUTION_MODES,
    HINT_SLACK,
    RESERVE,
    Footprint,
    StepRequirements,
    plan_step,
)

ROOT = Path(__file__).parents[2]
GIB = 1024**3
FEET = {EXECUTION_MODES[0]: Footprint(0, 30e6, 30e6), EXECUTION_MODES[1]: Footprint(0, 8e6, 8e6),
        EXECUTION_MODES[2]: Footprint(0, 5e6, 5e6), EXECUTION_MODES[3]: Footprint(0, 1e6, 1e6)}  # fmt: skip

pytestmark = pytest.mark.usefixtures("measured_steps")


def demand(budget):
    return StepRequirements(budget, held=GIB // 2, weights=10**7, context_rows=200, batch=256)


@pytest.mark.parametrize("gib", [2, 3, 4, 8, 12, 32])
def test_a_plan_fits_its_budget_and_more_memory_is_never_slower(gib):
    plan = plan_step(demand(gib * GIB), FEET.get)
    assert plan.needed + GIB // 2 + RESERVE <= gib * GIB
    larger = plan_step(demand(2 * gib * GIB), FEET.get)

    def seconds(p):
        return p.mode.cost * (-(-256 // p.chunk) * 200 + 256)

    assert seconds(larger) <= seconds(plan)


def test_where_everything_fits_nothing_is_recomputed_and_one_mode_is_measured():
    asked = []
    plan = plan_step(demand(32 * GIB), lambda mode: asked.append(mode) or FEET[mode])
    assert (plan.chunk, plan.mode.by_member, plan.mode.recompute_activations) == (256, False, False)
    assert asked == [EXECUTION_MODES[0]]


def test_a_shared_context_makes_small_chunks_free_and_needs_less_memory():
    apart = plan_step(demand(32 * GIB), FEET.get)
    shared = plan_step(replace(demand(32 * GIB), shared_chunk=200), FEET.get)
    assert (shared.chunk, shared.mode.by_member, shared.mode.recompute_activations) == (128, False, False)
    assert shared.needed < apart.needed


def test_a_budget_that_is_too_small_names_one_that_fits_and_a_context_that_fits():
    with pytest.raises(MemoryPlanError) as caught:
        plan_step(demand(GIB), FEET.get)
    hint = caught.value.hint
    enough = int(hint.split("--max-memory ")[1].split("M")[0]) * 1024**2
    assert plan_step(demand(enough), FEET.get).chunk >= 1
    with pytest.raises(MemoryPlanError):
        plan_step(demand(enough - HINT_SLACK - 10 * 1024**2), FEET.get)
    rows = int(hint.split("--n ")[1])
    assert plan_step(StepRequirements(GIB, GIB // 2, 10**7, rows, 256), FEET.get).chunk >= 1


def test_a_footprint_counts_rows_and_the_pairs_that_attend_to_a_context_row():
    """10 fixed, 2 per context row, 3 per query row, half a byte for 4 context rows times 10 rows in all."""
    assert Footprint(10, 2, 3, 0.5).bytes(4, 6) == 10 + 8 + 18 + 20
    assert Footprint(10, 2, 3).bytes(4, 6) == 36


def test_what_is_left_for_tensors_by_hand():
    """5 times the weights: a gradient, two moments, two copies; the rest is divided by what blocks waste."""
    asked = StepRequirements(RESERVE + 10_000, held=4000, weights=200, context_rows=7, batch=9)
    assert asked.room(EXECUTION_MODES[0]) == pytest.approx((10_000 - 4000 - 5 * 200) / 1.2)
    assert replace(asked, copies=15).room(EXECUTION_MODES[0]) == pytest.approx((10_000 - 4000 - 3000) / 1.2)
    assert asked.room(EXECUTION_MODES[2]) == pytest.approx(5000 / 2.5)


@pytest.mark.parametrize(
    ("shared", "most"), [(None, 256), (256, 256), (200, 128), (100, 86), (300, 256), (1, 1)]
)
def test_a_shared_context_is_cut_into_equal_chunks_where_nothing_is_recomputed(shared, most):
    asked = replace(demand(GIB), shared_chunk=shared)
    for mode in EXECUTION_MODES:
        assert asked.most(mode) == (256 if mode.recompute_activations else most)
        assert asked.carries(mode) is (mode.recompute_activations or shared is None)


def best_by_hand(asked, feet):
    """Return the time, chunk and mode of the fastest way, found by trying every chunk of every mode."""
    found = []
    for mode in EXECUTION_MODES:
        room = asked.budget - asked.held - 5 * asked.weights - RESERVE
        chunks = range(1, asked.most(mode) + 1)
        fits = [chunk for chunk in chunks if mode.slack * feet[mode].bytes(asked.context_rows, chunk) <= room]
        if fits:
            chunks = math.ceil(asked.batch / fits[-1])
            alone = asked.shared_chunk is not None and not mode.recompute_activations
            forward = asked.batch + 8 * chunks + asked.context_rows * (1 if alone else chunks)
            found.append((mode.cost * forward, fits[-1], mode))
            if fits[-1] == asked.most(mode):
                break
    return min(found, key=lambda one: one[0]) if found else None


def test_a_plan_is_the_fastest_of_all_ways_that_fit():
    rng, planned, modes = np.random.default_rng(0), 0, set()
    for _ in range(300):
        feet = {
            mode: Footprint(*(rng.integers(1, 90, 3) * 1e5 / smaller), pair=rng.integers(0, 3) * 1e3)
            for mode, smaller in zip(EXECUTION_MODES, (1, 4, 9, 30), strict=True)
        }
        budget, held, weights = rng.integers(1, 40) * GIB // 16, rng.integers(0, 300) * 2**20, 10**6
        context_rows, batch, shared = rng.integers(1, 300), rng.integers(1, 200), rng.choice([None, 20, 64])
        asked = StepRequirements(int(budget), int(held), weights, int(context_rows), int(batch), shared)
        best = best_by_hand(asked, feet)
        if best is None:
            with pytest.raises(MemoryPlanError):
                plan_step(asked, feet.get)
            continue
        plan = plan_step(asked, feet.get)
        assert (plan.chunk, plan.mode) == best[1:]
        bytes_of_step = plan.mode.slack * feet[plan.mode].bytes(asked.context_rows, plan.chunk)
        assert plan.needed == int(5 * asked.weights + bytes_of_step)
        assert plan.execution == Execution(plan.chunk, plan.mode.by_member, plan.mode.recompute_activations)
        planned, modes = planned + 1, modes | {plan.mode}
    assert planned > 100 and modes == set(EXECUTION_MODES), "the cases reach every way and refusal"


def test_of_two_equally_fast_ways_the_first_is_taken():
    """Member by member and recomputed cost the same; here they also need the same memory."""
    by_member, recomputed = EXECUTION_MODES[1:3]
    feet = {mode: Footprint(1e12, 0, 0) for mode in EXECUTION_MODES}
    feet[by_member], feet[recomputed] = Footprint(0, 5e6, 5e6), Footprint(0, 3e6, 3e6)
    asked = demand(4 * GIB)
    plan = plan_step(asked, feet.get)
    room = asked.budget - asked.held - 5 * asked.weights - RESERVE
    assert (plan.mode, plan.chunk) == (by_member, int((room / 1.5 - 200 * 5e6) // 5e6)) and plan.chunk < 256


def test_the_smallest_budget_and_the_largest_context_that_would_fit_are_named_to_the_row():
    feet = {mode: Footprint(2e6, 3e6, 4e6, 1e3) for mode in EXECUTION_MODES}
    asked = StepRequirements(GIB, held=GIB // 4, weights=10**6, context_rows=300, batch=64)
    slack, left = EXECUTION_MODES[0].slack, GIB - 5 * 10**6 - RESERVE - HINT_SLACK
    needed = [slack * (2e6 + 3e6 * n + 4e6 + 1e3 * n * (n + 1)) for n in range(301)]
    enough = math.ceil((GIB - left + GIB // 4 + needed[300]) / 2**20)
    rows = max(n for n in range(300) if needed[n] <= left - GIB // 4)
    for context_rows in (300, 299):
        with pytest.raises(
            MemoryPlanError, match=f"a training step with {context_rows} context rows"
        ) as caught:
            plan_step(replace(asked, context_rows=context_rows), feet.get)
        assert str(caught.value).startswith("1.0 GiB of memory cannot hold")
        assert caught.value.hint.endswith(f"M, or --n {rows}")
        if context_rows == 300:
            assert caught.value.hint.startswith(f"--max-memory {enough}M")
    with pytest.raises(MemoryPlanError) as caught:
        plan_step(replace(asked, held=2 * GIB), feet.get)
    more = enough + (2 * GIB - GIB // 4) // 2**20
    assert caught.value.hint == f"--max-memory {more}M", "no context is small enough"


class Costs:
    """A cost model of samples alone."""

    def __init__(self, row_bytes):
        self.bytes = row_bytes

    def row_bytes(self, context):
        return self.bytes

    def shape(self, context):
        return "shape"

    def sample(self, context, rows):
        assert context.n >= rows
        return SimpleNamespace(n=rows)


@pytest.mark.parametrize(
    ("context", "queries", "row_bytes", "rows"),
    [
        (100, 100, 1, LARGEST_SAMPLE),
        (100, 100, SAMPLE_BYTES, SMALLEST_SAMPLE),
        (100, 100, SAMPLE_BYTES // 20, 10),
        (17, 100, 1, 8),
        (100, 15, 1, 7),
        (1, 1, 1, 1),
    ],
)
def test_samples_are_twofold_in_each_direction_and_no_larger_than_what_there_is(
    context, queries, row_bytes, rows
):
    found = footprint._samples(Costs(row_bytes), SimpleNamespace(n=context), range(queries))
    n, q = min(2 * rows, context), min(2 * rows, queries)
    assert found == [(rows, rows), (n, rows), (rows, q), (n, q)]


@pytest.fixture
def session():
    """A toy that trains its head, under a name of its own: measurements are remembered."""
    session = ToySession(replace(INFO, sha256=str(uuid4())))
    for parameter in session.parameters("head"):
        parameter.requires_grad_(True)
    return session


def test_a_step_is_measured_on_four_samples_and_extended_to_any_number_of_rows(session, monkeypatch):
    asked = []

    def peak(*called):
        measured, context, some, rows, how = called
        asked.append((measured is session, some is queries, how))
        return 100 + 3 * context.n + 5 * rows + 2 * context.n * (context.n + rows)

    monkeypatch.setattr(footprint, "_peak", peak)
    context, queries, costs = SimpleNamespace(n=60), range(80), Costs(1)
    found = measure_step(session, costs, context, queries, Execution())
    assert found.bytes(1000, 300) == pytest.approx(100 + 3000 + 1500 + 2 * 1000 * 1300)
    assert asked == [(True, True, Execution())] * 4
    assert measure_step(session, costs, context, queries, Execution()) is found and len(asked) == 4
    session.module["layers"][0].bias.requires_grad_(True)
    for how in (Execution(), Execution(by_member=True)):
        measure_step(session, costs, context, queries, how)
    measure_step(session, costs, SimpleNamespace(n=10), queries, Execution())
    assert len(asked) == 16, "more weights, another way, other samples: measured anew"


def test_no_part_of_a_footprint_is_negative(session, monkeypatch):
    monkeypatch.setattr(footprint, "_peak", lambda session, context, queries, rows, how: 1000 - 3 * rows)
    found = measure_step(session, Costs(1), SimpleNamespace(n=60), range(80), Execution())
    assert found.query_row == 0.0 and min(found.fixed, found.context_row, found.pair) >= 0.0


def test_a_peak_leaves_gradients_out_and_leaves_none_behind(session, monkeypatch):
    asked = []

    def step(context, queries, rows, scale, how):
        asked.append((context, queries, rows.tolist(), scale, how))
        for parameter in session.trainable().values():
            assert parameter.grad.shape == parameter.shape and not parameter.grad.any()
        torch.zeros(25_000)
        return 0.0

    monkeypatch.setattr(session, "accumulate_gradients", step)
    how = Execution(by_member=True)
    assert footprint._peak(session, "context", "queries", 3, how) == 100_000
    assert asked == [("context", "queries", [0, 1, 2], 1.0, how)]
    assert all(parameter.grad is None for parameter in session.parameters("all"))


def test_what_is_held_is_the_process_s_or_the_gpu_s(monkeypatch):
    monkeypatch.setattr(footprint, "resident_bytes", lambda: 11)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 22 if device.index == 3 else 0)
    assert [footprint.held_bytes(torch.device(kind)) for kind in ("cpu", "cuda:3")] == [11, 22]


def test_a_gpu_smaller_than_the_budget_is_the_limit(monkeypatch):
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 22)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    gpu, cpu = torch.device("cuda:1"), torch.device("cpu")
    assert [footprint.usable_bytes(gpu, budget) for budget in (121, 122, 123)] == [121, 122, 122]
    assert footprint.usable_bytes(cpu, 123) == 123


def test_a_gpu_that_is_too_small_is_said_to_be(mixed_frame, monkeypatch):
    x, y = mixed_frame
    session = small_model(members=1)
    context = session.context(x[:40], y[:40], 3)
    monkeypatch.setattr(footprint, "usable_bytes", lambda device, budget: 2 * 2**20)
    run = Adaptation(session, get_rule("full"), context, (x[40:], y[40:]), Schedule(steps=1))
    with pytest.raises(MemoryPlanError, match=r"cpu is too small: 2\.0 MiB of memory cannot hold") as caught:
        list(run)
    assert caught.value.hint == "--device cpu"


def test_the_counter_counts_what_lives_at_once():
    with PeakCounter() as counter:
        a = torch.zeros(1000)
        b = a + 1
        view = b[:10]
        del a, b
        c = torch.zeros(125, dtype=torch.float64)
    assert counter.peak == 8000
    assert counter.now == view.untyped_storage().nbytes() + c.untyped_storage().nbytes() == 5000
    with PeakCounter() as idle:
        pass
    assert (idle.now, idle.peak) == (0, 0)


def test_a_real_step_stays_below_its_plan_and_budget():
    budget = 1024**3
    sizes = {"emsize": 96, "nlayers": 5, "nhead": 3}
    request = {"rows": 120, "queries": 200, "columns": 20, "members": 1, "batch": 128, "sizes": sizes}
    text = json.dumps(request | {"budget": budget})
    command = [sys.executable, "-m", "tests.support.memory_probe", text]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["peak"] <= budget
    assert answer["peak"] - answer["before"] <= answer["needed"] + RESERVE
    assert answer["needed"] <= 4 * (answer["peak"] - answer["before"]), "the plan is no wild guess"


def test_the_peak_is_the_process_s_own_and_not_that_of_the_one_that_started_it():
    held = torch.zeros(300 * 1024**2 // 4)
    code = "from tttab.system.resources import peak_resident_bytes; print(peak_resident_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1024**2 < int(done.stdout) < held.nbytes


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such settings")
def test_a_process_that_keeps_what_it_frees_touches_no_new_pages():
    code = """
import resource, sys
import numpy as np
from tttab.system.resources import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [np.ones(megabytes * 2**17) for megabytes in range(33, 41)]
    del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {
        way: int(subprocess.check_output([sys.executable, "-c", code, way], text=True))
        for way in ("keep", "map")
    }
    assert 4 * faults["keep"] < faults["map"]
