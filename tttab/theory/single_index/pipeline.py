"""Experiment: test error of the whole algorithm against N, beside the noise and the in-context model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tttab.errors import RequestError
from tttab.seeding import torch_stream
from tttab.theory.device import check_device
from tttab.theory.experiment import PAPER_B, Experiment, Row, Table, option, stderr
from tttab.theory.plots import Panel, Series, column, curve, distinct
from tttab.theory.single_index.hermite import parse_link
from tttab.theory.single_index.settings import LINK, Ablations, Common, StageOne

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tttab.theory.single_index.algorithm import InContext, Pipeline
    from tttab.theory.single_index.tasks import IndexLaw, IndexTasks

TEST_ROWS = 512
STUCK = 0.5
NAMES = {"ttt": "trained", "icl": "in context"}
PROMPTS = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
"""Prompt lengths of the long version."""


@dataclass(frozen=True, kw_only=True)
class PipelineSettings(Common, StageOne, Ablations):
    """The grid."""

    n: tuple[float, ...] = option(
        (),
        "Prompt lengths, with commas; inf: the limit of the in-context model.",
        low=1,
        infinite=True,
    )
    d: tuple[int, ...] = option((32,), "Features, with commas: one curve each.", low=1)
    r: int = option(16, "Dimension of the subspace.")
    link: str = option("He3", LINK)
    pretraining_tasks: int = option(0, "Tasks that G is pre-trained on; 0: infinitely many.", low=0)
    in_context: bool = True
    """Measure the in-context model as well."""
    default_tasks = (16, 256)

    @property
    def prompts(self) -> tuple[int, ...]:
        """N, all four parts of the prompt together."""
        finite = tuple(int(n) for n in self.n if n < math.inf)
        return finite if self.n else self.by_version((1024, 4096, 16384), PROMPTS)

    @property
    def endless(self) -> bool:
        """Whether the limit of the in-context model has a row."""
        return self.in_context and (not self.n or math.inf in self.n)

    @property
    def vary(self) -> int:
        """Degree whose weight is drawn from U(-0.5, 0.5) for each task; 0: one link for all."""
        return 0 if self.link_fixed else 4

    @property
    def how(self) -> Pipeline:
        """The algorithm with these choices."""
        from tttab.theory.single_index.algorithm import Pipeline

        return Pipeline.of(self, self.weak)

    def check(self) -> None:
        """Raise RequestError or MemoryPlanError for what cannot be run."""
        from tttab.theory.single_index.algorithm import FEWEST_ROWS, prompt_parts
        from tttab.theory.single_index.checks import check_link, check_matrices, check_rows

        check_device(self.device)
        if self.skip_stage_1 and self.no_distill:
            raise RequestError("--skip-stage-1 and --no-distill exclude each other", "give one of them")
        check_link(self.link, "--link")
        part = next((n for n in self.n if n < math.inf and n != int(n)), None)
        if part is not None:
            raise RequestError(f"--n takes whole numbers and inf, got {part:g}", f"--n {math.ceil(part)}")
        prompt_parts(min(self.prompts, default=FEWEST_ROWS))
        least, most = min(self.d), max(self.d)
        if not 1 <= self.r <= least:
            raise RequestError(f"r = {self.r} must lie between 1 and d = {least}", f"--r {least}")
        check_matrices(most, self.device, "--d")
        at_once = min(32, self.count) if self.in_context else 1
        check_rows(max(self.prompts, default=0) * most * at_once, self.device, "--n 1024,4096,16384")
        check_rows(self.queries * self.r, self.device, "--queries 2048")


def pipeline_rows(settings: PipelineSettings) -> Iterator[Row]:
    """Yield one row per (d, N, method ttt or icl).

    `error` is the expected squared error on a noisy label, so `noise_level` = tau^2 is its floor; a task is
    stuck where the error without noise exceeds half of the labels' power. Alignments |<b, u>| are medians
    over tasks, as one that is stuck says nothing of the others; stage I's mean stands beside them. The last
    row, `icl-limit`, has no N and no d: the in-context model's error with rows without end (`plateau`),
    `bulk` without the noise and from |z| < 2.5 alone.
    """
    from tttab.theory.single_index.tasks import draw_basis

    settings.check()
    for d in settings.d:
        law = _law(settings, d)
        generator = torch_stream(settings.seed, "pipeline", "subspace", d, device=settings.device)
        basis = draw_basis(law, generator)
        gamma = _gamma(settings, law, basis, generator)
        for rows in settings.prompts:
            yield from _rows_at(settings, (law, basis, gamma), rows)
    if settings.endless:
        yield _limit_row(settings)


def _limit_row(settings: PipelineSettings) -> Row:
    from tttab.theory.single_index.plateau import links, plateau

    law = _law(settings, max(settings.d))
    floor, noise = plateau(law, settings.temp), law.noise**2
    power = float(links(law).square().sum(dim=1).mean())
    return _head(settings, None, None, "icl-limit") | {
        "error": floor.mean + noise,
        "median": floor.median + noise,
        "noise_level": noise,
        "label_power": power,
        "temp": settings.temp,
        "bulk": floor.bulk,
    }


def _law(settings: PipelineSettings, d: int) -> IndexLaw:
    from tttab.theory.single_index.tasks import IndexLaw, law_of_link

    exact = law_of_link(parse_link(settings.link), d, settings.r, settings.noise)
    return IndexLaw(d, settings.r, exact.link, settings.noise, settings.vary)


def _gamma(settings: PipelineSettings, law: IndexLaw, basis: Tensor, generator: torch.Generator) -> Tensor:
    from tttab.theory.single_index.attention import normalised, population_gamma, sampled_gamma

    gamma, _ = population_gamma(law, basis, settings.temp)
    if settings.pretraining_tasks:
        for _, raw in sampled_gamma(law, basis, settings.pretraining_tasks, 64, generator, settings.temp):
            gamma = raw
        gamma = normalised(gamma, law.r)
    return gamma.to(basis)


def _rows_at(settings: PipelineSettings, world: tuple[IndexLaw, Tensor, Tensor], rows: int) -> Iterator[Row]:
    import torch

    from tttab.theory.single_index.algorithm import pretrain_in_context
    from tttab.theory.single_index.tasks import draw_tasks

    law, basis, gamma = world
    generator = torch_stream(settings.seed, "pipeline", law.d, rows, device=settings.device)
    tasks = draw_tasks(law, basis, settings.count, generator)
    in_context = None
    if settings.in_context:
        seen = draw_tasks(law, basis, min(32, settings.count), generator)
        in_context = pretrain_in_context(settings.how, gamma, seen, rows, generator)
    parts: list[tuple[Tensor, ...]] = []
    size = max(1, (2**25 if generator.device.type == "cpu" else 2**30) // (rows * law.d))
    for first in range(0, settings.count, size):
        parts.append(
            _measure(settings.how, tasks.part(first, first + size), (gamma, in_context), rows, generator)
        )
    ttt, weak, strong, icl = (torch.cat(values) for values in zip(*parts, strict=True))
    aligned = {
        "weak_alignment_mean": float(weak.mean()),
        "weak_alignment_median": float(weak.quantile(0.5)),
        "strong_alignment_median": float(strong.quantile(0.5)),
    }
    yield _row(settings, tasks, rows, "ttt", ttt) | aligned
    if in_context:
        yield _row(settings, tasks, rows, "icl", icl)


def _measure(
    how: Pipeline,
    tasks: IndexTasks,
    models: tuple[Tensor, InContext | None],
    rows: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the trained model's errors, both alignments and the in-context model's errors, per task."""
    import torch

    from tttab.theory.single_index.algorithm import train
    from tttab.theory.single_index.stages import alignment
    from tttab.theory.single_index.tasks import draw_rows

    gamma, in_context = models
    x, y = draw_rows(tasks, rows, generator)
    shape = (len(tasks.direction), TEST_ROWS, tasks.law.d)
    test = torch.randn(shape, generator=generator, device=generator.device)
    trained = train(how, gamma, x, y, generator)
    errors = _errors(tasks, test, trained.predict(test))
    weak, strong = (alignment(u, tasks.direction) for u in (trained.weak, trained.strong))
    queries = test[:, :128]
    icl = _errors(tasks, queries, in_context.predict(x, y, queries)) if in_context else errors
    return errors, weak, strong, icl


