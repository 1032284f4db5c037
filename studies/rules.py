"""Every rule and optimiser on the bundled tables: what training gains, what it costs and whom it harms.

Run:     python -m benchmarks.rules --out FOLDER [--device cuda] [--jobs 14] [--seeds 5] [--tables a,b]
Again:   the same command goes on where it was stopped; finished cells are never run twice.
Tables:  python -m benchmarks.rules --out FOLDER --summary

A cell is (table, seed, n, arm) with k = min(1000, what is left). One adaptation records the weights
that every guard would keep, and the test rows judge them only afterwards. Rows of `rules.jsonl` are
written by the parent process alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import sys
import time
import warnings
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

TABLES = (
    "banana",
    "contraceptive",
    "credit-g",
    "phoneme",
    "satimage",
    "segment",
    "spambase",
    "titanic",
    "twonorm",
)
SIZES = (200, 100)
RULES = ("full", "head", "attention", "last-layers:2", "lora", "temperature")
OPTIMIZERS = ("sgd-1", "adamw")
GUARDS = ("loss", "loss+ece", "off")
BASES = ("icl@n", "icl@n+k")
CONTEXTS = ("random", "kcenter", "nearest")
FINETUNED = "finetuned@n+k"
VARIANTS = {
    "full+adamw redraw": ("full", {"split": "redraw"}),
    "full+adamw kfold": ("full", {"split": "kfold"}),
    "full+adamw cold": ("full", {"init": "random"}),
    "full+adamw lr 1e-4": ("full", {"lr": 1e-4}),
    "full+adamw lr 1e-3": ("full", {"lr": 1e-3}),
    "full+sgd-1 kfold": ("full", {"split": "kfold", "optimizer": "sgd-1"}),
}
PHASES = (
    (*BASES, *(f"{rule}+{optimiser}" for rule in RULES for optimiser in OPTIMIZERS)),
    (FINETUNED,),
    (*(f"icl@n {context}" for context in CONTEXTS), *VARIANTS),
)
FINETUNE_SECONDS = 30


def main() -> None:
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    store = args.out / "rules.jsonl"
    if not args.summary:
        run_all(args, store)
    from benchmarks.rules_summary import summary

    text = summary(read(store))
    (args.out / "rules.md").write_text(text)
    print(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default="tttab-tiny")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument(
        "--phases", type=int, default=len(PHASES), help="1: rules; 2: fine-tuning too; 3: variants too"
    )
    parser.add_argument("--steps", type=int, default=50, help="steps of adamw")
    parser.add_argument("--test-size", type=int, help="test rows at most [default: tttab's own]")
    parser.add_argument(
        "--apart", action="store_true", help="a process per cell: what memory it needs comes out clean"
    )
    parser.add_argument("--minutes", type=float, default=1e9, help="start no new cell after this")
    parser.add_argument("--summary", action="store_true", help="only make the tables of what is there")
    return parser.parse_args()


def read(store: Path) -> list[dict]:
    """Return the finished rows; a line that was cut short is left out."""
    rows = []
    for line in store.read_text().splitlines() if store.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def run_all(args: argparse.Namespace, store: Path) -> None:
    done = {key(row) for row in read(store)}
    deadline = time.time() + 60 * args.minutes
    work = [
        Trial(table, seed, n, arms, args, deadline)
        for phase in PHASES[: args.phases]
        for seed in range(args.seeds)
        for n in map(int, args.sizes.split(","))
        for table in args.tables.split(",")
        for share in ([[arm] for arm in phase] if args.apart else [phase])
        if (arms := [arm for arm in share if (table, seed, n, arm) not in done])
    ]
    start, cells, finished = time.time(), sum(len(unit.arms) for unit in work), 0
    context = multiprocessing.get_context("spawn")
    once = 1 if args.apart else None
    workers = ProcessPoolExecutor(
        args.jobs, context, initializer=prepare, initargs=(os.getpid(),), max_tasks_per_child=once
    )
    with store.open("a") as file, workers as pool:
        waiting = {pool.submit(run_unit, unit) for unit in work}
        while waiting:
            ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                rows = future.result()
                file.writelines(json.dumps(row) + "\n" for row in rows)
                finished += len(rows)
            file.flush()
            spent = time.time() - start
            left = spent * (cells - finished) / max(1, finished)
            print(f"{finished}/{cells} cells, {spent:.0f} s, {left:.0f} s left", file=sys.stderr, flush=True)


def key(row: dict) -> tuple:
    return row["table"], row["seed"], row["n"], row["arm"]


def prepare(parent: int) -> None:
    """Give each worker one thread, and an end when the command that started it is killed; quiet tabpfn."""
    from tttab.bench.executors import end_with

    end_with(parent)
    os.environ.update(TABPFN_DISABLE_TELEMETRY="1", TABPFN_NO_BROWSER="1", HF_HUB_OFFLINE="1")
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)


_sessions: dict = {}


def open_once(model: str, device: str):
    from tttab.models import open_model

    if (model, device) not in _sessions:
        _sessions[model, device] = open_model(model, device=device)
    return _sessions[model, device]


@dataclass(frozen=True)
class Trial:
    """One (table, seed, n) and the arms that are still to be run on it."""

    table: str
    seed: int
    n: int
    arms: list[str]
    args: argparse.Namespace
    deadline: float


def run_unit(unit: Trial) -> list[dict]:
    """Run the arms until the deadline; a failed cell says why."""
    from tttab.data import load_table
    from tttab.data.splits import SplitRequest, split_rows

    if time.time() > unit.deadline:
        return []
    args = unit.args
    table, session = load_table(unit.table), open_once(args.model, args.device)
    request = SplitRequest(unit.n, 1000, args.test_size and min(args.test_size, len(table) // 4))
    split = split_rows(table.y, request, unit.seed, classes=len(table.classes))
    bench = Bench(table, split, session, args, unit.seed)
    common = {
        "table": unit.table, "seed": unit.seed, "n": unit.n, "k": split.k, "test": len(split.test),
        "steps": args.steps, "model": session.info.file, "sha256": session.info.sha256,
        "machine": machine(session.device),
    }  # fmt: skip
    rows = []
    for arm in unit.arms:
        if time.time() > unit.deadline:
            break
        start = time.perf_counter()
        row = {**common, "arm": arm}
        try:
            row |= bench.run(arm)
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"[:300]
        rows.append(row | {"seconds": round(time.perf_counter() - start, 3)})
    return rows


def machine(device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, one thread of {os.cpu_count()} cores"


class Bench:
    """One table under one split: the arms share what is prepared."""

    def __init__(self, table, split, session, args, seed) -> None:
        self.table, self.split, self.session, self.args, self.seed = table, split, session, args, seed
        self._ready: dict = {}

    def rows(self, which):
        return self.table.x.iloc[which], self.table.y[which]

    def context(self, name: str, which):
        """Return a prepared context and the test rows under it."""
        if name not in self._ready:
            context = self.session.context(*self.rows(which), len(self.table.classes))
            self._ready[name] = context, self.session.queries(context, *self.rows(self.split.test))
        return self._ready[name]

    def run(self, arm: str) -> dict:
        if arm == FINETUNED:
            return self.finetuned()
        if arm.startswith("icl@"):
            return self.icl(arm)
        if arm in VARIANTS:
            rule, schedule = VARIANTS[arm]
            return self.adapt(rule, schedule)
        rule, optimiser = arm.split("+")
        return self.adapt(rule, {"optimizer": optimiser})

    def icl(self, arm: str) -> dict:
        from tttab.data.context_selection import choose_context

        which = self.split.context
        if arm == "icl@n+k":
            import numpy as np

            which = np.concatenate([self.split.context, self.split.queries])
        elif arm != "icl@n":
            chosen = choose_context(
                self.split, arm.split()[1], self.table.x, self.table.y, classes=len(self.table.classes)
            )
            which = chosen.context
        return {"metrics": self.judge(self.session, *self.context(arm, which))}

    def adapt(self, rule: str, schedule: dict) -> dict:
        from tttab.rules import get_rule
        from tttab.training.config import Schedule
        from tttab.training.loop import Adaptation

        context, test = self.context("icl@n", self.split.context)
        peak = Peak(self.session.device, self.args.apart)
        run = Adaptation(
            self.session, get_rule(rule), context, self.rows(self.split.queries),
            Schedule(**{"steps": self.args.steps, "guard": "loss", "precision": "fp32"} | schedule),
            self.seed, others=GUARDS[1:],
        )  # fmt: skip
        for _ in run:
            pass
        rise = peak.rise()
        result = run.result
        judged = self.judge(result.session, context, test)
        kept = {
            name: judged if same_weights(other, result.session) else self.judge(other, context, test)
            for name, other in result.others.items()
        }
        return {
            "rule": rule,
            "schedule": schedule,
            "metrics": judged,
            "guards": {"loss": judged, **kept},
            "held_out": [result.before, result.after, result.ece_before, result.ece_after],
            "step": result.step,
            "size": result.size,
            "vetoed": len(result.vetoed),
            "stopped": result.stopped,
            "adapt_seconds": round(result.seconds, 3),
            "rise_bytes": rise,
            "chunk": result.plan.chunk,
        }

    def finetuned(self) -> dict:
        """tabpfn's own fine-tuning on all n + k rows, its defaults, the same file."""
        import numpy as np
        from tabpfn.constants import ModelVersion
        from tabpfn.finetuning import FinetunedTabPFNClassifier

        from tttab.metrics import classification_metrics
        from tttab.models.catalog import resolve

        path, _ = resolve(self.args.model, "classification")
        settings = {"model_path": path, "ignore_pretraining_limits": True}
        model = FinetunedTabPFNClassifier(
            device=str(self.session.device), random_state=self.seed, time_limit=FINETUNE_SECONDS,
            model_version=ModelVersion.V2, extra_classifier_kwargs=settings,
        )  # fmt: skip
        peak = Peak(self.session.device, self.args.apart)
        x, y = self.rows(np.concatenate([self.split.context, self.split.queries]))
        start = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            model.fit(x, y)
        seconds, rise = time.perf_counter() - start, peak.rise()
        x_test, y_test = self.rows(self.split.test)
        metrics = classification_metrics(y_test, model.predict_proba(x_test))
        return {"metrics": metrics, "adapt_seconds": round(seconds, 3), "rise_bytes": rise}

    def judge(self, session, context, test) -> dict:
        """Return the figures of merit on the test rows; what is computed is what is served."""
        import numpy as np
        import torch

        from tttab.metrics import classification_metrics

        with torch.no_grad():
            parts = [
                session.log_probabilities(context, test, rows).exp().cpu().numpy()
                for rows in np.array_split(np.arange(len(test)), -(-len(test) // 500))
            ]
        return classification_metrics(test.y.cpu().numpy(), np.concatenate(parts))


def same_weights(one, other) -> bool:
    import torch

    pairs = zip(one.module.parameters(), other.module.parameters(), strict=True)
    return one.temperature == other.temperature and all(torch.equal(a, b) for a, b in pairs)


class Peak:
    """How far memory rises from when it was made: tensors on a GPU, else the process's resident size.

    A process keeps what earlier cells freed, so resident size tells of a cell only in a process of its own.
    """

    def __init__(self, device, apart: bool) -> None:
        import torch

        from tttab.resources import resident_bytes

        self.device, self.apart = device, apart
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)
        else:
            with contextlib.suppress(OSError):  # Linux: the peak starts anew
                Path("/proc/self/clear_refs").write_text("5")
            self.before = resident_bytes()

    def rise(self) -> int | None:
        import torch

        from tttab.resources import peak_resident_bytes

        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.before
        return peak_resident_bytes() - self.before if self.apart else None


if __name__ == "__main__":
    main()
