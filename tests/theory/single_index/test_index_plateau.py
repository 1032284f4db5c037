"""The in-context model's limit against contexts of many rows and against a search for neighbours."""

from __future__ import annotations

import pytest
import torch

from tttab.theory.single_index.attention import attention_output
from tttab.theory.single_index.plateau import limit_output, links, plateau
from tttab.theory.single_index.tasks import IndexLaw, IndexTasks, draw_rows, series

THIRD = (0.0, 0.0, 0.0, 1.0)
VARYING = IndexLaw(4, 4, THIRD, 0.1, vary=4)


def test_the_attention_of_many_rows_reads_what_the_quadrature_says():
    weights = links(VARYING)[[0, 80, 160]]
    z = torch.tensor([-1.5, 0.0, 1.0, 2.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    direction = torch.eye(4)[:1].expand(3, 4)
    tasks = IndexTasks(VARYING, torch.eye(4), direction, weights.float())
    queries = torch.zeros(3, 4, 4)
    queries[:, :, 0] = z.float()
    queries[:, :, 1] = 0.7  # across b: it must not matter
    reads = []
    for _ in range(12):
        x, y = draw_rows(tasks, 50_000, generator)
        reads.append(attention_output(torch.eye(4) / 2, x, y, queries))
    seen = torch.stack(reads)
    error = seen.std(0) / len(reads) ** 0.5
    assert ((seen.mean(0) - limit_output(VARYING, weights, z, 1.0)).abs() < 5 * error).all()
    assert error.max() < 0.01


def test_the_floor_is_the_spread_of_labels_among_the_nearest_readings():
    weights, generator = links(VARYING), torch.Generator().manual_seed(1)
    pick = torch.randint(0, len(weights), (1500,), generator=generator)
    z = torch.randn(1500, 40, generator=generator, dtype=torch.float64)
    read = torch.stack(
        [limit_output(VARYING, weights[c][None], row, 1.0)[0] for c, row in zip(pick, z, strict=True)]
    )
    value = series(weights[pick], z).flatten()
    near = z.abs().flatten() < 2.5  # the mean has heavy tails
    value = value[read.flatten().argsort()].split(60)
    brute = torch.cat([(v - (v.sum() - v) / (len(v) - 1)).square() for v in value])
    brute = (brute * near[read.flatten().argsort()]).mean()
    assert float(brute) == pytest.approx(plateau(VARYING, 1.0).bulk, rel=0.06)


@pytest.mark.parametrize("r", [4, 16])
def test_a_fixed_link_leaves_nothing_and_a_wider_law_leaves_more(r):
    fixed = plateau(IndexLaw(r, r, THIRD, 0.1), 1.0)
    assert fixed.mean < 1e-4
    some, more = (plateau(IndexLaw(r, r, THIRD, 0.1, 4, -c, c), 1.0) for c in (0.5, 1.0))
    assert 0.05 < some.bulk < some.mean < more.mean
    assert some.bulk < some.median
