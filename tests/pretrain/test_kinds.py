"""Tables of categories in no order, wide tables, groups, repeated columns: each is what its setting says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from tttab.pretrain import categories, features, functions, held_out
from tttab.pretrain.draw import Draw
from tttab.pretrain.prior import Size, batch, size_at
from tttab.pretrain.settings import Mixture, recipe

KINDS = recipe("nano-kinds", "classification")
ALONE = Mixture(categorical=1.0, one_hot=0.0)


def _tables(mixture, size, step=0):
    shapes = replace(KINDS.shapes, ranked=0.0)
    return batch(Draw(1, "kinds", step), size, replace(KINDS, mixture=mixture, shapes=shapes), None)


def _levels(column):
    return column[column.isfinite()].unique()


def test_categories_have_two_to_twenty_levels_and_a_few_have_more():
    x, scores = categories.categorical(Draw(2), (200, 400, 12), 10, ALONE)
    counts = torch.tensor([len(_levels(x[t, :, c])) for t in range(200) for c in range(12)])
    assert x.nan_to_num(nan=0.0).eq(x.nan_to_num(nan=0.0).round()).all()
    assert counts.eq(2).float().mean() > 0.05 and counts.gt(12).float().mean() > 0.1
    assert 0.005 < counts.gt(20).float().mean() < 0.06 and counts.max() <= 60
    assert scores.shape == (200, 400, 10) and scores.isfinite().all()


def test_names_of_levels_tell_of_the_class():
    tables = _tables(ALONE, Size(40, 300, 100, 6, 2))
    gains = []
    for x, y in zip(tables.x.nan_to_num(nan=-1.0).numpy(), tables.y.numpy(), strict=True):
        if min(np.bincount(y[:300], minlength=2)) > 30:
            names = OneHotEncoder(handle_unknown="ignore").fit(x[:300])
            one = LogisticRegression(max_iter=500).fit(names.transform(x[:300]), y[:300])
            usual = (y[300:] == np.bincount(y[:300]).argmax()).mean()
            gains.append(one.score(names.transform(x[300:]), y[300:]) - usual)
    assert len(gains) > 15 and np.mean(gains) > 0.06


def test_a_code_says_nothing_by_its_order():
    """Effects and frequencies of levels follow their codes no more than eight random numbers would."""
    levels = torch.full((50, 6), 8)
    every = torch.arange(8).expand(50, 6, 8).transpose(1, 2)
    effects = categories._effects(Draw(1), every, levels).flatten(2).transpose(1, 2).flatten(0, 1)
    codes, _, _ = categories._drawn(Draw(2), (50, 400, 6), replace(ALONE, levels=(8, 8), many_levels=8))
    counts = torch.nn.functional.one_hot(codes, 8).sum(dim=1).flatten(0, 1)
    for values in (effects, counts):
        found = np.array([spearmanr(range(8), row).statistic for row in values.numpy()])
        assert abs(np.nanmean(found)) < 0.08
        assert np.nanmean(np.abs(found)) < 0.37  # 0.31 is expected of eight random ranks


def test_indicator_columns_come_from_the_levels():
    x, _ = categories.categorical(Draw(3), (30, 100, 10), 10, replace(ALONE, one_hot=1.0))
    assert set(x[x.isfinite()].unique().tolist()) == {0.0, 1.0}


def test_mixed_tables_hold_categories_and_numbers_and_both_act():
    x, scores = categories.mixed(Draw(4), (60, 200, 10), 10, ALONE)
    whole = torch.tensor([[bool((c := x[t, :, f])[c.isfinite()].frac().eq(0).all()) for f in range(10)]
                          for t in range(60)])  # fmt: skip
    share = whole.float().mean(dim=1)
    assert 0.3 < share.mean() < 0.8 and share.gt(0.2).logical_and(share.lt(0.9)).float().mean() > 0.6
    assert scores.std(dim=1).mean() > 0.9


def test_shares_of_the_kinds_are_those_of_the_settings():
    def whole(mixture):
        x = _tables(mixture, Size(400, 40, 20, 5, 4)).x.flatten(1)
        return (x.isnan() | x.frac().eq(0)).all(dim=1).float().mean().item()

    assert whole(Mixture()) < 0.1
    assert abs(whole(replace(KINDS.mixture, categorical=0.5, mixed=0.0)) - 0.5) < 0.1
    assert whole(ALONE) > 0.99  # a column that is constant in the context is clipped like any outlier


def test_grouped_rows_lie_nearest_to_rows_of_their_class_in_wide_tables():
    x, scores = features.grouped(Draw(5), (30, 300, 64), 10)
    near = torch.cdist(x, x) + torch.eye(300) * 1e9
    labels = scores.argmax(dim=-1)
    same = torch.gather(labels, 1, near.argmin(dim=-1)) == labels
    shuffled = labels[:, torch.randperm(300, generator=torch.Generator().manual_seed(0))] == labels
    assert same.float().mean() > shuffled.float().mean() + 0.3


def test_repeated_columns_come_in_correlated_blocks_beside_noise():
    x = Draw(6).normal(40, 500, 24)
    found = features.repeat_columns(Draw(7), x, 1.0)
    close = torch.corrcoef(found[0].T).abs() > 0.5
    pairs = torch.stack([(torch.corrcoef(table.T).abs() > 0.5).sum() - 24 for table in found])
    assert close.diagonal().all() and (pairs > 10).float().mean() > 0.4
    assert ((found != x).any(dim=1).float().mean(dim=1) < 0.9).any()
    assert torch.equal(features.repeat_columns(Draw(7), x, 0.0), x)


def test_wide_tables_fit_into_the_cells_of_a_batch():
    sizes = [size_at(Draw(8, i), KINDS.shapes, 1.0) for i in range(400)]
    cells = [s.tables * s.rows * (-(-s.features // 2) + 1) for s in sizes]
    wide = [s for s in sizes if s.features >= 40]
    assert max(cells) <= KINDS.shapes.most_tokens and min(s.context for s in sizes) >= 50
    assert 0.15 < len(wide) / len(sizes) < 0.35 and max(s.features for s in wide) > 90
    assert max(s.context for s in wide) > 700 and min(s.tables for s in sizes) == 1


def test_many_classes_get_their_share():
    classes = torch.cat([_tables(KINDS.mixture, Size(64, 400, 60, 8, 10), i).classes for i in range(6)])
    assert classes.ge(5).float().mean() > 0.25 and classes.eq(2).float().mean() > 0.3


@pytest.mark.parametrize("kind", held_out.KINDS)
def test_a_recipe_of_kinds_is_judged_on_each_of_them(kind):
    found = [tables for name, tables in held_out.batches(KINDS, torch.device("cpu")) if name == kind]
    assert len(found) == 1 and found[0].context == 200 and found[0].counted.float().mean() > 0.7
    assert found[0].x.shape[2] == held_out.KINDS[kind][0]
    again = next(t for name, t in held_out.batches(KINDS, torch.device("cpu")) if name == kind)
    assert torch.equal(found[0].y, again.y)


def test_a_recipe_of_numbers_alone_is_judged_as_before():
    names = {name for name, _ in held_out.batches(recipe("tiny", "classification"), torch.device("cpu"))}
    assert not names & set(held_out.KINDS)


def test_standardised_effects_belong_to_levels():
    codes = torch.tensor([[[0, 1], [1, 0], [0, 0], [1, 1]]])
    effects = categories._effects(Draw(9), codes, torch.tensor([[2, 2]]))
    assert torch.equal(effects[0, 0, 0], effects[0, 2, 0]) and torch.equal(effects[0, 1, 1], effects[0, 2, 1])
    assert not torch.equal(effects[0, 0, 0], effects[0, 1, 0])
    assert functions.standardise(effects.flatten(2)).shape == (1, 4, 4)
