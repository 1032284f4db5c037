"""Experiment: one step over the K folds of N rows, in both schemes, on fresh contexts and the same one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tttab.errors import RequestError
from tttab.theory.experiment import PAPER_A, Experiment, Row, Table, option
from tttab.theory.linear_attention.settings import Sized, more_trials
from tttab.theory.linear_attention.views import BARS
from tttab.theory.plots import Panel, Series, column, distinct

if TYPE_CHECKING:
    from tttab.theory.linear_attention.fold_trials import Case

SERVED = {"fresh": "served a fresh context", "same": "served the rows that were trained on"}


@dataclass(frozen=True, kw_only=True)
class KfoldSettings(Sized):
    """The grid."""

    gamma: tuple[float, ...] = option(
        (1.0, 2.0, 4.0), "Labelled rows N/d, with commas; N is rounded to whole folds.", low=0, strict=True
    )
    folds: tuple[int, ...] = option((2, 5, 10, 20), "Folds K, with commas.", low=2)
    scheme: tuple[Literal["leave", "inverse"], ...] = option(
        ("leave", "inverse"),
        "leave: a fold is the queries, all others the context; inverse: a fold is the context, as in"
        " `tttab run --split kfold`.",
    )
    noise: float = option(0.0, "Variance of the label noise, over |b|^2.", low=0)

    def check(self) -> None:
        """Raise RequestError where there are more folds than rows."""
        fewest, most = min(self.gamma) * self.d, max(self.folds)
        if most > fewest:
            raise RequestError(
                f"{most} folds need at least {most} rows, N = {fewest:g} has fewer",
                f"--gamma {max(1.0, most / self.d):.3g}",
            )
        self.sampling.backend.block(8 * 6 * (round(max(self.gamma) * self.d) + 3 * most) * self.d, 1)


def kfold(settings: KfoldSettings) -> Iterator[Row]:
    """Yield a row per (N, K, scheme, served context, start); then those of kinds `equal` and `threshold`.

    `equal`: what else the same N labels can do, the best single split and no training at all, by the exact
    law. `threshold`: the N/d from which zero beats the pre-trained start on fresh contexts, by K (`leave`).
    """
    from tttab.theory.linear_attention.folds import Folds

    settings.check()
    for gamma in settings.gamma:
        for k in settings.folds:
            fold = max(1, round(gamma * settings.d / k))
            yield from _points(
                settings,
                [
                    (Folds(settings.d, k, fold, scheme, settings.noise, warm), serve)
                    for scheme in settings.scheme
                    for serve in ("fresh", "same")
                    for warm in (True, False)
                ],
            )
    yield from _equal(settings)
    yield from _thresholds(settings)


def _points(settings: KfoldSettings, cases: Sequence[Case]) -> Iterator[Row]:
    from tttab.theory.linear_attention.fold_trials import measure_folds
    from tttab.theory.linear_attention.folds import limit, one_step
    from tttab.theory.linear_attention.measure import checked

    exact = [one_step(*case) for case in cases]
    wanted = [law.best for law in exact]
    seen = checked(lambda sampling: measure_folds(cases, sampling), settings.sampling, wanted)
    for (p, serve), law, (found, agrees) in zip(cases, exact, seen, strict=True):
        yield {
            **_head(settings, int(p.rows)),
            "k_folds": p.count,
            "scheme": p.scheme,
            "serve": serve,
            "init": "pretrained" if p.warm else "zero",
            "loss_start": law.start,
            "loss_limit": limit(p, serve),
            "loss_exact": law.best,
            "loss_measured": found.mean,
            "stderr": found.stderr,
            "agrees": agrees,
        }


def _head(settings: KfoldSettings, rows: int) -> Row:
    gamma = rows / settings.d
    return {"experiment": "kfold", "d": settings.d, "rows": rows, "gamma": gamma, "noise": settings.noise}


def _equal(settings: KfoldSettings) -> Iterator[Row]:
    from tttab.theory.linear_attention.folds import best_split, best_split_limit
    from tttab.theory.linear_attention.isotropic import Isotropic, initial_loss
    from tttab.theory.linear_attention.limit import isotropic_loss

    d, noise = settings.d, settings.noise
    for gamma in settings.gamma:
        rows = round(gamma * d)
        exact = initial_loss(Isotropic.pretrained(d, rows, 1, noise))
        untrained = isotropic_loss(rows / d, 0.0, pretrained=True)
        row = {**_head(settings, rows), "kind": "equal"}
        yield (
            row
            | {"rule": "no training, N rows as context", "loss_exact": exact}
            | ({} if noise else {"loss_limit": untrained})
        )
        for serve in ("fresh", "same"):
            n, loss = best_split(d, rows, noise, serve)
            limits = {} if noise else {"loss_limit": best_split_limit(rows / d, serve)}
            yield row | {"rule": f"best single split, {serve}", "context": n, "loss_exact": loss} | limits


def _thresholds(settings: KfoldSettings) -> Iterator[Row]:
    from tttab.theory.linear_attention.folds import Folds, threshold, threshold_limit

    for k in settings.folds:
        problem = Folds(settings.d, k, 1.0, noise=settings.noise)
        yield {
            "experiment": "kfold",
            "d": settings.d,
            "noise": settings.noise,
            "kind": "threshold",
            "k_folds": k,
            "gamma_limit": None if settings.noise else threshold_limit(k),
            "gamma_exact": threshold(problem),
        }


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return the losses, what the same labels do otherwise, and the thresholds."""
    points = [row for row in rows if not row.get("kind")]
    equal, last = ([row for row in rows if row.get("kind") == kind] for kind in ("equal", "threshold"))
    d = rows[0]["d"]
    columns = (
        "rows",
        "k_folds",
        "scheme",
        "serve",
        "init",
        "loss_limit",
        "loss_exact",
        "loss_measured",
        "stderr",
    )
    return [
        Table(f"kfold · d = {d}, one step summed over K folds", columns, points, answer(points)),
        Table(
            f"The same labels otherwise · d = {d}",
            ("rows", "rule", *(("context",) if len(equal) > 1 else ()), "loss_limit", "loss_exact"),
            equal,
            _equal_answer(points, equal),
        ),
        Table(
            f"N/d from which zero wins (leave, fresh) · d = {d}",
            ("k_folds", "gamma_limit", "gamma_exact"),
            last,
            _threshold_answer(last),
        ),
    ]


