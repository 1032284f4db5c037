"""The shares of the sampled step against its traces in the subspace's own coordinates, and its limit."""

from __future__ import annotations

import pytest

from tttab.theory.single_index.projection import ProjectionSettings, answer, projection_rows


def test_many_rows_come_close_to_the_projection_and_few_do_not():
    settings = ProjectionSettings(links=("He1", "He3"), rows=(32, 512), tasks=4000)
    rows = {(row["link"], row["rows"]): row for row in projection_rows(settings)}
    for link, sign in (("He1", 1), ("He3", -1)):
        assert rows[link, 512]["sign"] == sign
        assert abs(rows[link, 512]["across"]) < 0.15 + 3 * rows[link, 512]["across_stderr"]
    assert rows["He1", 512]["inside"] == pytest.approx(1, abs=0.1)
    assert rows["He3", 512]["inside"] > rows["He3", 32]["inside"] + 0.2
    assert answer([*rows.values()]).startswith("512 rows per task have He1 ")


def test_where_the_subspace_is_everything_nothing_lies_across_it():
    (row,) = projection_rows(ProjectionSettings(links=("He1",), rows=(64,), d=3, r=3, tasks=800))
    assert row["across"] == pytest.approx(0, abs=1e-5)
    assert row["kept"] == 3
