"""Experiment: a small trained transformer, in context against trained at test time, for either paper."""

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

LENGTHS = (16, 64, 256, 1024, 4096)
STYLES: tuple[Style, ...] = ("line", "dashed", "dashdot")
NAMES = {"icl": "in context", "ttt-full": "trained, all weights", "ttt-lora": "trained, LoRA"}
SHIFTS = {
    "none": "in distribution",
    "c=1": "link shift: He4's weight is 1",
    "he2": "link shift: He2 mixed in",
}
COLUMNS = {
    "A": (
        *("k", "start", "loss_fresh", "stderr_fresh", "lead", "lead_stderr", "better"),
        *("loss_same", "stderr_same", "ols_all", "stuck", "lr", "best_step"),
    ),
    "B": ("d", "shift", "n", "method", "loss", "stderr", "median", "noise", "stuck", "lr", "best_step"),
}


@dataclass(frozen=True, kw_only=True)
class TransformerSettings(Settings):
    """The paper, the model and the size of the experiment."""

    paper: Literal["A", "B"] = field(
        metadata=required("A: linear tasks, warm against cold. B: single-index tasks.")
    )
    model: Literal["pair", "gpt2", "gpt2-pairs"] | None = option(
        None, "pair, the default; gpt2 or gpt2-pairs, one token per row (Hugging Face; tttab[transformer])."
    )
    d: tuple[int, ...] = option((), "Features; for paper B several, e.g. 4,8,16.", low=1)
    checkpoint: Path | None = option(None, "A checkpoint file to use.")
    retrain: bool = option(False, "Pre-train even if a checkpoint is included.", switch=True)
    minutes: float = option(0.0, "Time limit of pre-training in minutes (0: the recipe's steps).", low=0)
    cache: Path | None = option(None, "Folder for checkpoints that are pre-trained here.")
    tasks: int = option(0, "Test tasks per point (0: the default, more with --full).", low=0)
    steps: int = option(0, "Steps of test-time training (0: the default).", low=0)
    full: bool = option(False, "Full-size model and grid; needs a GPU.", switch=True)
    seed: int = option(0, "Random seed.")
    device: str = option("cpu", "Where to compute: cpu, cuda or cuda:N.")

    @property
    def dims(self) -> tuple[int, ...]:
        """The numbers of features."""
        return self.d or ((60,) if self.paper == "A" else (4,))

    @property
    def count(self) -> int:
        """The number of test tasks."""
        return self.tasks or (64 if self.full else 16 if self.paper == "A" else 8)

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

    steps = settings.steps or (100 if settings.full else 50)
    grid = ContextSettings(
        lengths=LENGTHS if settings.full else LENGTHS[:-1],
        tasks=settings.count,
        how=TaskTraining(steps=steps),
        search=settings.full,
        long_steps=settings.steps or 2 * steps,
        whole=settings.full,
        seed=settings.seed,
        device=settings.device,
    )
    return context_rows(pretrained, grid)


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return one table of all rows with the answer below it, by paper."""
    paper = rows[0]["paper"]
    return [
        Table(title(rows), COLUMNS[paper], rows, warm_cold_answer(rows) if paper == "A" else answer(rows))
    ]


def title(rows: Sequence[Row]) -> str:
    """Return the title of table and figure."""
    first = rows[0]
    loss = "loss / E|b|^2 after training on k rows" if first["paper"] == "A" else "loss / label power"
    size = f", n = {first['n']}" if first["paper"] == "A" else ""
    dims = ", ".join(str(d) for (d,) in distinct(rows, "d"))
    return f"Paper {first['paper']}, {first['model']} model, d = {dims}{size}: {loss}"


def warm_cold_answer(rows: Sequence[Row]) -> str:
    """Say from which k on the cold start is better, under fresh contexts and under the same one."""
    cold = [row for row in rows if row["start"] == "cold"]
    if not cold:
        return ""
    same = [row["loss_same"] for row in rows if row["start"] == "warm" and row["k"]]
    first, last = next((row for row in cold if row["lead"] > 0), None), cold[-1]["k"]
    if first is None:
        fresh = f"on fresh contexts the warm start is better up to k = {last}"
    elif first is cold[0]:
        fresh = f"on fresh contexts the cold start is better from the least k, {first['k']}, on"
    else:
        before = cold[cold.index(first) - 1]["k"]
        fresh = (
            f"on fresh contexts the cold start overtakes the warm start between k = {before} and {first['k']}"
        )
    wins = [row["k"] for row, warm in zip(cold, same, strict=True) if row["loss_same"] < warm]
    trained = f"it is ahead from k = {wins[0]} on" if wins else f"it stays behind up to k = {last}"
    return f"{fresh}; on the context that was trained on {trained}"


def answer(rows: Sequence[Row]) -> str:
    """Say, in distribution, where in-context learning ends and where test-time training does."""
    here = [row for row in rows if row["shift"] == "none" and row["d"] == rows[0]["d"]]
    plain = [row for row in here if row["method"] == "icl"]
    last, noise = plain[-1], plain[-1]["noise"]
    best = min((row for row in here if row["n"] == last["n"]), key=lambda row: row["median"])
    fall = (
        f", {plain[-2]['median'] / last['median']:.2g} times less than at N = {plain[-2]['n']}"
        if plain[1:]
        else ""
    )
    trained = "no training is better" if best is last else f"{best['method']} reaches {best['median']:.3g}"
    return (
        f"in distribution, d = {last['d']}, N = {last['n']}: median in context {last['median']:.3g}"
        f" ({last['median'] / noise:.2g} times the noise{fall}); {trained}"
    )


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the panels of the rows' paper."""
    return warm_cold_panels(rows) if rows[0]["paper"] == "A" else context_panels(rows)


