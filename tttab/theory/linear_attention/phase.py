"""Experiment: the pre-trained against the zero start over k/d, and the threshold between them.

What does not belong here: the losses and the crossing themselves (`curves`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tttab.theory.experiment import PAPER_A, Experiment, Row, option
from tttab.theory.linear_attention.settings import Simulation, more_trials
from tttab.theory.linear_attention.views import LOSSES, POINT, Kind, figure_title, law_curves, tables_by_kind
from tttab.theory.plots import Marker, Panel, Series, Style, distinct

GAMMAS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class PhaseSettings(Simulation):
    """The grid."""

    alpha: tuple[float, ...] = option(
        (0.25, 0.5, 1.0, 2.0), "Context rows n/d, with commas.", low=0, strict=True
    )
    gamma: tuple[float, ...] = option(GAMMAS, "Training rows k/d, with commas.", low=0, strict=True)


def phase(settings: PhaseSettings) -> Iterator[Row]:
    """Yield pre-trained against zero over gamma = k/d, and per alpha = n/d a last row with the threshold."""
    from tttab.theory.linear_attention.curves import points, threshold
    from tttab.theory.linear_attention.isotropic import Isotropic

    settings.check()
    for alpha in settings.alpha:
        n = max(1, round(alpha * settings.d))
        for gamma in settings.gamma:
            k = max(1, round(gamma * settings.d))
            yield from points(settings, "phase", Isotropic.pretrained(settings.d, n, k, settings.noise))
        yield threshold(settings, n)


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return one panel per alpha: both starts' losses against gamma, with the thresholds."""
    found = []
    for (alpha,) in distinct(rows, "alpha"):
        here = [row for row in rows if row["alpha"] == alpha]
        series: list[Series] = []
        for colour, init in enumerate(("pretrained", "zero")):
            of_init = [row for row in here if row.get("init") == init]
            series += law_curves(of_init, "gamma", "loss", init, colour)
        last = [row for row in here if row.get("kind") == "threshold"]
        title = f"alpha = n/d = {alpha:g}"
        found.append(Panel(title, "gamma = k/d", "loss / |b|²", series, _thresholds(last)))
    return found


def _thresholds(rows: Sequence[Row]) -> list[Marker]:
    markers: list[Marker] = []
    styles: dict[str, Style] = {"limit": "dashed", "exact": "line", "measured": "dotted"}
    for row in rows:
        for source, style in styles.items():
            x = row[f"gamma_{source}"]
            low, high = (row["interval"] if source == "measured" else None) or (None, None)
            if x is not None:
                markers.append(Marker(f"threshold, {source}", x, style, 6, low, high))
    return markers


EXPERIMENT = Experiment(
    name="phase",
    help="Pre-trained against zero initialisation over k/d, and where zero begins to win.",
    example="--d 60 --plot phase.svg",
    group=PAPER_A,
    settings=PhaseSettings,
    rows=phase,
    columns=(*POINT, "kind", "gamma_limit", "gamma_exact", "gamma_measured", "interval"),
    quick=(PhaseSettings(d=8, trials=300, alpha=(0.5,), gamma=(0.5, 2.0)),),
    tables=tables_by_kind(
        {
            None: Kind(("alpha", "gamma", "n", "k", "init", *LOSSES)),
            "threshold": Kind(
                ("alpha", "d", "gamma_limit", "gamma_exact", "gamma_measured", "interval"),
                "Threshold gamma*: zero wins beyond it",
            ),
        }
    ),
    panels=panels,
    title=figure_title,
    total=lambda settings: len(settings.alpha) * (2 * len(settings.gamma) + 1),
    retry=more_trials,
)
