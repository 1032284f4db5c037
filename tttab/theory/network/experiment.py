"""Experiment: a foundation model on a real table, cold against warm start over k, beside the linear law."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tttab.errors import RequestError, SplitError
from tttab.theory.experiment import PAPER_A, Experiment, Progress, Row, Settings, Table, option
from tttab.theory.plots import Panel, Series, column, curve, distinct

if TYPE_CHECKING:
    import numpy as np

    from tttab.contracts import Rule, Session
    from tttab.core import Table as Data
    from tttab.theory.network.measure import Gradients, Losses, Rows
    from tttab.training.config import Schedule

Place = Literal["fresh", "same"]
PLACES: dict[Place, str] = {
    "fresh": "fresh contexts (the papers' convention F)",
    "same": "the context that was trained on (S)",
}
HEADINGS: dict[Place, str] = {
    "fresh": "F: loss on fresh contexts",
    "same": "S: loss on the context trained on",
}
METHODS = {"one step": "sgd-1", "trained": "adamw"}
"""One step of gradient descent, its size from a line search, and several steps."""
STARTS = ("warm", "cold")
GRADIENT_ROWS = 1024
Cell = tuple[str, str, int]
"""Start, method, k."""


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Settings):
    """The table, the model and the grid."""

    dataset: str = option("phoneme", "A name, an OpenML id or a file, as in tttab run.")
    target: str | None = option(None, "Target column of a file.")
    model: str | None = option(None, "Model, as in tttab run (default: the one in the package).")
    n: int = option(50, "Context rows.", low=2)
    k: tuple[int, ...] = option((100, 400, 1600), "Training rows, with commas.", low=10)
    contexts: int = option(4, "Fresh contexts of n rows.", low=1)
    test_size: int = option(1000, "Test rows.", low=20)
    rule: str = option("full", "Which weights train, as in tttab run.")
    steps: int = option(50, "Steps of training; the single step is measured as well.", low=1)
    lr: float = option(3e-4, "Learning rate of the warm start.", low=0, strict=True)
    cold_lr: float = option(1e-3, "Learning rate of the cold start.", low=0, strict=True)
    seed: int = option(0, "Random seed.", low=0)
    device: str = option("auto", "Where to compute: auto, cpu, cuda or cuda:N.")

    @property
    def grid(self) -> list[int]:
        """k, ascending and each once."""
        return sorted(set(self.k))


def network_rows(settings: NetworkSettings) -> Iterator[Row | Progress]:
    """Yield a row per (start, method, k), then the threshold by method and place.

    Losses are mean log losses (regression: negative log densities) of the test rows, nats; standard errors
    are over test rows, those of `lead_…`, warm minus cold, of paired differences. Rows of the single step
    have the linear law beside them, `law_…`: gain(k) = gain(inf) k/(k + B), B from the scatter of the
    table's own gradients, the size from the step with most rows under the context that was trained on.
    """
    from tttab.theory.network.measure import Bench

    table, rows, session = _opened(settings)
    bench = Bench(session, table, rows)
    head = _head(settings, table, session)
    cells: dict[Cell, Losses] = {}
    laws: dict[str, Gradients] = {}
    total, rule = 2 * (1 + len(METHODS) * len(settings.grid)), _rule(settings)
    for start in STARTS:
        model = session if start == "warm" else bench.cold(session, settings.seed)
        laws[start] = bench.gradients(model, rule, min(settings.grid[-1], GRADIENT_ROWS))
        for method, k in [("untrained", 0), *((m, k) for m in METHODS for k in settings.grid)]:
            yield Progress("training", len(cells), total, f"{start} start, {method}, k = {k:,}")
            schedule = _schedule(settings, start, method)
            trained = bench.adapted(model, rule, k, schedule, settings.seed) if schedule else model
            cells[start, method, k] = bench.losses(trained)
    for cell in cells:
        yield head | _row(settings, table.x.shape[1], cells, cell) | _law(settings, cells, laws, cell)
    for method in METHODS:
        for place in PLACES:
            yield head | _threshold(settings, table.x.shape[1], cells, laws, (method, place))


def _opened(settings: NetworkSettings) -> tuple[Data, Rows, Session]:
    """Return the table, its rows' parts and the model.

    Raises:
        SplitError: the table has too few rows.
        TttabError: the table or the model cannot be had.
    """
    import numpy as np

    from tttab.data import load_table
    from tttab.data.splits import strata_of, stratified_order
    from tttab.models import open_model
    from tttab.models.catalog import KNOWN
    from tttab.seeding import numpy_stream
    from tttab.theory.network.measure import draw

    _rule(settings)
    if len(settings.grid) < 2:
        raise RequestError("a threshold needs two k at least", f"--k {settings.k[0]},{4 * settings.k[0]}")
    table = load_table(settings.dataset, target=settings.target)
    most = settings.grid[-1]
    room = len(table) - settings.test_size - (1 + settings.contexts) * settings.n
    if room < most:
        smaller = f"--k {max(10, room)}" if room >= 10 else "--n 20 --test-size 100 --k 100"
        raise SplitError(f"{table.name} has {len(table):,} rows: too few for k = {most:,}", smaller)
    shipped = next(model.name for model in KNOWN if model.bundled and model.task == table.task)
    session = open_model(settings.model or shipped, table.task, device=settings.device)
    session.check_fits(len(table.classes), table.x.shape[1], settings.n)
    codes, count = strata_of(table.y, len(table.classes))
    rng = numpy_stream(settings.seed, "theory network")
    order = stratified_order(codes, np.arange(len(codes)), count, rng)
    return table, draw(order, settings.n, most, settings.test_size, settings.contexts), session


def _rule(settings: NetworkSettings) -> Rule:
    from tttab.rules import get_rule

    return get_rule(settings.rule)


def _schedule(settings: NetworkSettings, start: str, method: str) -> Schedule | None:
    from tttab.training.config import Schedule

    if method not in METHODS:
        return None
    lr = settings.lr if start == "warm" else settings.cold_lr
    return Schedule(steps=settings.steps, lr=lr, optimizer=METHODS[method])


def _head(settings: NetworkSettings, table: Data, session: Session) -> Row:
    return {
        "experiment": "network",
        "dataset": table.name,
        "model": session.info.name,
        "d": table.x.shape[1],
        "n": settings.n,
        "alpha": settings.n / table.x.shape[1],
        "rule": settings.rule,
        "steps": settings.steps,
        "lr": settings.lr,
        "cold_lr": settings.cold_lr,
        "contexts": settings.contexts,
        "seed": settings.seed,
        "device": session.device.type,
    }


def _row(settings: NetworkSettings, d: int, cells: Mapping[Cell, Losses], cell: Cell) -> Row:
    start, method, k = cell
    row: Row = {"kind": "loss", "start": start, "method": method, "k": k, "gamma": k / d}
    for place in PLACES:
        loss = cells[cell].place(place)
        row |= {f"loss_{place}": float(loss.mean()), f"stderr_{place}": _stderr(loss)}
    if start == "cold":
        for place in PLACES:
            lead = _lead(cells, method, k, place)
            row |= {f"lead_{place}": float(lead.mean()), f"lead_stderr_{place}": _stderr(lead)}
    return row


def _lead(cells: Mapping[Cell, Losses], method: str, k: int, place: Place) -> np.ndarray:
    """Return the warm start's loss minus the cold start's, shape (test,)."""
    return cells["warm", method, k].place(place) - cells["cold", method, k].place(place)


def _law(
    settings: NetworkSettings, cells: Mapping[Cell, Losses], laws: Mapping[str, Gradients], cell: Cell
) -> Row:
    """Return the linear law of a single step at the cell's k; of other cells nothing."""
    start, method, k = cell
    if method != "one step":
        return {}
    curve_of = {place: _law_curve(settings, cells, laws[start], (start, place)) for place in PLACES}
    found: Row = {f"law_{place}": law(k) if law else None for place, law in curve_of.items()}
    return found | {"half_gain_rows": laws[start].half}


