"""How new rows differ from the known ones: unknown texts, new gaps, numbers outside the range.

These are counts for one line of output. For drift over time use a package made for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tttab.text import listed

if TYPE_CHECKING:
    import pandas as pd

    from tttab.data.schema import NewRows

TIMES, SPARE = 3, 3
"""Cells beyond so many times what chance gives, and so many more, are told."""


class Likeness:
    """New rows beside known ones, counted piece by piece.

    Of n rows like each other and one more, the last holds the smallest or the largest number of a column with
    probability 2 / (n + 1), and the only gap with at most 1 / (n + 1): so much is chance.
    """

    def __init__(self, known: pd.DataFrame) -> None:
        self._n, self.rows = len(known), 0
        numbers = known.select_dtypes("number")
        self._low, self._high = numbers.min(), numbers.max()
        self._whole = [name for name, gaps in known.isna().any().items() if not gaps]
        self.unseen: Counter[str] = Counter()
        """Cells per column that hold a text the table never had; they count as missing."""
        self.missing: Counter[str] = Counter()
        """Missing cells per column that has none in the known rows."""
        self.outside: Counter[str] = Counter()
        """Numbers per column below the smallest or above the largest of the known rows."""

    def add(self, read: NewRows) -> None:
        """Count rows that `Schema.read` gave."""
        x = read.x
        self.rows += len(x)
        self.unseen.update(read.unseen)
        self.missing.update(_counted(x[self._whole].isna().sum()))
        numbers = x[list(self._low.index)]
        self.outside.update(_counted(((numbers < self._low) | (numbers > self._high)).sum()))

    @property
    def remark(self) -> str:
        """What is unlike the known rows, in a line; empty where it is no more than chance gives."""
        chance = self.rows / (self._n + 1)
        missing, outside = _beyond(self.missing, chance), _beyond(self.outside, 2 * chance)
        parts = [
            self._part(self.unseen, "hold unknown texts, which count as missing"),
            self._part(missing, "are missing although the context has no gaps there"),
            self._part(outside, "are outside the range of the context"),
        ]
        differences = "; ".join(filter(None, parts))
        return f"the new rows differ from the context: {differences}" if differences else ""

    def _part(self, counts: Mapping[str, int], words: str) -> str:
        share = sum(counts.values()) / max(1, self.rows * len(counts))
        return f"{share:.1%} of the cells of {listed(list(counts), 3)} {words}" if counts else ""


def _counted(sums: pd.Series) -> dict[str, int]:
    return {str(name): int(count) for name, count in sums.items() if count}


def _beyond(counts: Counter[str], chance: float) -> dict[str, int]:
    return {name: count for name, count in counts.most_common() if count > TIMES * chance + SPARE}
