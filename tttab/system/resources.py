"""The memory of the process: sizes in words, what is held, what is free to give back."""

from __future__ import annotations

import math
import os
import re
import sys
from pathlib import Path

from tttab.errors import MemoryPlanError, RequestError

LEAST_ADDRESS_SPACE = 3 * 10**9
"""Bytes (`ulimit -v`) under which the allocators below torch and pyarrow end the process without a word."""
UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def parse_bytes(text: str, hint: str = "--max-memory 4G") -> int:
    """Return the bytes of a size such as `4G`, `512M` or `2.5GiB`.

    Raises:
        RequestError: not a positive size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?)i?b?\s*", text.lower())
    size = float(match[1]) * UNITS[match[2]] if match else 0
    if size < 1:
        raise RequestError(f"{text!r} is not a size in bytes", hint)
    return int(size)


def parse_seconds(text: str | float) -> float:
    """Return the seconds of a duration such as `90`, `120s`, `10m` or `1.5h`.

    Raises:
        RequestError: not a positive duration.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(text).lower())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < seconds < math.inf:
        raise RequestError(f"{str(text)!r} is no time", "--time 120s, --time 10m")
    return seconds


def format_seconds(seconds: float) -> str:
    """Return a duration in words a person reads: `4.2 s`, `7 min`, `1.5 h`."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def format_bytes(count: float) -> str:
    """Return a size in words a person reads: `2.7 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def yield_cores() -> None:
    """Have idle threads of OpenMP sleep soon instead of spinning; call it before torch is imported.

    GNU's barriers spin for milliseconds, which costs a process its time slices where others want the cores
    (`benchmarks/busy_machine.py` has figures). What the user has set stays.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "10000"


def check_address_space() -> None:
    """Raise MemoryPlanError where the process may not map what torch and its libraries need."""
    if sys.platform == "win32":
        return
    import resource

    limit, least = resource.getrlimit(resource.RLIMIT_AS)[0], LEAST_ADDRESS_SPACE
    if 0 <= limit < least:
        raise MemoryPlanError(
            f"the address space is limited to {format_bytes(limit)}; models need {format_bytes(least)}",
            "ulimit -v unlimited",
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception, Python's or torch's, means that no memory was left."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or any(
        words in str(error) for words in ("can't allocate memory", "backend out of memory")
    )


def keep_freed_memory() -> bool:
    """Let the process keep what it frees for its next tensors; False where the C library is not glibc.

    glibc maps each large block anew, so that a training step touches every page of its activations for the
    first time: half of the time of attention on 700 rows. For processes that do nothing but train or predict.
    """
    import ctypes

    trim_threshold, top_pad, mmap_max = -1, -2, -4  # <malloc.h>
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 256 * 1024**2))
    return all(mallopt(name, value) == 1 for name, value in settings)


def resident_bytes() -> int:
    """Return what the process holds in memory now."""
    import psutil

    return psutil.Process().memory_info().rss


def peak_resident_bytes() -> int:
    """Return the most the process has held in memory so far."""
    status = Path("/proc/self/status")
    words = status.read_text().split() if status.exists() else []
    if "VmHWM:" in words:
        # `ru_maxrss` would not do on Linux: it starts at what the process that started this one held.
        return 1024 * int(words[words.index("VmHWM:") + 1])
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
