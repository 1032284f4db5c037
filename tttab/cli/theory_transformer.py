"""`tttab theory transformer`: both papers' experiments on a small trained transformer.

What does not belong here: models, training, test-time training (`tttab.theory.transformer_*`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tttab.cli.console import note, progress
from tttab.cli.options import spread
from tttab.cli.theory_output import (
    DeviceOption,
    JsonOption,
    Output,
    PlotOption,
    Row,
    SeedOption,
    gather,
    show,
)
from tttab.cli.typed import again
from tttab.errors import Interrupted, RequestError

COLUMNS = {
    "A": ["model", "d", "n", "k", "start", "loss", "stderr", "median", "best_linear", "stuck"],
    "B": ["model", "d", "shift", "n", "context_read", "method", "loss", "stderr", "median", "noise", "stuck"],
}


@dataclass(frozen=True)
class TransformerOptions:
    """Options of the command."""

    paper: Annotated[str, typer.Option(help="A: linear tasks, warm against cold. B: single-index tasks.")]
    model: Annotated[
        str | None,
        typer.Option(help="pair, the default, or gpt2 (Hugging Face; needs tttab\\[transformer])."),
    ] = None
    d: Annotated[str, typer.Option("--d", help="Features; for paper B several, e.g. 4,8,16.")] = ""
    checkpoint: Annotated[Path | None, typer.Option(help="A checkpoint file to use.")] = None
    retrain: Annotated[bool, typer.Option(help="Pre-train even where a checkpoint ships.")] = False
    minutes: Annotated[float, typer.Option(help="Bound pre-training; 0: the recipe's own steps.")] = 0.0
    cache: Annotated[Path | None, typer.Option(help="Folder of checkpoints made here.")] = None
    tasks: Annotated[int, typer.Option(help="Test tasks per point; 0: the default of the version.")] = 0
    steps: Annotated[int, typer.Option(help="Steps of test-time training; 0: the default.")] = 0
    full: Annotated[bool, typer.Option("--full", help="Full-size model and grid: wants a GPU.")] = False
    seed: SeedOption = 0
    device: DeviceOption = "cpu"
    json_lines: JsonOption = False
    plot: PlotOption = None

    @property
    def kind(self) -> Literal["gpt2", "pair"]:
        """Return the model to use where no checkpoint says it."""
        return "gpt2" if self.model == "gpt2" else "pair"


@spread(TransformerOptions)
def transformer(options: TransformerOptions) -> None:
    """Small transformers under both papers' experiments: in context against trained at test time.

    A small checkpoint per paper ships; others are pre-trained once, resumably, and kept in the cache.
    """
    from tttab.cli.theory_index import check_output, draw_rows

    _check(options)
    check_output(options.plot, options.device)
    dims = _dims(options)
    opened = [_open_file(options)] if options.checkpoint else [_open(options, d) for d in dims]
    rows = gather(
        _rows(options, opened), Output(options.json_lines), label=f"paper {options.paper}", total=None
    )
    title = f"Paper {options.paper}: " + (
        "loss / E|b|^2 after training on k rows" if options.paper == "A" else "loss / label power"
    )
    show(rows, COLUMNS[options.paper], Output(options.json_lines), title=title)
    draw_rows(rows, options.plot, f"transformer {options.paper}", title)


def _check(options: TransformerOptions) -> None:
    if options.paper not in COLUMNS:
        raise RequestError(f"there is no paper {options.paper}", "--paper A or --paper B")
    if options.model not in (None, "pair", "gpt2"):
        raise RequestError(f"there is no model {options.model}", "--model pair or --model gpt2")
    if not 0 <= options.minutes < math.inf:
        raise RequestError(f"--minutes is a number from 0, got {options.minutes:g}", "--minutes 5")
    if min(options.tasks, options.steps) < 0:
        raise RequestError("--tasks and --steps cannot be negative", "--tasks 8 --steps 50")
    if options.checkpoint and options.retrain:
        raise RequestError("--checkpoint and --retrain exclude each other", "give one of them")


def _dims(options: TransformerOptions) -> list[int]:
    try:
        dims = [int(part) for part in options.d.split(",") if part.strip()]
    except ValueError:
        raise RequestError(f"--d takes whole numbers, not {options.d}", "--d 4,8,16") from None
    if any(d < 1 for d in dims):
        raise RequestError("--d takes numbers from 1", "--d 4,8,16")
    if options.paper == "A" and len(dims) > 1:
        raise RequestError(f"paper A takes one --d, got {options.d}", again(d=dims[0]))
    return dims or [60 if options.paper == "A" else 4]


def _open_file(options: TransformerOptions) -> Any:
    """Return the checkpoint of `--checkpoint`.

    Raises:
        RequestError: it was made for another paper, or for another d or model than were asked for.
    """
    from tttab.theory.transformer.store import open_file

    opened = open_file(options.checkpoint, options.device)  # type: ignore[arg-type]
    law, kind = opened.settings.law, opened.settings.model.kind
    paper = "A" if law.family == "linear" else "B"
    if paper != options.paper:
        raise RequestError(f"{options.checkpoint} was pre-trained for paper {paper}", again(paper=paper))
    if options.d and set(_dims(options)) != {law.d}:
        raise RequestError(f"{options.checkpoint} has d = {law.d}, not {options.d}", again(d=law.d))
    if options.model not in (None, kind):
        raise RequestError(f"{options.checkpoint} is a {kind} model", again(model=kind))
    return opened


def _open(options: TransformerOptions, d: int) -> Any:
    """Return the shipped checkpoint, or else one of the cache, pre-training it where it is not there."""
    from tttab.theory.transformer.store import open_file, recipe, shipped_path

    ready = shipped_path(options.paper, d)  # type: ignore[arg-type]
    if options.kind == "pair" and not options.full and not options.retrain and ready.exists():
        return open_file(ready, options.device)
    settings = recipe(options.paper, options.kind, "full" if options.full else "small", d)  # type: ignore[arg-type]
    return _make(options, replace(settings, seed=options.seed))


def _make(options: TransformerOptions, settings: Any) -> Any:
    from tttab.theory.transformer.pretrain import cache_folder
    from tttab.theory.transformer.store import Pretrained, make

    folder = options.cache or cache_folder()
    precision = "bfloat16" if options.device.startswith("cuda") else "float32"
    note(f"pre-training into {folder}; Ctrl-C keeps what is done, the same command goes on", quiet=False)
    opened = None
    try:
        with progress(quiet=options.json_lines) as bar:
            task = bar.add_task("pre-training", total=settings.steps, info="")
            for event in make(settings, folder, options.device, precision, options.minutes):
                if isinstance(event, Pretrained):
                    opened = event
                else:
                    text = f"loss {event.loss:.3f}"
                    bar.update(task, completed=event.step, total=event.steps, info=text)
    except KeyboardInterrupt:
        raise Interrupted("pre-training interrupted; its state is kept", again()) from None
    return opened


def _rows(options: TransformerOptions, opened: list[Any]) -> Iterator[Row]:
    for pretrained in opened:
        yield from _paper_a(options, pretrained) if options.paper == "A" else _paper_b(options, pretrained)


def _paper_a(options: TransformerOptions, pretrained: Any) -> Iterator[Row]:
    from tttab.theory.transformer.adapt import Adaptation
    from tttab.theory.transformer.paper_a import WarmColdSettings, warm_cold_rows

    settings = WarmColdSettings(
        k=(64, 96, 128, 192, 256, 384, 512) if options.full else (64, 128, 256, 512),
        tasks=options.tasks or (64 if options.full else 8),
        how=Adaptation(steps=options.steps or (150 if options.full else 60)),
        search=options.full,
        seed=options.seed,
        device=options.device,
    )
    return warm_cold_rows(pretrained, settings)


def _paper_b(options: TransformerOptions, pretrained: Any) -> Iterator[Row]:
    from tttab.theory.transformer.adapt import Adaptation
    from tttab.theory.transformer.paper_b import ContextSettings, context_rows

    settings = ContextSettings(
        lengths=(16, 32, 64, 128, 256, 512, 1024) if options.full else (16, 64, 256),
        tasks=options.tasks or (64 if options.full else 8),
        how=Adaptation(steps=options.steps or (100 if options.full else 50)),
        search=options.full,
        seed=options.seed,
        device=options.device,
    )
    return context_rows(pretrained, settings)
