"""A training on two threads, alone and beside two busy processes, by how long OpenMP's barriers spin.

Run: python -m benchmarks.busy_machine [--steps 12] [--repeats 3] [--out FILE]

`default` is libgomp's own count, `0` sleeps at once, `10000` is what the command sets. Each run is a process
of its own, the ways in turn; figures are ratios to `default` alone, medians over the repeats. The fair share
of two threads beside two busy processes on two cores is half: a ratio of 2.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

WAYS = ("default", "0", "1000", "10000")
TRAINING = """
import sys, time
from tttab.api.calls import adaptation_of
from tttab.evaluation.setup import TrialRequest, draw_rows, open_trial
request = TrialRequest("phoneme", n=200, k=800, steps=int(sys.argv[1]), model="tttab-tiny", device="cpu",
                       precision="fp32")
adaptation = adaptation_of(open_trial(request, *draw_rows(request)))
adaptation.prepare()
start = time.perf_counter()
for _ in adaptation:
    pass
print(time.perf_counter() - start)
"""


def seconds(way, steps):
    """Return the seconds of one training in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    environment |= {"OMP_NUM_THREADS": "2"} | ({} if way == "default" else {"GOMP_SPINCOUNT": way})
    command = [sys.executable, "-c", TRAINING, str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure(busy, steps, repeats):
    """Return the seconds of each way, beside `busy` processes that do nothing but compute."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        runs = [{way: seconds(way, steps) for way in WAYS} for _ in range(repeats)]
    finally:
        for other in others:
            other.kill()
            other.wait()
    return {way: median(run[way] for run in runs) for way in WAYS}


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = {busy: measure(busy, args.steps, args.repeats) for busy in (0, 2)}
    base = found[0]["default"]
    ratios = {f"beside {busy}": {way: found[busy][way] / base for way in WAYS} for busy in found}
    print(f"{'spins':10}{'alone':>10}{'beside 2':>10}")
    for way in WAYS:
        print(f"{way:10}{ratios['beside 0'][way]:10.2f}{ratios['beside 2'][way]:10.2f}")
    if args.out:
        args.out.write_text(json.dumps({"seconds": found, "ratios": ratios}, indent=2) + "\n")


if __name__ == "__main__":
    main()
