"""Trials per second of the linear-attention simulations, beside the machine's measured ceilings.

    python -m benchmarks.theory_linear --device cpu --out results/speed
    python -m benchmarks.theory_linear --device cuda --out OUT

At d = 300, n = 150, k = 300: a naive loop that forms W' and samples test prompts, batched rows, the O(d)
and O(1) samplers, twenty steps through the bidiagonal, and on a GPU a kernel that never stores a row.
On a CPU times are the process's own seconds, so rates are per core. Every sampler's mean loss is checked
against the exact law (the column z, in standard errors). Prints a table, writes `theory_linear_DEVICE.json`;
a minute and a half with `--seconds 0.7` on one core of a busy machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tttab.system.files import write_text_atomically
from tttab.system.resources import peak_resident_bytes
from tttab.theory.linear_attention.draws import Draws
from tttab.theory.linear_attention.isotropic import Isotropic, fixed_step
from tttab.theory.linear_attention.measure import measure, sampler_of
from tttab.theory.linear_attention.paths import banded
from tttab.theory.linear_attention.phase import PhaseSettings, phase
from tttab.theory.linear_attention.settings import Backend, Sampling

PROMPTS = 100
"""Fresh test prompts of the naive loop, per trial."""
PASSES = 3
"""Batched rows are written once and read twice."""
STEPS = 20
MEMORY_MIB = 64
"""The budget under which memory is measured."""


@dataclass(frozen=True)
class Case:
    """What is simulated, where, and how long each part may take."""

    p: Isotropic
    device: str
    seconds: float
    seed: int

    @property
    def numbers(self) -> int:
        """Random numbers in the rows of one trial."""
        return int((self.p.n + self.p.k) * self.p.d)

    @property
    def eta(self) -> float:
        """The exact best step."""
        return fixed_step(self.p).best_step

    @property
    def exact(self) -> float:
        """The exact loss after it."""
        return fixed_step(self.p).best


def main() -> None:
    """Run everything and write the results."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    p = Isotropic.pretrained(arguments.d, arguments.n, arguments.k)
    case = Case(p, arguments.device, arguments.seconds, arguments.seed)
    started = time.perf_counter()
    memory = measured_memory(case)
    document = {"machine": _machine(case), "ceilings": _ceilings(case), "rows": _rows(case)}
    if case.device == "cpu":
        document["phase"] = _phase(arguments.phase_trials)
    document["memory"] = memory
    document["seconds"] = time.perf_counter() - started
    _print(document)
    name = f"theory_linear_{torch.device(case.device).type}.json"
    write_text_atomically(Path(arguments.out) / name, json.dumps(document, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", default="results/speed")
    parser.add_argument("--d", type=int, default=300)
    parser.add_argument("--n", type=int, default=150)
    parser.add_argument("--k", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each part")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument(
        "--phase-trials", type=int, default=100_000, help="trials per point of the phase figure"
    )
    return parser.parse_args()


def _rows(case: Case) -> list[dict[str, Any]]:
    rows = [_naive(case)]
    for dtype in ("float32", "float64"):
        for name in ("rows", "vectors", "scalars"):
            rows.append(_sampler(case, name, dtype))
    rows.append(_many_steps(case))
    if case.device != "cpu":
        rows += _fused(case)
    naive = rows[0]["trials_per_second"]
    return [row | {"over_naive": row["trials_per_second"] / naive} for row in rows]


def _naive(case: Case) -> dict[str, Any]:
    """Time the loop that the papers' definitions suggest, one trial after another, on the CPU or the GPU."""
    stream = torch.Generator(case.device).manual_seed(case.seed)
    losses: list[float] = []

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=stream, device=case.device)

    p, n, k, d = case.p, int(case.p.n), int(case.p.k), case.p.d
    b = torch.zeros(d, device=case.device)
    b[0] = 1
    weights = p.weight * torch.eye(d, device=case.device)

    def trial() -> None:
        x, z = normal(n, d), normal(k, d)
        u = x.T @ (x @ b)
        moved = weights + 2 * case.eta * torch.outer(z.T @ (z @ (b - weights @ u)), u)
        total = torch.zeros((), device=case.device)
        for _ in range(PROMPTS):
            context, query = normal(n, d), normal(d)
            total += (query @ b - query @ moved @ (context.T @ (context @ b))) ** 2
        losses.append(float(total) / PROMPTS)

    trial()
    losses.clear()
    started = _now(case)
    while _now(case) - started < case.seconds or len(losses) < 3:
        trial()
    rate = len(losses) / (_now(case) - started)
    mean, spread = torch.tensor(losses).mean(), torch.tensor(losses).std()
    z = float((mean - case.exact) / (spread / len(losses) ** 0.5))
    return {
        "sampler": f"naive loop, {PROMPTS} prompts",
        "dtype": "float32",
        "trials_per_second": rate,
        "z": z,
    }


def _sampler(case: Case, name: str, dtype: str) -> dict[str, Any]:
    """Time the library's own `measure` with one start, reduction and blocks included."""
    backend = Backend(str(torch.device(case.device)), dtype)
    sampler = sampler_of([case.p], name)

    def run(trials: int) -> Any:
        return measure(sampler, Sampling(trials, case.seed, backend, name), ["bench"], "F", [case.eta])[0]

    rate, seen = _rate(case, run, {"rows": 64, "vectors": 4096, "scalars": 1 << 16}[name])
    row = {
        "sampler": name,
        "dtype": dtype,
        "trials_per_second": rate,
        "z": (seen.mean - case.exact) / seen.stderr,
    }
    if name == "rows":
        item = 4 if dtype == "float32" else 8
        row["gb_per_second"] = rate * PASSES * case.numbers * item / 1e9
    return row


def _many_steps(case: Case) -> dict[str, Any]:
    """Time `STEPS` constant steps of a quarter of the best size through the Golub-Kahan bidiagonal."""
    backend = Backend(str(torch.device(case.device)))

    def run(trials: int) -> float:
        total, block = 0.0, backend.block(8 * 12 * (STEPS + 1), trials)
        for number in range(-(-trials // block)):
            paths = banded(case.p, STEPS, Draws(backend, case.seed, "bench", number), block)
            eta = torch.full_like(paths.single.start, case.eta / 4)
            total += float(paths.losses("F", [eta] * STEPS).mean())
        return total

    rate, _ = _rate(case, run, 4096)
    return {"sampler": f"bidiagonal, {STEPS} steps", "dtype": "float64", "trials_per_second": rate, "z": None}


def _fused(case: Case) -> list[dict[str, Any]]:
    """Time the kernel without stored rows; `gb_per_second` is the traffic that stored rows would need."""
    try:
        from benchmarks.theory_fused import fused_losses, fused_trials
    except ImportError as error:
        return [
            {"sampler": f"fused kernel: {error}", "dtype": "float32", "trials_per_second": 0.0, "z": None}
        ]
    p = case.p

    def run(trials: int) -> Tensor:
        made = fused_trials(p.d, int(p.n), int(p.k), p.weight, trials, case.seed, case.device)
        return fused_losses(made, int(p.n), case.eta)

    rate, losses = _rate(case, run, 1 << 14)
    z = float((losses.mean() - case.exact) / (losses.std() / len(losses) ** 0.5))
    stored = rate * PASSES * case.numbers * 4 / 1e9
    row = {
        "sampler": "fused kernel, rows never stored",
        "dtype": "float32",
        "trials_per_second": rate,
        "z": z,
    }
    return [row | {"gb_per_second": stored, "normals_per_second": rate * case.numbers}]


def _rate(case: Case, run: Callable[[int], Any], first: int) -> tuple[float, Any]:
    """Return trials per second and the last answer, for as many trials as `case.seconds` allow."""
    run(first)
    took, _ = _clock(case, lambda: run(first))
    trials = max(first, int(first * case.seconds / 2 / max(took, 1e-6)))
    run_time, answer = _clock(case, lambda: run(trials))
    return trials / run_time, answer


def _clock(case: Case, work: Callable[[], Any]) -> tuple[float, Any]:
    _wait(case)
    started = _now(case)
    answer = work()
    _wait(case)
    return _now(case) - started, answer


def _now(case: Case) -> float:
    """Return wall seconds on a GPU; on a CPU the process's own, which neighbours do not stretch."""
    return time.process_time() if case.device == "cpu" else time.perf_counter()


def _wait(case: Case) -> None:
    if case.device != "cpu":
        torch.cuda.synchronize()


def _ceilings(case: Case) -> dict[str, float]:
    """Return measured memory bandwidth (a copy, read and written) and the rate of normal numbers."""
    size = 1 << (26 if case.device == "cpu" else 29)
    source = torch.zeros(size, device=case.device)
    target = torch.empty_like(source)
    target.copy_(source)
    copies = [_clock(case, lambda: target.copy_(source))[0] for _ in range(5)]
    stream = torch.Generator(case.device).manual_seed(0)
    draw = target[: size // 8]
    draw.normal_(generator=stream)
    normal = min(_clock(case, lambda: draw.normal_(generator=stream))[0] for _ in range(3))
    return {
        "copy_gb_per_second": 2 * 4 * size / min(copies) / 1e9,
        "normals_per_second": len(draw) / normal,
        "normals_gb_per_second": 4 * len(draw) / normal / 1e9,
    }


def _phase(trials: int) -> dict[str, float]:
    """Time the whole phase figure at d = 300, thresholds included, in seconds of one core."""
    started = time.process_time()
    rows = list(phase(PhaseSettings(d=300, trials=trials)))
    took = time.process_time() - started
    return {
        "trials_per_point": trials,
        "seconds": took,
        "disagreements": sum(r["agrees"] is False for r in rows),
    }


def measured_memory(case: Case) -> dict[str, float]:
    """Return how far memory rises, in MiB, from ten thousand to a million trials of the O(1) sampler.

    In a fresh process: a peak shows nothing below what was held before, and this one may have held arrays.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        few, many = pool.apply(_peaks, (case, (10_000, 1_000_000)))
    return {"budget_mib": MEMORY_MIB, "peak_rise_mib": many - few}


def _peaks(case: Case, counts: tuple[int, ...]) -> list[float]:
    """Return the peak in MiB after each number of trials, which rise."""
    torch.set_num_threads(1)
    backend = Backend(str(torch.device(case.device)), memory=MEMORY_MIB << 20)
    sampler = sampler_of([case.p], "scalars")
    peaks = []
    for trials in counts:
        if case.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        measure(sampler, Sampling(trials, 0, backend), ["memory"], "F", [case.eta])
        peaks.append(_peak(case))
    return peaks


def _peak(case: Case) -> float:
    if case.device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_resident_bytes() / 2**20


def _machine(case: Case) -> dict[str, Any]:
    p = case.p
    gpu = torch.cuda.get_device_name() if case.device != "cpu" else None
    sizes = {"d": p.d, "n": int(p.n), "k": int(p.k), "seed": case.seed}
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"gpu": gpu, "cpu": _cpu(), "threads": torch.get_num_threads(), **versions, **sizes}


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def _print(document: dict[str, Any]) -> None:
    print(json.dumps({name: document[name] for name in document if name != "rows"}, indent=2))
    bandwidth = document["ceilings"]["copy_gb_per_second"]
    print(f"{'sampler':34}{'dtype':>9}{'trials/s':>14}{'x naive':>12}{'GB/s':>9}{'of copy':>9}{'z':>7}")
    for row in document["rows"]:
        traffic = row.get("gb_per_second")
        moved = f"{traffic:9.1f}{traffic / bandwidth:9.2f}" if traffic else f"{'-':>9}{'-':>9}"
        z = f"{row['z']:7.2f}" if row["z"] is not None else f"{'-':>7}"
        rate, ratio = row["trials_per_second"], row["over_naive"]
        print(f"{row['sampler']:34}{row['dtype']:>9}{rate:14,.1f}{ratio:12,.1f}{moved}{z}")


if __name__ == "__main__":
    main()
