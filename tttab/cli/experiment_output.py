"""How the rows of an experiment reach the terminal: a bar, tables, JSON Lines, a figure, an exit code.

A row is a plain dict; `agrees: False` in one marks it and ends the command with exit code 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress as Bar

from tttab.cli.invocation import rerun_command
from tttab.cli.output import note, print_json_line, print_summary, print_table, progress, stdout
from tttab.errors import BadAnswer, Interrupted
from tttab.theory.experiment import Experiment, Progress, Row, S, Table

MARK, NO_NUMBER = "DISAGREES", "not finite"


@dataclass(frozen=True)
class Output:
    """Where rows go."""

    json_lines: bool = False
    plot: Path | None = None


def run_experiment(experiment: Experiment[S], settings: S, output: Output) -> None:
    """Run an experiment, print its tables or JSON Lines, draw its figure.

    Raises:
        RequestError: the settings or the name of the figure do not fit.
        Interrupted: Ctrl-C before the first row, where the same command goes on.
        BadAnswer: a row disagrees with the exact law.
    """
    from tttab.theory.plots import check_plot_path, draw

    if output.plot is not None:
        check_plot_path(output.plot)
    rows = _gathered(experiment, settings, output)
    if not output.json_lines:
        for table in experiment.tables_of(rows):
            show(table)
    if output.plot is not None and experiment.panels is not None:
        draw(experiment.panels(rows), output.plot, experiment.title_of(rows))
        note(f"figure: {output.plot}")
    finish(rows, rerun_command(**(experiment.retry(settings) if experiment.retry else {})))


def show(table: Table) -> None:
    """Print a table, rows that disagree or are no numbers with a mark."""
    columns = list(table.columns)
    lines = [[_cell(row, name) for name in columns] for row in table.rows]
    text = [name for name in columns if any(isinstance(row.get(name), str) for row in table.rows)]
    checks = [_check(row) for row in table.rows]
    if any(checks):
        columns.append("check")
        lines = [[*line, check] for line, check in zip(lines, checks, strict=True)]
    if lines:
        stacked = stdout().is_terminal  # a heading of two words takes two lines, so that none is cut
        heading = {name: name.replace("_", "\n") if stacked else name for name in columns}
        print_table(
            [*heading.values()],
            lines,
            title=table.title,
            left=[heading[name] for name in text],
            stacked=stacked,
        )
    if table.remark:
        print_summary(table.remark)


def finish(rows: Sequence[Row], hint: str) -> None:
    """End the command.

    Raises:
        BadAnswer: a row says `agrees: False`; `hint` is the command to type next.
    """
    bad = sum(row.get("agrees") is False for row in rows)
    if bad:
        raise BadAnswer(
            f"{bad} of {len(rows)} rows disagree with the exact law by more than 4 standard errors", hint
        )


def _gathered(experiment: Experiment[S], settings: S, output: Output) -> list[Row]:
    """Run the generator under a progress bar; with `--json` each row is printed at once."""
    rows: list[Row] = []
    stages: dict[str, Any] = {}
    last: Progress | None = None
    total = experiment.total(settings) if experiment.total else None
    try:
        with progress(quiet=output.json_lines) as bar:
            task = bar.add_task(experiment.name, total=total, info="")
            for item in experiment.rows(settings):
                if isinstance(item, Progress):
                    last = item
                    _advance(bar, stages, item)
                    continue
                last = None
                rows.append(item)
                if output.json_lines:
                    print_json_line(item)
                bar.update(task, advance=1, info=str(item.get("kind", "")))
    except KeyboardInterrupt:
        if last is None or not last.interrupted:
            raise
        raise Interrupted(last.interrupted, rerun_command()) from None
    return rows


def _advance(bar: Bar, stages: dict[str, Any], item: Progress) -> None:
    """Show a stage before the rows; its note is printed once."""
    if item.label not in stages:
        stages[item.label] = bar.add_task(item.label, total=item.total, info="")
        if item.note:
            note(item.note)
    bar.update(stages[item.label], completed=item.done, total=item.total, info=item.info)


def _check(row: Mapping[str, Any]) -> str:
    if row.get("agrees") is False:
        return MARK
    return NO_NUMBER if row.get("finite") is False else ""


def _cell(row: Mapping[str, Any], name: str) -> Any:
    value = row.get(name)
    if isinstance(value, list | tuple):
        return " .. ".join("-" if item is None else f"{item:.4g}" for item in value)
    return value