def _errors(tasks: IndexTasks, x: Tensor, predicted: Tensor) -> Tensor:
    return (predicted - tasks.clean(x)).square().mean(dim=1)


def _row(settings: PipelineSettings, tasks: IndexTasks, rows: int, method: str, errors: Tensor) -> Row:
    law = tasks.law
    power = float(tasks.weights.square().sum(dim=1).mean())
    floor = law.noise**2
    return _head(settings, law.d, rows, method) | {
        "stage_1": settings.how.weak if method == "ttt" else "",
        "error": float(errors.mean()) + floor,
        "stderr": stderr(errors),
        "median": float(errors.quantile(0.5)) + floor,
        "noise_level": floor,
        "label_power": power,
        "stuck": int((errors > STUCK * power).sum()),
        "tasks": len(errors),
        **settings.how.stage_one,
        "pipeline": asdict(settings.how),
        "pretraining_tasks": settings.pretraining_tasks,
    }


def _head(settings: PipelineSettings, d: int | None, rows: int | None, method: str) -> Row:
    return {
        "experiment": "single-index",
        "link": settings.link,
        "vary": settings.vary,
        "d": d,
        "r": settings.r,
        "n": rows,
        "method": method,
        "seed": settings.seed,
        "device": settings.device_type,
    }


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return one table of all rows, with the answer below it."""
    columns = (
        *("d", "n", "method", "error", "stderr", "median", "noise_level"),
        *("weak_alignment_mean", "weak_alignment_median", "strong_alignment_median", "stuck"),
    )
    known = {name for row in rows for name in row}
    return [Table(title(rows), [name for name in columns if name in known], rows, answer(rows))]


def title(rows: Sequence[Row]) -> str:
    """Return the title of table and figure."""
    link = "link varies" if rows[0]["vary"] else "link fixed"
    return f"{rows[0]['link']}, {link}, r = {rows[0]['r']}: squared error on new rows"


def answer(rows: Sequence[Row]) -> str:
    """Say what each model reaches at the longest prompt, and what the in-context one keeps in the limit."""
    noise, parts = rows[0]["noise_level"], []
    longest = max((row["n"] for row in rows if row["n"]), default=None)
    for method, name in NAMES.items():
        here = [row for row in rows if row["method"] == method and row["n"] == longest]
        parts += (
            [f"{name} {here[0]['median']:.3g} (median at N = {longest}, d = {here[0]['d']})"] if here else []
        )
    last = rows[-1]
    if last["method"] == "icl-limit":
        plateau = last["error"] - noise
        held = f"{last['error']:.3g}, {last['bulk'] + noise:.3g} of it from |z| < 2.5"
        parts.append(f"in context without end {held if plateau > 1e-3 else 'down to the noise'}")
    return f"noise {noise:.3g}; " + "; ".join(parts)


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return median and mean test error against N, by d and method, with the noise level and the limit."""
    found = []
    for name, heading in (("median", "median over tasks"), ("error", "mean over tasks")):
        lines: list[Series] = []
        finite = [row for row in rows if row["n"]]
        for colour, (d, method) in enumerate(distinct(finite, "d", "method")):
            here = [row for row in finite if (row["d"], row["method"]) == (d, method)]
            bars = column(here, "stderr") if name == "error" else ()
            lines += curve(
                f"{NAMES[method]}, d = {d}", column(here, "n"), column(here, name), bars, colour=colour
            )
        ends = [
            min((row["n"] for row in finite), default=64),
            max((row["n"] for row in finite), default=65536),
        ]
        lines.append(Series("noise", ends, [rows[0]["noise_level"]] * 2, style="dotted", colour=6))
        for row in rows:
            if row["method"] == "icl-limit":
                bulk = name == "median"  # a task's few test rows seldom reach the tails
                value = row["bulk"] + row["noise_level"] if bulk else row[name]
                label = f"in context, N = infinity{', |z| < 2.5' if bulk else ''}"
                lines.append(Series(label, ends, [value] * 2, style="dashed", colour=6))
        found.append(Panel(heading, "prompt rows N", "squared error", lines, log_x=True, log_y=True))
    return found


EXPERIMENT = Experiment(
    name="single-index",
    help="Test error of all three stages against N, with the noise level and the one-layer in-context model."
    "\n\nThe link varies: He4's weight is drawn from U(-0.5, 0.5) for each task, unless --link-fixed.",
    example="--no-distill",
    group=PAPER_B,
    settings=PipelineSettings,
    rows=pipeline_rows,
    columns=(
        *("experiment", "link", "vary", "d", "r", "n", "method", "seed", "device", "stage_1", "error"),
        *("stderr", "median", "noise_level", "label_power", "stuck", "tasks", "queries", "temp", "tilt"),
        *("precision", "pipeline", "pretraining_tasks"),
        *("weak_alignment_mean", "weak_alignment_median", "strong_alignment_median", "bulk"),
    ),
    quick=(PipelineSettings(n=(128, math.inf), d=(4, 6), r=4, queries=64, tasks=3),),
    tables=tables,
    panels=panels,
    title=lambda rows: f"tttab theory single-index, seed {rows[0]['seed']}: {title(rows)}",
    total=lambda settings: 2 * len(settings.prompts) * len(settings.d) + settings.endless,
)