def _law_curve(
    settings: NetworkSettings, cells: Mapping[Cell, Losses], law: Gradients, where: tuple[str, Place]
) -> Callable[[float], float] | None:
    """Return the loss that the linear law gives after one step on k rows; None where it has no B."""
    start, place = where
    half, carried, most = law.half, law.carried, settings.grid[-1]
    if half is None or carried is None:
        return None
    before, after = cells[start, "untrained", 0], cells[start, "one step", most]
    whole = float(before.same.mean() - after.same.mean()) * (most + half) / most
    untrained, share = float(before.place(place).mean()), carried if place == "fresh" else 1.0
    return lambda k: untrained - share * whole * k / (k + half)


def _threshold(
    settings: NetworkSettings,
    d: int,
    cells: Mapping[Cell, Losses],
    laws: Mapping[str, Gradients],
    where: tuple[str, Place],
) -> Row:
    """Return gamma* = k/d from which on the cold start is better, measured and by both linear laws."""
    from tttab.seeding import numpy_stream
    from tttab.theory.network.measure import crossing, interval

    method, place = where
    gammas = [k / d for k in settings.grid]
    leads = [_lead(cells, method, k, place) for k in settings.grid]
    rng = numpy_stream(settings.seed, "theory network", "interval", method, place)
    point, low, high = interval(leads, gammas, rng)
    row: Row = {"kind": "threshold", "method": method, "place": place, "gamma_star": point}
    row |= {"low": low, "high": high, "largest_gamma": gammas[-1]}
    alpha = settings.n / d
    row["gamma_limit"] = (alpha + 1) ** 2 / (alpha + 2) if place == "fresh" else None
    curves = [_law_curve(settings, cells, laws[start], (start, place)) for start in STARTS]
    if method == "one step" and all(curves):
        wide = [gammas[0] * 2.0**j for j in range(24)]
        warm, cold = ([law(gamma * d) for gamma in wide] for law in curves if law)
        row["gamma_law"] = crossing([w - c for w, c in zip(warm, cold, strict=True)], wide)
    return row


