"""Options that several commands share: declared once, with their help.

What does not belong here: defaults, which are each command's own, and what the options do.
"""

from __future__ import annotations

from typing import Annotated

import typer

from tttab.cli import choices

N = Annotated[int, typer.Option("--n", help="Context rows: what the model reads at prediction time.")]
K = Annotated[int, typer.Option("--k", help="Further labelled rows, the training queries.")]
Seed = Annotated[int, typer.Option(help="Names the split and the training streams.")]
Model = Annotated[
    str,
    typer.Option(help="`auto`, a known name, or a tabpfn checkpoint.", autocompletion=choices.models),
]
Rule = Annotated[
    str,
    typer.Option(
        help="Which weights move; `none` is plain in-context learning.", autocompletion=choices.rules
    ),
]
Steps = Annotated[int, typer.Option(help="Gradient steps at most.")]
Rate = Annotated[float, typer.Option(help="Learning rate.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")]
MaxMemory = Annotated[str, typer.Option(help="The most memory to hold, such as 4G.")]
TopClasses = Annotated[
    int | None, typer.Option(help="Keep the rows of this many of the most frequent classes.")
]
TopFeatures = Annotated[int | None, typer.Option(help="Keep this many features, chosen on labelled rows.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse to shrink k.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")]

PANEL = "How to adapt"
Optimizer = Annotated[
    str,
    typer.Option(help="adamw, or sgd-1: one step, its size by line search.", rich_help_panel=PANEL),
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
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16.", rich_help_panel=PANEL)]
