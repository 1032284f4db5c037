"""Options that several commands share: declared once, with their help.

What does not belong here: what the options do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from tttab.cli import completion
from tttab.core import Task
from tttab.errors import RequestError
from tttab.text import shell_word

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Bundle = Annotated[Path, typer.Argument(help="The folder that `tttab adapt` or `tttab run --out` wrote.")]
N = Annotated[int, typer.Option("--n", help="Context rows: what the model reads at prediction time.")]
K = Annotated[int, typer.Option("--k", help="Further labelled rows, the training queries.")]
Seed = Annotated[int, typer.Option(help="Names the split and the training streams.")]
Model = Annotated[
    str,
    typer.Option(help="`auto`, a known name, or a checkpoint's path.", autocompletion=completion.models),
]
Rule = Annotated[
    str,
    typer.Option(
        help="Which weights move; `none` is plain in-context learning.", autocompletion=completion.rules
    ),
]
Recipe = Annotated[str, typer.Option(help="Steps, rate and loss by name: default, fast, race or thorough.")]
Steps = Annotated[int | None, typer.Option(help="Gradient steps at most (default: the recipe's, 50).")]
Rate = Annotated[float | None, typer.Option(help="Learning rate (default: the recipe's, 3e-4).")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, xpu, mps.")]
MaxMemory = Annotated[str, typer.Option(help="The most memory to hold, such as 4G.")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="NAME=KIND",
        help="What a column is: number, level, date, duration, boolean; number:1.234,5 and date:%d.%m.%Y "
        "say how its texts are written. May be given several times.",
    ),
]
Regression = Annotated[
    bool | None,
    typer.Option(
        "--regression/--classification",
        help="Predict the target as a number or as a class (default: guessed).",
    ),
]
TopClasses = Annotated[
    int | None, typer.Option(help="Keep the rows of this many of the most frequent classes.")
]
TopFeatures = Annotated[int | None, typer.Option(help="Keep this many features, chosen on labelled rows.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse to shrink k, or another model where a download fails.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")]

Validation = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Labelled rows that choose the step, in the place of a part of the k."),
]
GroupColumn = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Keep rows of one group on one side of the split; no feature."),
]
TimeColumn = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Train on earlier rows, judge by later ones; no feature."),
]

PANEL = "How to adapt"
BUDGET = "What it may cost"
Optimizer = Annotated[
    str | None,
    typer.Option(
        help="adamw (default), race, or sgd-1: one step, its size by line search.", rich_help_panel=PANEL
    ),
]
Init = Annotated[str, typer.Option(help="pretrained (warm start) or random (cold).", rich_help_panel=PANEL)]
Context = Annotated[
    str,
    typer.Option(
        help="How the n rows are chosen: stratified, random, kcenter, nearest.", rich_help_panel=PANEL
    ),
]
Split = Annotated[
    str, typer.Option(help="Contexts seen in training: fixed, redraw, kfold.", rich_help_panel=PANEL)
]
Guard = Annotated[
    str, typer.Option(help="What chooses the step: loss, loss+ece, off.", rich_help_panel=PANEL)
]
Loss = Annotated[
    str | None,
    typer.Option(
        help="What trains: ensemble (the average's loss; default) or members (the mean of their own).",
        rich_help_panel=PANEL,
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        help="What the guard compares (default: the loss): roc_auc, accuracy, …",
        autocompletion=completion.metrics,
        rich_help_panel=PANEL,
    ),
]
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16.", rich_help_panel=PANEL)]


Members = Annotated[
    int | None,
    typer.Option(help="Ensemble members that serve (default: the model's own).", rich_help_panel=BUDGET),
]
TrainMembers = Annotated[
    int | None, typer.Option(help="Ensemble members that train (default: all).", rich_help_panel=BUDGET)
]
StepMembers = Annotated[
    int | None,
    typer.Option(
        help="Of those, members that one step trains, in turns (default: 2).", rich_help_panel=BUDGET
    ),
]
Time = Annotated[
    str | None,
    typer.Option(help="The most that training may take, such as 120s or 10m.", rich_help_panel=BUDGET),
]
Blend = Annotated[
    str | None,
    typer.Option(help="`trees`: mix in boosted trees fitted on the same rows, weighed on held-out rows."),
]
WeightsColumn = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN", help="How much each row counts, in training, guard and figures; no feature."
    ),
]
Balanced = Annotated[
    bool, typer.Option("--balanced", help="Let every class count alike in training and guard.")
]
Log = Annotated[
    str | None, typer.Option(metavar="WHERE", help="Write steps and figures down with mlflow or wandb.")
]
Threshold = Annotated[
    str | None,
    typer.Option(
        metavar="METRIC",
        help="Two classes: decide by a threshold chosen on held-out rows by balanced_accuracy, accuracy, f1.",
    ),
]
KeepOnInterrupt = Annotated[
    bool,
    typer.Option(
        "--keep-on-interrupt", help="Ctrl-C ends training and keeps the best weights so far.",
        rich_help_panel=BUDGET,
    ),
]  # fmt: skip


@dataclass(frozen=True)
class AdaptOptions:
    """What `run` and `adapt` ask alike."""

    n: N = 200
    k: K = 1000
    seed: Seed = 0
    model: Model = "auto"
    rule: Rule = "full"
    recipe: Recipe = "default"
    steps: Steps = None
    lr: Rate = None
    optimizer: Optimizer = None
    init: Init = "pretrained"
    context: Context = "stratified"
    split: Split = "fixed"
    guard: Guard = "loss"
    loss: Loss = None
    metric: Metric = None
    precision: Precision = "auto"
    device: Device = "auto"
    max_memory: MaxMemory = "4G"
    members: Members = None
    train_members: TrainMembers = None
    step_members: StepMembers = None
    time: Time = None
    keep_on_interrupt: KeepOnInterrupt = False
    validation: Validation = None
    group: GroupColumn = None
    time_column: TimeColumn = None
    column: Columns = None
    regression: Regression = None
    top_classes: TopClasses = None
    top_features: TopFeatures = None
    blend: Blend = None
    weights: WeightsColumn = None
    balanced: Balanced = False
    threshold: Threshold = None
    log: Log = None
    strict: Strict = False

    def request(self) -> dict[str, Any]:
        """Return what a trial is asked for, by name: everything but what is the terminal's."""
        return {name: value for name, value in asdict(self).items() if name != "keep_on_interrupt"}


