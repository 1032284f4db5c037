"""Tables of more classes than a model has outputs: codes, untouched and adapted, and their rivals.

    python -m benchmarks.many_classes TABLE n k steps seed ARM,ARM…

TABLE is `vowel` (KEEL, 11 classes), or made here: `letters` (26 classes, 16 whole numbers from 0 to 15, two
modes a class) or `hundred` (the same, 100 classes). Prints a line per arm: error, log loss, seconds of the
processor to fit and per 1,000 predictions, 300 test rows.
"""

from __future__ import annotations

import sys
import time
import warnings

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tttab import TTTClassifier
from tttab.data.packages import read_packaged
from tttab.data.splits import SplitRequest, split_rows
from tttab.metrics import classification_metrics

MADE = {"letters": (26, 4000, 1.0), "hundred": (100, 6000, 0.6)}
"""Classes, rows and spread."""
FEATURES = 16


def made(name):
    classes, rows, spread = MADE[name]
    rng = np.random.default_rng(0)
    modes = rng.normal(0, 1, (classes, 2, FEATURES))
    mix = rng.normal(0, 1, (classes, FEATURES, FEATURES)) / np.sqrt(FEATURES)
    y, mode = rng.integers(0, classes, rows), rng.integers(0, 2, rows)
    noise = np.einsum("nij,nj->ni", mix[y], rng.normal(0, 1, (rows, FEATURES)))
    x = np.clip(np.round(7.5 + 3 * (modes[y, mode] + spread * noise)), 0, 15)
    return pd.DataFrame(x, columns=[f"f{number}" for number in range(FEATURES)]), y


def table(name):
    if name in MADE:
        return made(name)
    frame = read_packaged(f"keel/balanced/{name}").frame
    return frame.drop(columns="target"), np.unique(frame["target"], return_inverse=True)[1]


def models(n, k, steps, seed):
    own = {"n_queries": k, "steps": steps, "model": "tttab-tiny", "device": "cpu", "random_state": seed}
    return {
        "icl": TTTClassifier(n, **own, rule="none"),
        "ttt": TTTClassifier(n, **own),
        "one-vs-rest": OneVsRestClassifier(TTTClassifier(n, **own)),
        "gbt": HistGradientBoostingClassifier(random_state=seed),
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
    }


def main(name, n, k, steps, seed, arms):
    x, y = table(name)
    split = split_rows(y, SplitRequest(n, k, 300), seed, classes=y.max() + 1)
    known, test = split.free, split.test
    for arm in arms.split(","):
        start = time.process_time()
        model = models(n, k, steps, seed)[arm].fit(x.iloc[known], y[known])
        model.predict_proba(x.iloc[test[:10]])  # builds the cache
        fitted = time.process_time()
        p = model.predict_proba(x.iloc[test])
        asked = (time.process_time() - fitted) / len(test) * 1000
        found = classification_metrics(y[test], p)
        print(
            f"{name} {n}+{split.k} seed {seed} {arm}: error {1 - found['accuracy']:.3f}, log loss "
            f"{found['log_loss']:.3f}, ECE {found['ece']:.3f}, fit {fitted - start:.1f} s, "
            f"1,000 rows {asked:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], *map(int, sys.argv[2:6]), sys.argv[6])
