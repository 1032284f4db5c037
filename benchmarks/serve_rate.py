"""Rows per second of `predict` from a cached context, by the context's rows and the model's size.

Run: python -m benchmarks.serve_rate [--models tttab-tiny,random-v2] [--n 200,1000,5000] [--rows 1000]
     [--columns 10] [--members 0] [--device cpu] [--threads 1] [--out FILE]

A synthetic table of two classes. `random-v2` has TabPFN v2's size and random weights; `--members 0` is each
model's own number, for `random-v2` the eight of the official files. On a CPU the seconds are the process's
own, which neighbours do not stretch: on one thread, rows per second of one core that is not shared.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from benchmarks.run_speed import random_v2, save, synchronize

OFFICIAL_MEMBERS = 8


def main() -> None:
    args = parse()
    import torch

    torch.set_num_threads(args.threads)
    rows = []
    for model in args.models.split(","):
        for n in map(int, args.n.split(",")):
            rows.append(measure(model, n, args))
            print(json.dumps(rows[-1]), flush=True)
    save(args, rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="tttab-tiny,random-v2")
    parser.add_argument("--n", default="200,1000,5000")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--members", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def measure(model: str, n: int, args: argparse.Namespace) -> dict[str, object]:
    """Return the seconds of the cache and of `args.rows` predictions, the faster of two."""
    import pandas as pd

    from tttab.models import open_model

    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(n + args.rows, args.columns))).add_prefix("c")
    y = (x["c0"] + rng.normal(size=len(x)) > 0).to_numpy().astype(np.int64)
    session = open_model(random_v2() if model == "random-v2" else model, device=args.device)
    own = OFFICIAL_MEMBERS if model == "random-v2" else session.members
    session = session.with_members(args.members or own)
    context = session.context(x[:n], y[:n], 2)
    caching, server = clocked(lambda: session.serve(context), args.device)
    queries = x[n:].reset_index(drop=True)
    seconds = min(clocked(lambda: server.predict(queries), args.device)[0] for _ in range(2))
    return {
        "model": model,
        "members": session.members,
        "n": n,
        "columns": args.columns,
        "rows": args.rows,
        "cache_seconds": round(caching, 3),
        "cache_mib": round((server.cache_bytes or 0) / 2**20, 1),
        "rows_per_second": round(args.rows / seconds, 1),
    }


def clocked(work, device: str):
    """Return the seconds and the answer: wall time on a GPU, this process's own on a CPU."""
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    synchronize(device)
    start = clock()
    answer = work()
    synchronize(device)
    return clock() - start, answer


if __name__ == "__main__":
    main()
