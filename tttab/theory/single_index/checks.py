"""Requests that the single-index experiments cannot fulfil, refused before anything runs.

Hints name the options of `tttab theory`.
"""

from __future__ import annotations

import psutil
import torch

from tttab.errors import MemoryPlanError, RequestError
from tttab.theory.single_index.hermite import parse_link

FLOAT32, FLOAT64 = 4, 8


def check_link(link: str, flag: str) -> None:
    """Raise RequestError for a link that cannot be read."""
    try:
        parse_link(link)
    except RequestError as error:
        raise RequestError(error.message, f"{flag} 'He3 + 0.5*He4'") from None


def check_matrices(d: int, device: str, flag: str) -> None:
    """Raise MemoryPlanError where the d x d matrices of the population's G and the basis do not fit."""
    _check_fits(3 * FLOAT64 * d * d, device, f"{flag} 32")


def check_rows(numbers: int, device: str, hint: str) -> None:
    """Raise MemoryPlanError where so many numbers in float32 do not fit."""
    _check_fits(FLOAT32 * numbers, device, hint)


def _check_fits(needed: int, device: str, hint: str) -> None:
    """Raise MemoryPlanError where arrays that are certain to be formed do not fit the free memory."""
    if torch.device(device).type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = psutil.virtual_memory().available
    if needed > free:
        raise MemoryPlanError(
            f"this needs {needed / 2**30:,.1f} GiB of memory, {free / 2**30:.1f} are free", hint
        )
