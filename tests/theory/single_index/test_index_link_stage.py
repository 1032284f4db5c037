"""Stage III's rates, and the floor where b leaves the subspace, against an integral over what is not seen."""

from __future__ import annotations

import numpy as np
import pytest

from tttab.theory.single_index.link_stage import LinkSettings, link_rows, tables

SMALL = LinkSettings(n4=(64, 256, 1024), neurons=(8, 32), rho=(1.0, 0.7), tasks=24)


def spread(link, rho):
    """E Var(s(rho z + sqrt(1 - rho^2) w) | z) by a grid over z and w."""
    z = np.linspace(-7, 7, 801)
    mass = np.exp(-(z**2) / 2)
    mass = mass / mass.sum()
    s = link(rho * z[:, None] + (1 - rho**2) ** 0.5 * z[None])
    mean = s @ mass
    return float((((s - mean[:, None]) ** 2) @ mass) @ mass)


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("He3", lambda z: (z**3 - 3 * z) / 6**0.5),
        ("He2 + He4", lambda z: (z**2 - 1 + z**4 - 6 * z**2 + 3) / (2 + 24) ** 0.5),
    ],
)
def test_the_floor_is_the_spread_of_what_lies_outside_the_subspace(text, link):
    rows = list(link_rows(LinkSettings(link=text, n4=(64,), neurons=(8,), rho=(0.7,), tasks=16)))
    (row,) = [row for row in rows if row["kind"] == "support"]
    assert row["floor"] == pytest.approx(spread(link, 0.7), rel=1e-6)
    assert row["agrees"] and row["oracle"] == pytest.approx(row["floor"], abs=5 * row["oracle_stderr"])


def test_more_rows_and_more_neurons_help_and_no_direction_outside_is_learned():
    rows = list(link_rows(SMALL))
    by_rows, by_width = ([r["median"] for r in rows if r["kind"] == kind] for kind in ("rows", "neurons"))
    assert by_rows[0] > 4 * by_rows[-1] and by_width[0] > 2 * by_width[-1]
    (rate,) = [row for row in rows if row["kind"] == "rate in n4"]
    assert rate["exponent"] < -0.5
    support = {row["rho"]: row for row in rows if row["kind"] == "support"}
    assert support[1.0]["floor"] == 0 and support[0.7]["error"] > 0.9 * support[0.7]["floor"]
    assert "rate in n4: -" in tables(rows)[0].remark
