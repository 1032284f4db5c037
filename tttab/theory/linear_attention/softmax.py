"""Experiment: one step on softmax attention, its limit law beside measurements, and what linear theory says.

The laws are limits, so measurements at several d are extended to 1/d = 0 by a straight line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tttab.errors import RequestError
from tttab.theory.experiment import PAPER_A, Experiment, Row, Settings, Table, option
from tttab.theory.linear_attention.views import BARS
from tttab.theory.plots import Panel, Series, column, distinct

if TYPE_CHECKING:
    from tttab.theory.linear_attention.head_trials import Case, Model, Seen
    from tttab.theory.linear_attention.measure import Measured
    from tttab.theory.linear_attention.settings import Sampling

NAMES = {
    "head": "one head",
    "pair": "two opposite heads",
    "layers": "two layers",
    "linear": "linear attention",
}


@dataclass(frozen=True, kw_only=True)
class SoftmaxSettings(Settings):
    """The grid."""

    model: tuple[Literal["head", "pair", "layers"], ...] = option(
        ("head", "pair", "layers"), "One head, two opposite heads, two layers of one head; with commas."
    )
    alpha: tuple[float, ...] = option((0.5,), "Context rows n/d, with commas.", low=0, strict=True)
    gamma: tuple[float, ...] = option((0.5, 1.0, 2.0), "Training rows k/d, with commas.", low=0, strict=True)
    d: tuple[int, ...] = option(
        (80, 160, 320), "Features, with commas; from the two largest a line in 1/d goes to infinity.", low=8
    )
    tau: float = option(1.0, "Temperature: W = tau / sqrt(d) I at the start.", low=0, high=3, strict=True)
    trials: int = option(100, "Simulated trials per point.", low=20)
    seed: int = option(0, "Random seed.")

    def check(self) -> None:
        """Raise RequestError or MemoryPlanError for what cannot be extrapolated or held."""
        if len(set(self.d)) < 2:
            raise RequestError("a line in 1/d needs two sizes", f"--d {self.d[0]},{2 * self.d[0]}")
        self.sampling.backend.check_matrices(max(self.d))
        rows = max(self.d) * (max(self.alpha) + max(self.gamma))
        self.sampling.backend.block(round(4 * rows * (rows + max(self.d))), 1)

    @property
    def sampling(self) -> Sampling:
        """How trials are drawn."""
        from tttab.theory.linear_attention.settings import Backend, Sampling

        return Sampling(self.trials, self.seed, Backend(dtype="float32"))


def softmax(settings: SoftmaxSettings) -> Iterator[Row]:
    """Yield per (model, n/d, k/d, start) a row for each d and served context, then those of kind `limit`.

    A `limit` row is where the line in 1/d through the losses of the two largest d ends, and says whether that
    agrees with the limit law; two layers have none. `loss_linear` is linear attention's limit. The last rows,
    `threshold`, have the k/d from which zero wins on fresh contexts: in the limit, and between the measured
    points of the largest d.
    """
    settings.check()
    rows: list[Row] = []
    for model in settings.model:
        for alpha in settings.alpha:
            for gamma in settings.gamma:
                for warm in (True, False):
                    for row in _points(settings, model, (alpha, gamma), warm):
                        rows.append(row)
                        yield row
    yield from _thresholds(settings, rows)


def _points(
    settings: SoftmaxSettings, model: Model, ratios: tuple[float, float], warm: bool
) -> Iterator[Row]:
    from tttab.theory.linear_attention.head_trials import Case, measure_case
    from tttab.theory.linear_attention.heads import Head
    from tttab.theory.linear_attention.measure import second_sampling

    head = Head(ratios[0], settings.tau, opposite=model == "pair")
    cases = [Case(model, head, d, ratios[1], warm) for d in sorted(set(settings.d))]
    seen = [measure_case(case, settings.sampling) for case in cases]
    ends = _ends(cases, seen)
    if any(row["agrees"] is False for row in ends):
        sampling = second_sampling(settings.sampling)
        seen = [measure_case(case, sampling) for case in cases]
        ends = _ends(cases, seen)
    for case, found in zip(cases, seen, strict=True):
        for serve, loss in (("fresh", found.fresh), ("same", found.same)):
            yield _row(case, serve) | {
                "loss_start": found.start.mean,
                "loss_measured": loss.mean,
                "stderr": loss.stderr,
            }
    yield from ends


def _ends(cases: Sequence[Case], seen: Sequence[Seen]) -> list[Row]:
    found = []
    for serve in ("fresh", "same"):
        losses = [one.fresh if serve == "fresh" else one.same for one in seen]
        end, error = line_to_infinity((cases[-2].d, losses[-2]), (cases[-1].d, losses[-1]))
        row = _row(cases[-1], serve) | {"kind": "limit", "d": None, "n": None, "k": None}
        limit = loss_limit(cases[-1], serve)
        agrees = None if limit is None else abs(end - limit) <= 4 * error
        found.append(row | {"loss_measured": end, "stderr": error, "agrees": agrees})
    return found


def line_to_infinity(small: tuple[int, Measured], large: tuple[int, Measured]) -> tuple[float, float]:
    """Return where the line in 1/d through two losses ends, and its standard error."""
    (d, first), (more, second) = small, large
    share = d / (more - d)
    error = (((1 + share) * second.stderr) ** 2 + (share * first.stderr) ** 2) ** 0.5
    return (1 + share) * second.mean - share * first.mean, error


def loss_limit(case: Case, serve: str) -> float | None:
    """Return the limit law's loss after the best step; None where there is none."""
    from tttab.theory.linear_attention.heads import cold_loss

    if case.model == "layers" or (serve == "same" and not case.warm):
        return None
    return case.head.after(case.gamma, same=serve == "same") if case.warm else cold_loss(case.gamma)


