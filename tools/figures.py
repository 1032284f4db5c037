"""The figures in docs/: of the theory from the rows in results/theory, of the gain from results/offline, of
the advice from results/advice.

    python -m tools.figures                  all
    python -m tools.figures theory-weak.svg  one

To show other rows, write them into results/theory (`tttab theory … --json | xz > FILE`) and run this.
"""

from __future__ import annotations

import json
import lzma
import statistics
import sys
from pathlib import Path

from studies.advice import CHOSE, JUDGED, gains, predicted, units
from tttab.bench.store import read_store
from tttab.theory.plots import Panel, Series, curve, draw
from tttab.theory.registry import EXPERIMENTS

ROOT = Path(__file__).parents[1]
GAIN = "gain.svg"
FIGURES = {
    "theory-advise.svg": ["linear-advise"],
    "theory-beyond.png": ["index-beyond"],
    "theory-calibration.svg": ["linear-calibration"],
    "theory-dims.svg": ["index-si-dims"],
    "theory-kfold.svg": ["linear-kfold"],
    "theory-network.png": ["network"],
    "theory-semi.svg": ["linear-semi"],
    "theory-single-index.svg": ["index-whole", "index-n65536"],
    "theory-softmax.svg": ["linear-softmax"],
    "theory-strong.svg": ["index-strong"],
    "theory-transformer-a.png": ["transformer-a"],
    "theory-transformer-b.png": ["transformer-b-dims"],
    "theory-transformer-b-dims.png": ["transformer-b-dims"],
    "theory-weak.svg": ["index-weak"],
}
"""Files of rows by figure."""
ONLY = {"theory-transformer-b.png": ("d", 4), "theory-weak.svg": ("r", 32)}
"""What the rows of a figure have in common where their files hold more."""


def rows_of(names):
    """Return the rows of the files of these names."""
    files = [ROOT / "results" / "theory" / f"{name}.jsonl.xz" for name in names]
    return [json.loads(line) for file in files for line in lzma.open(file, "rt", encoding="utf-8")]


def draw_figure(name, folder=ROOT / "docs"):
    """Draw one figure of the documents."""
    rows = rows_of(FIGURES[name])
    if name in ONLY:
        field, value = ONLY[name]
        rows = [row for row in rows if row.get(field) == value]
    experiment = EXPERIMENTS[rows[0]["experiment"]]
    panels = experiment.panels(rows) + ([panel_of_advice()] if experiment.name == "advise" else [])
    draw(panels, Path(folder, name), experiment.title_of(rows))


def error_by_rows(table, arm, k=1000):
    """Return the context rows of an arm, and its mean error and standard error over seeds, per cent."""
    found = {}
    for record in read_store(ROOT / "results" / "offline").done.values():
        same = record.cell.table == table and record.row.arm == arm
        if same and record.cell.budget in ("", f"paper k={k}"):
            error = 100 * (1 - record.row.metrics["accuracy"])
            found.setdefault(record.row.n_context, []).append(error)
    rows = sorted(found)
    means = [statistics.fmean(found[n]) for n in rows]
    return rows, means, [statistics.stdev(found[n]) / len(found[n]) ** 0.5 for n in rows]


def panel_of_gain(table):
    """Return error against context rows, in context and after training, beside boosted trees."""
    plain, trained = error_by_rows(table, "icl@n"), error_by_rows(table, "ttt@n+k")
    _, (trees,), _ = error_by_rows(table, "gbt")
    ends = [plain[0][0], plain[0][-1]]
    series = [
        *curve("in context", *plain, colour=1),
        *curve("after test-time training on 1,000 rows", *trained, colour=0),
        Series("boosted trees on 1,200 rows", ends, [trees, trees], "dotted", 6),
    ]
    return Panel(table, "labelled rows read per prediction", "error, %", series, log_x=True)


def draw_gain(folder=ROOT / "docs"):
    """Draw the gain on two tables of the package."""
    title = "After training, 50 rows in context predict better than 400 without it"
    draw([panel_of_gain("segment"), panel_of_gain("phoneme")], Path(folder, GAIN), title)


def panel_of_advice():
    """Return what training gained on tables against what was expected of it."""
    of = {"tables that it was fitted on": units(CHOSE), "tables that played no part": units(JUDGED)}
    points = {name: (predicted(rows).tolist(), gains(rows).tolist()) for name, rows in of.items()}
    top = max(value for pair in points.values() for values in pair for value in values)
    series = [Series("gain = expected", [0, top], [0, top], "dotted", 6)]
    series += [Series(name, *pair, "points", colour) for colour, (name, pair) in enumerate(points.items())]
    return Panel(
        "The package's classifier on tables", "expected: 0.64 (vectors + trees), nats", "gain, nats", series
    )


if __name__ == "__main__":
    for name in sys.argv[1:] or [*FIGURES, GAIN]:
        draw_gain() if name == GAIN else draw_figure(name)
        print(name)
