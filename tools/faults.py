"""Break tttab on purpose and count what is lost: the table in docs/faults.md.

Run: python -m tools.faults [--times 10] [--only NAME,…] [--out FILE.json]

Every trial starts real commands in processes of their own, breaks something and then looks: a bundle
must load and be one that was saved whole, a cell that was reported as done must still be there, the exit
code must be the promised one. Mounting disks needs root; without it those trials are skipped and say so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

TTTAB = [sys.executable, "-m", "tttab"]
SIZES = ["--n", "40", "--k", "60", "--steps", "3", "--model", "tttab-tiny", "--device", "cpu", "--quiet"]
JUMPING_CLOCK = """
import random, time
_now = time.time
time.time = lambda: _now() + random.choice((-86400.0, 0.0, 86400.0))
"""


@dataclass
class Tally:
    """One fault: how often it was tried, and what went wrong."""

    fault: str
    times: int = 0
    lost: list[str] = field(default_factory=list)
    skipped: str = ""

    def count(self, ended: tuple[int, str], where: str = "", wanted: int = 0) -> None:
        """Count a command that ended with (exit code, output); another code than `wanted` is a loss."""
        code, text = ended
        self.times += 1
        if code != wanted or "Traceback" in text:
            self.lost.append(f"{where}exit code {code}: {text[-200:]}")


class Skipped(Exception):
    """A fault that cannot be tried on this machine."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10, help="trials of each random fault")
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    tallies = []
    for name, trial in FAULTS.items():
        if args.only and name not in args.only.split(","):
            continue
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            tally = Tally(trial.__doc__.splitlines()[0])
            try:
                trial(tally, Path(folder), args.times, random.Random(f"{args.seed} {name}"))
            except Skipped as reason:
                tally.skipped = f"skipped: {reason}"
            tallies.append(tally)
            outcome = tally.skipped or ("nothing lost" if not tally.lost else "; ".join(tally.lost))
            print(
                f"{name:18} tried {tally.times:3}  {outcome}  ({time.monotonic() - started:.0f} s)",
                flush=True,
            )
    if args.out:
        report = {"machine": platform.platform(), "faults": [asdict(t) for t in tallies]}
        args.out.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(any(t.lost for t in tallies))


def table(folder: Path) -> str:
    """Write a small table with something to learn and return its path."""
    rng = random.Random(0)
    rows = [
        f"{i % 2 + rng.gauss(0, 0.7):.3f},{rng.gauss(0, 1):.3f},{'no' if i % 2 else 'yes'}"
        for i in range(300)
    ]
    path = folder / "table.csv"
    path.write_text("\n".join(["a,b,y", *rows]) + "\n")
    return str(path)


