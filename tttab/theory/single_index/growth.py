"""How the rows of stage I grow with r: the exponent of r at a fixed alignment, with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

RESAMPLES = 400
Cells = Mapping[int, Mapping[int, np.ndarray]]
"""r -> N1 -> alignments of the tasks."""


def growth(cells: Cells, target: float, stream: np.random.Generator) -> dict[str, object]:
    """Return the slope of log N1 in log r at a mean alignment of `target`, and a 95 % interval.

    `r_reached` and `n1_at_target` are the points of the fit: where no N1 has the target, r has no part. With
    fewer than two there is no slope. The interval resamples tasks within every cell; a resample with fewer
    points than the fit is left out.
    """
    points = _points(cells, target)
    replicas = []
    if len(points) > 1:
        for _ in range(RESAMPLES):
            drawn = {
                r: {n: stream.choice(v, len(v)) for n, v in by_rows.items()} for r, by_rows in cells.items()
            }
            resampled = _points(drawn, target)
            if len(resampled) >= len(points):
                replicas.append(_slope(resampled))
    low, high = np.quantile(replicas, [0.025, 0.975]) if len(replicas) > RESAMPLES / 2 else (None, None)
    return {
        "r_reached": list(points),
        "n1_at_target": [round(rows) for rows in points.values()],
        "exponent": _slope(points) if len(points) > 1 else None,
        "low": None if low is None else float(low),
        "high": None if high is None else float(high),
    }


def _points(cells: Cells, target: float) -> dict[int, float]:
    """Return the N1 of the target by r, between two of the grid's by a straight line in log N1.

    The means are first made to rise with N1 (isotonic regression): one lucky point is no crossing.
    """
    found = {}
    for r, by_rows in cells.items():
        sizes = sorted(by_rows)
        means = _rising([float(by_rows[n].mean()) for n in sizes])
        for i in range(1, len(sizes)):
            if means[i - 1] < target <= means[i]:
                share = (target - means[i - 1]) / (means[i] - means[i - 1])
                found[r] = sizes[i - 1] * (sizes[i] / sizes[i - 1]) ** share
                break
    return found


def _rising(values: Sequence[float]) -> list[float]:
    """Return the closest values that never fall: neighbours in the wrong order are pooled to their mean."""
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, count = value, 1
        while pools and pools[-1][0] > mean:
            before, size = pools.pop()
            mean, count = (mean * count + before * size) / (count + size), count + size
        pools.append((mean, count))
    return [mean for mean, count in pools for _ in range(count)]


def _slope(points: Mapping[int, float]) -> float:
    x = [math.log(r) for r in points]
    y = [math.log(rows) for rows in points.values()]
    return float(np.polyfit(x, y, 1)[0])
