"""Experiment: loss and improvement against k at several n, and the context of equal loss without training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tttab.theory.experiment import PAPER_A, Experiment, Row, option
from tttab.theory.linear_attention.settings import Simulation, more_trials
from tttab.theory.linear_attention.views import (
    GAINS,
    LOSSES,
    POINT,
    Kind,
    figure_title,
    law_curves,
    tables_by_kind,
    verdict,
)
from tttab.theory.plots import Panel, Series, column, distinct

ALPHAS = (0.25, 0.5, 1.0, 2.0)
GAMMAS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, kw_only=True)
class SamplesSettings(Simulation):
    """The grid."""

    n: tuple[int, ...] = option((), "Context rows, with commas; default d/4, d/2, d, 2d.", low=1)
    k: tuple[int, ...] = option((), "Training rows, with commas; default d/10 to 8d.", low=1)

    @property
    def grid(self) -> tuple[Sequence[int], Sequence[int]]:
        """The context and the training rows."""
        return self.n or self._counts(ALPHAS), self.k or self._counts(GAMMAS)

    def _counts(self, ratios: Sequence[float]) -> list[int]:
        """Return the row counts `ratios` x d, at least 1 and without repetition."""
        return sorted({max(1, round(ratio * self.d)) for ratio in ratios})


def samples(settings: SamplesSettings) -> Iterator[Row]:
    """Yield loss and improvement against k at several n, with the context length of equal loss.

    `n_equivalent` is the (real) n' at which the pre-trained weights without any step have the loss that
    the step reaches; None where no context length does.
    """
    from tttab.theory.linear_attention.curves import equivalent_context, points
    from tttab.theory.linear_attention.isotropic import Isotropic

    settings.check()
    contexts, trainings = settings.grid
    for n in contexts:
        for k in trainings:
            start = Isotropic.pretrained(settings.d, n, k, settings.noise)
            for row in points(settings, "samples", start, cold=False):
                yield row | {"n_equivalent": equivalent_context(settings, row["loss_exact"])}


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return loss, improvement and equivalent context against k, a colour per n."""
    loss: list[Series] = []
    gain: list[Series] = []
    equal: list[Series] = []
    for colour, (n,) in enumerate(distinct(rows, "n")):
        here = [row for row in rows if row["n"] == n]
        loss += law_curves(here, "k", "loss", f"n = {n}", colour)
        gain += law_curves(here, "k", "gain", f"n = {n}", colour)
        equal.append(Series(f"n = {n}", column(here, "k"), column(here, "n_equivalent"), "line", colour))
    return [
        Panel("Loss", "training rows k", "loss / |b|²", loss, log_x=True),
        Panel("Improvement", "training rows k", "improvement / |b|²", gain, log_x=True),
        Panel(
            "Context of equal loss without training", "training rows k", "context rows n'", equal, log_x=True
        ),
    ]


def answer(rows: Sequence[Row]) -> str:
    """Say for each n what the most training rows are worth in context rows; measured points as they agree."""
    parts = []
    for (n,) in distinct(rows, "n"):
        last = [row for row in rows if row["n"] == n][-1]
        equal = last["n_equivalent"]
        rows_worth = "more than any context" if equal is None else f"a context of {equal:.0f}"
        parts.append(f"n = {n} with k = {last['k']} is worth {rows_worth}")
    return f"{'; '.join(parts)}; {verdict(rows)}"


def _total(settings: SamplesSettings) -> int:
    contexts, trainings = settings.grid
    return len(contexts) * len(trainings)


EXPERIMENT = Experiment(
    name="samples",
    help="Loss and improvement against k at several n, and the context that has the same loss untrained.",
    example="--d 100 --plot samples.svg",
    group=PAPER_A,
    settings=SamplesSettings,
    rows=samples,
    columns=(*POINT, "n_equivalent"),
    quick=(SamplesSettings(d=8, trials=300, n=(4,), k=(4, 16)),),
    tables=tables_by_kind({None: Kind(("n", "k", *LOSSES[1:], *GAINS[1:], "n_equivalent"), answer=answer)}),
    panels=panels,
    title=figure_title,
    total=_total,
    retry=more_trials,
)
