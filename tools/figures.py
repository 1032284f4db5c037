"""The figures of the theory in docs/, drawn from the rows in results/theory.

    python -m tools.figures                  all
    python -m tools.figures theory-weak.svg  one

To show other rows, write them into results/theory (`tttab theory … --json | xz > FILE`) and run this.
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path

from tttab.theory.plots import draw
from tttab.theory.registry import EXPERIMENTS

ROOT = Path(__file__).parents[1]
FIGURES = {
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
    draw(experiment.panels(rows), Path(folder, name), experiment.title_of(rows))


if __name__ == "__main__":
    for name in sys.argv[1:] or FIGURES:
        draw_figure(name)
        print(name)
