"""What the laws of K-fold, unlabelled rows and softmax attention save over simulating: ratios of one run.

    python -m benchmarks.theory_laws --out results/speed

Times are the process's own seconds. A law's first call may derive its polynomial (`first_seconds`); a later
one is what a further point costs. A simulation is taken to a standard error of one hundredth of what it
measures, by the measured one and its trials. Writes `theory_laws_cpu.json`.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tttab.system.files import write_text_atomically
from tttab.theory.linear_attention import unlabelled
from tttab.theory.linear_attention.covariances import covariance_family
from tttab.theory.linear_attention.fold_trials import measure_folds
from tttab.theory.linear_attention.folds import Folds, one_step
from tttab.theory.linear_attention.head_trials import Case, measure_case
from tttab.theory.linear_attention.heads import Head
from tttab.theory.linear_attention.measure import Measured
from tttab.theory.linear_attention.problem import LinearProblem, pretrained_weights
from tttab.theory.linear_attention.settings import Backend, Sampling

ACCURACY = 0.01
REPEATS = 20


def main() -> None:
    """Time every law and its simulation, and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--d", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [_row(*case, options.trials) for case in cases(options.d, options.trials, options.seed)]
    machine = {"machine": platform.machine(), "torch": torch.__version__, "threads": 1}
    document = {**machine, "d": options.d, "accuracy": ACCURACY, "seed": options.seed, "rows": rows}
    for row in rows:
        print("\t".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    options.out.mkdir(parents=True, exist_ok=True)
    write_text_atomically(options.out / "theory_laws_cpu.json", json.dumps(document, indent=2) + "\n")


def cases(d: int, trials: int, seed: int) -> list[tuple[str, Callable[[], float], Callable[[], Measured]]]:
    """Return (name, law, simulation) of every law."""
    sampling = Sampling(trials, seed, sampler="vectors")
    folds, split = (Folds(d, 5, max(1, 4 * d // 5), scheme) for scheme in ("leave", "inverse"))
    single = Sampling(trials, seed, Backend(dtype="float32"))
    family = covariance_family("power-law", d, seed)
    weights = pretrained_weights(family.covariance, family.prior, d, 0.0)
    problem = LinearProblem(family.task(0.5), weights, family.covariance, d, 2 * d, 0.0)
    m, head = 4 * d, Head(0.5)
    whitened = unlabelled.unlabelled_step(problem, m)
    etas = [0.0, 0.0, 0.0, whitened.best_step, 0.0]
    return [
        (
            "kfold, fresh",
            lambda: one_step(folds, "fresh").best,
            lambda: measure_folds([(folds, "fresh")], sampling)[0],
        ),
        (
            "kfold, same",
            lambda: one_step(folds, "same").best,
            lambda: measure_folds([(folds, "same")], sampling)[0],
        ),
        (
            "kfold, inverse",
            lambda: one_step(split, "fresh").best,
            lambda: measure_folds([(split, "fresh")], sampling)[0],
        ),
        (
            "unlabelled rows",
            lambda: unlabelled.unlabelled_step(problem, m).gain,
            lambda: unlabelled.measure_rules(problem, [m], etas, sampling)[3],
        ),
        (
            "softmax, one head",
            lambda: head.after(1.0),
            lambda: measure_case(Case("head", head, d, 1.0), single).fresh,
        ),
    ]


def _row(
    name: str, law: Callable[[], float], simulate: Callable[[], Measured], trials: int
) -> dict[str, Any]:
    first, value = _timed(law)
    again, _ = _timed(lambda: [law() for _ in range(REPEATS)])
    again /= REPEATS
    seconds, seen = _timed(simulate)
    needed = trials * (seen.stderr / (ACCURACY * abs(seen.mean))) ** 2
    simulated = seconds * needed / trials
    return {
        "law": name,
        "value": value,
        "measured": seen.mean,
        "stderr": seen.stderr,
        "first_seconds": first,
        "seconds": again,
        "simulated_seconds": simulated,
        "ratio": simulated / max(again, 1e-9),
    }


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


if __name__ == "__main__":
    main()
