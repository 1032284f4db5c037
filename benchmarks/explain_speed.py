"""Seconds of Shapley values from a cached short context, against the same from a long one without a cache.

Run: python -m benchmarks.explain_speed [--rows 100] [--columns 20] [--n 200] [--all 1200] [--background 20]
     [--uncached-rows 5] [--threads 2] [--model tttab-tiny] [--out FILE]

Both sides run in this process, one after the other, through `tttab.explain.shapley`. The uncached side is
tabpfn's own classifier over --all context rows, which reads them anew in every call; its time is measured on
--uncached-rows rows, each of which costs the same, and given for all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.run_speed import save


def main() -> None:
    args = parse()
    import torch

    torch.set_num_threads(args.threads)
    bundle, long, x = prepared(args)
    for side in (bundle, long):  # what is imported and cached on the way is no part of a value's time
        explained(side, x[:1], args)
    cached = explained(bundle, x, args)
    few = x[: args.uncached_rows]
    uncached = explained(long, few, args) * len(x) / len(few)
    row = {
        "rows": args.rows, "columns": args.columns, "background": args.background, "model": args.model,
        "n": args.n, "cached_seconds": round(cached, 1), "all": args.all,
        "uncached_seconds": round(uncached, 1), "uncached_rows": len(few),
        "ratio": round(uncached / cached, 1),
    }  # fmt: skip
    print(json.dumps(row))
    save(args, [row])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--all", type=int, default=1200)
    parser.add_argument("--background", type=int, default=20)
    parser.add_argument("--uncached-rows", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="tttab-tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def prepared(args: argparse.Namespace):
    """Return the bundle of n rows, one like it that answers from all rows uncached, and rows to explain."""
    import pandas as pd

    from tttab.bundle import Bundle
    from tttab.data import Origin, schema_of, table_from_frame
    from tttab.models import open_model

    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(args.all + args.rows, args.columns))).add_prefix("c")
    y = np.where(x["c0"] - x["c1"] + rng.normal(size=len(x)) > 0, "yes", "no")
    table = table_from_frame(x.assign(y=y), Origin("explain", "file"))
    session, schema = open_model(args.model, device=args.device), schema_of(table)
    bundle = Bundle(session, table.x[: args.n], table.y[: args.n], schema)
    long = Bundle(session, table.x[: args.all], table.y[: args.all], schema)
    long._server = Uncached(session, long, args.device)
    return bundle, long, table.x[args.all :].reset_index(drop=True)


class Uncached:
    """tabpfn's classifier without a cache: every call reads the context again."""

    def __init__(self, session, bundle, device: str) -> None:
        import torch
        from tabpfn import TabPFNClassifier

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            session.save(str(path))
            plain = TabPFNClassifier(
                model_path=path, device=device, random_state=0, fit_mode="fit_preprocessors",
                inference_precision=torch.float32, ignore_pretraining_limits=True,
            )  # fmt: skip
            self._fitted = plain.fit(bundle.x, bundle.y)

    def predict(self, x):
        return self._fitted.predict_proba(x)


def explained(bundle, x, args: argparse.Namespace) -> float:
    from tttab.explain.shapley import explain

    start = time.perf_counter()
    done = list(explain(bundle, x, background=args.background))
    assert done[-1] == len(x)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
