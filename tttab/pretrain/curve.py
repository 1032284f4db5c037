"""The log of a run and its plot.

What does not belong here: what is logged (`loop`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tttab.files import atomic_path


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the log's lines; a last line cut off by a kill is left out."""
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            if line.endswith("\n"):
                yield json.loads(line)


def draw_curve(lines: Sequence[dict[str, Any]], target: Path) -> None:
    """Plot training and held-out loss (nats per query) against tables seen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    training = [line for line in lines if line["kind"] == "training"]
    axes.plot(
        [line["tables"] for line in training],
        [line["loss"] for line in training],
        color="0.7",
        label="training",
    )
    judged = [line for line in lines if line["held_out"]]
    for name in judged[0]["held_out"] if judged else ():
        values = [line["held_out"][name] for line in judged]
        axes.plot([line["tables"] for line in judged], values, marker=".", label=f"held out, {name}")
    axes.set_xlabel("tables seen")
    axes.set_ylabel("loss, nats per query")
    axes.legend()
    axes.grid(alpha=0.3)
    with atomic_path(target) as part:
        figure.savefig(part, dpi=110)
