"""Experiment: label noise in the context rows, in the training rows, in both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tttab.theory.experiment import PAPER_A, Experiment, Row, option
from tttab.theory.linear_attention.settings import Simulation, more_trials
from tttab.theory.linear_attention.views import (
    LOSSES,
    POINT,
    Kind,
    figure_title,
    law_curves,
    tables_by_kind,
    verdict,
)
from tttab.theory.plots import Panel, Series, distinct


@dataclass(frozen=True, kw_only=True)
class NoiseSettings(Simulation):
    """The grid."""

    n: int | None = option(None, "Context rows; default d/2.", low=1)
    k: int | None = option(None, "Training rows; default 2d.", low=1)
    levels: tuple[float, ...] = option(
        (0.0, 0.1, 0.25, 0.5, 1.0, 2.0),
        "Noise variances over |b|^2, with commas; --noise is not used.",
        low=0,
    )


def noise(settings: NoiseSettings) -> Iterator[Row]:
    """Yield both starts under label noise in the context rows, in the training rows, in both."""
    from tttab.theory.linear_attention.curves import points
    from tttab.theory.linear_attention.isotropic import Isotropic

    settings.check()
    n, k = settings.sizes(settings.n, settings.k)
    for where in ("both", "context", "training"):
        for level in settings.levels:
            inside = 0.0 if where == "training" else level
            trained = 0.0 if where == "context" else level
            start = Isotropic.pretrained(settings.d, n, k, inside, trained)
            for row in points(settings, "noise", start):
                yield row | {"where": where, "noise": level}


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return one panel per place of the noise: both starts' losses against its variance."""
    found = []
    for (where,) in distinct(rows, "where"):
        series: list[Series] = []
        for colour, init in enumerate(("pretrained", "zero")):
            here = [_excess(row) for row in rows if row["where"] == where and row["init"] == init]
            series += law_curves(here, "noise", "loss", init, colour)
        title = {"both": "Noise in context and training rows"}.get(where, f"Noise in {where} rows alone")
        loss = "(loss - noise of the test label) / |b|²"
        found.append(Panel(title, "noise variance / |b|²", loss, series))
    return found


def _excess(row: Row) -> Row:
    """Return the row with the noise of the test label, which no weights can undo, taken off its losses."""
    level = 0.0 if row["where"] == "training" else row["noise"]
    losses = ("loss_limit", "loss_exact", "loss_measured")
    return {name: value - level if name in losses else value for name, value in row.items()}


def answer(rows: Sequence[Row]) -> str:
    """Say by how much the pre-trained start leads without noise and with the most of it."""
    parts = []
    for (where,) in distinct(rows, "where"):
        here = {(row["noise"], row["init"]): row["loss_measured"] for row in rows if row["where"] == where}
        levels = [level for level, init in here if init == "zero"]
        ends = [here[level, "zero"] - here[level, "pretrained"] for level in (min(levels), max(levels))]
        parts.append(f"{where} {ends[0]:+.3f} to {ends[1]:+.3f}")
    most = max(row["noise"] for row in rows)
    return f"lead of the pre-trained start, noise 0 to {most:g}, in {'; '.join(parts)}; {verdict(rows)}"


EXPERIMENT = Experiment(
    name="noise",
    help="Label noise in context rows, in training rows, in both.",
    example="--convention F",
    group=PAPER_A,
    settings=NoiseSettings,
    rows=noise,
    columns=(*POINT, "where"),
    quick=(NoiseSettings(d=8, trials=300, levels=(0.0, 1.0)),),
    tables=tables_by_kind({None: Kind(("where", "noise", "n", "k", "init", *LOSSES), answer=answer)}),
    panels=panels,
    title=figure_title,
    total=lambda settings: 6 * len(settings.levels),
    retry=more_trials,
)
