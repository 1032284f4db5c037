"""Which arithmetic training uses: bfloat16 if the machine has it and it is faster, else float32.

Held-out scores and predictions stay in float32.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from tttab.contracts import Context, Execution, Queries, Session
from tttab.core import Precision
from tttab.errors import RequestError, check_name

if TYPE_CHECKING:
    import numpy as np

NAMES: tuple[Precision, ...] = ("fp32", "bf16")
PRECISIONS = ("auto", *NAMES)
WORTH_IT = 1.2
"""bfloat16 must be this much faster on a real step."""
TRIALS = 2

_measured: dict[tuple[str, int, int], Precision] = {}


def choose_precision(
    asked: str, session: Session, context: Context, queries: Queries, rows: np.ndarray, how: Execution
) -> Precision:
    """Return `fp32` or `bf16`; `auto` times a step of both, once per process, device and model size.

    Raises:
        RequestError: no such precision, or bf16 on a machine without it.
    """
    fitting = fitting_precision(asked, session.device.type)
    if asked != "auto" or fitting == "fp32":
        return fitting
    key = (str(session.device), session.info.parameters, context.n)
    if key not in _measured:
        ways = {name: replace(how, chunk=None, precision=name) for name in NAMES}
        seconds = {name: _time_step(session, context, queries, rows, way) for name, way in ways.items()}
        _measured[key] = "bf16" if WORTH_IT * seconds["bf16"] < seconds["fp32"] else "fp32"
    return _measured[key]


def fitting_precision(asked: str, device: str) -> Precision:
    """Return `fp32` or `bf16`; `auto` is bf16 wherever the hardware has it.

    Raises:
        RequestError: no such precision, or bf16 on a machine without it.
    """
    check_name("precision", asked, PRECISIONS, "--precision")
    if asked == "bf16" and not has_bfloat16(device):
        raise RequestError(f"{device} has no fast bfloat16 here", "--precision fp32")
    wanted = has_bfloat16(device) if asked == "auto" else asked == "bf16"
    return "bf16" if wanted else "fp32"


@cache
def has_bfloat16(device: str) -> bool:
    """Tell whether the device multiplies bfloat16 matrices in hardware."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    if device != "cpu":
        return False
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def _time_step(
    session: Session, context: Context, queries: Queries, rows: np.ndarray, how: Execution
) -> float:
    """Return the seconds of the fastest of a few training steps; gradients are thrown away."""
    import torch

    best = float("inf")
    for _ in range(1 + TRIALS):
        start = time.perf_counter()
        session.accumulate_gradients(context, queries, rows, 1.0, how)
        if session.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    for parameter in session.trainable().values():
        parameter.grad = None
    return best