def warm_cold_panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the loss against k from both starts, under fresh contexts and under the one trained on."""
    trained = [row for row in rows if row["k"]]
    plain = next((row for row in rows if not row["k"]), None)
    found = []
    for place, heading in (("fresh", "F: fresh contexts"), ("same", "S: the context that was trained on")):
        lines: list[Series] = []
        for colour, (start,) in enumerate(distinct(trained, "start")):
            here = [row for row in trained if row["start"] == start]
            x, y, bars = column(here, "k"), column(here, f"loss_{place}"), column(here, f"stderr_{place}")
            lines += curve(f"{start} start", x, y, bars, colour=colour)
        if plain and trained:
            span = [min(row["k"] for row in trained), max(row["k"] for row in trained)]
            lines.append(Series("in context, n rows", span, [plain[f"loss_{place}"]] * 2, "dashed", 2))
            lines.append(Series("best linear, n rows", span, [plain["best_linear"]] * 2, "dotted", 6))
        found.append(Panel(heading, "training rows k", "loss / E|b|²", lines, log_x=True, log_y=True))
    return found


def context_panels(rows: Sequence[Row]) -> list[Panel]:
    """Return one panel per link shift: the median loss against context length, by d and method."""
    found = []
    for (shift,) in distinct(rows, "shift"):
        here = [row for row in rows if row["shift"] == shift]
        lines: list[Series] = []
        methods, dims = distinct(here, "method"), distinct(here, "d")
        for d, method in distinct(here, "d", "method"):
            cell = [row for row in here if (row["d"], row["method"]) == (d, method)]
            colour, style = methods.index((method,)), STYLES[dims.index((d,)) % len(STYLES)]
            x, y = column(cell, "n"), column(cell, "median")
            lines += curve(f"{NAMES[method]}, d = {d}", x, y, colour=colour, style=style)
        single = [row for row in here if row["method"] == "icl" and row["d"] == here[0]["d"]]
        lines.append(Series("noise", column(single, "n"), column(single, "noise"), style="dotted", colour=6))
        heading = SHIFTS[shift]
        axis = "median loss / label power"
        found.append(Panel(heading, "context length N", axis, lines, log_x=True, log_y=True))
    return found


EXPERIMENT = Experiment(
    name="transformer",
    help="Small transformers under both papers' experiments: in context against trained at test time."
    "\n\nA small checkpoint per paper is included. Others are pre-trained once and kept in the cache.",
    example="--paper B --plot context.svg",
    group=PAPER_B,
    settings=TransformerSettings,
    rows=transformer,
    columns=(
        *("experiment", "paper", "model", "width", "d", "n", "k", "gamma", "start"),
        *("loss_same", "stderr_same", "loss_fresh", "stderr_fresh", "best_linear", "ols_all"),
        *("tasks", "stuck", "lr", "steps", "checkpoint", "checkpoint_key", "pretraining", "seed", "device"),
        *("best_step", "lead", "lead_stderr", "better"),
        *("r", "shift", "method", "loss", "stderr", "median", "noise", "rank"),
    ),
    quick=(
        TransformerSettings(paper="A", tasks=1, steps=1),
        TransformerSettings(paper="B", tasks=1, steps=1),
    ),
    tables=tables,
    panels=panels,
    title=lambda rows: f"tttab theory transformer, seed {rows[0]['seed']}: {title(rows)}",
)
