"""Facts, limits, duplicates and thin classes on tables with known answers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tttab.data import (
    Limits,
    Origin,
    duplicates_between,
    facts_of,
    load_table,
    table_from_frame,
    thin_classes,
)


def table(**columns):
    return table_from_frame(pd.DataFrame(columns), Origin("t", "file"))


def test_facts():
    found = facts_of(
        table(
            a=[1.0, 1.0, 2.0, None],
            b=[1.0, 1.0, 2.0, None],
            c=["p", "p", "q", None],
            same=[7, 7, 7, 7],
            gone=[None] * 4,
            day=["2020-01-01", "2020-01-01", "2020-01-02", "2020-01-03"],
            y=["u", "v", "u", "u"],
        )
    )
    assert (found.rows, found.features, found.numbers, found.dates, found.categories) == (4, 6, 4, 1, 1)
    assert (found.missing_cells, found.missing_columns) == (7, 4)
    assert (found.constant_columns, found.duplicate_columns, found.duplicate_rows) == (2, 1, 1)
    assert found.classes == {"u": 3, "v": 1} and found.too_much == ()


def test_facts_of_a_bundled_table():
    found = facts_of(load_table("titanic"))
    assert found.rows == 2201 and found.duplicate_rows == 2201 - 14


def test_limits():
    many = table(**{f"x{n}": [0.0, 1.0] * 6 for n in range(501)}, y=[f"c{n}" for n in range(12)])
    assert facts_of(many).too_much == (
        "12 classes, the model reads at most 10",
        "501 features, the model reads at most 500",
    )
    assert Limits(features=600, classes=20).broken_by(many) == ()
    assert facts_of(table(x=np.arange(30.0), y=np.arange(30.0))).classes == {}


def test_duplicates_between():
    x = table(a=[1.0, 2.0, 1.0, None, None], b=["p", "q", "p", "r", "r"], y=[0, 1, 0, 1, 0]).x
    assert duplicates_between(x, np.array([0, 1]), np.array([2, 3])) == 1
    assert duplicates_between(x, np.array([3]), np.array([4, 2])) == 1
    assert duplicates_between(x, np.array([1]), np.array([0, 2, 3])) == 0
    assert duplicates_between(x, np.array([], dtype=int), np.array([0])) == 0


def test_thin_classes():
    uneven = table(x=np.arange(40.0), y=["big"] * 30 + ["small"] * 10)
    assert thin_classes(uneven, np.arange(35)) == {"small": 5}
    assert thin_classes(uneven, np.arange(30)) == {"small": 0}
    assert thin_classes(uneven, np.arange(40)) == {}
    assert thin_classes(table(x=np.arange(30.0), y=np.arange(30.0)), np.arange(3)) == {}
