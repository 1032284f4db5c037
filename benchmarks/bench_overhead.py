"""What the benchmark costs beside its cells: overhead of `--suite smoke`, and two processes against one.

Run from the repository root on a quiet machine: `python -m benchmarks.bench_overhead`. Ratios are of
times taken in one run. The overhead counts everything after the plan: preparing contexts, measuring,
writing and syncing the store. Two processes run the same cells with more seeds, so that their start
(importing torch and tabpfn twice, opening the model twice), which is counted, does not hide the ratio.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path


def smoke_request(model: str, seeds: int):
    """Return what `tttab bench --suite smoke` asks for, with so many seeds."""
    from tttab.bench import BenchRequest
    from tttab.cli.commands.bench import SMOKE
    from tttab.data import catalog
    from tttab.training.config import Schedule

    return BenchRequest(
        tables=tuple(entry.name for entry in catalog().suite("smoke")),
        ns=tuple(map(int, SMOKE["n"].split(","))),
        ttt_at=tuple(map(int, SMOKE["ttt_at"].split(","))),
        k=SMOKE["k"],
        test_size=SMOKE["test_size"],
        arms=tuple(SMOKE["arms"].split(",")),
        schedule=Schedule(steps=SMOKE["steps"], precision="fp32"),
        model=model,
        seeds=tuple(range(seeds)),
    )


def run_once(request, folder: Path, jobs: int) -> tuple[float, float]:
    """Return wall seconds and the sum of the cells' own adapt and predict seconds."""
    from tttab.bench import Engine, Plan, plan_tables, start

    cells = Plan(tuple(plan_tables(request))).cells
    begin = time.perf_counter()
    records = [*start(cells, request, folder, Engine(jobs=jobs))]
    wall = time.perf_counter() - begin
    assert not any(record.failed for record in records)
    return wall, sum(r.row.seconds["adapt"] + r.row.seconds["predict"] for r in records)


def main() -> None:
    """Print wall times, the cells' own times and both ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tttab-tiny")
    parser.add_argument("--seeds", type=int, default=8, help="seeds of the comparison of 1 with 2 processes")
    options = parser.parse_args()
    smoke, longer = smoke_request(options.model, 2), smoke_request(options.model, options.seeds)
    print(f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_once(smoke_request(options.model, 1), folder / "warm", 1)
        wall, own = run_once(smoke, folder / "smoke", 1)
        print(f"smoke: wall {wall:.1f} s, cells' own {own:.1f} s, overhead {wall / own - 1:.1%}", flush=True)
        one, _ = run_once(longer, folder / "one", 1)
        two, _ = run_once(longer, folder / "two", 2)
        print(f"{options.seeds} seeds: 1 job {one:.1f} s, 2 jobs {two:.1f} s, {one / two:.2f} times as fast")


if __name__ == "__main__":
    main()
