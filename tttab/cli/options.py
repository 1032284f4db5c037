"""Options that several commands share: declared once, with their help and the heading they stand under."""

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
from tttab.training.recipes import RECIPES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

TABLE, TRAINING = "The table", "How to train"
RESOURCES, OUTPUT = "Time, memory and hardware", "Output"
GROUPS = (None, TABLE, TRAINING, RESOURCES, OUTPUT)
"""The headings of `--help`, in the order in which every command shows them."""

Bundle = Annotated[Path, typer.Argument(help="The folder of a bundle.")]
N = Annotated[
    int, typer.Option("--n", help="Context rows: the labelled rows that the model reads to predict.")
]
K = Annotated[int, typer.Option("--k", help="Further labelled rows to train on (the training queries).")]
Seed = Annotated[int, typer.Option(help="Random seed for the split and for training.")]
Model = Annotated[
    str,
    typer.Option(
        help="Model: `auto`, a name of `tttab models list`, or a file.", autocompletion=completion.models
    ),
]
Rule = Annotated[
    str,
    typer.Option(
        help="Which weights to train; `none` is plain in-context learning.", autocompletion=completion.rules
    ),
]
_USUAL = RECIPES["default"].schedule
_RATES = " against ".join(f"{rate:g}" for rate in _USUAL.rates)
Recipe = Annotated[str, typer.Option(help=f"Training schedule by name: {', '.join(RECIPES)}.")]
Steps = Annotated[
    int | None,
    typer.Option(help=f"Most gradient steps (default: the recipe's, {_USUAL.steps})."),
]
Rate = Annotated[float | None, typer.Option(help=f"Learning rate (default: the recipe's, {_RATES}).")]
Device = Annotated[
    str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1, xpu, mps.", rich_help_panel=RESOURCES)
]
MaxMemory = Annotated[str, typer.Option(help="Memory limit, such as 4G.", rich_help_panel=RESOURCES)]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="NAME=KIND",
        help="Kind of a column: number, level, date, duration or boolean; number:1.234,5 and date:%d.%m.%Y "
        "also give the format; ignore: not a feature. May be repeated.",
        rich_help_panel=TABLE,
    ),
]
Regression = Annotated[
    bool | None,
    typer.Option(
        "--regression/--classification",
        help="Predict the target as a number or as a class (default: guessed).",
        rich_help_panel=TABLE,
    ),
]
TopClasses = Annotated[
    int | None,
    typer.Option(help="Keep only the rows of this many most frequent classes.", rich_help_panel=TABLE),
]
TopFeatures = Annotated[
    int | None,
    typer.Option(help="Keep only this many features, chosen on labelled rows.", rich_help_panel=TABLE),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Fail instead of shrinking k or of using another model if a download fails."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.", rich_help_panel=OUTPUT)]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress bar and no notes.", rich_help_panel=OUTPUT)
]
Rows = Annotated[
    bool,
    typer.Option(
        help="Keep the context rows in the bundle. Without them (TabPFN v2 only) it holds keys and values, "
        "from which cells can still be estimated."
    ),
]

Validation = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Validation rows that choose the step, instead of a fifth of the k.",
        rich_help_panel=TABLE,
    ),
]
GroupColumn = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column of groups (such as patients): no group on both sides of the split. Not a feature.",
        rich_help_panel=TABLE,
    ),
]
TimeColumn = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column of times: train on earlier rows, test on later ones. Not a feature.",
        rich_help_panel=TABLE,
    ),
]

Optimizer = Annotated[
    str | None,
    typer.Option(
        help="Optimizer: race, adamw, or sgd-1 (one step by line search); default: the recipe's, "
        f"{_USUAL.optimizer}.",
        rich_help_panel=TRAINING,
    ),
]
Init = Annotated[str, typer.Option(help="Initial weights: pretrained, or random.", rich_help_panel=TRAINING)]
Context = Annotated[
    str,
    typer.Option(
        help="How to choose the context rows: stratified, random, kcenter, nearest.", rich_help_panel=TRAINING
    ),
]
Split = Annotated[
    str, typer.Option(help="Contexts during training: fixed, redraw, kfold.", rich_help_panel=TRAINING)
]
Guard = Annotated[
    str,
    typer.Option(help="How held-out rows choose the step: loss, loss+ece, off.", rich_help_panel=TRAINING),
]
Loss = Annotated[
    str | None,
    typer.Option(
        help="Training loss: members (mean over members) or ensemble (of their average); default: the "
        f"recipe's, {_USUAL.loss}.",
        rich_help_panel=TRAINING,
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        help="Metric that chooses the step instead of the loss: roc_auc, accuracy, …",
        autocompletion=completion.metrics,
        rich_help_panel=TRAINING,
    ),
]
Precision = Annotated[
    str, typer.Option(help="Arithmetic of training: auto, fp32 or bf16.", rich_help_panel=TRAINING)
]


Members = Annotated[
    int | None,
    typer.Option(help="Ensemble members that predict (default: the model's own).", rich_help_panel=RESOURCES),
]
TrainMembers = Annotated[
    int | None, typer.Option(help="Ensemble members to train (default: all).", rich_help_panel=RESOURCES)
]
StepMembers = Annotated[
    int | None,
    typer.Option(help="Members to train in one step, in turns (default: 2).", rich_help_panel=RESOURCES),
]
Time = Annotated[
    str | None,
    typer.Option(help="Time limit of training, such as 120s or 10m.", rich_help_panel=RESOURCES),
]
Blend = Annotated[
    str | None,
    typer.Option(
        help="`trees`: average with boosted trees trained on the same rows, weighted on held-out rows.",
        rich_help_panel=TRAINING,
    ),
]
WeightsColumn = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column of row weights, for training, the choice of the step and the figures. Not a feature.",
        rich_help_panel=TABLE,
    ),
]
Balanced = Annotated[
    bool,
    typer.Option(
        "--balanced",
        help="Give every class the same weight in training and in the choice of the step.",
        rich_help_panel=TRAINING,
    ),
]
Log = Annotated[
    str | None,
    typer.Option(metavar="SERVICE", help="Log steps and figures to mlflow or wandb.", rich_help_panel=OUTPUT),
]
Threshold = Annotated[
    str | None,
    typer.Option(
        metavar="METRIC",
        help="With two classes, the metric that chooses the decision threshold on held-out rows: "
        "balanced_accuracy, accuracy, f1.",
        rich_help_panel=TRAINING,
    ),
]
KeepOnInterrupt = Annotated[
    bool,
    typer.Option(
        "--keep-on-interrupt", help="On Ctrl-C, end only the training and keep the best weights so far.",
        rich_help_panel=RESOURCES,
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

        def run(**values: Any) -> None:
            shared = {parameter.name: values.pop(parameter.name) for parameter in added}
            command(**values, **{name: options(**shared)})

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
