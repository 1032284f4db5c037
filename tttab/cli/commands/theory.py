"""`tttab theory`: a command for every experiment of the registry, and `all`, a folder of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tttab.cli.experiment_output import Output, run_experiment
from tttab.cli.invocation import rerun_command
from tttab.cli.setting_options import parameters, parsed
from tttab.errors import RequestError
from tttab.theory import registry
from tttab.theory.experiment import PAPER_A, Experiment, WrongOption
from tttab.theory.linear_attention.settings import MatrixSimulation

Json = Annotated[bool, typer.Option("--json", help="Print JSON Lines, one row a line.")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw the figure to this .svg or .png file.")]
Out = Annotated[Path, typer.Option(help="Folder for rows and figures.")]
ALL = "Every figure and table of the linear theory in one folder; what is there already is kept."


def register(theory: typer.Typer) -> None:
    """Add the commands to `tttab theory`."""
    for experiment in registry.EXPERIMENTS.values():
        _add(theory, experiment.name, experiment.group, experiment.example, _command(experiment))
    _add(theory, "all", PAPER_A, "--out figures", _folder_command())


def _add(theory: typer.Typer, name: str, group: str, example: str, command: Callable[..., None]) -> None:
    epilog = f"Example: [bold]tttab theory {name} {example}[/]"
    theory.command(name, rich_help_panel=group, epilog=epilog)(command)


def _command(experiment: Experiment[Any]) -> Callable[..., None]:
    """Return a command with an option per field of the experiment's settings."""

    def run(*, json_lines: bool, plot: Path | None = None, **values: Any) -> None:
        try:
            run_experiment(experiment, parsed(experiment.settings, values), Output(json_lines, plot))
        except WrongOption as error:
            raise RequestError(error.message, rerun_command(**error.changes)) from None

    own = [_parameter("json_lines", Json, False)]
    own += [_parameter("plot", Plot, None)] if experiment.panels else []
    return _with_options(run, experiment.help, [*parameters(experiment.settings), *own])


def _folder_command() -> Callable[..., None]:
    """Return `tttab theory all`."""

    def run(*, out: Path, json_lines: bool, **values: Any) -> None:
        from tttab.cli.commands.theory_all import run_all

        run_all(parsed(MatrixSimulation, values), out, json_lines=json_lines)

    own = [_parameter("out", Out, inspect.Parameter.empty)]
    last = [_parameter("json_lines", Json, False)]
    return _with_options(run, ALL, [*own, *parameters(MatrixSimulation), *last])


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _with_options(
    run: Callable[..., None], help: str, options: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """Return `run` with the signature and the words from which typer makes a command."""
    run.__dict__["__signature__"] = inspect.Signature(options)
    run.__annotations__ = {item.name: item.annotation for item in options}
    run.__doc__ = help
    return run
