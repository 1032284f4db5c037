"""Experiment: general covariances, as the task turns away from the one of pre-training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tttab.errors import RequestError
from tttab.theory.experiment import PAPER_A, Experiment, Row, option
from tttab.theory.linear_attention.settings import FamilyName, MatrixSimulation, Precondition, more_trials
from tttab.theory.linear_attention.views import (
    GAINS,
    LOSSES,
    SIZES,
    Kind,
    figure_title,
    law_curves,
    tables_by_kind,
)
from tttab.theory.plots import Panel, Series, column, distinct


@dataclass(frozen=True, kw_only=True)
class AlignmentSettings(MatrixSimulation):
    """The grid."""

    n: int | None = option(None, "Context rows; default d/2.", low=1)
    k: int | None = option(None, "Training rows; default 2d.", low=1)
    family: tuple[FamilyName, ...] = option(
        ("two-level", "power-law", "random"),
        "Pairs of covariances, with commas: two-level, power-law, random.",
    )
    share: tuple[float, ...] = option(
        (0.0, 0.25, 0.5, 0.75, 1.0), "Shares of b in likely directions, 0 to 1, with commas.", low=0, high=1
    )
    precondition: Precondition = option(
        "none", "none: the plain step; sx: the step whitened by Sx, for which the papers' formula holds."
    )


def alignment(settings: AlignmentSettings) -> Iterator[Row]:
    """Yield pre-trained against zero for each family, the task turning from unlikely (0) to likely (1).

    The fields are those of `covariances.pair_rows`. With `precondition` sx the step is taken in whitened
    coordinates, where Sx = I and the papers' formula is the limit.
    """
    from tttab.theory.linear_attention.covariances import covariance_family, pair_rows
    from tttab.theory.linear_attention.problem import LinearProblem, pretrained_weights, whitened

    settings.check(matrices=True)
    if settings.d < 2:
        raise RequestError("alignment needs at least 2 dimensions", "--d 60")
    noise, (n, k) = settings.noise, settings.sizes(settings.n, settings.k)
    for name in settings.family:
        family = covariance_family(name, settings.d, settings.seed)
        weights = pretrained_weights(family.covariance, family.prior, n, noise)
        for share in settings.share:
            warm = LinearProblem(family.task(share), weights, family.covariance, n, k, noise)
            warm = whitened(warm) if settings.precondition == "sx" else warm
            for row in pair_rows(settings, name, share, warm):
                yield row | {"precondition": settings.precondition}


def answer(rows: Sequence[Row]) -> str:
    """Say how the gain falls as the task turns to what was pre-trained for, beside the papers' formula."""
    parts = []
    for (family,) in distinct(rows, "family"):
        here = [row for row in rows if (row["family"], row["init"]) == (family, "pretrained")]
        low, high = here[0], here[-1]
        gains = f"{low['gain_measured']:.3f} to {high['gain_measured']:.3f}"
        if low["gain_papers"] is not None:
            gains += f" (papers' formula {low['gain_papers']:.3f} to {high['gain_papers']:.3f})"
        parts.append(f"{family} {gains}")
    return f"gain from the pre-trained start, alignment 0 to 1: {'; '.join(parts)}"


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the improvement against the share of b for each family, and all thresholds."""
    found: list[Panel] = []
    thresholds: list[Series] = []
    for colour, (family,) in enumerate(distinct(rows, "family")):
        here = [row for row in rows if row["family"] == family and row["init"] == "pretrained"]
        x = column(here, "alignment")
        series = law_curves(here, "alignment", "gain", "", 0)
        series.append(Series("papers' k/(k+d) A²/(A+B)", x, column(here, "gain_papers"), "dotted", 1))
        heading = "random: no common eigenvectors" if family == "random" else family
        found.append(Panel(heading, "share of b in likely directions", "improvement / b'Sx b", series))
        thresholds.append(Series(f"{family}, limit", x, column(here, "gamma_limit"), "dashed", colour))
        thresholds.append(Series(f"{family}, exact", x, column(here, "gamma_exact"), "line", colour))
    title = "Threshold beyond which zero wins (F)"
    axis = "share of b in likely directions"
    return [*found, Panel(title, axis, "gamma* = k/d", thresholds, log_y=True)]


EXPERIMENT = Experiment(
    name="alignment",
    help="General covariances: the improvement grows as the task turns away from the pre-training.",
    example="--plot alignment.svg",
    group=PAPER_A,
    settings=AlignmentSettings,
    rows=alignment,
    columns=(
        *("experiment", "convention", "family", "alignment", *SIZES, "init", "noise"),
        *(*LOSSES, "a2_over_ab", "gain_papers", *GAINS, "gamma_limit", "gamma_exact", "agrees"),
        "precondition",
    ),
    quick=(AlignmentSettings(d=8, trials=300, share=(0.0, 1.0)),),
    tables=tables_by_kind(
        {
            None: Kind(
                ("family", "alignment", "init", "gain_papers", *GAINS, "loss_exact", "gamma_exact"),
                answer=answer,
            )
        }
    ),
    panels=panels,
    title=figure_title,
    total=lambda settings: 2 * len(settings.family) * len(settings.share),
    retry=more_trials,
)
