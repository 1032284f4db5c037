"""Hostile input: thousands of changed files for every reader; none may hang, crash, grow or write elsewhere.

    python -m tools.fuzz                     10,000 inputs for every target
    python -m tools.fuzz --inputs 500 csv    fewer, one target
    python -m tools.fuzz --replay csv 4711   one input again, with its traceback

Input number i of a target is a function of the seed, the target's name and i (`fuzz_inputs`). A worker
process with a memory limit reads them; the parent kills it where one input takes more than 5 s of its
processor time, or a minute by the clock. An audit hook in the worker sees every file opened for writing
outside the scratch folder, every process started, every connection made and every class looked up by
pickle. After each input the most memory that was resident on the way is compared with what was when
the worker began, so leaks count too; more than 1 GB is a finding. A reader may succeed or raise a
`TttabError` of one line; all else is a finding, kept in `--keep`. Linux only: growth is read from /proc.

To add a reader, add one entry to `fuzz_seeds.TARGETS`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import selectors
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tools.fuzz_inputs import make_input, seeds_of
from tools.fuzz_seeds import TARGETS
from tttab.errors import TttabError
from tttab.system.resources import peak_resident_bytes, resident_bytes

SECONDS, SILENCE = 5.0, 60.0
GROWTH = 10**9
"""Bytes that the worker may grow while it reads one input."""
MEMORY = 6 * 2**30
LONGEST = 1_000
"""Characters of a message: it may hold the beginnings of names and cells."""
FORBIDDEN = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect",
    "pickle.find_class", "ctypes.dlopen",
)  # fmt: skip
WRITES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "shutil.rmtree")
OUTCOMES = ("accepted", "refused", "traceback", "trespass", "growth", "hang", "death")
ROOT = Path(__file__).parents[1]


@dataclass
class Tally:
    """What became of a target's inputs."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    """Seconds of processor time."""
    largest: int = 0
    """Bytes of growth."""

    def add(self, outcome: str, seconds: float, growth: int) -> None:
        """Count one input."""
        self.counts[outcome] += 1
        self.slowest, self.largest = max(self.slowest, seconds), max(self.largest, growth)

    @property
    def findings(self) -> int:
        """Inputs that were neither accepted nor refused."""
        return self.counts.total() - self.counts["accepted"] - self.counts["refused"]


def run_input(target, path):
    """Return (`accepted`, `refused` or `traceback`, detail)."""
    try:
        target.read(path)
    except TttabError as error:
        tidy = error.message and "\n" not in error.message and error.hint and len(error.message) < LONGEST
        return ("refused", "") if tidy else ("traceback", f"untidy message: {error.message[:LONGEST]!r}")
    except Exception:
        return "traceback", traceback.format_exc(limit=-6)
    return "accepted", ""


@contextmanager
def scratch(target, data):
    """Yield a file that holds `data` in a folder of its own, which goes away."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"input{target.suffix}")
        path.write_bytes(data)
        yield path


def work(name, seed, start, stop, folder):
    """Read inputs start..stop-1, one JSON line each: the worker's side."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    target, trespasses = TARGETS[name], []
    make_input(target, name, seed, 0)  # lazy imports happen before the hook is set
    for number, content in enumerate(seeds_of(target)):
        path = Path(folder, f"seed{number}{target.suffix}")
        path.write_bytes(content)
        run_input(target, path)
    peaks = os.open("/proc/self/clear_refs", os.O_WRONLY)
    sys.addaudithook(lambda event, args: _watch(event, args, folder, trespasses))
    resident = resident_bytes()
    print(json.dumps({"ready": True}), flush=True)
    for number in range(start, stop):
        path = Path(folder, f"input{target.suffix}")
        path.write_bytes(make_input(target, name, seed, number))
        print(json.dumps({"begin": number}), flush=True)
        os.pwrite(peaks, b"5", 0)  # forgets the peak
        began = time.process_time()
        outcome, detail = run_input(target, path)
        seconds, growth = time.process_time() - began, peak_resident_bytes() - resident
        if trespasses:
            outcome, detail = "trespass", "; ".join(trespasses)
            trespasses.clear()
        elif growth > GROWTH and outcome != "traceback":
            outcome, detail = "growth", f"{growth:,} bytes"
        print(json.dumps([number, outcome, seconds, growth, detail]), flush=True)
        if growth > GROWTH:
            return  # what it still holds would count against the next input