def _row(case: Case, serve: str) -> Row:
    from tttab.theory.linear_attention.limit import isotropic_loss

    head, gamma, same = case.head, case.gamma, serve == "same"
    return {
        "experiment": "softmax",
        "model": case.model,
        "alpha": head.alpha,
        "gamma": gamma,
        "tau": head.tau,
        "init": "pretrained" if case.warm else "zero",
        "serve": serve,
        "d": case.d,
        "n": case.n,
        "k": case.k,
        "loss_linear": isotropic_loss(head.alpha, gamma, "S" if same else "F", pretrained=case.warm),
        "loss_limit": loss_limit(case, serve),
    }


def _thresholds(settings: SoftmaxSettings, rows: Sequence[Row]) -> Iterator[Row]:
    from tttab.theory.linear_attention.heads import Head
    from tttab.theory.linear_attention.limit import isotropic_threshold

    largest = max(settings.d)
    for alpha in settings.alpha:
        limits: dict[str, float | None] = {"linear": isotropic_threshold(alpha)}
        for model in settings.model:
            head = Head(alpha, settings.tau, opposite=model == "pair")
            limits[model] = None if model == "layers" else head.threshold()
        for model, limit in limits.items():
            here = [
                row
                for row in rows
                if (row["model"], row["alpha"], row["d"], row["serve"]) == (model, alpha, largest, "fresh")
            ]
            yield {
                "experiment": "softmax",
                "kind": "threshold",
                "model": model,
                "alpha": alpha,
                "tau": settings.tau,
                "d": largest,
                "gamma_limit": limit,
                "gamma_measured": crossing(here),
            }


def crossing(rows: Sequence[Row]) -> float | None:
    """Return the k/d between two measured ones from which the zero start is better; None: there is none."""
    from math import exp, log

    by_start = {
        start: {row["gamma"]: row["loss_measured"] for row in rows if row["init"] == start}
        for start in ("pretrained", "zero")
    }
    before: tuple[float, float] | None = None
    for gamma in sorted(by_start["zero"]):
        lead = by_start["pretrained"][gamma] - by_start["zero"][gamma]
        if lead > 0:
            if before is None:
                return None
            share = before[1] / (before[1] - lead)
            return exp(log(before[0]) + share * (log(gamma) - log(before[0])))
        before = (gamma, lead)
    return None


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return the measurements, where their lines in 1/d end, and the thresholds."""
    points, ends, last = ([r for r in rows if r.get("kind") == kind] for kind in (None, "limit", "threshold"))
    cell = ("model", "alpha", "gamma", "init", "serve")
    losses = ("loss_linear", "loss_limit", "loss_measured", "stderr")
    return [
        Table("One step on softmax attention", (*cell[:3], "d", *cell[3:], *losses), points, answer(points)),
        Table(
            "The same, where the line in 1/d through the two largest d ends",
            (*cell, *losses),
            ends,
            _ends_answer(ends),
        ),
        Table(
            f"k/d from which zero wins on fresh contexts; measured at d = {last[0]['d']}",
            ("model", "alpha", "gamma_limit", "gamma_measured"),
            last,
            _threshold_answer(last),
        ),
    ]


def answer(rows: Sequence[Row]) -> str:
    """Say how far linear attention's limit is from the measurement at the largest d."""
    d, parts = max(row["d"] for row in rows), []
    for (model,) in distinct(rows, "model"):
        here = [row for row in rows if (row["model"], row["d"], row["init"]) == (model, d, "pretrained")]
        off = [row["loss_measured"] / row["loss_linear"] for row in here if row["serve"] == "fresh"]
        parts.append(f"{NAMES[model]} {min(off):.2f} to {max(off):.2f}")
    return f"fresh contexts, d = {d}, loss over what linear theory says: {'; '.join(parts)}"


