"""Experiment: stage III alone, along a known direction: its rates, and tasks that leave the subspace."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tttab.seeding import torch_stream
from tttab.theory.device import check_device
from tttab.theory.experiment import PAPER_B, Experiment, Row, Table, option, over_tasks
from tttab.theory.plots import Panel, Series, column, curve
from tttab.theory.single_index.hermite import parse_link
from tttab.theory.single_index.settings import LINK, Common

if TYPE_CHECKING:
    from torch import Tensor

    from tttab.theory.single_index.tasks import IndexLaw

TEST_ROWS = 4096
LAYERS = 16
"""Random first layers that the tasks share out: one layer's luck would be taken for a rate."""


@dataclass(frozen=True, kw_only=True)
class LinkSettings(Common):
    """The grids."""

    link: str = option("He3 + 0.5*He4", LINK)
    n4: tuple[int, ...] = option((64, 128, 256, 512, 1024, 2048), "Rows of stage III, with commas.", low=16)
    neurons: tuple[int, ...] = option((8, 16, 32, 64, 128), "Neurons m, with commas.", low=2)
    rho: tuple[float, ...] = option(
        (1.0, 0.95, 0.9, 0.8, 0.5), "|P b|: how much of b lies in the subspace, with commas.", low=0, high=1
    )
    ridge: float = option(1e-4, "Ridge penalty; 1e-3 in the whole algorithm.", low=1e-4)
    default_tasks = (96, 512)

    def check(self) -> None:
        """Raise RequestError or MemoryPlanError for what cannot be run."""
        from tttab.theory.single_index.checks import check_link, check_rows

        check_device(self.device)
        check_link(self.link, "--link")
        rows = max(*self.n4, TEST_ROWS) * max(self.neurons)
        check_rows(self.count * rows, self.device, "--n4 64,512 --tasks 16")


def link_rows(settings: LinkSettings) -> Iterator[Row]:
    """Yield the error without noise over N4 (most neurons), over m (most rows), and over |P b|.

    `error` is E(f - s)^2. After the first two kinds a row has the `exponent` of the error's mean, with the
    standard error of the line in logarithms. In the third `floor` is sum_i c_i^2 (1 - rho^(2i)), what no
    function of P x can do better than; `oracle` is the measured error of E[s | P x], whose mean it is.
    """
    settings.check()
    most, rows = max(settings.neurons), max(settings.n4)
    for kind, grid in (
        ("rows", [(n, most, 1.0) for n in settings.n4]),
        ("neurons", [(rows, m, 1.0) for m in settings.neurons]),
        ("support", [(rows, most, rho) for rho in settings.rho]),
    ):
        found = []
        for cell in grid:
            found.append(_row(settings, kind, *cell))
            yield found[-1]
        if kind != "support" and len(grid) > 2:
            name = "n4" if kind == "rows" else "neurons"
            yield {"experiment": "link-stage", "kind": f"rate in {name}", **_rate(found, name)}


def _row(settings: LinkSettings, kind: str, n4: int, neurons: int, rho: float) -> Row:
    import torch

    from tttab.theory.single_index.algorithm import Pipeline
    from tttab.theory.single_index.stages import draw_neurons, predict, stage_three
    from tttab.theory.single_index.tasks import IndexTasks, draw_rows, law_of_link

    law = law_of_link(parse_link(settings.link), 2, 2, settings.noise)
    generator = torch_stream(settings.seed, "link stage", kind, n4, neurons, str(rho), device=settings.device)
    errors, oracles = [], []
    for part in torch.arange(settings.count).tensor_split(min(LAYERS, settings.count)):
        count, device = len(part), generator.device
        weights = torch.tensor(law.link, device=device).expand(count, -1)
        b, u = (
            torch.tensor(way, device=device).expand(count, 2)
            for way in ([rho, (1 - rho**2) ** 0.5], [1.0, 0.0])
        )
        tasks = IndexTasks(law, torch.eye(2, device=device), b, weights)
        layer = draw_neurons(neurons, Pipeline().bound, generator)
        fitted = stage_three(u, *draw_rows(tasks, n4, generator), layer, settings.ridge)
        test = torch.randn(count, TEST_ROWS, 2, generator=generator, device=device)
        clean = tasks.clean(test)
        errors.append((predict(u, fitted, layer, test) - clean).square().mean(1))
        oracles.append((_seen(law, test[..., 0], rho) - clean).square().mean(1))
    row = _numbers(settings, kind, (n4, neurons, rho), torch.cat(errors))
    return row | (_support(law, rho, torch.cat(oracles)) if kind == "support" else {})


def _seen(law: IndexLaw, z: Tensor, rho: float) -> Tensor:
    """Return E[s | P x] = sum_i c_i rho^i He_i(z) / sqrt(i!), z the direction of P b."""
    import torch

    from tttab.theory.single_index.tasks import series

    damped = torch.tensor([c * rho**i for i, c in enumerate(law.link)], device=z.device)
    return series(damped.expand(len(z), -1), z)


