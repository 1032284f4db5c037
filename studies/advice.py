"""Does `tttab advise` tell beforehand what training gains? On tables that chose it, and on others.

    python -m studies.advice                                     the figures, from results/advice
    python -m studies.advice fit                                 the coefficients, from the package's tables
    python -m studies.advice measure TABLE,… N,… SEEDS >> FILE   a row a unit

A unit is one split of one table: n context rows, at most 1,000 queries, and test rows. Its gain is the test
log loss of `icl@n` minus that of `ttt@n+k`, both with the model in the package and the recipe `single`.
`balanced/NAME` is a table of the KEEL package that no suite holds.
"""

from __future__ import annotations

import json
import lzma
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from studies.engine import markdown
from tttab.core import Table
from tttab.evaluation.advice import Evidence, gather

FOLDER = Path(__file__).parent.parent / "results" / "advice"
CHOSE, JUDGED = FOLDER / "chose.jsonl.xz", FOLDER / "judged.jsonl.xz"
"""Units of the package's tables, which the formula was fitted on, and of tables that played no part in it."""
Unit = dict[str, Any]
WEIGHT = 0.64
"""What a nat counts that the regression or the trees take off; frozen before other tables were looked at."""
RESIDUALS, LEAST = (-0.19, 0.84), 0.02
"""Quantiles 10 % and 90 % of (gain - expected)/(expected + LEAST) on tables that the fit had not seen."""
SMALL = 0.005
"""A gain in nats below which training is not worth the trouble."""


def expected(found: Evidence) -> float:
    """Return what training should take off the log loss, nats per row: the formula that was judged."""
    return min(found.loss, WEIGHT * (max(0.0, found.vectors) + max(0.0, found.trees)))


def between(gain: float) -> tuple[float, float]:
    """Return what four of five gains should lie between where `gain` is expected."""
    low, high = (gain + quantile * (gain + LEAST) for quantile in RESIDUALS)
    return low, high


def units(path: Path) -> list[Unit]:
    """Return the units of a file."""
    return [json.loads(line) for line in lzma.open(path, "rt", encoding="utf-8")]


def evidence(unit: Unit) -> Evidence:
    """Return what was known before training."""
    return Evidence(**{name: unit[name] for name in Evidence.__dataclass_fields__})


def gains(of: Sequence[Unit]) -> np.ndarray:
    """Return what training took off the test log loss."""
    return np.array([unit["icl@n"] - unit["ttt@n+k"] for unit in of])


def column(of: Sequence[Unit], name: str) -> np.ndarray:
    """Return a field of every unit."""
    return np.array([unit[name] for unit in of])


def predicted(of: Sequence[Unit]) -> np.ndarray:
    """Return what the package's formula says."""
    return np.array([expected(evidence(unit)) for unit in of])


def rank_within(values: np.ndarray, gain: np.ndarray, n: np.ndarray) -> float:
    """Return the rank correlation within each n, the mean over n weighted by units."""
    from scipy.stats import spearmanr

    found = [
        (here.sum(), spearmanr(values[here], gain[here]).statistic)
        for here in (n == size for size in np.unique(n))
        if np.ptp(values[here]) > 0
    ]
    return (
        float(np.average([r for _, r in found], weights=[count for count, _ in found])) if found else np.nan
    )


def area(values: np.ndarray, small: np.ndarray) -> float:
    """Return the area under the ROC curve for a small gain: the smaller the value, the likelier."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(small, -values)) if 0 < small.sum() < len(small) else np.nan


def regret(trained: np.ndarray, gain: np.ndarray) -> float:
    """Return how much of a gain over `SMALL` a choice leaves, nats per unit."""
    worth = gain - SMALL
    return float((np.maximum(worth, 0) - worth * trained).mean())


def line(name: str, values: np.ndarray, gain: np.ndarray, n: np.ndarray, *, sized: bool = True) -> list[str]:
    """Return a line of the table: how well values order and size the gains."""
    figures = [rank_within(values, gain, n), area(values, gain < SMALL)]
    if sized:
        slope = np.polyfit(values, gain, 1)[0] if np.ptp(values) > 0 else np.nan
        figures += [np.abs(values - gain).mean(), slope, regret(values > SMALL, gain)]
    return [name, *(f"{figure:.3f}" for figure in figures), *([] if sized else ["-"] * 3)]


def left_out(
    of: Sequence[Unit], predict: Callable[[Sequence[Unit], Sequence[Unit]], np.ndarray]
) -> np.ndarray:
    """Return the predictions for each table by what is fitted on the others."""
    tables, found = column(of, "table"), np.zeros(len(of))
    for table in np.unique(tables):
        rest = [unit for unit in of if unit["table"] != table]
        found[tables == table] = predict(rest, [unit for unit in of if unit["table"] == table])
    return found


def fit(of: Sequence[Unit]) -> float:
    """Return the weight of what regression and trees take off, by least squares."""
    taken = _taken(of)
    return float(taken @ gains(of) / (taken @ taken))


def _taken(of: Sequence[Unit]) -> np.ndarray:
    return np.maximum(0, column(of, "vectors")) + np.maximum(0, column(of, "trees"))


def by_fit(known: Sequence[Unit], asked: Sequence[Unit]) -> np.ndarray:
    """Predict by the formula, its weights fitted anew."""
    return np.minimum(fit(known) * _taken(asked), column(asked, "loss"))


def chosen() -> str:
    """Return the constants above as the package's tables give them."""
    of = units(CHOSE)
    off = (gains(of) - (told := left_out(of, by_fit))) / (told + LEAST)
    low, high = np.quantile(off, [0.1, 0.9])
    return f"WEIGHT = {fit(of):.2f}\nRESIDUALS = ({low:.2f}, {high:.2f})"


