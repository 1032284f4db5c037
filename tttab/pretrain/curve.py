"""The log of a run and its plot.

What does not belong here: what is logged (`loop`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tttab.files import atomic_path, write_text_atomically


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the log's lines; a last line cut off by a kill is left out."""
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            if line.endswith("\n"):
                yield json.loads(line)


def keep_until(path: Path, step: int) -> None:
    """Cut a log to the lines up to `step`: what came after the state is about to happen again."""
    if path.exists():
        kept = [line for line in read_log(path) if line["step"] <= step]
        write_text_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))


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
