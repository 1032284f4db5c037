"""Narrowing a table on request: what is kept, what is said, and which rows may choose."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tttab.data import Origin, table_from_frame
from tttab.data.narrow import keep_classes, keep_features
from tttab.errors import RequestError


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(12), np.arange(12, 0, -1) * 5)
    frame = pd.DataFrame(rng.normal(size=(len(y), 6)), columns=list("abcdef"))
    frame["told"] = y + rng.normal(0, 0.1, len(y))
    frame["constant"] = 1.0
    frame["y"] = [f"c{label:02}" for label in y]
    return table_from_frame(frame, Origin("made", "file"))


def test_the_most_frequent_classes_stay(table):
    kept = keep_classes(table, 3)
    assert kept.classes == ("c00", "c01", "c02")
    assert np.bincount(kept.y).tolist() == [60, 55, 50]
    assert len(kept.x) == 165
    assert kept.fingerprint != table.fingerprint
    assert "3 most frequent of 12 classes" in kept.notes[-1]
    assert keep_classes(table, 12) is table


def test_features_are_chosen_on_the_given_rows_alone(table):
    rows = np.arange(0, len(table), 2)
    kept = keep_features(table, 2, rows)
    assert "told" in kept.x.columns and kept.x.shape[1] == 2
    x = table.x.copy()
    x.loc[np.setdiff1d(np.arange(len(table)), rows), "told"] = 0.0
    from dataclasses import replace

    assert keep_features(replace(table, x=x), 2, rows).x.columns.tolist() == kept.x.columns.tolist()
    assert "2 of 8 features" in kept.notes[-1]


def test_an_official_split_follows_the_rows(table):
    from dataclasses import replace

    split = (np.arange(0, len(table), 2), np.arange(1, len(table), 2))
    kept = keep_classes(replace(table, official_split=split), 2)
    train, test = kept.official_split
    assert sorted([*train, *test]) == list(range(115))
    assert np.array_equal(kept.y[train], table.y[split[0]][table.y[split[0]] < 2])


def test_requests_that_keep_nothing_are_refused(table):
    with pytest.raises(RequestError):
        keep_classes(table, 1)
    with pytest.raises(RequestError):
        keep_features(table, 0, np.arange(10))
