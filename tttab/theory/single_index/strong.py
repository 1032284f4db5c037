"""Experiment: online steps on the sphere with the link known: geometric decay, its floor, samples to eps.

With 1 - <b, u> = e small, a step of size eta takes e to e (1 - 2 eta I) + eta^2 (r - 1) V / 2, where I =
E[s'(z)^2] and V = E[(pull)^2]: decay at the rate 2 eta I to the floor eta (r - 1) V / (4 I). With the squared
loss V grows with e, which slows the decay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from tttab.errors import RequestError
from tttab.seeding import torch_stream
from tttab.theory import plots
from tttab.theory.device import check_device
from tttab.theory.experiment import PAPER_B, Experiment, Row, Table, option, over_tasks
from tttab.theory.plots import Panel, column, curve
from tttab.theory.single_index.hermite import Series, mean_product, multiply, parse_link
from tttab.theory.single_index.settings import LINK, Common, Loss

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tttab.theory.single_index.tasks import IndexLaw, IndexTasks

LOG_LAW, SQUARE_LAW = "steps*eps/log(1/eps)", "steps*eps^2"


@dataclass(frozen=True, kw_only=True)
class StrongSettings(Common):
    """The grid."""

    link: str = option("He2", LINK)
    r: int = option(8, "Dimension of the subspace.", low=2)
    eps: tuple[float, ...] = option(
        (0.2, 0.1, 0.05, 0.02, 0.01), "Targets of 1 - <b, u>, with commas.", low=0, strict=True
    )
    loss: Loss = option("correlation", "Loss: correlation or squared.")
    start: float = option(0.5, "Alignment at the start.", low=0, high=1, strict=True)
    share: float = 0.25
    """Floor of the step size chosen for a target, as a share of the target."""
    points: int = 40
    """Points of the trace."""
    default_tasks = (96, 1024)

    @property
    def targets(self) -> tuple[float, ...]:
        """How far from 1 the mean alignment may stay, the largest first."""
        return tuple(sorted(self.eps, reverse=True))

    def check(self) -> None:
        """Raise RequestError or MemoryPlanError for what cannot be run."""
        from tttab.theory.single_index.checks import check_link, check_matrices, check_rows

        check_device(self.device)
        if self.targets[0] >= 1 - self.start:
            raise RequestError(f"the start already has an error of {1 - self.start:g}", "--eps 0.2,0.1,0.05")
        check_link(self.link, "--link")
        check_matrices(self.r, self.device, "--r")
        check_rows(self.count * self.r, self.device, "--tasks 96 --r 8")


def _parts(exact: Series) -> tuple[Series, Series]:
    """Return the link without its constant, and its derivative."""
    return (Fraction(0), *exact[1:]), tuple(i * value for i, value in enumerate(exact))[1:]


def information(exact: Series) -> float:
    """Return I = E[s'(z)^2] of the link scaled to E[s^2] = 1: exact algebra, then one division."""
    plain, slope = _parts(exact)
    return float(mean_product(slope, slope) / mean_product(plain, plain))


def pull_variance(exact: Series, noise: float, loss: Loss) -> float:
    """Return V at <b, u> = 1: noise^2 I, and for the correlation loss E[s^2 s'^2] besides."""
    fixed = noise**2 * information(exact)
    if loss == "squared":
        return fixed
    plain, slope = _parts(exact)
    product = multiply(plain, slope)
    return fixed + float(mean_product(product, product) / mean_product(plain, plain) ** 2)


def misfit_variance(exact: Series, loss: Loss) -> float:
    """Return dV/de at small errors e: 2 E[s'^4] for the squared loss, whose pull shrinks with the error."""
    if loss == "correlation":
        return 0.0
    plain, slope = _parts(exact)
    square = multiply(slope, slope)
    return 2 * float(mean_product(square, square) / mean_product(plain, plain) ** 2)


def strong_rows(settings: StrongSettings) -> Iterator[Row]:
    """Yield rows `trace` (error against steps at the last target's step size), then `samples` (steps to eps).

    The last row, `law`, compares the growth of the steps with eps^-1 log(1/eps) and with eps^-2. A target
    that was not `reached` has no such ratios, and no part in that row.
    """
    from tttab.theory.single_index.tasks import law_of_link

    settings.check()
    exact = parse_link(settings.link)
    law = law_of_link(exact, settings.r, settings.r, settings.noise)
    yield from _trace(settings, law, exact, settings.targets[len(settings.targets) // 2])
    scaled = []
    for eps in settings.targets:
        row = _samples(settings, law, exact, eps)
        scaled.append(row)
        yield row
    yield _law_row(settings, scaled)


def step_size(settings: StrongSettings, exact: Series, eps: float) -> float:
    """Return the step size whose floor is `share` of eps, with V as large as it is at eps."""
    spread = pull_variance(exact, settings.noise, settings.loss) + eps * misfit_variance(exact, settings.loss)
    return 4 * information(exact) * settings.share * eps / ((settings.r - 1) * spread)


def _trace(settings: StrongSettings, law: IndexLaw, exact: Series, eps: float) -> Iterator[Row]:
    eta, info = step_size(settings, exact, eps), information(exact)
    growth = eta * (settings.r - 1) / 2
    rate = 2 * info - growth * misfit_variance(exact, settings.loss)
    floor = growth * pull_variance(exact, settings.noise, settings.loss) / rate
    length = max(1, math.ceil(8 / (eta * rate) / settings.points))
    expected: float | None = None
    for step, errors in _errors(settings, law, eta, length, f"trace {eps}"):
        if expected is not None:
            expected = floor + (expected - floor) * (1 - eta * rate) ** length
        elif float(errors.mean()) <= 0.1:
            expected = float(errors.mean())  # the law is for small errors: it starts where they begin
        yield _row(settings, errors) | {
            "kind": "trace",
            "eta": eta,
            "steps": step,
            "predicted": expected,
            "floor": floor,
            "rate": eta * rate,
        }
        if step >= length * settings.points:
            return


def _samples(settings: StrongSettings, law: IndexLaw, exact: Series, eps: float) -> Row:
    eta = step_size(settings, exact, eps)
    length = max(1, round(0.02 / (2 * eta * information(exact))))
    for step, errors in _errors(settings, law, eta, length, f"samples {eps}"):
        if float(errors.mean()) <= eps or step > 2000 * length:
            logs, reached = math.log(1 / eps), float(errors.mean()) <= eps
            return _row(settings, errors) | {
                "kind": "samples",
                "eps": eps,
                "eta": eta,
                "steps": step,
                LOG_LAW: step * eps / logs if reached else None,
                SQUARE_LAW: step * eps**2 if reached else None,
                "reached": reached,
            }
    raise AssertionError("the recursion does not end")


def _errors(
    settings: StrongSettings, law: IndexLaw, eta: float, length: int, name: str
) -> Iterator[tuple[int, Tensor]]:
    """Yield (steps so far, 1 - <b, u> of each task) for ever, every `length` steps."""
    import torch

    from tttab.theory.single_index.stages import Stream, stage_two
    from tttab.theory.single_index.tasks import draw_basis, draw_rows, draw_tasks

    generator = torch_stream(settings.seed, "strong", name, device=settings.device)
    tasks = draw_tasks(law, draw_basis(law, generator), settings.count, generator)
    u, step = _start(settings, tasks, generator), 0
    yield step, _error(u, tasks)
    while True:
        x, y = draw_rows(tasks, length, generator)
        rates = torch.full((length,), eta)
        stream = Stream(x.transpose(0, 1).contiguous(), y.T.contiguous(), rates)
        u, step = stage_two(u, stream, tasks.weights, settings.loss, longest=1e9), step + length
        yield step, _error(u, tasks)


def _start(settings: StrongSettings, tasks: IndexTasks, generator: torch.Generator) -> Tensor:
    import torch

    from tttab.theory.single_index.tasks import unit

    b = tasks.direction
    other = torch.randn(b.shape, generator=generator, device=b.device)
    other = unit(other - (other * b).sum(dim=1, keepdim=True) * b)
    return settings.start * b + (1 - settings.start**2) ** 0.5 * other


def _error(u: Tensor, tasks: IndexTasks) -> Tensor:
    overlap = (u * tasks.direction).sum(dim=1)
    even = not tasks.weights[:, 1::2].any()  # then -b is as good an answer as b
    return 1 - (overlap.abs() if even else overlap)


def _row(settings: StrongSettings, errors: Tensor) -> Row:
    return {
        "experiment": "strong",
        "link": settings.link,
        "r": settings.r,
        "loss": settings.loss,
        "noise": settings.noise,
        "start": settings.start,
        **over_tasks("error", errors),
        "stuck": int((errors > 1.001 - settings.start).sum()),
        "tasks": len(errors),
        "seed": settings.seed,
        "device": settings.device_type,
    }


def _law_row(settings: StrongSettings, rows: list[Row]) -> Row:
    reached = [row for row in rows if row["reached"]]
    return {
        "experiment": "strong",
        "kind": "law",
        "link": settings.link,
        "r": settings.r,
        "loss": settings.loss,
        "targets": list(settings.targets),
        "targets_reached": len(reached),
        "spread_log_law": _spread([row[LOG_LAW] for row in reached]),
        "spread_square_law": _spread([row[SQUARE_LAW] for row in reached]),
        "tasks": settings.count,
        "seed": settings.seed,
        "device": settings.device_type,
    }


def _spread(values: list[float]) -> float | None:
    """Return the largest over the smallest value; None where there are not two, or the smallest is 0."""
    return max(values) / min(values) if len(values) > 1 and min(values) > 0 else None


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return an eighth of the trace, and the targets with the answer below them."""
    trace = [row for row in rows if row["kind"] == "trace"]
    sampled = [row for row in rows if row["kind"] == "samples"]
    decay = ("steps", "error", "stderr", "median", "predicted", "floor", "stuck")
    steps = ("eps", "eta", "steps", "error", "median", "reached", LOG_LAW, SQUARE_LAW, "stuck")
    last = trace[-1]
    ends = f"one step size: the error ends at {last['error']:.3g}, its law says {last['floor']:.3g}"
    return [
        Table(f"{title(rows)}: one step size", decay, trace[:: max(1, len(trace) // 8)], ends),
        Table(f"{title(rows)}: steps to a target eps", steps, sampled, answer(rows)),
    ]


def answer(rows: Sequence[Row]) -> str:
    """Say which of the two laws the steps to the targets follow."""
    law = rows[-1]
    if law["spread_log_law"] is None:
        return f"{law['targets_reached']} targets reached: too few for a law"
    return (
        f"over {law['targets_reached']} targets {LOG_LAW} spreads by a factor of {law['spread_log_law']:.2f},"
        f" {SQUARE_LAW} by {law['spread_square_law']:.2f}"
    )


def title(rows: Sequence[Row]) -> str:
    """Return the title of table and figure."""
    return f"Strong recovery, {rows[0]['link']}, r = {rows[0]['r']}"


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the decay of the error, and the steps to the targets that were reached against the two laws."""
    trace = [row for row in rows if row["kind"] == "trace"]
    sampled = [row for row in rows if row["kind"] == "samples" and row["reached"]]
    steps = column(trace, "steps")
    decay = [
        plots.Series("measured (mean)", steps, column(trace, "error"), "points", 0),
        plots.Series("predicted from 0.1 on", steps, column(trace, "predicted"), "line", 1),
        plots.Series("floor eta(r-1)V/4I", steps, column(trace, "floor"), "dotted", 6),
    ]
    found = [Panel("one constant step size", "online steps", "1 - <b, u>", decay, log_y=True)]
    if sampled:
        laws: list[plots.Series] = []
        for colour, name in enumerate((LOG_LAW, SQUARE_LAW)):
            relative = [row[name] / sampled[0][name] for row in sampled]
            laws += curve(name, column(sampled, "eps"), relative, colour=colour)
        label = "relative to the largest eps"
        found.append(
            Panel("flat: the law holds", "target eps", label, laws, log_x=True, log_y=True, falling=True)
        )
    return found


EXPERIMENT = Experiment(
    name="strong",
    help="Stage II: geometric decay to a floor, and samples to eps against eps^-1 log(1/eps) and eps^-2.",
    example="--plot strong.svg",
    group=PAPER_B,
    settings=StrongSettings,
    rows=strong_rows,
    columns=(
        *("experiment", "link", "r", "loss", "noise", "start", "error", "stderr", "median", "stuck"),
        *("tasks", "seed", "device", "kind", "eta", "steps", "predicted", "floor", "rate", "eps"),
        *(LOG_LAW, SQUARE_LAW, "reached"),
        *("targets", "targets_reached", "spread_log_law", "spread_square_law"),
    ),
    quick=(StrongSettings(r=4, eps=(0.2, 0.1), tasks=3),),
    tables=tables,
    panels=panels,
    title=lambda rows: f"tttab theory strong, seed {rows[0]['seed']}: {title(rows)}",
    total=lambda settings: settings.points + len(settings.eps) + 2,
)
