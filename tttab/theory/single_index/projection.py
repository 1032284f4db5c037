"""Experiment: how close the sampled pre-training step comes to the population's projection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tttab.errors import RequestError
from tttab.seeding import torch_stream
from tttab.theory.device import check_device
from tttab.theory.experiment import PAPER_B, Experiment, Row, Table, option
from tttab.theory.plots import Panel, Series, column, curve, distinct
from tttab.theory.single_index.hermite import parse_link
from tttab.theory.single_index.settings import Common

BATCHES = 8
"""Independent parts of the tasks, from which the standard errors come."""


@dataclass(frozen=True, kw_only=True)
class ProjectionSettings(Common):
    """The grid."""

    links: tuple[str, ...] = option(("He1", "He2", "He3", "He4"), "Links, with commas.")
    rows: tuple[int, ...] = option((32, 64, 128, 256, 512), "Context rows of a task, with commas.", low=2)
    d: int = option(4, "Features.", low=1)
    r: int = option(2, "Dimension of the subspace.", low=1)
    temp: float = option(1.0, "Temperature of the attention.", low=0, strict=True)
    default_tasks = (8_000, 200_000)

    def check(self) -> None:
        """Raise RequestError or MemoryPlanError for what cannot be run."""
        from tttab.theory.single_index.checks import check_link, check_matrices, check_rows

        check_device(self.device)
        for link in self.links:
            check_link(link, "--links")
        if self.r > self.d:
            raise RequestError(f"r = {self.r} must lie between 1 and d = {self.d}", f"--r {self.d}")
        if self.count < BATCHES:
            raise RequestError(f"{self.count} tasks are too few for a standard error", f"--tasks {BATCHES}")
        check_matrices(self.d, self.device, "--d")
        check_rows(max(self.rows) * self.d, self.device, "--rows 64,512")


def projection_rows(settings: ProjectionSettings) -> Iterator[Row]:
    """Yield a row per (link, context rows).

    `inside` is the step's share on the subspace and `across` that beside it, traces over that of the step for
    infinitely many rows and tasks, which has 1 and 0. `kept` is how many of the r directions, and of others,
    stage I would work in: singular values above a tenth of the largest.
    """
    settings.check()
    for link in settings.links:
        for rows in settings.rows:
            yield _row(settings, link, rows)


def _row(settings: ProjectionSettings, link: str, rows: int) -> Row:
    import torch

    from tttab.theory.single_index.algorithm import subspace
    from tttab.theory.single_index.attention import population_gamma, sampled_gamma
    from tttab.theory.single_index.tasks import draw_basis, law_of_link

    law = law_of_link(parse_link(link), settings.d, settings.r, settings.noise)
    generator = torch_stream(settings.seed, "projection", link, rows, device=settings.device)
    basis = draw_basis(law, generator)
    scale = population_gamma(law, basis, settings.temp)[1] * law.r
    steps = []
    for _ in range(BATCHES):
        *_, (_, raw) = sampled_gamma(law, basis, settings.count // BATCHES, rows, generator, settings.temp)
        steps.append(raw)
    inside = torch.stack([(raw * (basis @ basis.T)).sum() for raw in steps]) / scale
    across = torch.stack([raw.trace() for raw in steps]) / scale - inside
    return {
        "experiment": "projection",
        "link": link,
        "d": settings.d,
        "r": settings.r,
        "rows": rows,
        "tasks": settings.count,
        "inside": float(inside.mean()),
        "inside_stderr": float(inside.std() / BATCHES**0.5),
        "across": float(across.mean()),
        "across_stderr": float(across.std() / BATCHES**0.5),
        "kept": subspace(torch.stack(steps).mean(0)).shape[1],
        "sign": 1 if scale > 0 else -1,
        "seed": settings.seed,
        "device": settings.device_type,
    }


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return one table of all rows, with the answer below it."""
    columns = ("link", "rows", "inside", "inside_stderr", "across", "across_stderr", "kept", "sign")
    first = rows[0]
    title = f"The pre-training step over the population's · d = {first['d']}, r = {first['r']}"
    return [Table(f"{title}, {first['tasks']} tasks", columns, rows, answer(rows))]


def answer(rows: Sequence[Row]) -> str:
    """Say how much of the projection the most rows per task find."""
    most = max(row["rows"] for row in rows)
    parts = [f"{row['link']} {row['inside']:.2f}" for row in rows if row["rows"] == most]
    kept = sum(row["kept"] == row["r"] for row in rows if row["rows"] == most)
    return (
        f"{most} rows per task have {', '.join(parts)} of it; {kept} of {len(parts)} keep r directions alone"
    )


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the shares inside the subspace and across it against the rows per task."""
    found = []
    for name, heading, goal in (("inside", "on the subspace", 1.0), ("across", "across it", 0.0)):
        lines: list[Series] = []
        for colour, (link,) in enumerate(distinct(rows, "link")):
            here = [row for row in rows if row["link"] == link]
            bars = [2 * row[f"{name}_stderr"] for row in here]
            lines += curve(str(link), column(here, "rows"), column(here, name), bars, colour=colour)
        ends = [min(column(rows, "rows")), max(column(rows, "rows"))]
        lines.append(Series("infinitely many rows", ends, [goal, goal], "dotted", 6))
        found.append(
            Panel(heading, "context rows of a task", "trace over the population's", lines, log_x=True)
        )
    return found


EXPERIMENT = Experiment(
    name="projection",
    help="The one-step pre-training of G: how much of the subspace's projection it finds, by rows per task.",
    example="--links He1,He3 --rows 64,512 --plot projection.svg",
    group=PAPER_B,
    settings=ProjectionSettings,
    rows=projection_rows,
    columns=(
        *("experiment", "link", "d", "r", "rows", "tasks", "inside", "inside_stderr"),
        *("across", "across_stderr", "kept", "sign", "seed", "device"),
    ),
    quick=(ProjectionSettings(links=("He1",), rows=(16, 32), tasks=64),),
    tables=tables,
    panels=panels,
    title=lambda rows: (
        f"tttab theory projection, seed {rows[0]['seed']}: d = {rows[0]['d']}, r = {rows[0]['r']}, "
        "bars of 2 standard errors"
    ),
    total=lambda settings: len(settings.links) * len(settings.rows),
)