def _ends_answer(rows: Sequence[Row]) -> str:
    judged = [row for row in rows if row["agrees"] is not None]
    held = sum(row["agrees"] for row in judged)
    return f"{held} of {len(judged)} lines end within 4 standard errors of the limit law"


def _threshold_answer(rows: Sequence[Row]) -> str:
    parts = []
    for row in rows:
        if row["gamma_limit"] is not None and row["alpha"] == rows[0]["alpha"]:
            parts.append(f"{NAMES[row['model']]} {row['gamma_limit']:.3f}")
    return f"n/d = {rows[0]['alpha']:g}: zero wins beyond k/d = {', '.join(parts)} in the limit"


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return a panel per model with loss against k/d on fresh contexts, and one with loss against 1/d."""
    points = [row for row in rows if not row.get("kind")]
    largest, alpha = max(row["d"] for row in points), points[0]["alpha"]
    found = []
    for (model,) in distinct(points, "model"):
        lines: list[Series] = []
        for colour, init in enumerate(("pretrained", "zero")):
            here = _select(points, model, alpha, init, "fresh", largest)
            x, bars = column(here, "gamma"), [BARS * row["stderr"] for row in here]
            lines.append(
                Series(f"{init}, linear attention, limit", x, column(here, "loss_linear"), "dotted", colour)
            )
            if here[0]["loss_limit"] is not None:
                lines.append(Series(f"{init}, limit", x, column(here, "loss_limit"), "dashed", colour))
            lines.append(
                Series(
                    f"{init}, measured, d = {largest}",
                    x,
                    column(here, "loss_measured"),
                    "points",
                    colour,
                    bars,
                )
            )
        title = f"{NAMES[model]}, n/d = {alpha:g}, fresh contexts"
        found.append(Panel(title, "k/d", "loss / |b|²", lines, log_x=True))
    lines = []
    gamma = points[len(points) // 2]["gamma"] if len(distinct(points, "gamma")) == 1 else 1.0
    gamma = min((g for (g,) in distinct(points, "gamma")), key=lambda value: abs(value - gamma))
    for colour, (model,) in enumerate(distinct(points, "model")):
        for style, serve in (("points", "fresh"), ("crosses", "same")):
            here = [r for r in _select(points, model, alpha, "pretrained", serve) if r["gamma"] == gamma]
            x, bars = [1 / row["d"] for row in here], [BARS * row["stderr"] for row in here]
            label = f"{NAMES[model]}, {serve}"
            lines.append(
                Series(
                    label,
                    x,
                    column(here, "loss_measured"),
                    "crosses" if style == "crosses" else "points",
                    colour,
                    bars,
                )
            )
            if here[0]["loss_limit"] is not None:
                lines.append(Series("", [0.0, max(x)], [here[0]["loss_limit"]] * 2, "dashed", colour))
    found.append(Panel(f"Pre-trained start, k/d = {gamma:g}; dashed: limit", "1/d", "loss / |b|²", lines))
    return found


def _select(
    rows: Sequence[Row], model: str, alpha: float, init: str, serve: str, d: int | None = None
) -> list[Row]:
    wanted = (model, alpha, init, serve)
    return [
        row
        for row in rows
        if (row["model"], row["alpha"], row["init"], row["serve"]) == wanted and d in (None, row["d"])
    ]


EXPERIMENT = Experiment(
    name="softmax",
    help="One step on softmax attention: limit law, measurements, and how far linear theory predicts them.",
    example="--model head,pair --alpha 1 --plot softmax.svg",
    group=PAPER_A,
    settings=SoftmaxSettings,
    rows=softmax,
    columns=(
        *("experiment", "model", "alpha", "gamma", "tau", "init", "serve", "d", "n", "k"),
        *("loss_linear", "loss_limit", "loss_start", "loss_measured", "stderr"),
        *("kind", "agrees", "gamma_limit", "gamma_measured"),
    ),
    quick=(SoftmaxSettings(d=(8, 12), gamma=(0.5, 2.0), trials=60),),
    tables=tables,
    panels=panels,
    title=lambda rows: (
        f"tttab theory softmax: tau = {rows[0]['tau']:g}, the step is the best of 8, chosen on other trials"
    ),
    total=lambda settings: (
        4 * len(settings.model) * len(settings.alpha) * len(settings.gamma) * (len(set(settings.d)) + 1)
        + len(settings.alpha) * (len(settings.model) + 1)
    ),
    retry=lambda settings: {"trials": 4 * settings.trials, "seed": settings.seed + 1},
)
