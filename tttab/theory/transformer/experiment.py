"""Experiment: a small trained transformer, in context against trained at test time, for either paper.

What does not belong here: models, training, the papers' grids (`paper_a`, `paper_b`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tttab.errors import RequestError
from tttab.theory.device import check_device
from tttab.theory.experiment import (
    PAPER_B,
    Experiment,
    Progress,
    Row,
    Settings,
    Table,
    WrongOption,
    option,
    required,
)
from tttab.theory.plots import Panel, Series, Style, column, curve, distinct

if TYPE_CHECKING:
    from tttab.theory.transformer.pretrain import Pretraining
    from tttab.theory.transformer.store import Pretrained

STYLES: tuple[Style, ...] = ("line", "dashed", "dashdot")
COLUMNS = {
    "A": ("model", "d", "n", "k", "start", "loss", "stderr", "median", "best_linear", "stuck"),
    "B": ("model", "d", "shift", "n", "context_read", "method", "loss", "stderr", "median", "noise", "stuck"),
}


@dataclass(frozen=True, kw_only=True)
class TransformerSettings(Settings):
    """The paper, the model and the size of the experiment."""

    paper: Literal["A", "B"] = field(
        metadata=required("A: linear tasks, warm against cold. B: single-index tasks.")
    )
    model: Literal["pair", "gpt2"] | None = option(
        None, "pair, the default, or gpt2 (Hugging Face; needs tttab[transformer])."
    )
    d: tuple[int, ...] = option((), "Features; for paper B several, e.g. 4,8,16.", low=1)
    checkpoint: Path | None = option(None, "A checkpoint file to use.")
    retrain: bool = option(False, "Pre-train even where a checkpoint ships.")
    minutes: float = option(0.0, "Bound pre-training; 0: the recipe's own steps.", low=0)
    cache: Path | None = option(None, "Folder of checkpoints made here.")
    tasks: int = option(0, "Test tasks per point; 0: the default of the version.", low=0)
    steps: int = option(0, "Steps of test-time training; 0: the default.", low=0)
    full: bool = option(False, "Full-size model and grid: wants a GPU.", switch=True)
    seed: int = option(0, "Names the random streams: equal seeds, equal numbers.")
    device: str = option("cpu", "cpu, cuda or cuda:N.")

    @property
    def dims(self) -> tuple[int, ...]:
        """The numbers of features."""
        return self.d or ((60,) if self.paper == "A" else (4,))

    @property
    def count(self) -> int:
        """The number of test tasks."""
        return self.tasks or (64 if self.full else 8)

    def check(self) -> None:
        """Raise RequestError for choices that exclude each other or a device that is not there."""
        if self.checkpoint and self.retrain:
            raise RequestError("--checkpoint and --retrain exclude each other", "give one of them")
        if self.paper == "A" and len(self.d) > 1:
            text = ",".join(map(str, self.d))
            raise WrongOption(f"paper A takes one --d, got {text}", d=self.d[0])
        check_device(self.device)


def transformer(settings: TransformerSettings) -> Iterator[Row | Progress]:
    """Yield the rows of `warm_cold_rows` (A) or `context_rows` (B), before them how far pre-training is."""
    settings.check()
    opened: list[Pretrained] = []
    if settings.checkpoint:
        opened.append(_open_file(settings, settings.checkpoint))
    else:
        for d in settings.dims:
            opened.append((yield from _open(settings, d)))
    for pretrained in opened:
        yield from _paper_a(settings, pretrained) if settings.paper == "A" else _paper_b(settings, pretrained)


def _open_file(settings: TransformerSettings, path: Path) -> Pretrained:
    """Return the checkpoint of `--checkpoint`.

    Raises:
        WrongOption: it is for another paper, or for another d or model than were asked for.
    """
    from tttab.theory.transformer.store import open_file

    opened = open_file(path, settings.device)
    law, kind = opened.settings.law, opened.settings.model.kind
    paper = "A" if law.family == "linear" else "B"
    if paper != settings.paper:
        raise WrongOption(f"{path} was pre-trained for paper {paper}", paper=paper)
    if settings.d and set(settings.d) != {law.d}:
        wanted = ",".join(map(str, settings.d))
        raise WrongOption(f"{path} has d = {law.d}, not {wanted}", d=law.d)
    if settings.model not in (None, kind):
        raise WrongOption(f"{path} is a {kind} model", model=kind)
    return opened


def _open(settings: TransformerSettings, d: int) -> Generator[Progress, None, Pretrained]:
    """Return the shipped checkpoint, or else one of the cache, pre-training it where it is not there."""
    from tttab.theory.transformer.store import open_file, recipe, shipped_path

    kind = settings.model or "pair"
    ready = shipped_path(settings.paper, d)
    if kind == "pair" and not settings.full and not settings.retrain and ready.exists():
        return open_file(ready, settings.device)
    pretraining = recipe(settings.paper, kind, "full" if settings.full else "small", d)
    return (yield from _pretrain(settings, replace(pretraining, seed=settings.seed)))


def _pretrain(
    settings: TransformerSettings, pretraining: Pretraining
) -> Generator[Progress, None, Pretrained]:
    from tttab.theory.transformer.pretrain import cache_folder
    from tttab.theory.transformer.store import Pretrained, pretrain_into_cache

    folder = settings.cache or cache_folder()
    precision = "bfloat16" if settings.device.startswith("cuda") else "float32"
    stage = Progress(
        label=f"pre-training, d = {pretraining.law.d}",
        done=0,
        total=pretraining.steps,
        note=f"pre-training into {folder}; Ctrl-C keeps what is done, the same command goes on",
        interrupted="pre-training interrupted; its state is kept",
    )
    yield stage
    for event in pretrain_into_cache(pretraining, folder, settings.device, precision, settings.minutes):
        if isinstance(event, Pretrained):
            return event
        yield replace(stage, done=event.step, total=event.steps, info=f"loss {event.loss:.3f}")
    raise AssertionError("pre-training ends with a model")


def _paper_a(settings: TransformerSettings, pretrained: Pretrained) -> Iterator[Row]:
    from tttab.theory.transformer.adapt import TaskTraining
    from tttab.theory.transformer.paper_a import WarmColdSettings, warm_cold_rows

    grid = WarmColdSettings(
        k=(64, 96, 128, 192, 256, 384, 512) if settings.full else (64, 128, 256, 512),
        tasks=settings.count,
        how=TaskTraining(steps=settings.steps or (150 if settings.full else 60)),
        search=settings.full,
        seed=settings.seed,
        device=settings.device,
    )
    return warm_cold_rows(pretrained, grid)


def _paper_b(settings: TransformerSettings, pretrained: Pretrained) -> Iterator[Row]:
    from tttab.theory.transformer.adapt import TaskTraining
    from tttab.theory.transformer.paper_b import ContextSettings, context_rows

    grid = ContextSettings(
        lengths=(16, 32, 64, 128, 256, 512, 1024) if settings.full else (16, 64, 256),
        tasks=settings.count,
        how=TaskTraining(steps=settings.steps or (100 if settings.full else 50)),
        search=settings.full,
        seed=settings.seed,
        device=settings.device,
    )
    return context_rows(pretrained, grid)


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return one table of all rows, by paper."""
    return [Table(title(rows), COLUMNS[rows[0]["paper"]], rows)]


