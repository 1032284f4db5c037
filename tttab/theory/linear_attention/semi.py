"""Experiment: what unlabelled rows add to one step, compared with the training rows' own Gram matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tttab.errors import RequestError
from tttab.theory.experiment import PAPER_A, Experiment, Row, Table, option
from tttab.theory.linear_attention.settings import FamilyName, Sized, more_trials
from tttab.theory.linear_attention.views import BARS
from tttab.theory.plots import Panel, Series, Style, column

if TYPE_CHECKING:
    from tttab.theory.linear_attention.problem import LinearProblem

RATIOS = (1.25, 1.5, 2.0, 3.0, 4.0, 8.0)
CONTROLS = ("plain", "known", "own")


@dataclass(frozen=True, kw_only=True)
class SemiSettings(Sized):
    """The task and how many rows without labels."""

    n: int | None = option(None, "Context rows; default d.", low=1)
    k: int | None = option(None, "Training rows; default 2d.", low=1)
    m: tuple[int, ...] = option((), "Unlabelled rows, with commas; default 1.25 d to 8 d.", low=1)
    family: FamilyName = option("power-law", "Pair of covariances: two-level, power-law, random.")
    share: float = option(0.5, "Share of b in likely directions, 0 to 1.", low=0, high=1)
    teacher: int | None = option(None, "Context rows of the teacher of pseudo-labels; default 4 n.", low=1)
    noise: float = option(0.0, "Variance of the label noise, over b'Sx b.", low=0)

    @property
    def rows(self) -> tuple[int, int]:
        """The context and the training rows."""
        return self.n or self.d, self.k or 2 * self.d

    @property
    def unlabelled(self) -> tuple[int, ...]:
        """m."""
        return self.m or tuple(sorted({max(self.d + 4, round(ratio * self.d)) for ratio in RATIOS}))

    @property
    def teacher_rows(self) -> int:
        """n_T."""
        return self.teacher or 4 * self.rows[0]

    def check(self) -> None:
        """Raise RequestError or MemoryPlanError for what has no law or no room."""
        self.sampling.backend.check_matrices(self.d)
        if min(self.unlabelled) <= self.d + 3:
            raise RequestError(
                f"the Gram matrix of m rows needs m > d + 3 = {self.d + 3}, got {min(self.unlabelled)}",
                f"--m {self.d + 4}",
            )
        n, k = self.rows
        if self.teacher_rows <= n:
            raise RequestError(
                f"a teacher with {self.teacher_rows} rows knows no more than {n} rows", f"--teacher {4 * n}"
            )
        self.sampling.backend.block(8 * self.d * (n + k + max(self.unlabelled) + 8 * self.d), 1)


def semi(settings: SemiSettings) -> Iterator[Row]:
    """Yield a row per rule (and m), then those of kind `pays`, then those of pseudo-labels.

    Rules: `plain`; `known` (P = Sx^-1); `own` (P from the k training rows: the control, it needs k > d + 1);
    `unlabelled` (P from m others); `own + unlabelled` (no law). `pays` has the m from which `unlabelled`
    beats a control. `pseudo`: labels from a context of n_T rows, Sx = I, the loss on the student's own
    context.
    """
    from tttab.theory.linear_attention.covariances import covariance_family
    from tttab.theory.linear_attention.problem import LinearProblem, pretrained_weights

    settings.check()
    (n, k), noise = settings.rows, settings.noise
    family = covariance_family(settings.family, settings.d, settings.seed)
    weights = pretrained_weights(family.covariance, family.prior, n, noise)
    problem = LinearProblem(family.task(settings.share), weights, family.covariance, n, k, noise)
    yield from _rules(settings, problem)
    yield from _pays(settings, problem)
    yield from _pseudo(settings)


def _rules(settings: SemiSettings, problem: LinearProblem) -> Iterator[Row]:
    from tttab.theory.linear_attention import unlabelled as law
    from tttab.theory.linear_attention.law import one_step
    from tttab.theory.linear_attention.measure import checked

    ms = settings.unlabelled
    own = law.own_step(problem)
    exact = [one_step(problem), law.known_step(problem), own]
    exact += [law.unlabelled_step(problem, m) for m in ms]
    near = [law.shared_step(problem, m) for m in ms]
    etas = [0.0 if parabola is None else parabola.best_step for parabola in [*exact, *near]]
    names = [*CONTROLS, *["unlabelled"] * len(ms), *["own + unlabelled"] * len(ms)]
    wanted = [None if parabola is None else parabola.gain for parabola in exact] + [None] * len(ms)
    seen = checked(lambda sampling: law.measure_rules(problem, ms, etas, sampling), settings.sampling, wanted)
    for name, m, eta, gain, (found, agrees) in zip(
        names, [None, None, None, *ms, *ms], etas, wanted, seen, strict=True
    ):
        if name == "own" and own is None:
            continue
        yield {
            **_head(settings),
            "rule": name,
            "m": m,
            "eta": eta,
            "gain_limit": None if settings.noise else _limit(problem, name, m),
            "gain_exact": gain,
            "gain_measured": found.mean,
            "gain_stderr": found.stderr,
            "agrees": agrees,
        }


def _limit(problem: LinearProblem, rule: str, m: int | None) -> float | None:
    from tttab.theory.linear_attention import limit

    white = limit.papers_gain(problem)
    by_rule = {
        "plain": limit.general_gain(problem),
        "known": white,
        "own": limit.alignment_terms(problem).gain,
        "unlabelled": white * (1 - problem.d / m) if m else None,
    }
    return by_rule.get(rule)


def _head(settings: SemiSettings) -> Row:
    n, k = settings.rows
    return {
        "experiment": "semi",
        "d": settings.d,
        "n": n,
        "k": k,
        "noise": settings.noise,
        "family": settings.family,
        "alignment": settings.share,
    }


def _pays(settings: SemiSettings, problem: LinearProblem) -> Iterator[Row]:
    from tttab.theory.linear_attention import limit
    from tttab.theory.linear_attention import unlabelled as law
    from tttab.theory.linear_attention.law import one_step

    for control, parabola in (("plain", one_step(problem)), ("own", law.own_step(problem))):
        share = limit.general_gain(problem) / limit.papers_gain(problem)
        known = control == "plain" and share < 1 and not settings.noise
        yield {
            **_head(settings),
            "kind": "pays",
            "over": control,
            "m_limit": problem.d / (1 - share) if known else None,
            "m_exact": law.pays_from(problem, parabola),
        }


def _pseudo(settings: SemiSettings) -> Iterator[Row]:
    from tttab.theory.linear_attention.measure import checked
    from tttab.theory.linear_attention.unlabelled import Pseudo

    for m in settings.unlabelled:
        p = Pseudo(settings.d, settings.rows[0], settings.teacher_rows, m, settings.noise)
        ((found, agrees),) = checked(lambda s, p=p: [p.measure(s)], settings.sampling, [p.law.gain])
        yield {
            **_head(settings),
            "kind": "pseudo",
            "rule": "pseudo-labels",
            "teacher": p.teacher,
            "m": m,
            "loss_student": p.start,
            "loss_teacher": p.teacher_loss,
            "gain_limit": p.limit,
            "gain_exact": p.law.gain,
            "gain_measured": found.mean,
            "gain_stderr": found.stderr,
            "agrees": agrees,
        }


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return the rules, where unlabelled rows pay, and the pseudo-labels."""
    first = rows[0]
    rules, pays, pseudo = (
        [row for row in rows if row.get("kind") == kind] for kind in (None, "pays", "pseudo")
    )
    sizes = f"d = {first['d']}, n = {first['n']}, k = {first['k']}"
    gains = ("gain_limit", "gain_exact", "gain_measured", "gain_stderr")
    return [
        Table(f"{first['family']}: the whitened step · {sizes}", ("rule", "m", *gains), rules, answer(rules)),
        Table("From which m unlabelled rows pay", ("over", "m_limit", "m_exact"), pays, _pays_answer(pays)),
        Table(
            f"Pseudo-labels of a context of {pseudo[0]['teacher']} rows · Sx = I, {sizes}",
            ("m", "loss_student", "loss_teacher", *gains),
            pseudo,
            _pseudo_answer(pseudo),
        ),
    ]


