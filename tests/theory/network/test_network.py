"""A network under the linear theory's question: rows, gradients, thresholds, on a model of milliseconds."""

from __future__ import annotations

import numpy as np
import pytest

from tttab.errors import RequestError, RuleError, SplitError
from tttab.rules import get_rule
from tttab.testing import ToySession
from tttab.theory.network import experiment
from tttab.theory.network.experiment import EXPERIMENT, NetworkSettings, network_rows
from tttab.theory.network.measure import PARTS, Bench, Gradients, _statistics, crossing, draw, interval

SMALL = NetworkSettings(n=20, k=(40, 160), contexts=3, test_size=100, steps=6, lr=1e-2, cold_lr=1e-2)


@pytest.fixture
def toy(monkeypatch):
    """The toy session in place of every model that is opened."""
    monkeypatch.setattr("tttab.models.open_model", lambda *args, **options: ToySession())


@pytest.fixture
def rows(toy):
    return [row for row in network_rows(SMALL) if isinstance(row, dict)]


def test_every_start_method_and_k_has_a_row_and_every_threshold_its_own(rows):
    losses = [row for row in rows if row["kind"] == "loss"]
    grid = [("untrained", 0), ("one step", 40), ("one step", 160), ("trained", 40), ("trained", 160)]
    assert [(row["start"], row["method"], row["k"]) for row in losses] == [
        (start, *cell) for start in ("warm", "cold") for cell in grid
    ]
    ends = [(row["method"], row["place"]) for row in rows if row["kind"] == "threshold"]
    assert ends == [(m, p) for m in ("one step", "trained") for p in ("fresh", "same")]
    assert EXPERIMENT.total(SMALL) == len(rows)


def test_the_untrained_losses_are_those_of_the_opened_model_on_the_split(toy, rows):
    table, parts, session = experiment._opened(SMALL)
    everything = np.concatenate([parts.context, parts.test, parts.training, *parts.fresh])
    assert len(np.unique(everything)) == len(everything) == 20 + 100 + 160 + 3 * 20
    x, y = table.x.iloc[parts.test], table.y[parts.test]
    means = []
    for which in (parts.context, *parts.fresh):
        context = session.context(table.x.iloc[which], table.y[which], len(table.classes))
        p = session.serve(context).predict(x)
        means.append(-np.log(p[np.arange(len(y)), y] + 1e-12).mean())
    assert rows[0]["loss_same"] == pytest.approx(means[0], abs=1e-4)
    assert rows[0]["loss_fresh"] == pytest.approx(np.mean(means[1:]), abs=1e-4)


def test_training_lowers_the_loss_and_a_lead_is_warm_minus_cold(rows):
    by = {(row["start"], row["method"], row["k"]): row for row in rows if row["kind"] == "loss"}
    for start in ("warm", "cold"):
        assert by[start, "trained", 160]["loss_same"] < by[start, "untrained", 0]["loss_same"]
    for (start, method, k), row in by.items():
        if start == "cold":
            lead = by["warm", method, k]["loss_fresh"] - row["loss_fresh"]
            assert row["lead_fresh"] == pytest.approx(lead, abs=1e-6)


def test_the_law_goes_through_the_largest_step_it_is_tied_to(rows):
    for start in ("warm", "cold"):
        last = next(r for r in rows if (r.get("start"), r.get("method"), r["k"]) == (start, "one step", 160))
        assert last["half_gain_rows"] > 0
        assert last["law_same"] == pytest.approx(last["loss_same"], abs=1e-6)


def test_the_limit_is_the_papers_and_belongs_to_fresh_contexts(rows):
    alpha = 20 / 5
    for row in rows:
        if row["kind"] == "threshold":
            wanted = (alpha + 1) ** 2 / (alpha + 2) if row["place"] == "fresh" else None
            assert row["gamma_limit"] == wanted


def test_the_three_sums_of_the_gradient_are_estimated_without_bias():
    rng, dimension, size, found = np.random.default_rng(0), 6, 16, []
    mean = np.full(dimension, 0.5)
    for _ in range(4000):
        vectors = []
        for _ in range(3):
            own = mean + 0.4 * rng.standard_normal(dimension)
            vectors += [own + 2.0 * rng.standard_normal((size, dimension)).mean(0) for _ in range(PARTS)]
        found.append(_statistics(np.array(vectors) @ np.array(vectors).T, size))
    for name, wanted in (("mean", 6 * 0.25), ("contexts", 6 * 0.16), ("rows", 6 * 4.0)):
        values = np.array([getattr(one, name) for one in found])
        assert abs(values.mean() - wanted) < 4 * values.std() / len(values) ** 0.5


def test_half_of_the_gain_is_where_the_rows_scatter_equals_the_signal():
    law = Gradients(mean=2.0, contexts=1.0, rows=60.0)
    assert law.half == 20.0 and law.carried == pytest.approx(4 / 9)
    assert Gradients(-2.0, 1.0, 60.0).half is None and Gradients(-2.0, 1.0, 60.0).carried is None


def test_gradients_see_the_scatter_of_contexts(toy):
    table, parts, session = experiment._opened(SMALL)
    bench = Bench(session, table, parts)
    law = bench.gradients(session, get_rule("full"), 160)
    assert law.rows > 0
    alone = draw(np.arange(400), 20, 160, 100, 3)
    same = Bench(session, table, type(alone)(parts.context, [parts.context] * 3, parts.training, parts.test))
    assert abs(same.gradients(session, get_rule("full"), 160).contexts) < law.rows
    assert all(not p.requires_grad for p in session.parameters("all"))


def test_a_rule_that_trains_nothing_is_refused(toy):
    table, parts, session = experiment._opened(SMALL)
    with pytest.raises(RuleError, match="trains nothing"):
        Bench(session, table, parts).gradients(session, get_rule("none"), 40)


def test_a_crossing_lies_on_the_line_in_log_gamma_and_its_interval_around_it():
    assert crossing([-1.0, 1.0], [2.0, 8.0]) == pytest.approx(4.0)
    assert crossing([1.0, 1.0], [2.0, 8.0]) == 2.0
    assert crossing([1.0, -1.0, 1.0], [0.5, 2.0, 8.0]) == pytest.approx(
        4.0
    )  # a lead that is lost again is none
    assert crossing([1.0, -1.0], [2.0, 8.0]) is None
    assert crossing([-2.0, -1.0], [2.0, 8.0]) is None
    rng = np.random.default_rng(0)
    leads = [rng.normal(-1, 1, 500), rng.normal(1, 1, 500)]
    point, low, high = interval(leads, [2.0, 8.0], rng)
    assert low < point < high and point == pytest.approx(4.0, rel=0.1)
    assert interval([leads[0], leads[0]], [2.0, 8.0], rng) == (None, None, None)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"k": (40,)}, RequestError, "two k"),
        ({"rule": "nothing"}, RuleError, "no rule"),
        ({"k": (40, 100_000)}, SplitError, "too few"),
    ],
)
def test_what_cannot_be_run_is_said_before_a_model_is_opened(changes, error, said):
    settings = {"n": 20, "k": (40, 160), "contexts": 3, "test_size": 100} | changes
    with pytest.raises(error, match=said) as caught:
        next(iter(network_rows(NetworkSettings(**settings))))
    assert caught.value.hint.startswith("--")