def title(rows: Sequence[Row]) -> str:
    """Return the title of table and figure."""
    paper = rows[0]["paper"]
    loss = "loss / E|b|^2 after training on k rows" if paper == "A" else "loss / label power"
    return f"Paper {paper}: {loss}"


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the panels of the rows' paper."""
    return warm_cold_panels(rows) if rows[0]["paper"] == "A" else context_panels(rows)


def warm_cold_panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the loss against k from the warm and the cold start, with in-context learning as a line."""
    trained = [row for row in rows if row["k"]]
    lines: list[Series] = []
    for colour, (start,) in enumerate(distinct(trained, "start")):
        here = [row for row in trained if row["start"] == start]
        x, y, bars = column(here, "k"), column(here, "loss"), column(here, "stderr")
        lines += curve(f"{start} start", x, y, bars, colour=colour)
    plain = next((row for row in rows if not row["k"]), None)
    if plain and trained:
        span = [min(row["k"] for row in trained), max(row["k"] for row in trained)]
        lines.append(Series("in context, n rows", span, [plain["loss"]] * 2, "dashed", 2))
        lines.append(Series("best linear, n rows", span, [plain["best_linear"]] * 2, "dotted", 6))
    first = rows[0]
    heading = f"{first['model']}, d = {first['d']}, n = {first['n']}"
    return [Panel(heading, "k", "loss / E|b|^2", lines, log_x=True, log_y=True)]


def context_panels(rows: Sequence[Row]) -> list[Panel]:
    """Return one panel per link shift: the loss against context length, by d and method."""
    found = []
    for (shift,) in distinct(rows, "shift"):
        here = [row for row in rows if row["shift"] == shift]
        lines: list[Series] = []
        methods, dims = distinct(here, "method"), distinct(here, "d")
        for d, method in distinct(here, "d", "method"):
            cell = [row for row in here if (row["d"], row["method"]) == (d, method)]
            colour, style = methods.index((method,)), STYLES[dims.index((d,)) % len(STYLES)]
            x, y, bars = column(cell, "n"), column(cell, "loss"), column(cell, "stderr")
            lines += curve(f"{method}, d = {d}", x, y, bars, colour=colour, style=style)
        single = [row for row in here if row["method"] == "icl" and row["d"] == here[0]["d"]]
        lines.append(Series("noise", column(single, "n"), column(single, "noise"), style="dotted", colour=6))
        heading = "in distribution" if shift == "none" else f"link shift: {shift}"
        found.append(Panel(heading, "context length", "loss / label power", lines, log_x=True, log_y=True))
    return found


EXPERIMENT = Experiment(
    name="transformer",
    help="Small transformers under both papers' experiments: in context against trained at test time."
    "\n\nA small checkpoint per paper ships; others are pre-trained once, resumably, and kept in the cache.",
    example="--paper B --plot context.svg",
    group=PAPER_B,
    settings=TransformerSettings,
    rows=transformer,
    columns=(
        *("experiment", "paper", "model", "width", "d", "n", "k", "gamma", "start"),
        *("loss", "stderr", "median", "best_linear", "tasks", "stuck", "lr", "steps"),
        *("checkpoint", "checkpoint_key", "pretraining", "seed", "device", "best_step"),
        *("r", "shift", "context_read", "method", "noise", "rank"),
    ),
    quick=(
        TransformerSettings(paper="A", tasks=1, steps=1),
        TransformerSettings(paper="B", tasks=1, steps=1),
    ),
    tables=tables,
    panels=panels,
    title=title,
)
