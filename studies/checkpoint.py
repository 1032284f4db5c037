"""The bundled classifier on real tables, against classical models on the same rows.

    python -m benchmarks.checkpoint --arms logistic,forest,gbt,icl --seeds 5
    python -m benchmarks.checkpoint --arms ttt --sizes 200 --seeds 3
    python -m benchmarks.checkpoint --summary

Rows are appended to `results/checkpoint/packaged/checkpoint.jsonl` as they come; a row that is there is not
measured again. `--tables FOLDER` takes other parquet tables than the package's. Nothing is chosen
on these tables: they are read here and nowhere in `tttab.pretrain`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tttab.core import Table
from tttab.data import load_table
from tttab.data.splits import Split, SplitRequest, split_rows
from tttab.evaluation.arms import Outcome, Trial
from tttab.files import sha256_of
from tttab.metrics import classification_metrics
from tttab.models import open_model

RESULTS = Path(__file__).parent.parent / "results" / "checkpoint" / "packaged" / "checkpoint.jsonl"
PACKAGED = Path(__file__).parent.parent / "tttab" / "data" / "tables"
MODEL = Path(__file__).parent.parent / "tttab" / "models" / "weights" / "tttab-tiny-classifier.safetensors"
SIZES = (50, 100, 200, 500, 1000)
TEST_ROWS = 500
ARMS = ("icl", "logistic", "forest", "gbt", "ttt")
FIGURES = ("accuracy", "roc_auc", "log_loss")


def classical(arm: str, x):
    """Return an unfitted scikit-learn pipeline for the columns of `x`."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    named = [c for c in x.columns if x[c].dtype == "category"]
    numbers = [c for c in x.columns if c not in named]
    if arm == "logistic":
        scaled = make_pipeline(SimpleImputer(), StandardScaler())
        columns = [("n", scaled, numbers), ("c", OneHotEncoder(handle_unknown="ignore"), named)]
        return make_pipeline(ColumnTransformer(columns), LogisticRegression(max_iter=2000))
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    prepared = ColumnTransformer([("n", SimpleImputer(), numbers), ("c", codes, named)])
    if arm == "forest":
        return make_pipeline(prepared, RandomForestClassifier(300, random_state=0))
    return make_pipeline(prepared, HistGradientBoostingClassifier(random_state=0))


def split_for(table: Table, n: int, seed: int) -> Split | None:
    """Return the split: the same test rows for every n, contexts that are prefixes of each other."""
    test = min(TEST_ROWS, len(table) // 4)
    if len(table) - test <= n:
        return None
    request = SplitRequest(n=n, k=1000, test_size=test)
    return split_rows(table.y, request, seed, classes=len(table.classes))


def predict(arm: str, table: Table, split: Split, session) -> np.ndarray:
    """Return probabilities for the test rows, from the context's rows (and for `ttt` the queries)."""
    test = table.x.iloc[split.test]
    context, labels = table.x.iloc[split.context], table.y[split.context]
    if arm == "icl":
        return session.predict(session.context(context, labels, len(table.classes)), test)
    if arm == "ttt":
        unit = Trial(table=table, split=split, session=session, seed=split.seed)
        outcomes = [event for event in unit.run("ttt@n+k") if isinstance(event, Outcome)]
        return outcomes[-1].probabilities
    model = classical(arm, context).fit(context, labels)
    p = np.zeros((len(test), len(table.classes)))
    p[:, model.classes_] = model.predict_proba(test)
    return p


def measure(arguments) -> Iterator[dict]:
    """Yield the rows that the results file lacks."""
    done = {key(row) for row in read(arguments.out)}
    needs_model = {"icl", "ttt"} & set(arguments.arms)
    session = open_model(str(arguments.model), device="cpu") if needs_model else None
    digest = sha256_of(arguments.model)[:12] if needs_model else None
    for seed in range(arguments.seeds):
        for path in sorted(arguments.tables.glob("*.parquet")):
            table = load_table(str(path))
            for n in arguments.sizes:
                split = split_for(table, n, seed)
                for arm in arguments.arms if split else ():
                    model = digest if arm in ("icl", "ttt") else None
                    row = {"table": path.stem, "seed": seed, "n": n, "arm": arm, "model": model}
                    if key(row) in done:
                        continue
                    start = time.perf_counter()
                    p = predict(arm, table, split, session)
                    figures = classification_metrics(table.y[split.test], p)
                    row |= {name: figures[name] for name in FIGURES}
                    yield row | {"k": split.k if arm == "ttt" else 0, "seconds": time.perf_counter() - start}


def key(row: dict) -> tuple:
    """Return what identifies a row."""
    return tuple(row[name] for name in ("table", "seed", "n", "arm", "model"))


def read(path: Path) -> list[dict]:
    """Return the rows measured so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summary(rows: list[dict], model: str) -> str:
    """Return Markdown: accuracy / AUC / log loss of each arm, means over the seeds that all arms have."""
    cells = defaultdict(dict)
    for row in rows:
        if row["model"] in (None, model):
            cells[row["table"], row["n"], row["arm"]][row["seed"]] = [row[name] for name in FIGURES]
    arms = [arm for arm in ARMS if any(place[2] == arm for place in cells)]
    lines = ["| table | n | seeds | " + " | ".join(arms) + " |", "|---|---|---|" + "---|" * len(arms)]
    for table, n in sorted({place[:2] for place in cells}):
        found = {arm: cells.get((table, n, arm), {}) for arm in arms}
        seeds = set.intersection(*(set(values) for values in found.values() if values))
        texts = [
            " / ".join(f"{v:.3f}" for v in np.mean([values[s] for s in seeds], axis=0))
            if values and seeds
            else ""
            for values in found.values()
        ]
        lines.append(f"| {table} | {n} | {len(seeds)} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, or with `--summary` print what is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", default="icl", type=lambda text: text.split(","))
    parser.add_argument("--seeds", default=5, type=int)
    parser.add_argument("--sizes", default=list(SIZES), type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--tables", default=PACKAGED, type=Path)
    parser.add_argument("--model", default=MODEL, type=Path)
    parser.add_argument("--out", default=RESULTS, type=Path)
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    if arguments.summary:
        print(summary(read(arguments.out), sha256_of(arguments.model)[:12]))
        return
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for row in measure(arguments):
        with open(arguments.out, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        print(*(f"{v:.4f}" if isinstance(v, float) else v for v in row.values()), sep="\t", flush=True)


if __name__ == "__main__":
    main()