def _stderr(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5)


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return the losses and the thresholds, each with its answer."""
    first = rows[0]
    what = f"{first['model']} on {first['dataset']}, d = {first['d']}, n = {first['n']}"
    losses = [row for row in rows if row["kind"] == "loss"]
    ends = [row for row in rows if row["kind"] == "threshold"]
    columns = ("start", "method", "k", "loss_fresh", "stderr_fresh", "lead_fresh", "lead_stderr_fresh")
    columns += ("loss_same", "lead_same", "law_fresh", "law_same")
    ways = ("method", "place", "gamma_star", "low", "high", "largest_gamma", "gamma_law", "gamma_limit")
    return [
        Table(f"{what}: log loss of the test rows, nats", columns, losses, loss_answer(losses)),
        Table(f"{what}: cold start better from gamma* = k/d on", ways, ends, answer(ends)),
    ]


def loss_answer(rows: Sequence[Row]) -> str:
    """Say what training on most rows does from both starts, and how far the linear law predicts one step."""
    most = max(row["k"] for row in rows)
    parts = []
    for start in STARTS:
        here = {row["method"]: row for row in rows if row["start"] == start and row["k"] in (0, most)}
        words = [f"{name} {row['loss_fresh']:.3f}" for name, row in here.items()]
        parts.append(f"{start}: {', '.join(words)}")
    half = {row["start"]: row["half_gain_rows"] for row in rows if row["method"] == "one step"}
    known = [f"{start} {value:.0f}" for start, value in half.items() if value is not None]
    rest = f"; the gradients' law has half of one step's gain at k = {', '.join(known)}" if known else ""
    return f"fresh contexts, k = {most:,}: {'; '.join(parts)}{rest}"


def answer(rows: Sequence[Row]) -> str:
    """Say where the cold start overtakes, under which method and on which contexts."""
    parts = []
    for row in rows:
        where = f"{row['method']}, {row['place']} context{'s' if row['place'] == 'fresh' else ''}"
        if row["gamma_star"] is None:
            parts.append(f"{where}: not up to {row['largest_gamma']:.4g}")
        else:
            parts.append(f"{where}: {row['gamma_star']:.4g}")
    limit = next(row["gamma_limit"] for row in rows if row["place"] == "fresh")
    return f"gamma* {'; '.join(parts)}; the limit of linear attention says {limit:.4g}"


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the loss against gamma from both starts, one panel per place, the law's curves beside."""
    losses = [row for row in rows if row["kind"] == "loss"]
    found = []
    for place, heading in HEADINGS.items():
        lines: list[Series] = []
        for colour, (start, method) in enumerate(distinct([r for r in losses if r["k"]], "start", "method")):
            here = [row for row in losses if (row["start"], row["method"]) == (start, method)]
            x, y, bars = (column(here, name) for name in ("gamma", f"loss_{place}", f"stderr_{place}"))
            lines += curve(f"{start}, {method}", x, y, bars, colour=colour)
            if method == "one step":
                law = column(here, f"law_{place}")
                lines.append(Series(f"{start}, linear law of one step", x, law, "dotted", colour))
        x = [row["gamma"] for row in losses if row["k"]]
        for colour, row in enumerate(r for r in losses if not r["k"]):
            ends = [min(x), max(x)]
            lines.append(
                Series(f"{row['start']}, untrained", ends, [row[f"loss_{place}"]] * 2, "dashed", 5 + colour)
            )
        found.append(Panel(heading, "gamma = k/d", "log loss, nats", lines, log_x=True))
    return found


EXPERIMENT = Experiment(
    name="network",
    help="A foundation model on a real table: cold against warm start over k, beside the linear law.",
    example="--dataset banana --k 100,400,1600 --plot network.svg",
    group=PAPER_A,
    settings=NetworkSettings,
    rows=network_rows,
    columns=(
        *("experiment", "dataset", "model", "d", "n", "alpha", "rule", "steps", "lr", "cold_lr", "contexts"),
        *("seed", "device", "kind", "start", "method", "k", "gamma"),
        *("loss_fresh", "stderr_fresh", "loss_same", "stderr_same"),
        *("law_fresh", "law_same", "half_gain_rows"),
        *("lead_fresh", "lead_stderr_fresh", "lead_same", "lead_stderr_same"),
        *("place", "gamma_star", "low", "high", "largest_gamma", "gamma_limit", "gamma_law"),
    ),
    quick=(NetworkSettings(dataset="banana", n=8, k=(10, 20), contexts=2, test_size=20, steps=2),),
    tables=tables,
    panels=panels,
    title=lambda rows: (
        f"tttab theory network: {rows[0]['model']} on {rows[0]['dataset']}, d = {rows[0]['d']}, "
        f"n = {rows[0]['n']}, seed {rows[0]['seed']}"
    ),
    total=lambda settings: 2 * (1 + 2 * len(settings.grid)) + 4,
)
