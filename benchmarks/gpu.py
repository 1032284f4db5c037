"""Everything of this project that waits for a GPU, in calls of under ten minutes (`docs/gpu.md`).

Run: python -m benchmarks.gpu PART [--device cuda] [--out gpu-results] [--minutes 9] [--small]

Parts: `tests` (what runs differently on a GPU), `speed` (a step against an epoch of tabpfn's fine-tuner, and
serving, both model sizes), `rate` (rows per second from a cached context), `linear` (throughput of the linear
theory against measured bandwidth), `index` (the single-index pipeline), `transformer` (both papers'
transformers at full size), `pretrain` (the preset `small`, then what it predicts), `all`. A part is cells,
each a process of its own; OUT/results.jsonl has a line for each. What is done there is not done again, what
was cut or failed is tried again by the same command: exit 0 all done, 1 something failed, 75 time was up.
`--small` runs all of it in miniature, on a CPU too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

TABLES = ("phoneme", "segment", "satimage", "spambase")
MODELS = ("tttab-tiny", "random-v2")
TIME_IS_UP = 75
ENDING = 10.0
"""Seconds kept for what follows the last cell."""
MODULE = (sys.executable, "-m")
BUNDLED = "tttab/models/weights/tttab-tiny-classifier.safetensors"


@dataclass(frozen=True)
class Cell:
    """One process: its command, and the least time worth starting it with, seconds."""

    name: str
    command: tuple[str, ...]
    least: float = 60.0


def cells_of(part: str, args: argparse.Namespace) -> list[Cell]:
    """Return the cells of a part in their order."""
    return PARTS[part](args)


def tests(args):
    options = ("-o", "addopts=", "-o", "addopts=--import-mode=importlib", "-q", "-rs")
    return [Cell("tests", (*MODULE, "pytest", *options, "tests/test_device.py"))]


def speed(args):
    tables, models = (("titanic",), MODELS[:1]) if args.small else (TABLES, MODELS)
    few = ("--repeats", "1", "--k", "60") if args.small else ()
    ways = ("fp32",) if args.small or not args.device.startswith("cuda") else ("fp32", "bf16")
    cells = []
    for model, table, way in itertools.product(models, tables, ways):
        what = ("--tables", table, "--model", model, "--precision", way, "--device", args.device)
        where = ("--label", f"{model}_{table}_{way}", "--out", str(args.out / "speed"))
        command = (*MODULE, "benchmarks.run_speed", *what, *where, *few)
        cells.append(Cell(f"speed-{model}-{table}-{way}", command))
    return cells


def rate(args):
    few = ("--n", "50,100", "--rows", "200", "--models", MODELS[0]) if args.small else ()
    out = ("--out", str(args.out / "serve_rate.json"))
    return [Cell("rate", (*MODULE, "benchmarks.serve_rate", "--device", args.device, *out, *few))]


def linear(args):
    few = ("--d", "12", "--n", "6", "--k", "12", "--seconds", "0.02", "--phase-trials", "200")
    command = (*MODULE, "benchmarks.theory_linear", "--device", args.device, "--out", str(args.out))
    return [Cell("linear", command + (few if args.small else ()))]


def index(args):
    few = ("--rows", "512", "--d", "8", "--r", "4", "--tasks", "2", "--loop-tasks", "1", "--repeats", "1")
    out = ("--out", str(args.out / "theory_index.json"))
    command = (*MODULE, "benchmarks.theory_index", "--device", args.device, *out)
    return [Cell("index", command + (few if args.small else ()))]


def transformer(args):
    minutes = 0.1 if args.small else max(1.0, min(6.0, args.minutes - 2.5))
    command = (*MODULE, "benchmarks.theory_transformer", "--out", str(args.out / "transformer"))
    command += ("--device", args.device, "--minutes", str(minutes))
    return [Cell("transformer", command + (("--tiny",) if args.small else ()), 60 * (minutes + 1))]


def pretrain(args):
    """A step's parts, the training, then in-context learning with the file it makes and the bundled one."""
    out, tttab = args.out / "pretrain", (*MODULE, "tttab")
    made = str(out / "model.safetensors")
    workers = 0 if args.small else max(0, (os.cpu_count() or 1) - 2)
    how = (
        ("--preset", "tiny", "--steps", "3")
        if args.small
        else ("--preset", "small", "--workers", str(workers), "--from", BUNDLED)
    )
    train = (*tttab, "pretrain", *how, "--device", args.device, "--out", str(out))
    ask = ("--rule", "none", "--device", args.device, "--json")
    few = ("--n", "40", "--k", "40", "--test-size", "50") if args.small else ()
    few_steps = ("--preset", "tiny", "--tokens", "1500", "--steps", "2") if args.small else ()
    measure = (*MODULE, "benchmarks.pretrain_parts", "--device", args.device, *few_steps)
    parts = [
        Cell(name, (*measure, *flags, "--out", str(args.out / f"{name}.json")), 30.0)
        for name, flags in (("pretrain-parts", ()), ("pretrain-parts-cudnn", ("--cudnn",)))
    ]
    return [*parts, Cell("pretrain", train)] + [
        Cell(
            f"quality-{label}-{table}",
            (*tttab, "run", "--dataset", table, "--model", model, *ask, *few),
            30.0,
        )
        for table in (("titanic",) if args.small else TABLES)
        for label, model in (("made", made), ("bundled", MODELS[0]))
    ]


