"""`tttab theory transformer`: both papers' experiments on a small trained transformer.

What does not belong here: models, training, test-time training (`tttab.theory.transformer_*`).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

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
from tttab.errors import Interrupted, RequestError

COLUMNS = {
    "A": ["model", "d", "n", "k", "start", "loss", "stderr", "median", "best_linear", "stuck"],
    "B": ["model", "d", "shift", "n", "context_read", "method", "loss", "stderr", "median", "noise", "stuck"],
}


@dataclass(frozen=True)
class TransformerOptions:
    """Options of the command."""

    paper: Annotated[str, typer.Option(help="A: linear tasks, warm against cold. B: single-index tasks.")]
    model: Annotated[str, typer.Option(help="pair, or gpt2 (Hugging Face; needs tttab\\[transformer]).")] = (
        "pair"
    )
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


@spread(TransformerOptions)
def transformer(options: TransformerOptions) -> None:
    """Small transformers under both papers' experiments: in context against trained at test time.

    A small checkpoint per paper ships; others are pre-trained once, resumably, and kept in the cache.
    """
    from tttab.cli.theory_index import check_output, draw_rows

    _check(options)
    check_output(options.plot, options.device)
    opened = [_open(options, d) for d in _dims(options)]
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
    if options.model not in ("pair", "gpt2"):
        raise RequestError(f"there is no model {options.model}", "--model pair or --model gpt2")
    if min(options.minutes, options.tasks, options.steps) < 0:
        raise RequestError("--minutes, --tasks and --steps cannot be negative", "--minutes 5")


def _dims(options: TransformerOptions) -> list[int]:
    try:
        dims = [int(part) for part in options.d.split(",") if part.strip()]
    except ValueError:
        raise RequestError(f"--d takes whole numbers, not {options.d}", "--d 4,8,16") from None
    if any(d < 1 for d in dims):
        raise RequestError("--d takes numbers from 1", "--d 4,8,16")
    return dims or [60 if options.paper == "A" else 4]


def _open(options: TransformerOptions, d: int) -> Any:
    """Return the checkpoint to use, pre-training one where none is to be had."""
    from tttab.theory.transformer_store import open_file, recipe, shipped_path

    if options.checkpoint:
        return open_file(options.checkpoint, options.device)
    ready = shipped_path(options.paper, d)  # type: ignore[arg-type]
    if options.model == "pair" and not options.full and not options.retrain and ready.exists():
        return open_file(ready, options.device)
    settings = recipe(options.paper, options.model, "full" if options.full else "small", d)  # type: ignore[arg-type]
    return _make(options, replace(settings, seed=options.seed))


def _make(options: TransformerOptions, settings: Any) -> Any:
    from tttab.theory.transformer_pretrain import cache_folder
    from tttab.theory.transformer_store import Pretrained, make

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
        again = shlex.join(["tttab", *sys.argv[1:]])
        raise Interrupted("pre-training interrupted; its state is kept", again) from None
    return opened


def _rows(options: TransformerOptions, opened: list[Any]) -> Iterator[Row]:
    for pretrained in opened:
        yield from _paper_a(options, pretrained) if options.paper == "A" else _paper_b(options, pretrained)


def _paper_a(options: TransformerOptions, pretrained: Any) -> Iterator[Row]:
    from tttab.theory.transformer_adapt import Adaptation
    from tttab.theory.transformer_paper_a import WarmColdSettings, warm_cold_rows

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
    from tttab.theory.transformer_adapt import Adaptation
    from tttab.theory.transformer_paper_b import ContextSettings, context_rows

    settings = ContextSettings(
        lengths=(16, 32, 64, 128, 256, 512, 1024) if options.full else (16, 64, 256),
        tasks=options.tasks or (64 if options.full else 8),
        how=Adaptation(steps=options.steps or (100 if options.full else 50)),
        search=options.full,
        seed=options.seed,
        device=options.device,
    )
    return context_rows(pretrained, settings)