def answer(rows: Sequence[Row]) -> str:
    """Say what the folds gain at the largest N for each scheme and served context."""
    parts = []
    most = max(row["rows"] for row in rows if row["k_folds"] == rows[0]["k_folds"])
    for scheme, serve in distinct(rows, "scheme", "serve"):
        here = [
            row
            for row in rows
            if (row["scheme"], row["serve"], row["init"], row["rows"]) == (scheme, serve, "pretrained", most)
        ]
        best = min(here, key=lambda row: row["loss_exact"])
        start, loss = best["loss_start"], best["loss_exact"]
        parts.append(f"{scheme}, {serve}: {start:.3f} to {loss:.3f} (K = {best['k_folds']})")
    return f"best K at N = {most}, pre-trained start: {'; '.join(parts)}"


def _equal_answer(points: Sequence[Row], equal: Sequence[Row]) -> str:
    """Say whether folds or a single split make more of the most labels."""
    most, parts = equal[-1]["rows"], []
    for serve in ("fresh", "same"):
        single = next(r for r in equal if r["rows"] == most and r["rule"] == f"best single split, {serve}")
        warm = [r for r in points if r["serve"] == serve and r["init"] == "pretrained"]
        folds = [r for r in warm if r["rows"] == max(one["rows"] for one in warm)]
        best = min(folds, key=lambda row: row["loss_exact"])
        winner = "folds" if best["loss_exact"] < single["loss_exact"] else "the single split"
        parts.append(
            f"{SERVED[serve]}: {winner} ({best['scheme']}, K = {best['k_folds']}: {best['loss_exact']:.3f};"
            f" single {single['loss_exact']:.3f})"
        )
    return f"N = {most}, {'; '.join(parts)}"


def _threshold_answer(rows: Sequence[Row]) -> str:
    first = rows[0]
    exact = "nowhere below 64" if first["gamma_exact"] is None else f"{first['gamma_exact']:.2f}"
    return f"K = {first['k_folds']}: zero wins from N/d = {exact} on at this d; the limit grows like sqrt(K)"


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return loss against K for each scheme and served context, and the threshold against K."""
    points = [row for row in rows if not row.get("kind")]
    found = []
    for scheme, serve in distinct(points, "scheme", "serve"):
        series: list[Series] = []
        here = [
            row
            for row in points
            if (row["scheme"], row["serve"], row["init"]) == (scheme, serve, "pretrained")
        ]
        nominal = sorted({round(row["gamma"], 1) for row in here})
        for colour, gamma in enumerate(nominal):
            part = [row for row in here if round(row["gamma"], 1) == gamma]
            x, bars = column(part, "k_folds"), [BARS * row["stderr"] for row in part]
            series.append(Series(f"N/d = {gamma:g}, exact", x, column(part, "loss_exact"), "line", colour))
            if part[0]["loss_limit"] is not None:
                series.append(Series("", x, column(part, "loss_limit"), "dashed", colour))
            series.append(Series("", x, column(part, "loss_measured"), "points", colour, bars))
        words = "a fold is the queries" if scheme == "leave" else "a fold is the context"
        found.append(Panel(f"{words}, {SERVED[serve]}", "folds K", "loss / |b|²", series, log_x=True))
    last = [row for row in rows if row.get("kind") == "threshold"]
    x = column(last, "k_folds")
    lines = [
        Series("exact", x, column(last, "gamma_exact"), "line", 0),
        Series("limit", x, column(last, "gamma_limit"), "dashed", 0),
        Series("sqrt(K)", x, [k**0.5 for k in x], "dotted", 6),
    ]
    title = "Zero wins from here on (a fold is the queries, fresh)"
    return [*found, Panel(title, "folds K", "N/d", lines, log_x=True, log_y=True)]


EXPERIMENT = Experiment(
    name="kfold",
    help="One step over the K folds of the same rows, its threshold, and what a single split would do.",
    example="--gamma 1,4 --folds 2,5,20 --plot kfold.svg",
    group=PAPER_A,
    settings=KfoldSettings,
    rows=kfold,
    columns=(
        *("experiment", "d", "rows", "gamma", "noise", "k_folds", "scheme", "serve", "init", "loss_start"),
        *("loss_limit", "loss_exact", "loss_measured", "stderr", "agrees"),
        *("kind", "rule", "context", "gamma_limit", "gamma_exact"),
    ),
    quick=(KfoldSettings(d=6, trials=300, gamma=(1.0,), folds=(2, 3)),),
    tables=tables,
    panels=panels,
    title=lambda rows: (
        f"tttab theory kfold: d = {rows[0]['d']}, noise {rows[0]['noise']:g}, pre-trained start, step fixed"
        " before any data is seen\nfull lines: exact law; dashed: limit; points: measured, 2 standard errors"
    ),
    total=lambda settings: (
        len(settings.gamma) * (4 * len(settings.folds) * len(settings.scheme) + 3) + len(settings.folds)
    ),
    retry=more_trials,
)