def _watch(event, args, folder, trespasses):
    if event in FORBIDDEN:
        trespasses.append(f"{event} {args[:1]}")
    elif event in WRITES and not str(args[0]).startswith(folder):
        trespasses.append(f"{event} {args[0]}")
    elif event == "open" and isinstance(args[0], str) and isinstance(args[2], int):
        writing = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writing and not args[0].startswith(folder):
            trespasses.append(f"open for writing {args[0]}")


def attack(name, inputs, seed, keep, seconds):
    """Run one target in workers that are replaced when they hang, die or grow: the parent's side."""
    tally, end = Tally(), time.monotonic() + seconds
    while (start := tally.counts.total()) < inputs and time.monotonic() < end:
        with tempfile.TemporaryDirectory() as folder:
            for number, outcome, seconds, growth, detail in _listen(name, seed, start, inputs, folder):
                tally.add(outcome, seconds, growth)
                if outcome not in OUTCOMES[:2]:
                    _keep(name, seed, number, detail, keep)
                if sys.stderr.isatty() and number % 50 == 0:
                    sys.stderr.write(f"\r{name}: {number:,} of {inputs:,} ")
                if time.monotonic() > end:
                    break
    return tally


def _listen(name, seed, start, stop, folder):
    """Yield the worker's results; a hang or a death ends it with a result of its own."""
    what = [name, str(seed), str(start), str(stop), folder]
    command = [sys.executable, "-m", "tools.fuzz", "--worker", *what]
    settings = os.environ | {"XDG_CACHE_HOME": folder, "TTTAB_OFFLINE": "1", "TABPFN_DISABLE_TELEMETRY": "1"}
    with open(Path(folder, "stderr"), "w+") as said:
        worker = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, cwd=ROOT, env=settings
        )
        try:
            yield from _results(worker, start, said)
        finally:
            worker.kill()
            worker.communicate()


def _results(worker, start, said):
    waiting, current = selectors.DefaultSelector(), None
    waiting.register(worker.stdout, selectors.EVENT_READ)
    began = spent = 0.0
    while True:
        if not waiting.select(0.5):
            busy = _cpu_seconds(worker) - spent
            if current is not None and (busy > SECONDS or time.monotonic() - began > SILENCE):
                yield current, "hang", busy, 0, f"no answer after {busy:.1f} s of work"
                return
            continue
        line = worker.stdout.readline()
        if not line:
            if worker.wait() != 0 or current is not None:
                said.seek(0)
                detail = f"exit {worker.returncode}: {said.read()[-2000:]}"
                yield (start if current is None else current), "death", 0.0, 0, detail
            return
        message = json.loads(line)
        if isinstance(message, list):
            current = None
            yield message
        else:
            current, began, spent = message.get("begin"), time.monotonic(), _cpu_seconds(worker)


def _cpu_seconds(worker):
    import psutil

    try:
        times = psutil.Process(worker.pid).cpu_times()
    except psutil.Error:  # it has just ended
        return 0.0
    return times.user + times.system


def _keep(name, seed, number, detail, keep):
    keep.mkdir(parents=True, exist_ok=True)
    stem = f"{name}-{seed}-{number}"
    (keep / f"{stem}{TARGETS[name].suffix}").write_bytes(make_input(TARGETS[name], name, seed, number))
    (keep / f"{stem}.txt").write_text(detail)


def replay(name, seed, number):
    """Read one input again and print what happens."""
    target = TARGETS[name]
    seeds_of(target)
    with scratch(target, make_input(target, name, seed, number)) as path:
        print(path.read_bytes()[:2000])
        print(target.read(path))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help=f"any of {', '.join(TARGETS)} [default: all]")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each target, at the most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "NUMBER"))
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, seed, start, stop, folder = options.worker
        return work(name, int(seed), int(start), int(stop), folder)
    if options.replay:
        return replay(options.replay[0], options.seed, int(options.replay[1]))
    print("\t".join(("target", "inputs", *OUTCOMES, "slowest s", "growth MB", "seconds")))
    findings = 0
    for name in options.targets or TARGETS:
        began = time.perf_counter()
        tally = attack(name, options.inputs, options.seed, options.keep, options.seconds)
        findings += tally.findings
        cells = [name, tally.counts.total(), *(tally.counts[outcome] for outcome in OUTCOMES)]
        cells += [f"{tally.slowest:.2f}", f"{tally.largest / 1e6:.0f}", f"{time.perf_counter() - began:.0f}"]
        print("\t".join(map(str, cells)), flush=True)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
