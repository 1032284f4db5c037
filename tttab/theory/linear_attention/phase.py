"""Experiment: the pre-trained against the zero start over k/d, and the threshold between them."""

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
    looks: dict[str, tuple[Style, int]] = {
        "limit": ("dashed", 6),
        "exact": ("line", 6),
        "measured": ("dotted", 3),
    }
    for row in rows:
        for source, (style, colour) in looks.items():
            x = row[f"gamma_{source}"]
            low, high = (row["interval"] if source == "measured" else None) or (None, None)
            if x is not None:
                markers.append(Marker(f"threshold, {source}", x, style, colour, low, high))
    return markers


def points_answer(rows: Sequence[Row]) -> str:
    """Say how far the limit is from the exact law."""
    off = max(abs(row["loss_limit"] - row["loss_exact"]) for row in rows)
    return f"d = {rows[0]['d']}: the limit is off by up to {off:.3f}; measured points {verdict(rows)}"


def threshold_answer(rows: Sequence[Row]) -> str:
    """Say from how many training rows on zero wins, by the exact law and in the limit."""
    parts = []
    for row in rows:
        d, exact, limit = row["d"], row["gamma_exact"], row["gamma_limit"]
        words = "never" if exact is None else f"beyond k = {exact * d:.0f}"
        in_limit = "never" if limit is None else f"{limit * d:.0f}"
        parts.append(f"n = {row['n']} {words} (limit: {in_limit})")
    return f"zero initialisation wins at d = {rows[0]['d']}, {'; '.join(parts)}"


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
            None: Kind(("alpha", "gamma", "n", "k", "init", *LOSSES), answer=points_answer),
            "threshold": Kind(
                ("alpha", "d", "gamma_limit", "gamma_exact", "gamma_measured", "interval"),
                "Threshold gamma* = k/d: zero wins beyond it",
                threshold_answer,
            ),
        }
    ),
    panels=panels,
    title=figure_title,
    total=lambda settings: len(settings.alpha) * (2 * len(settings.gamma) + 1),
    retry=more_trials,
)
