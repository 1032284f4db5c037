"""What a step of test-time training costs on TabICL, against tabicl's own fine-tuning on the same rows.

Run: python -m benchmarks.tabicl_speed [--tables banana,spambase] [--model random] [--threads 1] [--members 2]

(a) one step of the rule `full` on n = 200, k = 800 against one epoch of `FinetunedTabICLClassifier` on the
    same 1,000 rows, in float32, with the same number of ensemble members and the same file. An epoch's time
    is the difference of a fit with four epochs and a fit with one, over three, so that set-up and the final
    fit of both cancel; once as the class runs by default, scoring its validation rows after every epoch, and
    once without that. Memory is the largest resident size during training above the size just before it.
(b) the same step of the rules `last-layers:2` and `head`, whose frozen layers run once and not in every step.
With `--clock cpu` seconds are those that the process had a core: a busy machine's wall clock tells nothing.
Each measurement is a process of its own; the two sides of a ratio alternate and the median is shown. `random`
is a file of TabICL v2's size with random weights: the arithmetic is that of the trained one; `random-half`
has half its width and half its in-context layers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.run_speed import Peak, in_a_process, measured, median, synchronize, timed, timed_steps

V2 = {
    "max_classes": 10,
    "bias_free_ln": True,
    "row_rope_interleaved": False,
    "zero_init": False,
}
"""tabicl's defaults are TabICL v2's sizes."""
RANDOM = {"random": V2, "random-half": V2 | {"embed_dim": 64, "icl_num_blocks": 6}}
TABLES = "banana,phoneme,segment,contraceptive,titanic,satimage"


def main() -> None:
    args = parse()
    if args.worker:
        print(json.dumps({"step": time_step, "epoch": time_epoch}[args.worker](args)))
        return
    rows = measured("tabicl_speed", args, measure, line, members=args.members)
    print(f"medians: step {median(rows, 'time_ratio'):.2f}x faster than an epoch, "
          f"{median(rows, 'bare_ratio'):.2f}x than one without validation, "
          f"memory {median(rows, 'memory_ratio'):.2f} of its, "
          f"last-layers:2 {median(rows, 'late_ratio'):.2f}x, "
          f"head {median(rows, 'head_ratio'):.0f}x faster")  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", default=TABLES)
    parser.add_argument("--model", default="random", help="a known name, a file, `random` or `random-half`")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--members", type=int, default=2, help="of both sides; tabicl's own number is 2")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--chunk", type=int, default=0, help="query rows at a time; 0: as preferred")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--label", default="cpu")
    parser.add_argument("--out")
    parser.add_argument("--worker", choices=["step", "epoch"])
    parser.add_argument("--rule", default="full")
    parser.add_argument("--table")
    return parser.parse_args()


def measure(table: str, args: argparse.Namespace) -> dict[str, float]:
    pairs = [(run_worker("step", table, args), run_worker("epoch", table, args)) for _ in range(args.repeats)]
    late, head = (run_worker("step", table, args, rule) for rule in ("last-layers:2", "head"))

    def middle(of):
        return statistics.median(of(step, epoch) for step, epoch in pairs)

    return {
        "step_s": middle(lambda s, e: s["seconds"]),
        "epoch_s": middle(lambda s, e: e["validated_seconds"]),
        "step_mb": middle(lambda s, e: s["megabytes"]),
        "epoch_mb": middle(lambda s, e: e["megabytes"]),
        "time_ratio": middle(lambda s, e: e["validated_seconds"] / s["seconds"]),
        "bare_ratio": middle(lambda s, e: e["seconds"] / s["seconds"]),
        "memory_ratio": middle(lambda s, e: s["megabytes"] / e["megabytes"]),
        "late_ratio": middle(lambda s, e: e["validated_seconds"] / late["seconds"]),
        "head_ratio": middle(lambda s, e: e["validated_seconds"] / head["seconds"]),
    }


def run_worker(kind: str, table: str, args: argparse.Namespace, rule: str = "full") -> dict[str, float]:
    names = ("model", "device", "threads", "members", "chunk", "clock")
    return in_a_process("tabicl_speed", args, names, "--worker", kind, "--table", table, "--rule", rule)


def unit(args: argparse.Namespace):
    """Return (session, classes, context rows, query rows)."""
    from tttab.data import load_table
    from tttab.data.splits import SplitRequest, split_rows
    from tttab.models import open_model

    table = load_table(args.table)
    split = split_rows(table.y, SplitRequest(n=200, k=800, test_size=200), 0, classes=len(table.classes))
    model = random_file(args.model) if args.model in RANDOM else args.model
    session = open_model(model, device=args.device, members=args.members)
    parts = [(table.x.iloc[which], table.y[which]) for which in (split.context, split.queries)]
    return session, len(table.classes), *parts


def time_step(args: argparse.Namespace) -> dict[str, float]:
    """One AdamW step over all 800 queries; preprocessing and frozen layers were run once before."""
    from tttab.contracts import Execution
    from tttab.rules import get_rule

    session, classes, context_rows, query_rows = unit(args)
    fork = session.fork()
    context = fork.context(*context_rows, classes)
    parameters = get_rule(args.rule).parameters(fork)
    for parameter in parameters:
        parameter.requires_grad_(True)
    how = Execution(args.chunk or fork.cost_model.preferred_chunk(context))
    queries = fork.cost_model.frozen_features(context, fork.queries(context, *query_rows), how)
    return timed_steps(args.device, fork, (context, queries, how), parameters, 3, args.clock)


def time_epoch(args: argparse.Namespace) -> dict[str, float]:
    """tabicl's own fine-tuning: (fit with four epochs - fit with one) / 3."""
    import warnings

    import pandas as pd
    from tabicl import FinetunedTabICLClassifier

    from tttab.models import resolve

    warnings.simplefilter("ignore")
    session, _, (x_context, y_context), (x_query, y_query) = unit(args)
    del session
    x, y = pd.concat([x_context, x_query]), [*y_context, *y_query]
    path = random_file(args.model) if args.model in RANDOM else resolve(args.model, "classification").path

    class Bare(FinetunedTabICLClassifier):
        """Without a look at the validation rows."""

        def _run_validation(self, *_):
            from tabicl._finetune.base import ValidationMetrics

            return ValidationMetrics(0.0)

    def fit(kind, epochs):
        model = kind(
            model_path=path, device=args.device, epochs=epochs, early_stopping=False, amp=False,
            n_estimators_finetune=args.members, n_estimators_validation=args.members,
            n_estimators_inference=args.members,
        )  # fmt: skip

        def work():
            model.fit(x, y)
            synchronize(args.device)

        return timed(work, args.clock)

    with Peak(args.device) as peak:
        fit(Bare, 1)  # the first fit of a process pays for much that later ones do not
        bare = fit(Bare, 4) - fit(Bare, 1)
    validated = fit(FinetunedTabICLClassifier, 4) - fit(FinetunedTabICLClassifier, 1)
    return {
        "seconds": max(1e-6, bare / 3),
        "validated_seconds": max(1e-6, validated / 3),
        "megabytes": peak.megabytes,
    }


def random_file(name: str) -> str:
    """Write a checkpoint with random weights, once, and return its path."""
    import torch
    from tabicl._model.tabicl import TabICL

    path = Path(tempfile.gettempdir()) / f"tttab-{name}-tabicl.ckpt"
    if not path.exists():
        torch.manual_seed(0)
        torch.save({"config": RANDOM[name], "state_dict": TabICL(**RANDOM[name]).state_dict()}, path)
    return str(path)


def line(row: dict) -> str:
    return (
        f"{row['table']:14} step {row['step_s']:7.3f} s  epoch {row['epoch_s']:7.3f} s  "
        f"x{row['time_ratio']:5.2f} (x{row['bare_ratio']:.2f} without validation)   "
        f"{row['step_mb']:7.0f} MB / {row['epoch_mb']:7.0f} MB = {row['memory_ratio']:.2f}   "
        f"last-layers:2 x{row['late_ratio']:.1f}, head x{row['head_ratio']:.0f}"
    )


if __name__ == "__main__":
    main()
