"""The benchmark's figure for memory is one of a fresh process, so that it can be bad."""

from __future__ import annotations

import torch

from benchmarks import theory_linear
from tttab.theory.linear_attention.isotropic import Isotropic


def test_the_rise_in_memory_does_not_hide_below_what_was_held_before():
    held = torch.zeros(1 << 26)  # 256 MiB: in this process no later peak would show
    del held
    case = theory_linear.Case(Isotropic.pretrained(300, 150, 300), "cpu", 0.1, 0)
    found = theory_linear.measured_memory(case)
    assert found["budget_mib"] == 64
    whole = (
        8 * 24 * 1_000_000 / 2**20
    )  # MiB of all trials at once; a block holds several times the fewer ones
    assert 1 < found["peak_rise_mib"] < whole / 4