def answer(rows: Sequence[Row]) -> str:
    """Say what the control gets, and what unlabelled rows alone and beside it get."""

    def most(rule: str) -> Row | None:
        return next((row for row in reversed(rows) if row["rule"] == rule), None)

    parts = []
    for rule in (*CONTROLS, "unlabelled", "own + unlabelled"):
        row = most(rule)
        if row:
            rows_used = f" (m = {row['m']})" if row["m"] else ""
            parts.append(f"{rule}{rows_used} {row['gain_measured']:.3f}")
    return f"gain of one step: {'; '.join(parts)}"


def _pays_answer(rows: Sequence[Row]) -> str:
    parts = []
    for row in rows:
        at = "with no number of rows" if row["m_exact"] is None else f"from m = {row['m_exact']:.0f} on"
        parts.append(f"over the {row['over']} step {at}")
    return f"unlabelled rows pay {'; '.join(parts)}"


def _pseudo_answer(rows: Sequence[Row]) -> str:
    last = rows[-1]
    gap = last["loss_student"] - last["loss_teacher"]
    return (
        f"m = {last['m']} pseudo-labels close {last['gain_exact'] / gap:.0%} of the gap to the teacher's loss"
    )


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the gain against m for the whitened step with its controls, and for pseudo-labels."""
    rules, pseudo = ([row for row in rows if row.get("kind") == kind] for kind in (None, "pseudo"))
    ends = [min(column(pseudo, "m")), max(column(pseudo, "m"))]
    series: list[Series] = []
    for rule, colour in (("unlabelled", 0), ("own + unlabelled", 1)):
        series += _curves([row for row in rules if row["rule"] == rule], rule, colour)
    styles: dict[str, Style] = {"plain": "dotted", "known": "dashdot", "own": "dashed"}
    for row in rules:
        if row["rule"] in styles:
            name = {"own": "own k rows (control)", "known": "Sx known"}.get(row["rule"], "plain step")
            series.append(Series(name, ends, [row["gain_exact"]] * 2, styles[row["rule"]], 6))
    first = rows[0]
    title = f"Whitened step, {first['family']}, n = {first['n']}, k = {first['k']}"
    other = f"Pseudo-labels of {pseudo[0]['teacher']} rows, Sx = I, n = {first['n']}"
    axis, gain = "unlabelled rows m", "improvement"
    return [
        Panel(title, axis, f"{gain} / b'Sx b", series, log_x=True),
        Panel(other, axis, f"{gain} / |b|²", _curves(pseudo, "pseudo-labels", 2), log_x=True),
    ]


def _curves(rows: Sequence[Row], label: str, colour: int) -> list[Series]:
    x, bars = column(rows, "m"), [BARS * row["gain_stderr"] for row in rows]
    lines = [
        Series(f"{label}, limit", x, column(rows, "gain_limit"), "dashed", colour),
        Series(f"{label}, exact", x, column(rows, "gain_exact"), "line", colour),
        Series(f"{label}, measured", x, column(rows, "gain_measured"), "points", colour, bars),
    ]
    return [line for line in lines if any(y is not None for y in line.y)]


EXPERIMENT = Experiment(
    name="semi",
    help="Unlabelled rows: the step whitened by their Gram matrix, its control, and pseudo-labels.",
    example="--family random --plot semi.svg",
    group=PAPER_A,
    settings=SemiSettings,
    rows=semi,
    columns=(
        *("experiment", "d", "n", "k", "noise", "family", "alignment", "rule", "m", "eta"),
        *("gain_limit", "gain_exact", "gain_measured", "gain_stderr", "agrees"),
        *("kind", "over", "m_limit", "m_exact", "teacher", "loss_student", "loss_teacher"),
    ),
    quick=(SemiSettings(d=6, trials=300, m=(12, 24)),),
    tables=tables,
    panels=panels,
    title=lambda rows: (
        f"tttab theory semi: d = {rows[0]['d']}, noise {rows[0]['noise']:g}\n"
        "left: fresh contexts; right: the student's own context; the step is fixed before any data is seen"
    ),
    total=lambda settings: 5 + 3 * len(settings.unlabelled) - (settings.rows[1] <= settings.d + 1),
    retry=more_trials,
)
