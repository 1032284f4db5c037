"""What test-time training costs, against tabpfn's own fine-tuning, and what serving a short context saves.

Run: python -m benchmarks.run_speed [--tables banana,spambase] [--device cpu] [--threads 2] [--out FOLDER]
     [--model tttab-tiny] [--precision fp32] [--k 800]

(a) one TTT step on n = 200, k = 800 against one epoch of `FinetunedTabPFNClassifier` on the same 1,000
    rows, one ensemble member, float32, the same model file. An epoch's time is the difference of a fit with
    seven epochs and a fit with two, over five, so that set-up and the final fit of both cancel; once as the
    class runs by default, scoring its validation rows after every epoch, and once without that. Memory is
    the largest resident size during training above the size just before it.
(b) predicting 1,000 rows after TTT (n = 200, cached) against all 1,200 rows as context, cached and not,
    with as many members as the file asks for.
Each measurement is a process of its own; the two sides of a ratio alternate and the median is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

TABLES = ("banana", "phoneme", "spambase", "satimage", "segment", "contraceptive", "titanic", "twonorm")


def main() -> None:
    args = parse()
    if args.worker:
        print(json.dumps(WORKERS[args.worker](args)))
        return
    rows = measured("run_speed", args, measure, line)
    print(f"medians: step {median(rows, 'time_ratio'):.2f}x faster than an epoch, "
          f"{median(rows, 'time_ratio_unvalidated'):.2f}x than one without validation, "
          f"memory {median(rows, 'memory_ratio'):.2f} of its, "
          f"serving {median(rows, 'serve_ratio_cached'):.2f}x faster than cached, "
          f"{median(rows, 'serve_ratio_uncached'):.2f}x than uncached")  # fmt: skip


def measured(name: str, args: argparse.Namespace, measure, line, **about: object) -> list[dict]:
    """Measure each table and print its line; write all of them where `--out` says."""
    rows = []
    for table in args.tables.split(","):
        rows.append({"table": table, **measure(table, args)})
        print(line(rows[-1]), flush=True)
    report = {"machine": machine(args), "model": args.model, **about, "rows": rows}
    if args.out:
        Path(args.out).mkdir(parents=True, exist_ok=True)
        (Path(args.out) / f"{name}_{args.label}.json").write_text(json.dumps(report, indent=1) + "\n")
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--model", default="tttab-tiny", help="a known name, a file, or `random-v2`")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chunk", type=int, default=0, help="query rows at a time; 0: as the plan chooses")
    parser.add_argument("--k", type=int, default=800, help="query rows of a step")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of both trainings")
    parser.add_argument("--label", default="cpu")
    parser.add_argument("--out")
    parser.add_argument("--worker", choices=["step", "epoch", "serve"])
    parser.add_argument("--table")
    return parser.parse_args()


def measure(table: str, args: argparse.Namespace) -> dict[str, float]:
    step, epoch = [], []
    for _ in range(args.repeats):
        step.append(run_worker("step", table, args))
        epoch.append(run_worker("epoch", table, args))
    serve = run_worker("serve", table, args)
    result = {
        "step_s": statistics.median(r["seconds"] for r in step),
        "epoch_s": statistics.median(r["validated_seconds"] for r in epoch),
        "step_mb": statistics.median(r["megabytes"] for r in step),
        "epoch_mb": statistics.median(r["megabytes"] for r in epoch),
        "time_ratio": statistics.median(
            e["validated_seconds"] / s["seconds"] for s, e in zip(step, epoch, strict=True)
        ),
        "time_ratio_unvalidated": statistics.median(
            e["seconds"] / s["seconds"] for s, e in zip(step, epoch, strict=True)
        ),
        "memory_ratio": statistics.median(
            s["megabytes"] / e["megabytes"] for s, e in zip(step, epoch, strict=True)
        ),
    }
    return result | serve


def run_worker(kind: str, table: str, args: argparse.Namespace) -> dict[str, float]:
    names = ("model", "device", "threads", "chunk", "repeats", "k", "precision")
    return in_a_process("run_speed", args, names, "--worker", kind, "--table", table)


def in_a_process(
    module: str, args: argparse.Namespace, names: tuple[str, ...], *words: str
) -> dict[str, float]:
    """Run a worker of a benchmark with the arguments called `names`; return what it prints last."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *words]
    for name in names:
        command += [f"--{name}", str(getattr(args, name))]
    env = os.environ | {
        "OMP_NUM_THREADS": str(args.threads),
        "HF_HUB_OFFLINE": "1",
        "TABPFN_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def unit(args: argparse.Namespace, n: int, k: int):
    """Return the opened session and the rows of one split, model tensors in memory."""
    from tttab.data import load_table
    from tttab.data.splits import SplitRequest, split_rows
    from tttab.models import open_model

    table = load_table(args.table)
    split = split_rows(table.y, SplitRequest(n=n, k=k, test_size=200), 0, classes=len(table.classes))
    model = random_v2() if args.model == "random-v2" else args.model
    session = open_model(model, device=args.device)

    def rows(which):
        return table.x.iloc[which], table.y[which]

    return session, len(table.classes), rows(split.context), rows(split.queries), rows(split.test)


def time_step(args: argparse.Namespace) -> dict[str, float]:
    """One AdamW step over all 800 queries, exact micro-batches; preprocessing was done once before."""
    from tttab.contracts import Execution

    session, classes, context_rows, query_rows, _ = unit(args, 200, args.k)
    session._weights.inference_config.N_ESTIMATORS = 1  # as the other side is told
    fork = session.fork()
    context = fork.context(*context_rows, classes)
    queries = fork.queries(context, *query_rows)
    parameters = list(fork.module.requires_grad_(True).parameters())
    how = Execution(args.chunk or fork.cost_model.preferred_chunk(context), precision=args.precision)
    return timed_steps(args.device, fork, (context, queries, how), parameters, 5)


def timed_steps(
    device: str, fork, prepared: tuple, parameters: list, count: int, clock: str = "wall"
) -> dict[str, float]:
    """Return the mean seconds of `count` AdamW steps after one, and their memory."""
    import numpy as np
    import torch

    (context, queries, how), optimizer = prepared, torch.optim.AdamW(parameters, lr=1e-5)

    def step():
        optimizer.zero_grad(set_to_none=True)
        fork.accumulate_gradients(context, queries, np.arange(len(queries)), 1 / len(queries), how)
        optimizer.step()
        synchronize(device)

    with Peak(device) as peak:
        step()  # warms up, as the first epochs of the other side do
        seconds = statistics.mean(timed(step, clock) for _ in range(count))
    return {"seconds": seconds, "megabytes": peak.megabytes}


def time_epoch(args: argparse.Namespace) -> dict[str, float]:
    """tabpfn's own fine-tuning: (fit with seven epochs - fit with two) / 5."""
    import warnings

    import numpy as np
    import torch
    from tabpfn.finetuning import FinetunedTabPFNClassifier

    from tttab.models import resolve

    warnings.simplefilter("ignore")
    _, _, (x_context, y_context), (x_query, y_query), _ = unit(args, 200, args.k)
    x = np.concatenate([x_context.to_numpy(), x_query.to_numpy()])
    y = np.concatenate([y_context, y_query])
    path = random_v2() if args.model == "random-v2" else str(resolve(args.model, "classification")[0])

    def fit(epochs, validation_frequency):
        model = FinetunedTabPFNClassifier(
            device=args.device,
            epochs=epochs,
            early_stopping=False,
            validation_frequency=validation_frequency,
            n_estimators_finetune=1,
            n_estimators_validation=1,
            n_estimators_final_inference=1,
            save_checkpoint_interval=None,
            extra_classifier_kwargs={
                "model_path": path,
                "ignore_pretraining_limits": True,
                # By itself it takes bf16 on some processors; on a GPU it trains in fp16 whatever this says.
                "inference_precision": torch.float32 if args.precision == "fp32" else "auto",
            },
        )
        start = time.perf_counter()
        model.fit(x, y)
        synchronize(args.device)
        return time.perf_counter() - start

    with Peak(args.device) as peak:
        fit(1, 1000)  # the first fit of a process pays for much that later ones do not
        bare = fit(7, 1000) - fit(2, 1000)
    return {
        "seconds": max(1e-6, bare / 5),
        "validated_seconds": max(1e-6, (fit(7, 1) - fit(2, 1)) / 5),
        "megabytes": peak.megabytes,
    }


def time_serving(args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds for 1,000 rows: context of 200 cached, context of 1,200 cached and uncached."""
    import numpy as np
    import pandas as pd

    session, classes, (x_context, y_context), (x_query, y_query), (x_test, _) = unit(args, 200, args.k + 200)
    x_all = pd.concat([x_context, x_query])
    y_all = np.concatenate([y_context, y_query])
    rows = x_test.iloc[np.resize(np.arange(len(x_test)), 1000)].reset_index(drop=True)
    short = session.serve(session.context(x_context, y_context, classes))
    whole = session.context(x_all, y_all, classes)
    cached = session.serve(whole)
    ms = {
        "ttt_cached_ms": 1000 * min(timed(lambda: short.predict(rows)) for _ in range(3)),
        "icl_cached_ms": 1000 * min(timed(lambda: cached.predict(rows)) for _ in range(3)),
        "icl_uncached_ms": 1000 * min(timed(lambda: whole.estimator.predict_proba(rows)) for _ in range(3)),
    }
    return ms | {
        "context_rows": len(y_all),
        "serve_ratio_cached": ms["icl_cached_ms"] / ms["ttt_cached_ms"],
        "serve_ratio_uncached": ms["icl_uncached_ms"] / ms["ttt_cached_ms"],
    }


WORKERS = {"step": time_step, "epoch": time_epoch, "serve": time_serving}


class Peak:
    """The largest memory during a block above what was held before it: RSS, or the GPU allocator's count."""

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")

    def __enter__(self) -> Peak:
        import psutil
        import torch

        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
            return self
        self._process = psutil.Process()
        self._before = self._largest = self._process.memory_info().rss
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self._largest = max(self._largest, self._process.memory_info().rss)

    def __exit__(self, *error: object) -> None:
        import torch

        if self._cuda:
            largest = torch.cuda.max_memory_allocated()
        else:
            self._done.set()
            self._watcher.join()
            largest = self._largest
        self.megabytes = max(1.0, (largest - self._before) / 1e6)


def random_v2() -> str:
    """Write a checkpoint of TabPFN v2's size with random weights, once, and return its path."""
    import dataclasses
    import tempfile

    import torch
    from tabpfn.architectures.tabpfn_v2 import TabPFNV2Config, get_architecture
    from tabpfn.inference_config import InferenceConfig

    from tttab.models.tabpfn.checkpoint import write_checkpoint

    path = Path(tempfile.gettempdir()) / "tttab-random-classifier.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        config = TabPFNV2Config(max_num_classes=10, num_buckets=-1)
        module = get_architecture(config)
        inference = dataclasses.replace(InferenceConfig.get_default("multiclass", "v2"), N_ESTIMATORS=1)
        write_checkpoint(path, module.state_dict(), dataclasses.asdict(config), inference)
    return str(path)


def timed(work, clock: str = "wall") -> float:
    now = time.process_time if clock == "cpu" else time.perf_counter
    start = now()
    work()
    return now() - start


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def median(rows: list[dict], name: str) -> float:
    return statistics.median(row[name] for row in rows)


def line(row: dict) -> str:
    return (
        f"{row['table']:14} step {row['step_s']:7.3f} s  epoch {row['epoch_s']:7.3f} s  "
        f"x{row['time_ratio']:5.2f} (x{row['time_ratio_unvalidated']:.2f} without validation)   "
        f"{row['step_mb']:7.0f} MB / {row['epoch_mb']:7.0f} MB = {row['memory_ratio']:.2f}   "
        f"serve {row['ttt_cached_ms']:6.1f} ms, icl@{row['context_rows']} "
        f"cached x{row['serve_ratio_cached']:.2f}, "
        f"uncached x{row['serve_ratio_uncached']:.2f}"
    )


def save(args: argparse.Namespace, rows: list[dict]) -> None:
    """Write the rows, and on which machine they were measured, where `--out` says."""
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"machine": machine(args), "rows": rows}, indent=1) + "\n")


def machine(args: argparse.Namespace) -> dict[str, object]:
    import torch

    name = torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.processor()
    return {"device": name or platform.machine(), "threads": args.threads, "torch": torch.__version__,
            "python": platform.python_version()}  # fmt: skip


if __name__ == "__main__":
    main()
