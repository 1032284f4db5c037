"""How fast a pre-training step is, with and without what makes it faster, in cells per second.

Run: python -m benchmarks.pretrain_speed [--preset nano] [--threads 2] [--repeats 3] [--out FILE]

`kept`: the process keeps what it frees (`system.resources.keep_freed_memory`) instead of mapping it anew;
`last`: the last block computes only what is read (`tttab.pretrain.forward.last_block`);
`bf16`: the blocks run in bfloat16, where the processor has it. Each way is a process of its own, the ways
alternate, medians over the repeats. Synthetic tables.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tttab.training.precision import has_bfloat16

SHAPES = {
    "20 tables, 100 rows, 6 columns": (20, 100, 72, 6, 10),
    "2 tables, 700 rows, 10 columns": (2, 700, 72, 10, 10),
    "2 tables, 200 rows, 40 columns": (2, 200, 72, 40, 10),
    "2 tables, 700 rows, 40 columns": (2, 700, 72, 40, 10),
}
WAYS = ("plain", "kept", "last", "kept,last", "kept,last,bf16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", choices=WAYS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(cells_per_second(args.worker.split(","), args.preset)))
        return
    ways = [way for way in WAYS if "bf16" not in way or has_bfloat16("cpu")]
    found = {way: [] for way in ways}
    for _ in range(args.repeats):
        for way in ways:
            found[way].append(run_worker(way, args.preset, args.threads))
    rows = []
    for shape in SHAPES:
        speed = {way: statistics.median(one[shape] for one in found[way]) for way in ways}
        ratio = {way: median_ratio(found[way], found["plain"], shape) for way in ways[1:]}
        rows.append({"shape": shape, "cells_per_second": speed, "times_plain": ratio})
        print(shape, json.dumps(rows[-1]), sep="\t", flush=True)
    if args.out:
        machine = {"device": platform.machine(), "threads": args.threads, "cores": os.cpu_count()}
        args.out.write_text(
            json.dumps({"machine": machine, "preset": args.preset, "rows": rows}, indent=1) + "\n"
        )


def median_ratio(ones: list[dict], others: list[dict], shape: str) -> float:
    return statistics.median(one[shape] / other[shape] for one, other in zip(ones, others, strict=True))


def run_worker(way: str, preset: str, threads: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.pretrain_speed", "--worker", way, "--preset", preset]
    env = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)


def cells_per_second(way: list[str], preset: str) -> dict[str, float]:
    """Return the speed of whole steps, batch and optimiser included, for each shape; one step warms up."""
    import torch

    from tttab.pretrain import forward
    from tttab.pretrain.checkpoint import new_network
    from tttab.pretrain.draw import Draw
    from tttab.pretrain.loss import loss_for, mean_loss
    from tttab.pretrain.optimise import Optimisers
    from tttab.pretrain.prior import Size, batch
    from tttab.pretrain.settings import recipe
    from tttab.system.resources import keep_freed_memory

    if "kept" in way:
        keep_freed_memory()
    if "last" not in way:
        forward.last_block = lambda cells, context, *rest: forward.block(cells, context, *rest)[
            :, context:, -1
        ]
    settings = recipe(preset, "classification")
    dtype = torch.bfloat16 if "bf16" in way else torch.float32
    network = new_network(settings, 0).train()
    optimisers, loss = Optimisers(network, settings.optimiser), loss_for(settings, torch.device("cpu"))

    def step(number: int, size: Size) -> int:
        draw = Draw(0, "speed", number)
        tables = batch(draw, size, settings, None)
        positions = forward.draw_positions(draw, tables, settings.architecture.emsize)
        optimisers.clear()
        mean_loss(loss(forward.logits(network, tables, positions, dtype), tables), tables).backward()
        optimisers.step(1e-6)
        return tables.tokens

    speeds = {}
    for name, numbers in SHAPES.items():
        step(0, Size(*numbers))
        start = time.perf_counter()
        cells = sum(step(number, Size(*numbers)) for number in range(1, 5))
        speeds[name] = cells / (time.perf_counter() - start)
    return speeds


if __name__ == "__main__":
    main()