PARTS = {
    "tests": tests,
    "speed": speed,
    "rate": rate,
    "linear": linear,
    "index": index,
    "transformer": transformer,
    "pretrain": pretrain,
}


class Ledger:
    """What was done, failed or cut on this device: the last line of a cell counts."""

    def __init__(self, folder: Path, device: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._path = folder, folder / "results.jsonl"
        self._machine = machine(device)
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        rows = [json.loads(line) for line in lines]
        self._states = {
            row["cell"]: row["state"] for row in rows if row["machine"]["device"] == self._machine["device"]
        }

    def state(self, cell: Cell) -> str:
        """Return `done`, `failed`, `cut` or nothing."""
        return self._states.get(cell.name, "")

    def run(self, cell: Cell, device: str, seconds: float) -> str:
        """Run a cell for at most so long, write its line and return its state."""
        logs = self._folder / "logs"
        logs.mkdir(exist_ok=True)
        log, started = logs / f"{cell.name}.log", time.monotonic()
        code = watched(cell.command, log, seconds, {"TTTAB_TEST_DEVICE": device})
        state = "cut" if code is None else "failed" if code else "done"
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        row = {
            "cell": cell.name,
            "state": state,
            "exit": code,
            "seconds": round(time.monotonic() - started, 1),
        }
        row |= {"machine": self._machine, "command": list(cell.command[1:]), "tail": tail}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._states[cell.name] = state
        return state


def watched(command: tuple[str, ...], log: Path, seconds: float, extra: dict[str, str]) -> int | None:
    """Run a command into a log; None where it was still running at the end of its time and was ended."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TABPFN_DISABLE_TELEMETRY": "1"} | extra
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            return process.wait(timeout=max(1.0, seconds))
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:  # its workers too
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def machine(device: str) -> dict[str, object]:
    """Return what a figure depends on besides this repository."""
    import torch

    cuda = device.startswith("cuda")
    name = torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine()
    memory = torch.cuda.get_device_properties(device).total_memory if cuda else None
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version()}
    return {"device": name, "memory": memory, "cores": os.cpu_count(), **versions}


def follow(cells: list[Cell], ledger: Ledger, device: str, seconds: float) -> int:
    """Run what is not done within the time, first what was never tried; return the exit status."""
    deadline = time.monotonic() + seconds
    waiting = sorted(
        (c for c in cells if ledger.state(c) != "done"), key=lambda c: ledger.state(c) == "failed"
    )
    states = []
    for cell in waiting:
        left = deadline - time.monotonic() - ENDING
        state = ledger.run(cell, device, left) if left >= min(cell.least, seconds / 2) else "left"
        print(f"{cell.name}: {state}", flush=True)
        states.append(state)
    print(f"{len(cells) - len(waiting) + states.count('done')} of {len(cells)} cells are done")
    if {"cut", "left"} & set(states):
        print("the same command goes on")
        return TIME_IS_UP
    return int("failed" in states)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=[*PARTS, "all"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--minutes", type=float, default=9.0, help="time of this call")
    parser.add_argument("--small", action="store_true", help="everything in miniature")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    args = parse(words)
    ledger = Ledger(args.out, args.device)
    cells = [cell for part in (PARTS if args.part == "all" else [args.part]) for cell in cells_of(part, args)]
    return follow(cells, ledger, args.device, 60 * args.minutes)


if __name__ == "__main__":
    sys.exit(main())
