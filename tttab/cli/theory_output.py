"""What all theory commands share: common options, and how rows become a table, JSON Lines and a plot.

A row is a plain dict; `agrees: False` in one marks it and ends the command with exit code 1. What
does not belong here: any experiment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tttab.cli.console import note, print_json_line, print_table, progress
from tttab.errors import BadAnswer, RequestError

Row = dict[str, Any]
MARK, NO_NUMBER = "DISAGREES", "not finite"


@dataclass(frozen=True)
class Output:
    """Where rows go."""

    json_lines: bool = False
    plot: Path | None = None


def numbers(text: str, option: str, *, above: float | None = None) -> list[float]:
    """Return the comma-separated numbers of `text`.

    Raises:
        RequestError: one is not a number, or not greater than `above`.
    """
    try:
        values = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise RequestError(f"{option} takes numbers with commas, not {text}", f"{option} 0.5,1,2") from None
    if not values or any(value != value or abs(value) == float("inf") for value in values):
        raise RequestError(f"{option} takes at least one finite number", f"{option} 0.5,1,2")
    if above is not None and min(values) <= above:
        raise RequestError(
            f"{option} must be greater than {above:g}, got {min(values):g}", f"{option} 0.5,1,2"
        )
    return values


def whole_numbers(text: str, option: str) -> list[int]:
    """Return the comma-separated whole numbers of `text`, each at least 1, or raise RequestError."""
    values = numbers(text, option)
    if any(value < 1 or value != int(value) for value in values):
        rounded = ",".join(str(max(1, round(value))) for value in values)
        raise RequestError(f"{option} takes whole numbers of at least 1, got {text}", f"{option} {rounded}")
    return [int(value) for value in values]


def gather(rows: Iterable[Row], output: Output, *, label: str, total: int | None = None) -> list[Row]:
    """Run the generator `rows` under a progress bar; with `--json` each row is printed at once."""
    gathered: list[Row] = []
    with progress(quiet=output.json_lines) as bar:
        task = bar.add_task(label, total=total, info="")
        for row in rows:
            gathered.append(row)
            if output.json_lines:
                print_json_line(row)
            bar.update(task, advance=1, info=str(row.get("kind", "")))
    return gathered


def show(rows: Sequence[Row], columns: Sequence[str], output: Output, *, title: str = "") -> None:
    """Print `rows` as a table, those that disagree or are no numbers with a mark; with `--json` nothing."""
    if output.json_lines or not rows:
        return
    lines = [[_cell(row, name) for name in columns] for row in rows]
    text = [name for name in columns if any(isinstance(row.get(name), str) for row in rows)]
    checks = [_check(row) for row in rows]
    marked = any(checks)
    if marked:
        lines = [[*line, check] for line, check in zip(lines, checks, strict=True)]
    print_table([*columns, "check"] if marked else columns, lines, title=title, left=text)


def finish(rows: Sequence[Row], again: str) -> None:
    """End the command.

    Raises:
        BadAnswer: a row says `agrees: False`; `again` is the command to type next.
    """
    bad = sum(row.get("agrees") is False for row in rows)
    if bad:
        raise BadAnswer(
            f"{bad} of {len(rows)} rows disagree with the exact law by more than 4 standard errors", again
        )


def drawn(path: Path) -> None:
    """Say where a figure went."""
    note(f"figure: {path}")


def _check(row: Mapping[str, Any]) -> str:
    if row.get("agrees") is False:
        return MARK
    return NO_NUMBER if row.get("finite") is False else ""


def _cell(row: Mapping[str, Any], name: str) -> Any:
    value = row.get(name)
    if isinstance(value, list | tuple):
        return " .. ".join("-" if item is None else f"{item:.4g}" for item in value)
    return value


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON Lines, one row a line.")]
PlotOption = Annotated[Path | None, typer.Option("--plot", help="Draw the figure to this .svg or .png file.")]
SeedOption = Annotated[int, typer.Option(help="Names the random streams: equal seeds, equal numbers.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
