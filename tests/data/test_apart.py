"""Splits that do not leak: groups on one side, later rows behind earlier ones, your own validation rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tttab.data import Origin, table_from_frame
from tttab.data.apart import Apart, apart_of, split_apart, take_column
from tttab.data.context_selection import choose_context
from tttab.data.splits import SplitRequest, hold_out, split_rows
from tttab.data.validation import append_file
from tttab.errors import DataError, RequestError, SplitError

RNG = np.random.default_rng(0)
ROWS = 400
Y = RNG.integers(0, 3, ROWS)
GROUPS = RNG.integers(0, 60, ROWS)
DAYS = RNG.integers(0, 100, ROWS).astype(float)
SIZES = SplitRequest(n=40, k=200, test_size=80)


def sides(split):
    return split.free, split.queries[split.k - split.held :], split.test


@pytest.mark.parametrize("classes", [3, 0])
@pytest.mark.parametrize("keep_test", [True, False])
def test_no_group_stands_on_two_sides_and_the_sizes_are_about_those_asked_for(classes, keep_test):
    for seed in range(5):
        split = split_apart(Y, SIZES, seed, Apart(GROUPS), classes=classes, share=0.25, keep_test=keep_test)
        found = [set(GROUPS[rows]) for rows in sides(split)]
        assert not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])
        together = np.concatenate(sides(split))
        assert len(set(together)) == len(together) and (split.n, split.k) == (40, 200)
        assert abs(split.held - 50) <= 8 and abs(len(split.test) - 80 * keep_test) <= 8
        if classes:
            assert set(Y[split.context]) == {0, 1, 2}
            shares = [np.bincount(Y[rows], minlength=3) / len(rows) for rows in sides(split)[: 2 + keep_test]]
            assert np.abs(shares - np.bincount(Y) / ROWS).max() < 0.12, "groups are drawn by their classes"


def test_earlier_rows_train_later_ones_choose_and_the_latest_are_the_test():
    for seed in range(5):
        split = split_apart(Y, SIZES, seed, Apart(DAYS, ordered=True), classes=3)
        train, held, test = (DAYS[rows] for rows in sides(split))
        assert train.max() < held.min() <= held.max() < test.min(), "rows of one day are not divided"
        assert test.max() == DAYS.max()
        assert abs(len(held) - 40) <= 5 and abs(len(test) - 80) <= 5 and split.k == 200
    same = split_apart(Y, SIZES, 0, Apart(DAYS, ordered=True), classes=3)
    assert same.digest == split_apart(Y, SIZES, 0, Apart(DAYS, ordered=True), classes=3).digest
    assert same.digest != split.digest, "the seed draws the rows that train"


def test_the_context_is_chosen_from_the_rows_that_may_train_alone():
    split = split_apart(Y, SIZES, 1, Apart(GROUPS), classes=3)
    x = pd.DataFrame({"a": RNG.normal(size=ROWS)})
    chosen = choose_context(split, "random", x, Y, classes=3)
    assert set(chosen.free) == set(split.free) and chosen.held == split.held
    assert sides(chosen)[1].tolist() == sides(split)[1].tolist()
    assert chosen.context.tolist() != split.context.tolist()


def test_a_split_with_rows_of_its_own_to_choose_by_is_the_plain_one_with_them_behind():
    plain = split_rows(Y, SIZES, 3, classes=3)
    given = split_rows(Y, SIZES, 3, classes=3, held=np.array([401, 400]))
    assert given.context.tolist() == plain.context.tolist() and given.test.tolist() == plain.test.tolist()
    assert given.queries.tolist() == [*plain.queries, 401, 400] and given.held == 2
    train, held = hold_out(np.zeros(given.k), 0.2, 3, held=given.held)
    assert (train.tolist(), held.tolist()) == (list(range(200)), [200, 201])
    assert given.digest != replace(given, held=1).digest, "other rows choose"
    assert given.digest_of("test") == plain.digest_of("test")


@pytest.mark.parametrize(
    ("apart", "sizes", "about", "hint"),
    [
        (Apart(np.zeros(ROWS)), SIZES, "400 rows of 1 of the groups", "leave out --group"),
        (Apart(np.arange(ROWS) // 200), SIZES, "200 rows of 1 of the groups", "leave out --group"),
        (Apart(np.zeros(ROWS), ordered=True), SIZES, "different times", "leave out --time-column"),
        (Apart(GROUPS), replace(SIZES, n=390), "would shrink", "--n 1"),
        (Apart(GROUPS), replace(SIZES, k=320, strict=True), "would shrink", "--k 2"),
        (Apart(np.arange(ROWS) // 134), replace(SIZES, n=134), "too few groups, or too large ones", "--n "),
    ],
)
def test_what_cannot_be_kept_apart_is_refused(apart, sizes, about, hint):
    with pytest.raises(SplitError, match=about) as caught:
        split_apart(Y, sizes, 0, apart, classes=3)
    assert caught.value.hint.startswith(hint)


def test_k_shrinks_and_says_so():
    split = split_apart(Y, replace(SIZES, k=1000), 0, Apart(GROUPS), classes=3)
    assert split.n + split.k + len(split.test) == ROWS
    assert split.notes[0].startswith(f"k shrank from 1,000 to {split.k}")


def test_values_of_any_kind_are_groups_and_every_row_needs_one():
    assert apart_of() is None
    assert apart_of(groups=["b", "a", "b"]).values.tolist() == [0, 1, 0]
    assert apart_of(times=[3, 1]).ordered
    with pytest.raises(DataError, match="1 rows have no group"):
        apart_of(groups=["a", None])
    with pytest.raises(RequestError, match="not by both"):
        apart_of(groups=[1], times=[1])


@pytest.fixture(scope="module")
def table():
    frame = pd.DataFrame(
        {"size": RNG.normal(size=30), "who": [f"p{i % 6}" for i in range(30)], "y": list("ab") * 15}
    )
    return table_from_frame(frame, Origin("made", "file"))


def test_a_column_that_divides_the_rows_is_no_feature(table):
    rest, values = take_column(table, "who", "--group")
    assert list(rest.x.columns) == ["size"] and [c.name for c in rest.columns] == ["size"]
    assert values.tolist() == table.x["who"].tolist()
    assert rest.fingerprint != table.fingerprint and "'who' divides the rows" in rest.notes[-1]
    with pytest.raises(DataError, match="no feature 'whom'; the nearest is 'who'") as caught:
        take_column(table, "whom", "--group")
    assert caught.value.hint == "--group who"
    with pytest.raises(DataError, match="no feature besides"):
        take_column(rest, "size", "--group")
    with pytest.raises(DataError, match="30 rows have no value in 'gaps'"):
        take_column(replace(table, x=table.x.assign(gaps=np.nan)), "gaps", "--time-column")


def test_validation_rows_stand_behind_the_table_s_in_its_form(table, tmp_path):
    path = tmp_path / "more.csv"
    path.write_text("y,who,size,odd\nb,p3,1.5,7\na,new,,8\n")
    longer = append_file(table, path)
    assert len(longer) == 32 and longer.y[30:].tolist() == [1, 0]
    assert longer.x["size"][30] == 1.5 and longer.x.iloc[31].isna().all()
    assert longer.x["who"].cat.categories.tolist() == table.x["who"].cat.categories.tolist()
    assert longer.x[:30].equals(table.x) and longer.fingerprint != table.fingerprint
    assert "'who'" in longer.notes[-1] and "more.csv" in longer.notes[-2]


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("size,who\n1,p1\n", "no column 'y'"),
        ("y,who\na,p1\n", "lack 1 of 2 columns: size"),
        ("y,who,size\nc,p1,1\n", "'c' is none of the table's classes"),
        ("y,who,size\na,p1,2024-01-31\n", "column 'size' holds"),
        ("y,who,size\n,p1,1\n", "no value in 'y'"),
        ("y,who,size\n", "has no rows"),
    ],
)
def test_validation_rows_of_another_schema_are_refused(table, tmp_path, text, about):
    path = tmp_path / "more.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=about) as caught:
        append_file(table, path)
    assert caught.value.hint
