"""Rows unlike the known ones are told in one line; what chance gives is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tttab.data.likeness import Likeness
from tttab.data.schema import NewRows


def rows(count, seed, columns=10):
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(count, columns))).add_prefix("c")


def counted(known, *new):
    found = Likeness(known)
    for piece in new:
        found.add(piece if isinstance(piece, NewRows) else NewRows(piece))
    return found


@pytest.mark.parametrize("n", [20, 200])
def test_rows_of_the_same_kind_are_not_told_however_many(n):
    found = counted(rows(n, 0), rows(1, 1), rows(5000, 2))
    assert found.rows == 5001 and sum(found.outside.values()) > 0
    assert found.remark == ""


def test_each_kind_is_counted_by_column_over_pieces_and_told_in_one_line():
    known = rows(200, 0, 3)
    known.loc[0, "c2"] = np.nan
    new = rows(100, 1, 3)
    new.loc[:29, ["c1", "c2"]] = np.nan  # c2 has gaps already
    shifted = rows(100, 2, 3).assign(c0=9.0)
    found = counted(known, new, NewRows(shifted, {"job": 7}))
    assert found.missing == {"c1": 30} and found.unseen == {"job": 7}
    assert (
        found.outside["c0"] == 100 + ((new["c0"] < known["c0"].min()) | (new["c0"] > known["c0"].max())).sum()
    )
    line = found.remark
    assert (
        "3.5% of the cells of job hold unknown texts" in line
        and "15.0% of the cells of c1 are missing" in line
    )
    assert "of the cells of c0 are outside" in line and "\n" not in line


def test_columns_without_numbers_or_without_a_known_value_have_no_range():
    known = pd.DataFrame({"empty": [np.nan] * 9, "level": pd.Categorical(list("aabbccdda"))})
    found = counted(known, pd.DataFrame({"empty": [1.0] * 50, "level": pd.Categorical(["a"] * 50)}))
    assert not found.outside and found.remark == ""
