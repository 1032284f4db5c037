"""What a large store costs: rows made up for 100,000 cells, then planned, resumed and reported.

Run from the repository root: `python -m benchmarks.bench_store`. Every step runs in a process of its own,
which tells its seconds and the most memory it held. Planning loads tables and draws splits, so the cells are
those of real requests on the tables that ship; their numbers are made up.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np

TABLES = ("contraceptive", "titanic", "segment", "spambase", "phoneme", "satimage")
STEPS = ("write", "resume", "report", "page")


def request_of(cells: int):
    """Return a request for about so many cells: 18 a table and seed."""
    from tttab.bench import BenchRequest

    arms = ("icl@n", "ttt@n+k", "icl@n+k", "temperature@n", "gbt", "logistic")
    seeds = tuple(range(max(1, cells // (18 * len(TABLES)))))
    return BenchRequest(TABLES, arms=arms, model="tttab-tiny", seeds=seeds, device="cpu", test_size=500)


def write(folder: Path, cells: int) -> str:
    """Plan and make up a row for each cell, as if it had been measured."""
    from tttab.bench import Plan, Record, plan_tables, this_machine, units
    from tttab.bench.plan import load, split_of
    from tttab.core import Row
    from tttab.evaluation.arms import identity
    from tttab.evaluation.trial import Trial

    request, machine, rng = request_of(cells), this_machine(), np.random.default_rng(0)
    plan = Plan(tuple(plan_tables(request)))
    lines = [{"kind": "machine", **machine.to_dict()}]
    for unit in units(plan.cells):
        table, sha256 = load(unit[0].table), _sha256()
        split = split_of(request, table, unit[0].n, unit[0].seed)
        trial = Trial(table, split, None, request.rule, request.schedule, unit[0].seed, planned_model=sha256)
        for cell in unit:
            error = 0.3 - 0.04 * np.log10(cell.n) - 0.02 * (cell.arm == "ttt@n+k") + rng.normal(0, 0.005)
            metrics = {"accuracy": 1 - error, "log_loss": 2 * error, "roc_auc": 1 - error / 2, "ece": error}
            seconds = {"open": 0.1, "adapt": 5.0, "predict": 0.2}
            row = Row(
                identity(trial, cell.arm), cell.arm, cell.n, cell.k, metrics, seconds, 10.0, test_rows=500
            )
            lines.append(Record(cell, row, 5.0, "2026-01-01T00:00:00.000000+00:00", machine.id).to_dict())
    folder.mkdir()
    (folder / "cells-made-up.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return f"{len(plan.cells):,} cells"


def resume(folder: Path, cells: int) -> str:
    """Plan the request and look up what is missing: nothing."""
    from tttab.bench import Plan, estimate_seconds, plan_tables, read_store

    plan = Plan(tuple(plan_tables(request_of(cells))))
    contents = read_store(folder)
    missing = plan.missing(contents.done)
    seconds, unknown = estimate_seconds(plan.cells, contents.records)
    assert not missing and not unknown and seconds > 0
    return f"{len(missing):,} cells missing of {len(plan.cells):,}, {len(contents.damaged)} damaged"


def report(folder: Path, cells: int) -> str:
    """Write the report as Markdown."""
    from tttab.bench import markdown_report, read_store

    return f"{len(markdown_report(read_store(folder))):,} characters"


def page(folder: Path, cells: int) -> str:
    """Write the report as a page with its figures."""
    from tttab.bench import html_report, read_store

    return f"{len(html_report(read_store(folder))):,} characters"


@cache
def _sha256() -> str:
    from tttab.models import resolve
    from tttab.system.files import sha256_of

    return sha256_of(resolve("tttab-tiny", "classification").path)


def main() -> None:
    """Print what each step took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--step", choices=STEPS, help="run one step on --folder")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.step:
        start, own = time.perf_counter(), time.process_time()
        found = globals()[options.step](options.folder, options.cells)
        wall, busy = time.perf_counter() - start, time.process_time() - own
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{options.step}: {wall:.1f} s, {busy:.1f} s of CPU, {most:.2f} GiB, {found}", flush=True)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name) / "store"
        for step in STEPS:
            asked = ["--step", step, "--folder", str(folder), "--cells", str(options.cells)]
            subprocess.run([sys.executable, "-m", "benchmarks.bench_store", *asked], check=True)


if __name__ == "__main__":
    main()
