"""Experiment: the improvement by one step against the context length n, and its peak."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tttab.theory.experiment import PAPER_A, Experiment, Row, option
from tttab.theory.linear_attention.settings import Simulation, more_trials
from tttab.theory.linear_attention.views import (
    GAINS,
    POINT,
    Kind,
    figure_title,
    law_curves,
    tables_by_kind,
    verdict,
)
from tttab.theory.plots import Marker, Panel

LENGTHS = 13
"""Context lengths by default, from 1 to 2d in about equal ratios."""


@dataclass(frozen=True, kw_only=True)
class ContextSettings(Simulation):
    """The grid."""

    n: tuple[int, ...] = option((), "Context rows, with commas; default 1 to 2d.", low=1)
    k: int | None = option(None, "Training rows; default 2d.", low=1)

    @property
    def lengths(self) -> Sequence[int]:
        """The context rows."""
        import numpy as np

        return self.n or sorted({int(n) for n in np.round(np.geomspace(1, 2 * self.d, LENGTHS))})


def context(settings: ContextSettings) -> Iterator[Row]:
    """Yield the improvement against n at fixed k, and a last row with its peak.

    The peak's `n_exact` is the best whole n of the exact law; `n_rule` is 0.87 d^(2/3).
    """
    from tttab.theory.linear_attention.curves import peak, points
    from tttab.theory.linear_attention.isotropic import Isotropic

    settings.check()
    d, noise, (_, k) = settings.d, settings.noise, settings.sizes(None, settings.k)
    rows: list[Row] = []
    for n in settings.lengths:
        rows += points(settings, "context", Isotropic.pretrained(d, n, k, noise), cold=False)
        yield rows[-1]
    highest = max(rows, key=lambda row: row["gain_measured"])
    yield {
        "experiment": "context",
        "kind": "peak",
        "convention": settings.convention,
        "d": d,
        "k": k,
        "noise": noise,
        "n_exact": peak(settings, k),
        "n_measured": highest["n"],
        "n_rule": 0.87 * d ** (2 / 3),
    }


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the improvement against n, with the exact peak and the rule for it."""
    *here, top = rows
    markers = [Marker("peak, exact", top["n_exact"], "line"), Marker("0.87 d^(2/3)", top["n_rule"], "dotted")]
    series = law_curves(here, "n", "gain", f"k = {here[0]['k']}", 0)
    title = "One step from the pre-trained weights"
    return [Panel(title, "context rows n", "improvement / |b|²", series, markers, log_x=True)]


def peak_answer(rows: Sequence[Row]) -> str:
    """Say where the improvement is largest."""
    row = rows[0]
    exact, rule = f"n = {row['n_exact']} (exact)", f"0.87 d^(2/3) = {row['n_rule']:.0f}"
    where = f"{exact}; {rule}; largest measured at n = {row['n_measured']}"
    return f"d = {row['d']}, k = {row['k']}: the improvement is largest at {where}"


EXPERIMENT = Experiment(
    name="context",
    help="The improvement against n: it rises, peaks and falls.",
    example="--d 300 --trials 20000",
    group=PAPER_A,
    settings=ContextSettings,
    rows=context,
    columns=(*POINT, "kind", "n_exact", "n_measured", "n_rule"),
    quick=(ContextSettings(d=8, trials=300, n=(2, 4, 8)),),
    tables=tables_by_kind(
        {
            None: Kind(("n", "k", "eta", *GAINS), answer=lambda rows: f"measured points {verdict(rows)}"),
            "peak": Kind(("k", "n_exact", "n_measured", "n_rule"), answer=peak_answer),
        }
    ),
    panels=panels,
    title=figure_title,
    total=lambda settings: len(settings.lengths) + 1,
    retry=more_trials,
)
