"""The how-to of prediction sets and intervals runs as it stands, and what it says of coverage holds."""

from __future__ import annotations

import re
from pathlib import Path

from scipy.stats import betabinom

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "intervals.md").read_text(encoding="utf-8")
CALIBRATE, NEW, MISSED = 300, 400, 0.1
CHANCE = 1e-6


def law(calibrate, new, missed):
    """Return the law of how many of `new` rows are covered (Angelopoulos and Bates 2023, section 3.2)."""
    rank = int(missed * (calibrate + 1))
    return betabinom(new, calibrate + 1 - rank, rank)


def test_the_code_of_the_page_covers_as_often_as_it_says():
    space = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(block, space)
        covered = int(space["covered"].sum())
        assert len(space["covered"]) == NEW and len(space["y_calibrate"]) == CALIBRATE
        expected = law(CALIBRATE, NEW, MISSED)
        assert expected.ppf(CHANCE) <= covered <= expected.ppf(1 - CHANCE)
    assert 1e-5 < law(CALIBRATE, NEW, MISSED).cdf(0.80 * NEW) < 1e-3, "as the page says"
