"""Splits: disjoint parts, nested contexts, every class in the context, sizes as said."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tttab.data.splits import Split, SplitRequest, hold_out, split_rows, strata_of, stratified_order
from tttab.errors import RequestError, SplitError
from tttab.seeding import numpy_stream


@st.composite
def labelled_tables(draw):
    classes = draw(st.integers(2, 10))
    rows = draw(st.integers(12 * classes, 400))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shares = rng.dirichlet(np.full(classes, draw(st.sampled_from([0.3, 1.0, 10.0]))))
    y = rng.choice(classes, rows, p=shares)
    y[: 8 * classes] = np.repeat(np.arange(classes), 8)
    return rng.permutation(y), classes


@settings(max_examples=80, deadline=None)
@given(labelled_tables(), st.integers(0, 1000), st.data())
def test_parts_are_disjoint_nested_and_hold_every_class(table, seed, data):
    y, classes = table
    n = data.draw(st.integers(classes, max(classes, len(y) // 2)))
    split = split_rows(y, SplitRequest(n=n, k=50), seed, classes=classes)
    parts = [split.context, split.queries, split.test]
    together = np.concatenate(parts)
    assert len(set(together.tolist())) == len(together)
    assert split.n == n
    assert split.k == min(50, len(y) - len(split.test) - n)
    assert len(split.test) == max(classes, len(y) // 4)
    assert set(y[split.context]) == set(range(classes))
    larger = split_rows(y, SplitRequest(n=n + 1, k=50), seed, classes=classes) if split.k > 1 else split
    assert larger.context[:n].tolist() == split.context.tolist()
    assert larger.test.tolist() == split.test.tolist()


@settings(max_examples=50, deadline=None)
@given(labelled_tables(), st.integers(0, 1000))
def test_hold_out_divides_all_rows(table, seed):
    y, classes = table
    train, held = hold_out(y, 0.2, seed, classes=classes)
    assert sorted([*train, *held]) == list(range(len(y)))
    assert len(held) == round(0.2 * len(y))
    assert set(y[held]) == set(range(classes))


def test_hold_out_keeps_one_row_on_each_side_however_small_the_share():
    for rows, share, held in [(2, 0.2, 1), (3, 0.01, 1), (3, 0.9, 2), (5, 1.0, 4), (10, 0.26, 3)]:
        parts = hold_out(np.zeros(rows), share, 0)
        assert [len(part) for part in parts] == [rows - held, held]
    with pytest.raises(SplitError, match="one query row cannot be divided") as caught:
        hold_out(np.zeros(1), 0.2, 0)
    assert caught.value.hint == "--k 10"


def test_no_more_than_a_thousand_rows_are_drawn_to_choose_the_step():
    y = np.arange(20_000) % 3
    train, held = hold_out(y, 0.2, 0, classes=3)
    assert (len(train), len(held)) == (19_000, 1_000)
    assert np.bincount(y[held]).tolist() == [334, 333, 333]
    assert len(hold_out(y, 0.2, 0, held=3_000)[1]) == 3_000  # rows that somebody chose are all used


def test_equal_budget_spends_one_thousand_labels_and_the_paper_s_takes_k_as_given():
    assert (SplitRequest().labels, SplitRequest(k=7).labels) == (1000, 7)
    assert SplitRequest(n=300, k=7, budget="equal").labels == 700
    SplitRequest(n=999, budget="equal").check()
    with pytest.raises(RequestError, match="k must be at least 1, got 0") as caught:
        SplitRequest(n=1000, budget="equal").check()
    assert caught.value.hint == "--n 500, of 1,000 labels in all"
    SplitRequest(n=500, budget="equal").check()


def prefix_by_hand(y, rows):
    """Order shuffled rows so that each class is spread evenly, its first row before all others."""

    def place(i):
        members = [j for j in range(len(rows)) if y[rows[j]] == y[rows[i]]]
        turn = members.index(i)
        return (turn + 0.5) / len(members) - (2 if turn == 0 else 0)

    return rows[sorted(range(len(rows)), key=place)]


def test_a_stratified_order_spreads_each_class_evenly_and_starts_with_one_row_of_each():
    y = np.repeat([0, 1, 2, 3, 4], [30, 30, 5, 2, 1])
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(len(y))
        order = stratified_order(y, np.arange(len(y)), 5, np.random.default_rng(seed))
        assert order.tolist() == prefix_by_hand(y, shuffled).tolist()
        assert sorted(y[order[:5]]) == [0, 1, 2, 3, 4]


def test_every_part_of_a_split_comes_from_the_stream_of_its_name():
    """Stored results name rows by seed: another stream, or one shared by two parts, would compare apples."""
    y = np.random.default_rng(0).integers(0, 3, 90)
    split = split_rows(y, SplitRequest(n=12, k=20, test_size=30), 5, classes=3)
    everyone = np.arange(90)
    assert split.seed == 5
    test = stratified_order(y, everyone, 3, numpy_stream(5, "test"))[:30]
    assert split.test.tolist() == sorted(test)
    pool = np.setdiff1d(everyone, test)
    order = stratified_order(y, pool, 3, numpy_stream(5, "context"))
    assert split.context.tolist() == order[:12].tolist()
    rest = np.setdiff1d(pool, split.context)
    assert split.queries.tolist() == numpy_stream(5, "queries").permutation(rest)[:20].tolist()
    train, held = hold_out(y, 0.2, 5, classes=3)
    assert held.tolist() == sorted(stratified_order(y, everyone, 3, numpy_stream(5, "hold-out"))[:18])
    assert train.tolist() == sorted(set(range(90)) - set(held.tolist()))
    drawn = hold_out(y, 0.2, 5)[1]
    assert drawn.tolist() == sorted(numpy_stream(5, "hold-out").permutation(everyone)[:18]), (
        "no classes: at random"
    )


def test_test_rows_depend_on_neither_n_nor_k_nor_budget():
    y = np.arange(2000) % 4
    requests = [SplitRequest(n=50), SplitRequest(n=300, k=40), SplitRequest(n=100, budget="equal")]
    assert len({split_rows(y, request, 3, classes=4).digest_of("test") for request in requests}) == 1


@pytest.mark.parametrize(
    ("rows", "classes", "asked", "size"),
    [
        (400, 2, None, 100),
        (40, 2, None, 10),
        (30, 9, None, 9),
        (9000, 2, None, 2000),
        (400, 2, 7, 7),
        (8, 0, None, 2),
        (3, 0, None, 1),
    ],
)
def test_a_quarter_of_the_rows_is_tested_at_most_two_thousand_and_at_least_one_per_class(
    rows, classes, asked, size
):
    y = np.arange(rows) % max(classes, 1)
    split = split_rows(y, SplitRequest(n=max(classes, 1), k=1, test_size=asked), 0, classes=classes)
    assert len(split.test) == size
    if classes:
        assert np.ptp(np.bincount(y[split.test], minlength=classes)) <= 1


def test_rows_of_an_official_split_are_taken_as_they_are():
    y = np.arange(40) % 2
    train, test = np.arange(10, 40), np.arange(10)
    split = split_rows(y, SplitRequest(n=6, k=24), 0, classes=2, prescribed=(train, test))
    assert split.test is test
    assert sorted([*split.context, *split.queries]) == train.tolist()


def test_a_digest_is_the_hash_of_the_row_numbers_part_by_part():
    split = Split(np.array([3, 1]), np.array([2]), np.array([10, 11]), 0)
    assert split.digest == hashlib.sha256(b"3,1|2|10,11").hexdigest()
    assert split.digest_of("test", "context") == hashlib.sha256(b"10,11|3,1").hexdigest()


def test_contexts_keep_the_class_shares():
    y = np.repeat([0, 1, 2], [800, 150, 50])
    for n in (20, 100, 400):
        context = split_rows(y, SplitRequest(n=n, k=10), 3, classes=3).context
        shares = np.bincount(y[context], minlength=3) / n
        assert np.abs(shares - [0.8, 0.15, 0.05]).max() <= 2 / n


def test_equal_seeds_equal_splits_and_other_seeds_other_splits():
    y = np.arange(300) % 2
    one, same, other = (split_rows(y, SplitRequest(n=50), s, classes=2) for s in (1, 1, 2))
    assert one.digest == same.digest != other.digest


def test_equal_budget_uses_the_same_thousand_labels_at_every_n():
    y = np.arange(2000) % 2
    splits = [split_rows(y, SplitRequest(n=n, budget="equal"), 0, classes=2) for n in (50, 400, 800)]
    pools = [set(s.context.tolist()) | set(s.queries.tolist()) for s in splits]
    assert [s.n + s.k for s in splits] == [1000] * 3
    assert pools[0] == pools[1] == pools[2]
    assert all(np.array_equal(s.context, splits[2].context[: s.n]) for s in splits)


def test_k_shrinks_and_says_so_unless_strict():
    y = np.arange(1000) % 2
    split = split_rows(y, SplitRequest(n=200, k=1000), 0, classes=2)
    assert (split.n, split.k, len(split.test)) == (200, 550, 250)
    assert "k shrank from 1,000 to 550" in split.notes[0]
    with pytest.raises(SplitError, match="would shrink") as caught:
        split_rows(y, SplitRequest(n=200, k=1000, strict=True), 0, classes=2)
    assert "--k 550" in caught.value.hint


@pytest.mark.parametrize(
    ("request_", "error", "about", "hint"),
    [
        (SplitRequest(n=0), RequestError, "n must be", "--n 200"),
        (SplitRequest(k=0), RequestError, "k must be", "--k 1000"),
        (SplitRequest(test_size=0), RequestError, "the test size must be", "--test-size 250"),
        (SplitRequest(n=75), SplitError, "100 rows cannot give n = 75", "--n 37 --test-size 25"),
        (SplitRequest(n=80), SplitError, "100 rows cannot give n = 80", "--n 37 --test-size 25"),
        (SplitRequest(n=1), SplitError, "cannot hold all 2 classes", "--n 2"),
        (SplitRequest(n=10, test_size=100), SplitError, "leave nothing of", "--test-size 25"),
    ],
)
def test_impossible_requests_are_refused_with_sizes_that_are_possible(request_, error, about, hint):
    y = np.arange(100) % 2
    with pytest.raises(error, match=about) as caught:
        split_rows(y, request_, 0, classes=2)
    assert caught.value.hint == hint
    words = hint.replace("--", "").replace("test-size", "test_size").split()
    named = {name: int(size) for name, size in zip(words[::2], words[1::2], strict=True)}
    rows = y if error is SplitError else np.arange(2000) % 2
    split_rows(rows, replace(request_, **named), 0, classes=2)


def test_a_context_that_is_possible_holds_every_class():
    y = np.arange(24) % 10
    with pytest.raises(SplitError) as caught:
        split_rows(y, SplitRequest(n=14), 0, classes=10)
    assert caught.value.hint == "--n 10 --test-size 10", "and not half of the 14 rows that are left"
    assert split_rows(y, SplitRequest(n=10, test_size=10), 0, classes=10).k == 4


def test_the_smallest_sizes_that_are_possible_are_given():
    y = np.arange(6) % 2
    split = split_rows(y, SplitRequest(n=3, k=1, test_size=2), 0, classes=2)
    assert (split.n, split.k, len(split.test)) == (3, 1, 2)
    split = split_rows(y * 0.5, SplitRequest(n=1, k=1, test_size=1), 0)
    assert (split.n, split.k, len(split.test)) == (1, 1, 1)


def test_a_class_needs_a_row_for_the_context_after_the_test_rows():
    y = np.array([0] * 50 + [1] * 50 + [2])
    with pytest.raises(SplitError, match="class number 2 has no row left") as caught:
        split_rows(y, SplitRequest(n=20, k=10), 0, classes=3)
    assert caught.value.hint.startswith("--test-size 1, or leave out classes")
    split = split_rows(np.append(y, 2), SplitRequest(n=3, k=10), 0, classes=3)
    assert 2 in np.append(y, 2)[split.context] and 2 in np.append(y, 2)[split.test]


@pytest.mark.parametrize(
    "y", [np.arange(15.0), np.repeat([0.0, 1.0, 2.5, 9.0], [40, 3, 30, 27]), np.arange(97) ** 2.0]
)
def test_strata_end_at_the_smallest_values_that_each_tenth_of_the_rows_does_not_exceed(y):
    edges = sorted({min(v for v in y if 10 * np.sum(y <= v) >= tenth * len(y)) for tenth in range(1, 10)})
    expected = [sum(edge < value for edge in edges) for value in y]
    codes, count = strata_of(y, 0)
    assert codes.tolist() == expected and count == len(set(expected))


@pytest.mark.parametrize("seed", range(5))
def test_regression_contexts_hold_each_tenth_of_the_targets(seed):
    y = np.random.default_rng(seed).normal(size=500) ** 3
    split = split_rows(y, SplitRequest(n=100, k=100), seed)
    assert (split.n, split.k, len(split.test)) == (100, 100, 125)
    pool = np.setdiff1d(np.arange(500), split.test)
    edges = np.quantile(y[pool], np.arange(1, 10) / 10)
    for n in (10, 50, 100):
        counts = np.bincount(np.searchsorted(edges, y[split.context[:n]]), minlength=10)
        assert (np.abs(counts - n / 10) <= 1).all(), counts


def test_a_target_that_is_mostly_one_value_keeps_the_others_in_the_context():
    y = np.zeros(400)
    y[:8] = np.arange(1.0, 9.0)
    for sign in (1.0, -1.0):
        for seed in range(5):
            split = split_rows(sign * y, SplitRequest(n=20, k=100, test_size=50), seed)
            assert 0 < np.count_nonzero(y[split.context[:2]]) < 2
    assert strata_of(np.full(9, 2.5), 0)[1] == 1