def task_of(regression: bool | None) -> Task | None:
    """Return the task that `--regression` or `--classification` asks for; None where neither was typed."""
    return None if regression is None else "regression" if regression else "classification"


def columns_of(words: list[str] | None) -> dict[str, str]:
    """Return what `--column NAME=KIND` declares, by name.

    Raises:
        RequestError: a word has no `=`, or a column is declared twice.
    """
    declared: dict[str, str] = {}
    for word in words or ():
        name, mark, kind = word.rpartition("=")
        if not mark or not name:
            raise RequestError(f"--column takes NAME=KIND, got {word!r}", "--column zip=level")
        if name in declared:
            raise RequestError(f"column {name!r} is declared twice", f"--column {shell_word(word)}")
        declared[name] = kind
    return declared


def expand_options(
    options: type[DataclassInstance], name: str = "options"
) -> Callable[[FunctionType], FunctionType]:
    """Return a decorator: the parameter `name`, a dataclass `options`, becomes one option per field.

    A field's annotation is `Annotated[type, typer.Option(...)]`, its default the option's default.
    """

    def decorate(command: FunctionType) -> FunctionType:
        own = [
            parameter.replace(annotation=get_type_hints(command, include_extras=True)[parameter.name])
            for parameter in inspect.signature(command).parameters.values()
            if parameter.name != name
        ]
        added = _parameters(options)

        def run(**given: Any) -> None:
            shared = {parameter.name: given.pop(parameter.name) for parameter in added}
            command(**given, **{name: options(**shared)})

        every = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in [*own, *added]]
        vars(run)["__signature__"] = inspect.Signature(every)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def _parameters(options: type[DataclassInstance]) -> list[inspect.Parameter]:
    hints = get_type_hints(options, include_extras=True)
    return [
        inspect.Parameter(
            item.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if item.default is MISSING else item.default,
            annotation=hints[item.name],
        )
        for item in fields(options)
    ]
