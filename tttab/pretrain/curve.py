"""The log of a run and its plot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from tttab.errors import RequestError
from tttab.system.files import atomic_path
from tttab.system.linewise import bounded_lines
from tttab.text import shell_word

Count = Annotated[int, Field(ge=0, lt=2**63)]


class LogLine(TypedDict):
    """The fields of a log's line that are read again."""

    kind: str
    loss: float
    """NaN where no step was taken since the last line."""
    held_out: dict[str, float]
    step: Count
    tables: Count
    pooled: Count
    tokens: Count
    seconds: float
    waited: float


_LINE = TypeAdapter(LogLine)


def read_log(path: Path, damaged: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the log's lines; a last line cut off by a kill is left out.

    Args:
        path: the log.
        damaged: takes in the lines that are none of a log, as `file:line`; without it one is an error.

    Raises:
        RequestError: the log cannot be read, or a line is damaged.
    """
    for number, _, line in _lines(path):
        if line is not None:
            yield line
        elif damaged is not None:
            damaged.append(f"{path.name}:{number}")
        else:
            hint = f"to do without that line: sed -i {number}d {shell_word(path)}"
            raise RequestError(f"{path}:{number} is no line of a log", hint)


def keep_until(path: Path, step: int) -> None:
    """Cut a log to the lines up to `step`: what came after the state is about to happen again.

    Damaged lines stay, for `read_log` to name.
    """
    if path.exists():
        kept = [raw for _, raw, line in _lines(path) if line is None or line["step"] <= step]
        with atomic_path(path) as part:
            part.write_bytes(b"".join(kept))


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
        there = [line for line in judged if name in line["held_out"]]
        values = [line["held_out"][name] for line in there]
        axes.plot([line["tables"] for line in there], values, marker=".", label=f"held out, {name}")
    axes.set_xlabel("tables seen")
    axes.set_ylabel("loss, nats per query")
    axes.legend()
    axes.grid(alpha=0.3)
    with atomic_path(target) as part:
        figure.savefig(part, dpi=110)


def _lines(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """Yield (number, bytes, content) of every whole line; the content of a damaged one is None."""
    if not path.is_file():
        raise RequestError(
            f"there is no log at {path}", "name the folder of a run: tttab pretrain --out FOLDER"
        )
    for number, raw in bounded_lines(path):
        if raw.endswith(b"\n") or not raw:
            yield number, raw, _content(raw)


def _content(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
        _LINE.validate_python(line, strict=True)
    except (ValueError, RecursionError):
        return None
    return line