def by_n(known: Sequence[Unit], asked: Sequence[Unit]) -> np.ndarray:
    """Predict the mean gain at the same n."""
    n, gain = column(known, "n"), gains(known)
    return np.array([gain[n == unit["n"]].mean() for unit in asked])


def by_loss(known: Sequence[Unit], asked: Sequence[Unit]) -> np.ndarray:
    """Predict by a line in the in-context loss."""
    return np.polyval(np.polyfit(column(known, "loss"), gains(known), 1), column(asked, "loss"))


def measured(table: Table, n: int, seed: int, session: Any) -> Unit:
    """Return a unit: what is known before training, then what training gives."""
    from tttab.data.splits import SplitRequest, split_rows
    from tttab.evaluation.arms import run_arm
    from tttab.evaluation.outcome import Outcome
    from tttab.evaluation.trial import Trial

    split = split_rows(table.y, SplitRequest(n=n, k=1000), seed, classes=len(table.classes))
    trial = Trial(table, split, session, seed=seed, latency_calls=0)
    unit = {
        "table": table.name,
        "n": n,
        "k": split.k,
        "seed": seed,
        "digest": split.digest,
        **asdict(gather(trial)),
    }
    for arm in ("icl@n", "ttt@n+k"):
        *_, outcome = run_arm(trial, arm)
        assert isinstance(outcome, Outcome)
        unit[arm] = outcome.row.metrics["log_loss"]
    return unit


def table_of(name: str) -> Table:
    """Return a known table, or one of the KEEL package that no suite holds."""
    from tttab.data import load_table
    from tttab.data.build import Origin, table_from_frame
    from tttab.data.packages import read_packaged

    if not name.startswith("balanced/"):
        return load_table(name)
    origin = Origin(name.rpartition("/")[2], "KEEL", target="target", task="classification")
    return table_from_frame(read_packaged(f"keel/{name}").frame, origin)


HEADINGS = [
    "told by", "rank correlation within n", f"AUC of a gain < {SMALL}", "mean absolute error", "slope",
    "regret",
]  # fmt: skip


def summary(of: Sequence[Unit], told: Sequence[tuple[str, np.ndarray, bool]]) -> str:
    """Return Markdown: how well each prediction orders and sizes the gains; whether its values are nats."""
    gain, n = gains(of), column(of, "n")
    lines = [line(name, values, gain, n, sized=sized) for name, values, sized in told]
    for name, choice in (("always training", np.ones(len(of))), ("never training", np.zeros(len(of)))):
        lines.append([name, *["-"] * 4, f"{regret(choice, gain):.4f}"])
    return markdown(HEADINGS, lines)


def report() -> str:
    """Return the figures of both sets of tables."""
    chose, judged = units(CHOSE), units(JUDGED)
    own = [("advice, table left out", left_out(chose, by_fit), True)]
    own += [("mean gain at this n, table left out", left_out(chose, by_n), True)]
    own += [("in-context loss, table left out", left_out(chose, by_loss), True)]
    told = predicted(judged)
    new = [("advice", told, True), ("mean gain at this n", by_n(chose, judged), True)]
    new += [("in-context loss", by_loss(chose, judged), True)]
    new += [(f"`{name}` alone", column(judged, name), False) for name in ("vectors", "trees", "longer")]
    low, high = np.array([between(gain) for gain in told]).T
    gain = gains(judged)
    promised = gain[told >= SMALL]
    parts = [f"## Tables that it was chosen on ({_counted(chose)})", summary(chose, own)]
    parts += [f"## Tables that played no part ({_counted(judged)})", summary(judged, new)]
    parts += [
        f"{((low <= gain) & (gain <= high)).mean():.0%} of the gains lie in their interval of 80 %."
        f" Of {len(promised)} units with an expected gain of {SMALL} or more {(promised < -0.01).sum()} lost"
        f" more than 0.01; the worst lost {max(0.0, -promised.min()):.4f}.",
        _by_table(judged, told),
    ]
    return "\n\n".join(parts)


def _counted(of: Sequence[Unit]) -> str:
    return f"{len({unit['table'] for unit in of})} tables, {len(of)} units"


def _by_table(of: Sequence[Unit], told: np.ndarray) -> str:
    rows = sorted(zip(of, told, gains(of), strict=True), key=lambda row: (row[0]["n"], -row[2]))
    lines = [
        [unit["table"], str(unit["n"]), str(unit["k"]), f"{unit['loss']:.3f}", f"{said:.3f}", f"{gain:.3f}"]
        for unit, said, gain in rows
    ]
    return markdown(["table", "n", "k", "loss in context", "expected", "gain"], lines)


def main(words: Sequence[str]) -> None:
    """Print what is asked."""
    if not words:
        print(report())
    elif words[0] == "fit":
        print(chosen())
    else:
        from tttab.models import open_model

        session = open_model("tttab-tiny", "classification", device="cpu")
        names, sizes, seeds = (word.split(",") for word in words[1:])
        for seed in map(int, seeds):
            for n in map(int, sizes):
                for name in names:
                    print(json.dumps(measured(table_of(name), n, seed, session)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
