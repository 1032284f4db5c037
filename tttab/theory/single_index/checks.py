"""What the single-index experiments cannot do, said before anything runs.

Hints name the options of `tttab theory`. What does not belong here: the experiments themselves.
"""

from __future__ import annotations

import psutil
import torch

from tttab.errors import MemoryPlanError, RequestError
from tttab.theory.single_index.algorithm import prompt_parts
from tttab.theory.single_index.hermite import parse_link
from tttab.theory.single_index.pipeline import PipelineSettings
from tttab.theory.single_index.strong import StrongSettings
from tttab.theory.single_index.weak import WeakSettings

FLOAT32, FLOAT64 = 4, 8


def check_weak(settings: WeakSettings) -> None:
    """Raise RequestError or MemoryPlanError for what `weak.weak_rows` cannot do."""
    for link in settings.links:
        _check_link(link, "--links")
    most = max(settings.ranks)
    if settings.d < 0 or 0 < settings.d < most:
        raise RequestError(f"d = {settings.d} must be at least r = {most}", f"--d {most}")
    d, rows = settings.d or most, max(settings.rows)
    _check_matrices(d, settings.device, "--r")
    _check_rows(settings.tasks * rows * d, settings.device, "--n1 256,1024,4096 --tasks 16")
    _check_rows(settings.tasks * settings.how.queries * most, settings.device, "--queries 2048 --tasks 16")


def check_strong(settings: StrongSettings) -> None:
    """Raise RequestError or MemoryPlanError for what `strong.strong_rows` cannot do."""
    _check_link(settings.link, "--link")
    _check_matrices(settings.r, settings.device, "--r")
    _check_rows(settings.tasks * settings.r, settings.device, "--tasks 96 --r 8")


def check_pipeline(settings: PipelineSettings) -> None:
    """Raise RequestError or MemoryPlanError for what `pipeline.pipeline_rows` cannot do."""
    _check_link(settings.link, "--link")
    prompt_parts(min(settings.rows))
    least = min(settings.dims)
    if not 1 <= settings.r <= least:
        raise RequestError(f"r = {settings.r} must lie between 1 and d = {least}", f"--r {least}")
    most, rows = max(settings.dims), max(settings.rows)
    _check_matrices(most, settings.device, "--d")
    at_once = min(32, settings.tasks) if settings.in_context else 1
    _check_rows(rows * most * at_once, settings.device, "--n 1024,4096,16384")
    _check_rows(settings.how.queries * settings.r, settings.device, "--queries 2048")


def _check_link(link: str, option: str) -> None:
    try:
        parse_link(link)
    except RequestError as error:
        raise RequestError(error.message, f"{option} 'He3 + 0.5*He4'") from None


def _check_matrices(d: int, device: str, option: str) -> None:
    """The population's G is formed as a d x d matrix, the basis by a decomposition of one."""
    _check_fits(3 * FLOAT64 * d * d, device, f"{option} 32")


def _check_rows(numbers: int, device: str, hint: str) -> None:
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
