"""Experiment: how many rows stage I needs, self-distilled against trained on the labels themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tttab.errors import RequestError
from tttab.seeding import numpy_stream, torch_stream
from tttab.theory.device import check_device
from tttab.theory.experiment import PAPER_B, Experiment, Row, Table, option, over_tasks
from tttab.theory.plots import Panel, Series, column, curve, distinct
from tttab.theory.single_index.hermite import generative_exponent, information_exponent, parse_link
from tttab.theory.single_index.settings import Common, StageOne, Weak

if TYPE_CHECKING:
    import numpy as np

METHODS: tuple[Weak, ...] = ("distill", "direct", "direct-clipped", "random")
LINKS = ("He3", "He3 + 0.5*He4", "He4", "He6", "He2")
"""He2 is a control: its information exponent is its generative exponent, so nothing is promised."""
TITLE = "Weak recovery: mean |<b, u1>| over tasks"


@dataclass(frozen=True, kw_only=True)
class WeakSettings(Common, StageOne):
    """The grid."""

    links: tuple[str, ...] = option(LINKS, "Links, with commas; if ie = ge the paper promises nothing.")
    r: tuple[int, ...] = option((16, 32), "Dimensions of the subspace, with commas.", low=1)
    n1: tuple[int, ...] = option((), "Rows of stage I, with commas.", low=1)
    d: int = option(0, "Features; 0: as many as r.")
    target: float = option(
        0.5, "Alignment at which the growth of N1 with r is measured.", low=0, high=1, strict=True
    )

    @property
    def rows(self) -> tuple[int, ...]:
        """N1."""
        full = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
        return self.n1 or self.by_version((256, 1024, 4096, 16384), full)

    def check(self) -> None:
        """Raise RequestError or MemoryPlanError for what cannot be run."""
        from tttab.theory.single_index.checks import check_link, check_matrices, check_rows

        check_device(self.device)
        for link in self.links:
            check_link(link, "--links")
        most = max(self.r)
        if self.d < 0 or 0 < self.d < most:
            raise RequestError(f"d = {self.d} must be at least r = {most}", f"--d {most}")
        d = self.d or most
        check_matrices(d, self.device, "--r")
        check_rows(self.count * max(self.rows) * d, self.device, "--n1 256,1024,4096 --tasks 16")
        check_rows(self.count * self.queries * most, self.device, "--queries 2048 --tasks 16")


def weak_rows(settings: WeakSettings) -> Iterator[Row]:
    """Yield one row per (link, r, N1, method) with the mean of |<b, u1>| over tasks.

    `floor` is the mean for a random direction, sqrt(2/(pi r)); a task is stuck below twice 1/sqrt(r). After a
    link's rows come those of kind `growth`, if there are several r: one per method with the exponent of r
    in the N1 that reaches the target, beside what the paper has: ge for distillation, ie for the labels.
    """
    settings.check()
    for link in settings.links:
        seen: dict[str, dict[int, dict[int, np.ndarray]]] = {}
        for r in settings.r:
            for rows in settings.rows:
                for row, found in _rows_at(settings, link, r, rows):
                    seen.setdefault(row["method"], {}).setdefault(r, {})[rows] = found
                    yield row
        if len(settings.r) > 1:
            yield from _growth_rows(settings, link, seen)


def _growth_rows(
    settings: WeakSettings, link: str, seen: dict[str, dict[int, dict[int, np.ndarray]]]
) -> Iterator[Row]:
    from tttab.theory.single_index.growth import growth

    exact = parse_link(link)
    ie, ge = information_exponent(exact), generative_exponent(exact)
    for method in METHODS[:-1]:
        stream = numpy_stream(settings.seed, "weak growth", link, method)
        yield {
            "experiment": "weak",
            "kind": "growth",
            "link": link,
            "ie": ie,
            "ge": ge,
            "method": method,
            "target": settings.target,
            "papers": {"distill": ge, "direct": ie}.get(method),
            **growth(seen[method], settings.target, stream),
        }


def _rows_at(settings: WeakSettings, link: str, r: int, rows: int) -> Iterator[tuple[Row, np.ndarray]]:
    """Yield each method's row and the alignments of its tasks."""
    from tttab.theory.single_index.algorithm import Pipeline, weak_direction
    from tttab.theory.single_index.attention import population_gamma
    from tttab.theory.single_index.stages import alignment
    from tttab.theory.single_index.tasks import draw_basis, draw_rows, draw_tasks, law_of_link

    exact, how = parse_link(link), Pipeline.of(settings)
    law = law_of_link(exact, settings.d or r, r, settings.noise)
    generator = torch_stream(settings.seed, "weak", link, r, rows, device=settings.device)
    basis = draw_basis(law, generator)
    gamma, _ = population_gamma(law, basis, how.temp)
    tasks = draw_tasks(law, basis, settings.count, generator)
    x, y = draw_rows(tasks, rows, generator)
    for method in METHODS:
        u = weak_direction(replace(how, weak=method), gamma, x, y, generator)
        found = alignment(u, tasks.direction)
        row = {
            "experiment": "weak",
            "link": link,
            "ie": information_exponent(exact),
            "ge": generative_exponent(exact),
            "d": law.d,
            "r": r,
            "n1": rows,
            "method": method,
            **over_tasks("alignment", found),
            "floor": (2 / (math.pi * r)) ** 0.5,
            "stuck": int((found < 2 / r**0.5).sum()),
            "tasks": len(found),
            **how.stage_one,
            "noise": settings.noise,
            "seed": settings.seed,
            "device": settings.device_type,
        }
        yield row, found.cpu().numpy()


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return the alignments with the answer below them, and how N1 grows with r."""
    points = [row for row in rows if not row.get("kind")]
    growths = [row for row in rows if row.get("kind")]
    columns = ("link", "ie", "ge", "r", "n1", "method", "alignment", "stderr", "median", "floor", "stuck")
    found = [Table(TITLE, columns, points, answer(points))]
    if growths:
        title = f"N1 that reaches {growths[0]['target']:g}, as a power of r"
        shown = ("link", "method", "papers", "exponent", "low", "high", "r_reached", "n1_at_target")
        lists = ("r_reached", "n1_at_target")
        flat = [row | {name: ",".join(map(str, row[name])) or "-" for name in lists} for row in growths]
        found.append(Table(title, shown, flat, growth_answer(growths)))
    return found


def answer(rows: Sequence[Row]) -> str:
    """Say, at the largest r and N1, which method is best for each link, and which links are controls."""
    r, n1 = max(row["r"] for row in rows), max(row["n1"] for row in rows)
    parts = []
    for (link,) in distinct(rows, "link"):
        here = [row for row in rows if (row["link"], row["r"], row["n1"]) == (link, r, n1)]
        best = max(here, key=lambda row: row["alignment"])
        control = " (control: ie = ge)" if best["ie"] == best["ge"] else ""
        parts.append(f"{link}{control} {best['method']} {best['alignment']:.2f}")
    return f"best at r = {r}, N1 = {n1}: {'; '.join(parts)}"


def growth_answer(rows: Sequence[Row]) -> str:
    """Say which exponents the measured intervals allow."""
    parts = []
    for row in rows:
        if row["papers"] is not None and row["low"] is not None:
            above, below = row["low"] > row["papers"], row["high"] < row["papers"]
            verdict = "lies above" if above else "lies below" if below else "allows"
            parts.append(f"{row['link']} {row['method']} {verdict} {row['papers']}")
    return "; ".join(parts) or "no link reaches the target at two r: more --n1 or another --target"


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return one panel per link and r: alignment against N1 by method, with the random floor."""
    found = []
    points = [row for row in rows if not row.get("kind")]
    for link, r in distinct(points, "link", "r"):
        here = [row for row in points if (row["link"], row["r"]) == (link, r)]
        lines: list[Series] = []
        for colour, (method,) in enumerate(distinct(here, "method")):
            part = [row for row in here if row["method"] == method]
            x, y, bars = column(part, "n1"), column(part, "alignment"), column(part, "stderr")
            lines += curve(str(method), x, y, bars, colour=colour)
        x, y = column(here[::4], "n1"), column(here[::4], "floor")
        lines.append(Series("mean of a random direction", x, y, style="dotted", colour=6))
        title = f"{link}, r = {r} (ie {here[0]['ie']}, ge {here[0]['ge']})"
        found.append(Panel(title, "rows of stage I, N1", "mean |<b, u1>|", lines, log_x=True))
    return found


def _total(settings: WeakSettings) -> int:
    growths = len(METHODS) - 1 if len(settings.r) > 1 else 0
    return len(settings.links) * (len(METHODS) * len(settings.r) * len(settings.rows) + growths)


EXPERIMENT = Experiment(
    name="weak",
    help="Stage I: alignment of one self-distilled step against N1, beside direct steps and a random start.",
    example="--plot weak.svg",
    group=PAPER_B,
    settings=WeakSettings,
    rows=weak_rows,
    columns=(
        *("experiment", "link", "ie", "ge", "d", "r", "n1", "method", "alignment", "stderr", "median"),
        *("floor", "stuck", "tasks", "queries", "temp", "tilt", "precision", "noise", "seed", "device"),
        *("kind", "target", "papers", "r_reached", "n1_at_target", "exponent", "low", "high"),
    ),
    quick=(WeakSettings(links=("He3",), r=(4, 5), n1=(64, 128), queries=64, tasks=3, target=0.6),),
    tables=tables,
    panels=panels,
    title=lambda rows: f"tttab theory weak, seed {rows[0]['seed']}: {TITLE}",
    total=_total,
)
