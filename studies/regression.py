"""The bundled regressor against ridge regression and a random forest on the same rows.

    python -m benchmarks.checkpoint_regression

Data: scikit-learn's diabetes table (442 rows, Efron et al. 2004) and Friedman's three functions
(Friedman 1991; noise 1, 1 and 0.1 standard deviations as scikit-learn scales them). R2 on 150 test
rows, mean over 5 seeds, printed as Markdown and written to `results/checkpoint/regression/`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_diabetes, make_friedman1, make_friedman2, make_friedman3
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tabpfn import TabPFNRegressor

from tttab.files import sha256_of, write_text_atomically
from tttab.seeding import numpy_stream

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "tttab" / "models" / "weights" / "tttab-tiny-regressor.safetensors"
RESULTS = ROOT / "results" / "checkpoint" / "regression" / "checkpoint_regression.jsonl"
TEST_ROWS, SEEDS, SIZES = 150, 5, (50, 200)
CONTEXT_POLICIES = {
    "diabetes": lambda seed: load_diabetes(return_X_y=True),
    "friedman1": lambda seed: make_friedman1(500, noise=1.0, random_state=seed),
    "friedman2": lambda seed: make_friedman2(500, noise=1.0, random_state=seed),
    "friedman3": lambda seed: make_friedman3(500, noise=0.1, random_state=seed),
}


def models() -> dict:
    """Return unfitted rivals by name."""
    return {
        "icl": TabPFNRegressor(
            model_path=MODEL, device="cpu", inference_precision=torch.float32, random_state=0
        ),
        "ridge": make_pipeline(StandardScaler(), Ridge()),
        "forest": RandomForestRegressor(300, random_state=0),
    }


def main() -> None:
    """Measure and print."""
    rows, digest = [], sha256_of(MODEL)[:12]
    for seed in range(SEEDS):
        for name, source in CONTEXT_POLICIES.items():
            x, y = source(seed)
            order = numpy_stream(seed, "regression", name).permutation(len(y))
            test, rest = order[:TEST_ROWS], order[TEST_ROWS:]
            for n in SIZES:
                for arm, model in models().items():
                    guess = model.fit(x[rest[:n]], y[rest[:n]]).predict(x[test])
                    row = {"table": name, "seed": seed, "n": n, "arm": arm, "model": digest}
                    rows.append(row | {"r2": float(r2_score(y[test], guess))})
    write_text_atomically(RESULTS, "".join(json.dumps(row) + "\n" for row in rows))
    cells = defaultdict(list)
    for row in rows:
        cells[row["table"], row["n"], row["arm"]].append(row["r2"])
    print("| table | n | icl | ridge | forest |\n|---|---|---|---|---|")
    for name in CONTEXT_POLICIES:
        for n in SIZES:
            texts = (f"{np.mean(cells[name, n, arm]):.3f}" for arm in ("icl", "ridge", "forest"))
            print(f"| {name} | {n} | " + " | ".join(texts) + " |")


if __name__ == "__main__":
    main()
