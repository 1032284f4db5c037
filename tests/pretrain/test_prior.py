"""Batches hold what they promise: closed labels, standardised targets, shapes that widen, quantiles."""

import math

import numpy as np
import pytest
import torch
from sklearn.preprocessing import QuantileTransformer

from tttab.pretrain import features, functions, labels, prior
from tttab.pretrain.draw import Draw
from tttab.pretrain.optimise import orthogonalise, rate_at
from tttab.pretrain.prior import Size, batch, size_at
from tttab.pretrain.settings import Budget, recipe


def _batch(task="classification", step=0, size=None):
    return batch(Draw(0, "test", step), size or Size(40, 50, 30, 6, 8), recipe("small", task), None)


def test_every_label_is_a_rank_among_the_context_classes():
    tables = _batch()
    for y, classes in zip(tables.y, tables.classes, strict=True):
        shown = torch.unique(y[:50])
        assert shown.tolist() == list(range(int(classes)))


def test_uncounted_queries_are_those_of_unseen_classes():
    y = torch.tensor([[5, 2, 5, 2, 9, 5]])
    codes, shown, known = labels.compact(y, 4)
    assert codes[0, :4].tolist() == [1, 0, 1, 0]
    assert shown.item() == 2
    assert known.tolist() == [[False, True]]


def test_regression_targets_are_standardised_by_the_context():
    tables = _batch("regression")
    known = tables.y[:, :50]
    torch.testing.assert_close(known.mean(dim=1), torch.zeros(40), atol=1e-4, rtol=0)
    torch.testing.assert_close(known.std(dim=1, correction=0), torch.ones(40), atol=1e-3, rtol=0)


@pytest.mark.parametrize("function", functions.KINDS)
def test_a_function_gives_every_table_scores_of_its_own(function):
    x = Draw(3).normal(1, 60, 4).expand(5, -1, -1).contiguous()
    found = functions.standardise(function(Draw(4), x, 3))
    assert found.shape == (5, 60, 3)
    assert found.isfinite().all()
    assert (found[0] - found[1]).abs().max() > 0.1
    again = functions.standardise(function(Draw(4), x, 3))
    assert torch.equal(found, again)


def test_most_tables_can_be_learnt():
    """A nearest neighbour beats the majority class on most tables, so there is something to learn."""
    tables = _batch(size=Size(60, 300, 100, 4, 4))
    x = torch.nan_to_num(functions.standardise(torch.nan_to_num(tables.x)))
    near = torch.cdist(x[:, 300:], x[:, :300]).topk(7, largest=False).indices
    better = 0
    for i in range(60):
        votes = torch.nn.functional.one_hot(tables.y[i, :300][near[i]], 10).sum(dim=1)
        right = (votes.argmax(dim=1) == tables.y[i, 300:]).float().mean()
        usual = (tables.y[i, 300:] == tables.y[i, :300].mode().values).float().mean()
        better += int(right > usual + 0.02)
    assert better > 30


def test_tables_widen_with_the_budget():
    shapes = recipe("small", "classification").shapes
    early = [size_at(Draw(0, i), shapes, 0.0) for i in range(50)]
    late = [size_at(Draw(0, i), shapes, 1.0) for i in range(50)]
    assert max(s.context for s in early) <= shapes.first_context
    assert max(s.features for s in early) <= shapes.first_features
    assert max(s.context for s in late) > 600
    assert max(s.features for s in late) > 40
    assert {s.classes for s in late} == {10}
    for size in early + late:
        assert size.tables * size.rows <= shapes.most_rows


def test_quantiles_are_ranks_in_the_context_and_missing_stays_missing():
    x = torch.tensor([[[1.0], [2.0], [3.0], [4.0], [2.5], [9.0], [float("nan")]]])
    ranks = prior._quantiles(x, 4)[0, :, 0]
    torch.testing.assert_close(ranks[4:6], torch.tensor([0.5, 1.0]))
    assert ranks[6].isnan()


def test_ranks_equal_the_quantile_transform_the_model_is_served_with():
    rows = 300
    smooth = Draw(3).normal(rows)
    columns = {
        "smooth": smooth,
        "mostly zeros": torch.relu(smooth - 1.0),
        "levels": (smooth * 1.5).round(),
        "two values": (smooth > 0).float(),
    }
    x = torch.stack(list(columns.values()), dim=-1)
    theirs = QuantileTransformer(n_quantiles=200).fit(x[:200].numpy()).transform(x.numpy())
    ours = prior._quantiles(x[None], 200)[0]
    torch.testing.assert_close(ours, torch.from_numpy(theirs).float(), atol=0.011, rtol=0)


def test_in_some_tables_most_columns_are_mostly_zeros():
    x = features.measure(Draw(6), Draw(5).normal(200, 100, 6))
    smallest = x.nan_to_num(nan=float("inf")).amin(dim=1, keepdim=True)
    mostly = (x == smallest).float().mean(dim=1).gt(0.5).float().mean(dim=1)
    assert mostly.gt(0.6).any()
    assert mostly.eq(0.0).float().mean() > 0.3


def test_clipping_equals_tabpfn():
    from tabpfn.preprocessing.torch.torch_soft_clip_outliers import TorchSoftClipOutliers

    x = Draw(1).normal(3, 80, 4)
    x[0, 5, 1] = 900.0
    x[1, 70, 2] = -4000.0
    x[2, 3, 0] = float("nan")
    ours = prior._soft_clip(x, 60)
    theirs = TorchSoftClipOutliers(12.0)(x.transpose(0, 1), num_train_rows=60).transpose(0, 1)
    torch.testing.assert_close(ours, theirs, equal_nan=True)
    assert ours[1, 70, 2].abs() < 100
    assert torch.equal(ours[2, :, 3], x[2, :, 3])


def test_orthogonalised_matrices_have_singular_values_near_one():
    for shape in ((3, 24, 24), (2, 40, 10), (2, 10, 40)):
        values = torch.linalg.svdvals(orthogonalise(Draw(0).normal(*shape)))
        assert values.min() > 0.3
        assert values.max() < 1.4


def test_the_rate_rises_and_falls_to_nothing():
    assert rate_at(0.0, 0.05) < 0.01
    assert rate_at(0.05, 0.05) > 0.95
    assert math.isclose(rate_at(1.0, 0.05), 0.0, abs_tol=1e-9)
    falling = [rate_at(p, 0.05) for p in np.linspace(0.05, 1.0, 20)]
    assert falling == sorted(falling, reverse=True)


def test_a_budget_is_one_thing():
    from tttab.errors import RequestError

    for wrong in ({}, {"steps": 3, "minutes": 2.0}, {"steps": 0}, {"minutes": -1.0}):
        with pytest.raises(RequestError):
            Budget(**wrong)
    assert Budget(steps=10).progress(5, 1e9) == 0.5
    assert Budget(minutes=2.0).progress(10**9, 60.0) == 0.5


def test_the_rate_stays_full_until_the_end_so_that_a_run_can_be_given_more_budget():
    assert rate_at(0.05, 0.05, 0.3) == rate_at(0.69, 0.05, 0.3) == 1.0
    assert math.isclose(rate_at(0.85, 0.05, 0.3), 0.5)
    assert math.isclose(rate_at(1.0, 0.05, 0.3), 0.0, abs_tol=1e-9)
