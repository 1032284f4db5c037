"""Plans: nested contexts, honest label budgets, sizes a table cannot give, time estimates."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.support.bench_fakes import cell, record
from tttab.bench import BenchRequest, Plan, estimate_seconds, plan_tables
from tttab.bench.plan import load, split_of
from tttab.errors import RequestError, RuleError
from tttab.training.config import Schedule

NS = (50, 200, 1000)


def request(**changes):
    return BenchRequest(
        **{"tables": ("contraceptive",), "ns": NS, "seeds": (0,), "model": "tttab-tiny", **changes}
    )


def test_contexts_are_nested_and_test_rows_shared():
    for budget in ("paper", "equal"):
        asked = request(budget=budget)
        splits = [split_of(asked, load("contraceptive"), n, seed=3) for n in NS]
        for short, long in pairwise(splits):
            assert long.context[: short.n].tolist() == short.context.tolist()
            assert long.test.tolist() == short.test.tolist()


def test_the_equal_budget_has_the_same_labels_at_every_n():
    asked = request(budget="equal")
    table = load("contraceptive")
    labels = []
    for n in (50, 200):
        split = split_of(asked, table, n, seed=0)
        labels.append({*split.context.tolist(), *split.queries.tolist()})
    assert labels[0] == labels[1]
    assert {*split_of(asked, table, 1000, seed=0).context.tolist()} == labels[0]


def test_planned_cells_of_both_budgets():
    (paper,) = plan_tables(request(arms=("icl@n", "ttt@n+k", "icl@n+k")))
    assert [(c.arm, c.n) for c in paper.cells] == [
        ("icl@n", 50), ("ttt@n+k", 50),
        ("icl@n", 200), ("ttt@n+k", 200), ("icl@n+k", 200),
        ("icl@n", 1000), ("ttt@n+k", 1000),
    ]  # fmt: skip
    assert any("k shrank from 1,000 to" in note for note in paper.notes)
    (equal,) = plan_tables(request(budget="equal", arms=("icl@n", "ttt@n+k")))
    assert [(c.arm, c.n, c.k) for c in equal.cells][-2:] == [("ttt@n+k", 200, 800), ("icl@n", 1000, 1)]
    assert {c.budget for c in equal.cells if c.arm == "ttt@n+k"} == {"equal"}
    plain = [{c.key for c in plan.cells if c.arm == "icl@n"} for plan in (paper, equal)]
    assert plain[0] == plain[1], "icl@n reads no query row: both budgets share it"


def test_plans_are_equal_for_equal_requests_and_differ_where_numbers_would():
    def keys(**changes):
        (table,) = plan_tables(request(ns=(50,), arms=("icl@n", "ttt@n+k"), **changes))
        return {c.arm: c.key for c in table.cells}

    base = keys()
    assert keys() == base
    assert keys(device="cuda") == base
    assert keys(schedule=Schedule(loss="members", precision="fp32"))["ttt@n+k"] != base["ttt@n+k"]
    faster = keys(schedule=Schedule(lr=1e-3, precision="fp32"))
    assert faster["ttt@n+k"] != base["ttt@n+k"]
    assert faster["icl@n"] == base["icl@n"]
    assert not set(keys(seeds=(1,)).values()) & set(base.values())


def test_an_n_the_table_cannot_give_is_said():
    (table,) = plan_tables(request(ns=(50, 5000), arms=("icl@n",)))
    assert [c.n for c in table.cells] == [50]
    assert any("n = 5,000 cannot be had" in note for note in table.notes)


def test_seeds_take_turns():
    asked = request(ns=(50,), arms=("logistic",), controls_at=(50,), seeds=(1, 0))
    plan = Plan(tuple(plan_tables(asked)))
    assert [c.seed for c in plan.cells] == [0, 1]
    assert [c.seed for c in plan.missing({plan.cells[0].place})] == [1]


def test_estimates_come_from_the_nearest_measured_cell():
    measured = [record(cell("a", "ttt@n+k", n), adapt=n / 10) for n in (50, 400)]
    todo = [cell("a", "ttt@n+k", 100, 1), cell("b", "ttt@n+k", 300, 1), cell("a", "icl@n+k", 50, 1)]
    seconds, unknown = estimate_seconds(todo, measured)
    assert seconds == pytest.approx(0.5 + 5 + 0.5 + 40)
    assert unknown == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"tables": ()},
        {"ns": ()},
        {"seeds": (1, 1)},
        {"arms": ("x",)},
        {"k": 0},
        {"rule": "fulll"},
        {"ttt_at": (75,)},
        {"controls_at": (75,)},
        {"schedule": Schedule()},
    ],
)
def test_requests_that_make_no_sense(changes):
    with pytest.raises((RequestError, RuleError)) as caught:
        [*plan_tables(request(**changes))]
    assert caught.value.hint