def start(*words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    settings = os.environ | {"OMP_NUM_THREADS": "1", "TTTAB_OFFLINE": "1"} | (env or {})
    return subprocess.Popen(
        [*TTTAB, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=settings,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=900)
    return process.returncode, out + err


def seconds_of(*words: str) -> float:
    """Run a command, which must succeed, and return how long it took."""
    begun = time.monotonic()
    code, text = finish(start(*words))
    if code:
        raise SystemExit(text)
    return time.monotonic() - begun


def kill(process: subprocess.Popen[str], after: float) -> bool:
    """Kill -9 the process and its children after some seconds; tell whether it was still at work."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after)
    running = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return running


def seed_of(bundle: Path) -> str:
    """Load a bundle, hashes checked, and return what identifies it; raise where it is not whole."""
    from tttab.bundle import load_bundle

    loaded = load_bundle(bundle)
    return json.dumps(loaded.record["split"], sort_keys=True)


def killed_bundles(
    command: Callable[[Path, int], list[str]], tally: Tally, folder: Path, times: int, rng: random.Random
) -> None:
    """Kill a command that writes a bundle over an older one, `times` times."""
    out = folder / "bundle"
    length = seconds_of(*command(out, 0))
    before = seed_of(out)
    for trial in range(1, times + 1):
        # Half of the moments fall anywhere, half into the end, where files are written.
        share = rng.random() if trial % 2 else rng.uniform(0.8, 1.1)
        killed = kill(start(*command(out, trial)), share * length)
        tally.times += 1
        try:
            now = seed_of(out)
        except Exception as error:
            tally.lost.append(f"trial {trial}: {type(error).__name__}: {error}")
            continue
        if not killed and now == before:
            tally.lost.append(f"trial {trial}: the command ended, its bundle is not there")
        before = now


def kill_run(tally: Tally, folder: Path, times: int, rng: random.Random) -> None:
    """kill -9 of `tttab run --out` at a random moment"""
    data = table(folder)
    killed_bundles(
        lambda out, seed: ["run", "--dataset", data, "--out", str(out), "--seed", str(seed), *SIZES],
        tally, folder, times, rng,
    )  # fmt: skip


def kill_adapt(tally: Tally, folder: Path, times: int, rng: random.Random) -> None:
    """kill -9 of `tttab adapt` at a random moment"""
    data = table(folder)
    killed_bundles(
        lambda out, seed: ["adapt", data, "--out", str(out), "--seed", str(seed), *SIZES],
        tally,
        folder,
        times,
        rng,
    )


def bench_command(data: str, out: Path) -> list[str]:
    return [
        "bench", "--datasets", data, "--n", "20,40", "--k", "60", "--seeds", "3", "--steps", "3",
        "--arms", "icl@n,ttt@n+k,logistic", "--model", "tttab-tiny",
        "--device", "cpu", "--out", str(out), "--quiet",
    ]  # fmt: skip


def done_cells(out: Path) -> set[str]:
    from tttab.bench.store import read_store

    return (
        {record.row.key for record in read_store(out).records if not record.row.error}
        if out.exists()
        else set()
    )


def kill_bench(tally: Tally, folder: Path, times: int, rng: random.Random) -> None:
    """kill -9 of `tttab bench` at a random moment, then the same command again"""
    data = table(folder)
    length = seconds_of(*bench_command(data, folder / "whole"))
    expected = done_cells(folder / "whole")
    out, kept = folder / "store", set()
    for trial in range(1, times + 1):
        kill(start(*bench_command(data, out)), rng.random() * length)
        tally.times += 1
        now = done_cells(out)
        if kept - now:
            tally.lost.append(f"trial {trial}: {len(kept - now)} finished cells are gone")
        kept = now
        if kept == expected:
            out = folder / f"store-{trial}"
            kept = set()
    finish(start(*bench_command(data, out)))
    if done_cells(out) != expected:
        tally.lost.append("the last run did not end with every cell")


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a memory disk; raise Skipped where that is not allowed."""
    disk = folder / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], capture_output=True)
    if done.returncode:
        raise Skipped("mounting needs root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def full_disk(tally: Tally, folder: Path, times: int, rng: random.Random) -> None:
    """a disk that fills up while `tttab adapt` saves over an older bundle"""
    data = table(folder)
    with mounted(folder, "size=64m") as disk:
        out = disk / "bundle"
        finish(start("adapt", data, "--out", str(out), *SIZES))
        before = seed_of(out)
        for trial in range(1, max(2, times // 3) + 1):
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            (disk / "filler").write_bytes(b"\0" * max(0, free - rng.randrange(0, 2_500_000)))
            ended = finish(start("adapt", data, "--out", str(out), "--seed", str(trial), *SIZES))
            tally.count(ended, f"trial {trial}: ", wanted=2)
            (disk / "filler").unlink()
            if seed_of(out) != before:
                tally.lost.append(f"trial {trial}: the old bundle is gone")


def full_disk_bench(tally: Tally, folder: Path, times: int, rng: random.Random) -> None:
    """a disk that is full while `tttab bench` appends"""
    data = table(folder)
    with mounted(folder, "size=8k") as disk:
        tally.count(finish(start(*bench_command(data, disk / "store"))), wanted=2)
        if not done_cells(disk / "store"):
            tally.lost.append("no finished cell is readable")


def read_only(tally: Tally, folder: Path, times: int, rng: random.Random) -> None:
    """an output folder that cannot be written"""
    data = table(folder)
    with mounted(folder, "ro") as disk:
        for command in (
            ["run", "--dataset", data, "--out", str(disk / "a"), *SIZES],
            ["adapt", data, "--out", str(disk / "b"), *SIZES],
            bench_command(data, disk / "c"),
        ):
            tally.count(finish(start(*command)), f"{command[0]}: ", wanted=2)


def no_home(tally: Tally, folder: Path, times: int, rng: random.Random) -> None:
    """no home directory"""
    nowhere = {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": ""}
    tally.count(finish(start("run", "--dataset", "31", *SIZES, env=nowhere)))


def jumping_clock(tally: Tally, folder: Path, times: int, rng: random.Random) -> None:
    """a clock that jumps a day back and forth"""
    data = table(folder)
    (folder / "sitecustomize.py").write_text(JUMPING_CLOCK)
    path = os.pathsep.join(filter(None, [str(folder), os.getcwd(), os.environ.get("PYTHONPATH")]))
    for command in (["adapt", data, "--out", str(folder / "b"), *SIZES], bench_command(data, folder / "c")):
        tally.count(finish(start(*command, env={"PYTHONPATH": path})), f"{command[0]}: ")


def two_writers(tally: Tally, folder: Path, times: int, rng: random.Random) -> None:
    """two processes on one output folder"""
    data = table(folder)
    for trial in range(max(2, times // 3)):
        out = folder / f"bundle-{trial}"
        pair = [start("adapt", data, "--out", str(out), "--seed", str(seed), *SIZES) for seed in (1, 2)]
        codes = [finish(process)[0] for process in pair]
        tally.times += 1
        try:
            seed_of(out)
        except Exception as error:
            tally.lost.append(f"trial {trial}: {error}")
        if any(codes):
            tally.lost.append(f"trial {trial}: exit codes {codes}")
    pair = [start(*bench_command(data, folder / "store")) for _ in range(2)]
    codes = [finish(process)[0] for process in pair]
    tally.times += 1
    finish(start(*bench_command(data, folder / "alone")))
    if any(codes) or done_cells(folder / "store") != done_cells(folder / "alone"):
        tally.lost.append(f"two benches: exit codes {codes}, cells differ from one bench's")


def ended(tally: Tally, folder: Path, times: int, rng: random.Random) -> None:
    """SIGTERM or SIGHUP of `tttab adapt` and `tttab predict` at a random moment"""
    data, out = table(folder), folder / "bundle"
    length = seconds_of("adapt", data, "--out", str(out), *SIZES)
    before, expected = seed_of(out), sorted(folder.rglob("*"))
    for trial in range(times):
        number = (signal.SIGTERM, signal.SIGHUP)[trial % 2]
        adapts = trial % 4 < 2
        words = ["adapt", data, "--out", str(folder / "new"), *SIZES]
        if not adapts:
            words = ["predict", str(out), data, "--out", str(folder / "p.csv"), "--device", "cpu", "--quiet"]
        process = start(*words)
        time.sleep(rng.random() * length * (1.0 if adapts else 0.7))
        process.send_signal(number)
        code, text = finish(process)
        tally.times += 1
        if (folder / "p.csv").exists():  # the signal came when the work was done
            if len((folder / "p.csv").read_text().splitlines()) != 301:
                tally.lost.append(f"trial {trial}: half a file")
            (folder / "p.csv").unlink()
        if (folder / "new").exists():
            seed_of(folder / "new")
            shutil.rmtree(folder / "new")
        if code not in (0, 128 + number, -number) or "Traceback" in text:
            tally.lost.append(f"trial {trial}: exit code {code}: {text[-200:]}")
        if sorted(folder.rglob("*")) != expected or seed_of(out) != before:
            tally.lost.append(f"trial {trial}: {set(folder.rglob('*')) ^ set(expected)}")
            expected = sorted(folder.rglob("*"))


def odd_names(tally: Tally, folder: Path, times: int, rng: random.Random) -> None:
    """files and folders whose names are not UTF-8, hold spaces, quotes or line feeds"""
    data = table(folder)
    for name in (b"lat\xe9", b"two words", b"it's", b"a\nb", "\u202egnp".encode()):
        place = folder / os.fsdecode(name)
        place.mkdir()
        rows = place / os.fsdecode(name + b".csv")
        rows.write_bytes(Path(data).read_bytes())
        for words in (
            ["adapt", str(rows), "--out", str(place / "bundle"), *SIZES],
            ["predict", str(place / "bundle"), str(rows), "--out", str(place / "p.csv"), "--device", "cpu"],
        ):
            tally.count(finish(start(*words)), f"{name!r}: {words[0]}: ")


def foreign_files(tally: Tally, folder: Path, times: int, rng: random.Random) -> None:
    """files of the user in the folder of a bundle, with names like tttab's own"""
    data, out = table(folder), folder / "bundle"
    names = [".part-photos/1.jpg", ".manifest.json.bak", "weights-0123456789abcdef.safetensors", "notes.txt"]
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)
    for seed in range(2):
        code, text = finish(start("adapt", data, "--out", str(out), "--seed", str(seed), *SIZES))
        tally.times += 1
        gone = [name for name in names if not (out / name).exists() or (out / name).read_text() != name]
        if code or gone:
            tally.lost.append(f"exit code {code}, touched: {gone} {text[-200:]}")


FAULTS = {
    "kill run": kill_run,
    "kill adapt": kill_adapt,
    "kill bench": kill_bench,
    "full disk": full_disk,
    "full disk bench": full_disk_bench,
    "read-only": read_only,
    "no home": no_home,
    "clock": jumping_clock,
    "two writers": two_writers,
    "ended": ended,
    "odd names": odd_names,
    "foreign files": foreign_files,
}


if __name__ == "__main__":
    main()
