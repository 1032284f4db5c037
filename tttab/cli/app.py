"""The command tree: each command lives in a file of its own and registers itself here.

Nothing heavy is imported on the way to `--help`: commands import torch, tabpfn, pandas, sklearn
and openml inside their bodies.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import cache
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

import tttab
from tttab.cli import invocation, options
from tttab.cli.commands import (
    adapt,
    advise,
    bench,
    bundle,
    data,
    doctor,
    explain,
    inspect,
    models,
    predict,
    pretrain,
    report,
    run,
    schema,
    serve,
    share,
    update,
)

WITH_MODELS = (
    *("run", "adapt", "advise", "predict", "update", "explain", "serve", "bench", "pretrain", "theory"),
)
"""The commands that load torch."""

app = typer.Typer(
    name="tttab",
    help="Test-time training for tabular foundation models: adapt TabPFN or TabICL to a table with a few "
    "gradient steps, then predict from a short context.",
    epilog="Start here: [bold]tttab run --dataset 31 --n 200 --k 1000[/]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Command(TyperCommand):
    """A command that shows its options under the headings of `options.GROUPS`, in that order."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params.sort(key=lambda item: options.GROUPS.index(getattr(item, "rich_help_panel", None)))


class _TheoryGroup(TyperGroup):
    """`tttab theory`, whose commands are made at the first access: that imports every experiment."""

    @property
    def commands(self) -> MutableMapping[str, Any]:
        return _theory_commands()

    @commands.setter
    def commands(self, _: MutableMapping[str, Any]) -> None:
        """Leave what the constructor brings: an empty mapping."""


@cache
def _theory_commands() -> MutableMapping[str, Any]:
    from tttab.cli.commands import theory

    group = typer.Typer()
    theory.register(group)
    return get_group(group).commands


theory_group = typer.Typer(
    name="theory",
    cls=_TheoryGroup,
    help="The papers' mathematics: limit, exact finite-size law and measurement side by side.",
    no_args_is_help=True,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tttab {tttab.__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    ctx: typer.Context,
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
    ),
) -> None:
    """Hold the options that stand before any command, and refuse what would end in an abort."""
    from tttab.system.resources import check_address_space

    if ctx.invoked_subcommand in WITH_MODELS and not {"-h", "--help"} & set(invocation.words):
        check_address_space()


run.register(app)
adapt.register(app)
advise.register(app)
predict.register(app)
update.register(app)
explain.register(app)
serve.register(app)
inspect.register(app)
bundle.register(app)
share.register(app)
data.register(app)
models.register(app)
doctor.register(app)
schema.register(app)
bench.register(app)
report.register(app)
app.add_typer(theory_group, rich_help_panel="Research")
pretrain.register(app)

for group in (app, *(info.typer_instance for info in app.registered_groups if info.typer_instance)):
    for info in group.registered_commands:
        info.cls = _Command
