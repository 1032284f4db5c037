"""Resident memory of `tttab serve` by the number of bundles over one base model.

Run: python -m benchmarks.serve_memory [--rules head,lora] [--counts 1,4,16] [--n 200] [--columns 5]
     [--members 8] [--threads 1] [--out FILE]

Bundles of a network of TabPFN v2's size with random weights; in each, what the rule moves differs by
noise: nothing is trained. A process of its own opens them one after the other as the command does; `apart`
keeps every bundle's weights by themselves, `shared` each weight once. MiB beyond those of the process before
the first bundle; `cache` is what the keys and values of all contexts take of them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.run_speed import random_v2, save


def main() -> None:
    args = parse()
    rows = []
    for rule in args.rules.split(","):
        with tempfile.TemporaryDirectory() as folder:
            make_bundles(Path(folder), rule, args)
            for shared in (False, True):
                fresh = multiprocessing.get_context("spawn")
                with ProcessPoolExecutor(1, mp_context=fresh) as pool:
                    measured = pool.submit(measure, Path(folder), shared, args).result()
                for row in measured:
                    rows.append({"rule": rule, "weights": "shared" if shared else "apart", **row})
                    print(json.dumps(rows[-1]), flush=True)
    save(args, rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rules", default="head,lora")
    parser.add_argument("--counts", default="1,4,16")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--columns", type=int, default=5)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def counts(args: argparse.Namespace) -> list[int]:
    return sorted(map(int, args.counts.split(",")))


def make_bundles(folder: Path, rule: str, args: argparse.Namespace) -> None:
    import pandas as pd
    import torch

    from tttab.bundle import Bundle, save_bundle
    from tttab.data import Origin, schema_of, table_from_frame
    from tttab.models import open_model

    base = open_model(random_v2(), device="cpu").with_members(args.members).fork()
    noise = torch.Generator().manual_seed(0)
    for weight in base.parameters("all"):  # no two alike: a fresh network has many zeros
        weight.data += 1e-4 * torch.randn(weight.shape, generator=noise)
    for number in range(max(counts(args))):
        rng, noise = np.random.default_rng(number), torch.Generator().manual_seed(number)
        x = pd.DataFrame(rng.normal(size=(args.n, args.columns))).add_prefix("c")
        table = table_from_frame(x.assign(y=np.where(x["c0"] > 0, "yes", "no")), Origin("made", "file"))
        session = base.fork()
        for weight in session.parameters("attention" if rule == "lora" else "head"):
            weight.data += 1e-4 * torch.randn(weight.shape, generator=noise)
        save_bundle(folder / f"b{number}", Bundle(session, table.x, table.y, schema_of(table)))


def measure(folder: Path, shared: bool, args: argparse.Namespace) -> list[dict[str, float]]:
    """Return a row per count."""
    import pandas as pd
    import torch

    from tttab.cli.commands.serve import _open
    from tttab.models import open_model
    from tttab.system.resources import keep_freed_memory, resident_bytes

    torch.set_num_threads(args.threads)
    keep_freed_memory()
    warm = open_model("tttab-tiny", device="cpu")  # libraries are loaded before the first reading
    x = np.random.default_rng(0).normal(size=(50, 2))
    frame, y = pd.DataFrame(x).add_prefix("c"), (x[:, 0] > 0).astype(np.int64)
    warm.serve(warm.context(frame, y, 2)).predict(frame)
    before, bundles, weights, rows = resident_bytes(), [], {}, []
    for number in range(max(counts(args))):
        bundles.append(_open(folder / f"b{number}", args.device, weights if shared else {}))
        if len(bundles) in counts(args):
            cache = sum(bundle.server.cache_bytes for bundle in bundles)
            held = {w.data_ptr(): w.nbytes for b in bundles for w in b.session.parameters("all")}
            rows.append(
                {
                    "bundles": len(bundles),
                    "mib": round((resident_bytes() - before) / 2**20),
                    "weights_mib": round(sum(held.values()) / 2**20, 1),
                    "cache_mib": round(cache / 2**20, 1),
                }
            )
    return rows


if __name__ == "__main__":
    main()
