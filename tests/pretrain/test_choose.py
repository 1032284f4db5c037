"""The choice of preprocessing: on synthetic tables, the cheapest among the good, repeatable."""

from contextlib import closing

import numpy as np
import pytest

from tttab.pretrain import choose
from tttab.pretrain.choose import HeldOut, Tried
from tttab.pretrain.pool_file import PoolTable


def _tried(name, members, loss):
    return Tried(name, {"N_ESTIMATORS": members}, (loss,), ())


def test_the_fewest_members_close_to_the_best_win():
    tried = [_tried("one", 1, 0.504), _tried("two", 2, 0.501), _tried("four", 4, 0.500)]
    assert choose.best(tried).name == "one"
    assert choose.best([*tried[1:], _tried("one", 1, 0.51)]).name == "two"


def test_candidates_respect_the_bound():
    assert all(c["N_ESTIMATORS"] == 1 for c in choose.candidates(1).values())
    assert len(choose.candidates(4)) > len(choose.candidates(1))


def test_temperature_cools_the_timid_and_warms_the_bold():
    rng = np.random.default_rng(0)
    truth = rng.dirichlet([1.0, 1.0], size=4000)
    y = (rng.random(4000) < truth[:, 1]).astype(float)
    table = HeldOut(np.zeros((2, 1)), np.array([0.0, 1.0]), np.zeros((4000, 1)), y)

    def heated(by):
        p = truth ** (1 / by)
        return p / p.sum(axis=1, keepdims=True)

    for by, expected in ((1.0, 1.0), (1.25, 0.8), (1 / 1.2, 1.2)):
        tried = Tried("x", {"N_ESTIMATORS": 1}, (0.0,), (heated(by),))
        assert choose.temperature(tried, [table]) == pytest.approx(expected)


def test_a_draw_that_cannot_be_used_is_drawn_anew(monkeypatch):
    pytest.importorskip("tabicl.prior")
    real, calls = choose._divided, []

    def first_unusable(*arguments):
        calls.append(1)
        return None if len(calls) == 1 else real(*arguments)

    monkeypatch.setattr(choose, "_divided", first_unusable)
    assert len(list(choose.tables("classification", 1))) == 1
    assert len(calls) == 2


def test_held_out_tables_repeat_and_show_every_query_class(monkeypatch):
    pytest.importorskip("tabicl.prior")
    made_apart, kept = choose.made_apart, []

    def one_process(*arguments):
        """Give the first process's tables twice: that another one makes the same is the pool's test."""
        if kept:
            yield from kept
        with closing(made_apart(*arguments)) as made:
            for table in made:
                kept.append(table)
                yield table

    monkeypatch.setattr(choose, "made_apart", one_process)
    first, again = list(choose.tables("classification", 2)), list(choose.tables("classification", 2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.x, b.x)
        assert set(np.unique(a.y_query)) <= set(np.unique(a.y))
        assert len(a.x_query) <= choose.QUERIES


def test_tables_of_every_kind_have_their_categories_named_and_are_served_as_such(monkeypatch):
    still, varied = (
        (None, PoolTable(np.zeros((600, 3)), y, False)) for y in (np.zeros(600), np.arange(600.0) % 5)
    )
    monkeypatch.setattr(
        choose, "made_apart", lambda *_: (made for _ in range(99) for made in (still, varied))
    )
    assert all(np.ptp(table.y) > 0 for table in choose.tables("regression", 4))
    found = list(choose.tables("regression", 10, "nano-kinds"))[::2]
    kinds = list(choose.KINDS)
    share = [len(table.named) / table.x.shape[1] for table in found]
    assert share[kinds.index("categories")] > 0.6 and 0.0 < share[kinds.index("mixed")] < 1.0
    assert not any(table.named for table in list(choose.tables("regression", 4)))
    assert set(choose.candidates(2, True)) - set(choose.candidates(2)) == {
        name for name, about in choose.OF_CATEGORIES.items() if about["N_ESTIMATORS"] <= 2
    }