def _support(law: IndexLaw, rho: float, oracle: Tensor) -> Row:
    floor = sum(c**2 * (1 - rho ** (2 * i)) for i, c in enumerate(law.link))
    mean, error = float(oracle.mean()), float(oracle.std() / len(oracle) ** 0.5)
    agrees = bool(abs(mean - floor) <= 4 * error + 1e-6)
    return {"floor": floor, "oracle": mean, "oracle_stderr": error, "agrees": agrees}


def _numbers(settings: LinkSettings, kind: str, cell: tuple[int, int, float], error: Tensor) -> Row:
    n4, neurons, rho = cell
    return {
        "experiment": "link-stage",
        "kind": kind,
        "link": settings.link,
        "n4": n4,
        "neurons": neurons,
        "rho": rho,
        "ridge": settings.ridge,
        **over_tasks("error", error),
        "tasks": len(error),
        "noise": settings.noise,
        "seed": settings.seed,
        "device": settings.device_type,
    }


def _rate(rows: Sequence[Row], name: str) -> Row:
    import numpy as np

    x, y = (np.log([row[field] for row in rows]) for field in (name, "median"))
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    return {"exponent": float(slope), "exponent_stderr": float(covariance[0, 0] ** 0.5)}


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return the rates and the support shift."""
    link = rows[0]["link"]
    rates = [row for row in rows if row["kind"] != "support"]
    shift = [row for row in rows if row["kind"] == "support"]
    columns = ("kind", "n4", "neurons", "error", "stderr", "median", "exponent", "exponent_stderr")
    known = {name for row in rates for name in row}
    moved = ("rho", "floor", "oracle", "oracle_stderr", "error", "stderr", "median")
    return [
        Table(f"Stage III along b, {link}", [n for n in columns if n in known], rates, _rate_answer(rates)),
        Table(f"b leaves the subspace, {link}", moved, shift, _shift_answer(shift)),
    ]


def _rate_answer(rows: Sequence[Row]) -> str:
    found = [
        f"{row['kind']}: {row['exponent']:.2f} ± {row['exponent_stderr']:.2f}"
        for row in rows
        if "exponent" in row
    ]
    return (
        f"exponents of the squared error (the paper's bounds have -1/2): {'; '.join(found) or 'fewer than 3'}"
    )


def _shift_answer(rows: Sequence[Row]) -> str:
    last = min(rows, key=lambda row: row["rho"])
    return f"|P b| = {last['rho']:g}: the floor is {last['floor']:.3f}, stage III has {last['error']:.3f}"


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the error against N4 and m, and against |P b| beside its floor."""
    found = []
    for kind, name, axis in (("rows", "n4", "rows N4"), ("neurons", "neurons", "neurons m")):
        here = [row for row in rows if row["kind"] == kind]
        x, y = column(here, name), column(here, "median")
        lines = curve("median over tasks", x, y)
        lines.append(Series("exponent -1/2", x, [y[0] * math.sqrt(x[0] / v) for v in x], "dotted", 6))
        found.append(Panel(f"Stage III over {axis}", axis, "E(f - s)²", lines, log_x=True, log_y=True))
    here = [row for row in rows if row["kind"] == "support"]
    x = column(here, "rho")
    lines = [Series("floor of any function of P x", x, column(here, "floor"), "line", 6)]
    lines += curve("stage III (mean)", x, column(here, "error"), column(here, "stderr"))
    return [*found, Panel("b leaves the subspace", "|P b|", "E(f - s)²", lines)]


EXPERIMENT = Experiment(
    name="link-stage",
    help="Stage III alone: error against rows and neurons, and the floor where tasks leave the subspace.",
    example="--link He3 --plot link-stage.svg",
    group=PAPER_B,
    settings=LinkSettings,
    rows=link_rows,
    columns=(
        *("experiment", "kind", "link", "n4", "neurons", "rho", "ridge"),
        *("error", "stderr", "median", "tasks"),
        *("noise", "seed", "device", "exponent", "exponent_stderr"),
        *("floor", "oracle", "oracle_stderr", "agrees"),
    ),
    quick=(LinkSettings(n4=(64, 128, 256), neurons=(8, 16, 32), rho=(1.0, 0.5), tasks=4),),
    tables=tables,
    panels=panels,
    title=lambda rows: (
        f"tttab theory link-stage, seed {rows[0]['seed']}: {rows[0]['link']}, ridge {rows[0]['ridge']:g}"
    ),
    total=lambda settings: (
        sum(len(grid) + (len(grid) > 2) for grid in (settings.n4, settings.neurons)) + len(settings.rho)
    ),
    retry=lambda settings: {"tasks": 4 * settings.count, "seed": settings.seed + 1},
)
