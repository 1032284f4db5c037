"""The plan keeps its budget, the count is exact on what is known, and real steps stay below the plan."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tttab.errors import MemoryPlanError
from tttab.training.footprint import PeakCounter
from tttab.training.memory_plan import (
    DEFAULT_BUDGET,
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


def test_the_counter_counts_what_lives_at_once():
    with PeakCounter() as counter:
        a = torch.zeros(1000)
        b = a + 1
        view = b[:10]
        del a, b
        c = torch.zeros(250)
    assert counter.peak == 8000
    assert counter.now == view.untyped_storage().nbytes() + c.untyped_storage().nbytes() == 5000


@pytest.mark.parametrize("budget", [DEFAULT_BUDGET, 1024**3])
def test_a_real_step_stays_below_its_plan_and_budget(budget):
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
import resource, sys, torch
from tttab.system.resources import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(megabytes * 2**20 // 4) for megabytes in range(33, 41)]
    del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {
        way: int(subprocess.check_output([sys.executable, "-c", code, way], text=True))
        for way in ("keep", "map")
    }
    assert 4 * faults["keep"] < faults["map"]
