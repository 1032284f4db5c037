"""Experiment: outside the theorem: links of two directions, links that are no polynomials, joint training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from tttab.errors import RequestError
from tttab.seeding import torch_stream
from tttab.theory.device import check_device
from tttab.theory.experiment import PAPER_B, Experiment, Row, Table, option, over_tasks
from tttab.theory.plots import Panel, Series, column, curve, distinct
from tttab.theory.single_index.settings import Common, StageOne

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tttab.theory.single_index.free_links import FreeTasks

LinkName = Literal["He3", "sign", "tanh", "abs", "cos", "product", "sum", "ridge-pair"]
METHODS = ("stages", "joint", "joint from I", "plane", "joint plane")
"""Stages I to III; direction and output layer by Adam together, from a random direction and from stage I's.
For two directions also: stage I from many starts, their two main axes and stage III on them; the same, then
both layers together."""
AXIS = "E(f - s)² / E s²"
TEST_ROWS, NEURONS = 1024, 128
STUCK = 0.5


@dataclass(frozen=True, kw_only=True)
class BeyondSettings(Common, StageOne):
    """The grid."""

    links: tuple[LinkName, ...] = option(
        ("He3", "sign", "tanh", "abs", "cos", "product", "sum", "ridge-pair"),
        "Links, with commas; He3 is a control inside the theorem, the last three have two directions.",
    )
    n: tuple[int, ...] = option((1024, 4096), "Prompt lengths, with commas.", low=64)
    r: int = option(16, "Dimension of the subspace, and features.", low=2)
    starts: int = option(16, "Starts of stage I for two directions.", low=2)
    steps: int = option(300, "Steps of joint training.", low=1)
    lr: float = option(0.02, "Adam's step size in joint training.", low=0, strict=True)

    def check(self) -> None:
        """Raise RequestError or MemoryPlanError for what cannot be run."""
        from tttab.theory.single_index.checks import check_rows

        check_device(self.device)
        if self.queries < 2:
            raise RequestError(f"--queries must be at least 2, got {self.queries}", "--queries 2048")
        numbers = max(max(self.n) * max(self.r, NEURONS), self.queries * self.r * self.starts)
        check_rows(self.count * numbers, self.device, "--n 1024,4096 --r 16 --tasks 16")


def beyond_rows(settings: BeyondSettings) -> Iterator[Row]:
    """Yield a row per (link, N, method).

    `error` is E(f - s)^2 over E s^2 = 1 on rows without noise; `floor` what no function of one direction of
    x can do better than (0 where the link has one), by quadrature. `alignment` is the length of the found
    direction's projection on the span of the link's. A task is stuck where its error exceeds half.
    """
    settings.check()
    for link in settings.links:
        for rows in settings.n:
            yield from _rows_at(settings, link, rows)


def _rows_at(settings: BeyondSettings, link: LinkName, rows: int) -> Iterator[Row]:
    import torch

    from tttab.theory.single_index.free_links import draw_free_tasks, one_direction_floor
    from tttab.theory.single_index.tasks import draw_rows

    generator = torch_stream(settings.seed, "beyond", link, rows, device=settings.device)
    tasks = draw_free_tasks(link, settings.r, settings.noise, settings.count, generator)
    x, y = draw_rows(tasks, rows, generator)
    test = torch.randn(settings.count, TEST_ROWS, settings.r, generator=generator, device=x.device)
    floor, clean = one_direction_floor(link), tasks.clean(test)
    for method in METHODS[: 5 if tasks.pair else 3]:
        found, predicted = _fitted(settings, method, (x, y), test, generator)
        error = (predicted - clean).square().mean(1)
        yield _row(settings, (link, rows, method), tasks, (floor, found, error))


def _fitted(
    settings: BeyondSettings,
    method: str,
    prompt: tuple[Tensor, Tensor],
    test: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return a method's directions (tasks, d, m) and its predictions on the test rows (tasks, rows)."""
    import torch

    from tttab.theory.single_index.algorithm import Pipeline, train, weak_direction
    from tttab.theory.single_index.free_links import fit_output, main_plane, train_jointly

    (x, y), how = prompt, Pipeline.of(settings)
    gamma = torch.eye(settings.r, device=x.device) / settings.r**0.5
    if method == "stages":
        trained = train(how, gamma, x, y, generator)
        return trained.strong[:, :, None], trained.predict(test)
    first, rest = slice(None, x.shape[1] // 4), slice(x.shape[1] // 4, None)
    if "plane" in method:
        found = main_plane(how, gamma, x[:, first], y[:, first], settings.starts, generator)
    else:
        how = how if method == "joint from I" else replace(how, weak="random")
        found = weak_direction(how, gamma, x[:, first], y[:, first], generator)[:, :, None]
    fitted = fit_output(how, found, x[:, rest], y[:, rest], generator)
    if method != "plane":
        fitted = train_jointly(fitted, x, y, settings.steps, settings.lr, generator)
    return fitted.directions, fitted.predict(test)


def _row(
    settings: BeyondSettings,
    cell: tuple[str, int, str],
    tasks: FreeTasks,
    found: tuple[float, Tensor, Tensor],
) -> Row:
    floor, directions, error = found
    aligned = tasks.alignment(directions)
    return {
        "experiment": "beyond",
        "link": cell[0],
        "directions": 1 + tasks.pair,
        "r": settings.r,
        "n": cell[1],
        "method": cell[2],
        "alignment": float(aligned.quantile(0.5)),
        "floor": floor,
        **over_tasks("error", error),
        "stuck": int((error > STUCK).sum()),
        "tasks": len(error),
        "noise": settings.noise,
        "steps": settings.steps if "joint" in cell[2] else None,
        "seed": settings.seed,
        "device": settings.device_type,
    }


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return all rows with the answer below them."""
    columns = (
        "link",
        "directions",
        "n",
        "method",
        "alignment",
        "floor",
        "error",
        "stderr",
        "median",
        "stuck",
    )
    title = f"Beyond the theorem, r = {rows[0]['r']}: squared error over the labels' power"
    return [Table(title, columns, rows, answer(rows))]


def answer(rows: Sequence[Row]) -> str:
    """Say, at the largest N, what each method's median error is, link by link."""
    most = max(row["n"] for row in rows)
    parts = []
    for (link,) in distinct(rows, "link"):
        here = [row for row in rows if (row["link"], row["n"]) == (link, most)]
        words = ", ".join(f"{row['method']} {row['median']:.2g}" for row in here)
        floor = f" (floor of one direction {here[0]['floor']:.2g})" if here[0]["floor"] else ""
        parts.append(f"{link}{floor}: {words}")
    return f"median error at N = {most:,}: {'; '.join(parts)}"


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the median errors of all links at the largest N, then, where there are several, each over N."""
    several = len(distinct(rows, "n")) > 1
    return [_overview(rows), *(_over_rows(rows, link) for (link,) in distinct(rows, "link") if several)]


def _overview(rows: Sequence[Row]) -> Panel:
    most, names = max(row["n"] for row in rows), [link for (link,) in distinct(rows, "link")]
    here = [row for row in rows if row["n"] == most]
    lines: list[Series] = []
    for colour, method in enumerate(METHODS):
        part = [row for row in here if row["method"] == method]
        places = [names.index(row["link"]) for row in part]
        lines.append(Series(method, places, column(part, "median"), "points", colour))
    floors = {names.index(row["link"]): row["floor"] for row in here if row["floor"]}
    lines.append(Series("floor of one direction", [*floors], [*floors.values()], "crosses", 6))
    heading = f"All links at N = {most:,}: median over tasks"
    return Panel(heading, "link", AXIS, lines, log_y=True, x_names=names)


def _over_rows(rows: Sequence[Row], link: str) -> Panel:
    here = [row for row in rows if row["link"] == link]
    lines: list[Series] = []
    for colour, method in enumerate(METHODS):
        part = [row for row in here if row["method"] == method]
        if part:
            lines += curve(method, column(part, "n"), column(part, "median"), colour=colour)
    if here[0]["floor"]:
        ends = [here[0]["n"], here[-1]["n"]]
        lines.append(Series("floor of one direction", ends, [here[0]["floor"]] * 2, "dotted", 6))
    return Panel(f"{link}: median over tasks", "prompt length N", AXIS, lines, log_x=True, log_y=True)


def _total(settings: BeyondSettings) -> int:
    from tttab.theory.single_index.free_links import PAIRS

    return len(settings.n) * sum(3 + 2 * (link in PAIRS) for link in settings.links)


EXPERIMENT = Experiment(
    name="beyond",
    help="Outside the theorem: links of two directions, no polynomials, and joint training of both layers.",
    example="--links abs,product --plot beyond.svg",
    group=PAPER_B,
    settings=BeyondSettings,
    rows=beyond_rows,
    columns=(
        *("experiment", "link", "directions", "r", "n", "method", "alignment", "floor", "error", "stderr"),
        *("median", "stuck", "tasks", "noise", "steps", "seed", "device"),
    ),
    quick=(
        BeyondSettings(links=("sign", "product"), n=(128, 256), r=4, queries=64, tasks=3, starts=4, steps=5),
    ),
    tables=tables,
    panels=panels,
    title=lambda rows: f"tttab theory beyond, seed {rows[0]['seed']}: r = d = {rows[0]['r']}",
    total=_total,
)
