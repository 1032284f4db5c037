"""What a bundle without rows gives away: cells and labels of its context, estimated from keys and values.

Run: python -m benchmarks.cache_rows [--tables 40] [--n 200] [--columns 6]

Whoever has the base model makes tables of their own, caches them with it and learns by ridge regression what
keys and values of the first two layers say of cells and labels. Asked of another table's cache, the line
tells the share of the variance of its standardised cells that is recovered, column by column, and the share
of labels told right. Preprocessing keeps each column's scale and quantiles, so standardised cells are cells.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

LAYERS = (0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=40)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--columns", type=int, default=6)
    args = parser.parse_args()
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score

    from tttab.models import open_model

    session = open_model("tttab-tiny", device="cpu").with_members(1)
    *own, (kept, cells, labels) = (seen(session, seed, args) for seed in range(args.tables + 1))
    x, y, z = (np.concatenate(parts) for parts in zip(*own, strict=True))
    found = r2_score(cells, Ridge(1.0).fit(x, y).predict(kept), multioutput="raw_values")
    right = (Ridge(1.0).fit(x, z).predict(kept) > 0.5) == labels
    print(json.dumps({"cells_r2": [round(float(r), 3) for r in found], "labels_right": float(right.mean())}))


def seen(session, seed: int, args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what a cache holds per row, (n, numbers), and the row's standardised cells and label."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(args.n, 2)) @ rng.normal(size=(2, args.columns))
    x = pd.DataFrame(mixed + rng.normal(size=mixed.shape)).add_prefix("c")
    y = (x["c0"] + rng.normal(size=args.n) > 0).to_numpy().astype(np.int64)
    context = session.context(x, y, 2)
    entries = session.serve(context)._estimator.executor_.kv_caches[0].kv
    parts = [part for layer in LAYERS for part in (entries[layer].key, entries[layer].value)]
    kept = np.concatenate([part[:, :, 0].numpy() for part in parts], axis=-1)  # (columns, n, numbers)
    cells = context.calls[0].context[:, 0].numpy()
    return np.concatenate(list(kept), axis=-1), (cells - cells.mean(0)) / cells.std(0), y


if __name__ == "__main__":
    main()
