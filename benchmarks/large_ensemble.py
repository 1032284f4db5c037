"""What a training step of TabPFN v2's size costs, by how many of its eight members it trains.

Run: python -m benchmarks.large_ensemble [--columns 5,20,57] [--members 8,2,1] [--n 200] [--k 1000]
     [--batch 256] [--rules full,last-layers:2] [--out FILE]

Random weights, a synthetic table of two classes, one thread, the process's own seconds. `step` is a step of
that many members, the mean over the kinds of members; `score` the held-out rows seen by all eight; `every`
the steps between scores; `seconds` a step with its share of them, `times` how much faster that is than the
first of `--members`, `peak` the most the process held, MiB. Each line is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.run_speed import random_v2, save

ALL = 8


def main() -> None:
    args = parse()
    if args.worker:
        print(json.dumps(measure(args)))
        return
    rows = []
    for columns in args.columns.split(","):
        for rule in args.rules.split(","):
            first = None
            for members in args.members.split(","):
                found = run_worker(args, columns, rule, members)
                first = first or found["seconds"]
                rows.append(found | {"times": round(first / found["seconds"], 2)})
                print(json.dumps(rows[-1]), flush=True)
    save(args, rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--columns", default="5,20,57")
    parser.add_argument("--members", default="8,2,1")
    parser.add_argument("--rules", default="full")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--k", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", action="store_true")
    args = parser.parse_args()
    args.device, args.threads = "cpu", 1
    return args


def run_worker(args: argparse.Namespace, columns: str, rule: str, members: str) -> dict:
    command = [sys.executable, "-m", "benchmarks.large_ensemble", "--worker", "--columns", columns]
    command += ["--rules", rule, "--members", members]
    for name in ("n", "k", "batch"):
        command += [f"--{name}", str(getattr(args, name))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout)


def measure(args: argparse.Namespace) -> dict:
    """Return the figures of one line."""
    import numpy as np
    import pandas as pd

    from tttab.models import open_model
    from tttab.rules import get_rule
    from tttab.system.resources import keep_freed_memory, peak_resident_bytes
    from tttab.training.config import Schedule
    from tttab.training.loop import Adaptation

    keep_freed_memory()
    columns, members = int(args.columns), int(args.members)
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(args.n + args.k, columns))).add_prefix("c")
    y = (x["c0"] + rng.normal(size=len(x)) > 0).to_numpy().astype(np.int64)
    session = open_model(random_v2(), device="cpu").with_members(ALL)
    context = session.context(x[: args.n], y[: args.n], 2)
    schedule = Schedule(batch=args.batch, precision="fp32", step_members=members)
    rule = get_rule(args.rules)
    run = Adaptation(session, rule, context, (x[args.n :], y[args.n :]), schedule)
    run.prepare()
    trains, costs, rows = run._session, run._session.cost_model, run._labelled.train[: args.batch]
    # Members of both kinds of preprocessing, in equal parts: the first half has one, the second the other.
    seen = [m for pair in zip(range(ALL // 2), range(ALL // 2, ALL), strict=True) for m in pair]
    parts = [seen[:members]] if members > 1 else [[0], [ALL // 2]]

    def step() -> None:
        for part in parts:
            some = costs.of_members(context, run._queries, part)
            trains.accumulate_gradients(*some, rows, 1 / len(rows), run._how)

    taken = seconds(step) / len(parts)
    score = seconds(lambda: trains.row_scores(context, run._queries, run._held, run._how))
    every = run.schedule.evaluate_every if members < ALL else Schedule().evaluate_every
    return {
        "columns": columns,
        "rule": rule.name,
        "members": members,
        "step": round(taken, 2),
        "score": round(score, 2),
        "every": every,
        "seconds": round(taken + score / every, 2),
        "peak": peak_resident_bytes() // 2**20,
    }


def seconds(work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
