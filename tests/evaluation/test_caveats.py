"""What a careful user is told: each caveat where it holds, and silence where it does not."""

from __future__ import annotations

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tttab.core import REAL
from tttab.data import Origin, table_from_frame
from tttab.data.splits import Split
from tttab.evaluation.caveats import caveats, early_stop, refusal, user_warnings
from tttab.evaluation.trial import Trial
from tttab.testing import INFO, ToySession

ROWS = 40
FRAME = pd.DataFrame({"a": np.arange(ROWS) % 37, "y": np.where(np.arange(ROWS) < 20, "no", "yes")})
"""Rows 37, 38 and 39 are those of 0, 1 and 2 again."""


def trial(context, test, source="file", provenance=INFO.provenance):
    table = table_from_frame(FRAME, Origin("made", source))
    split = Split(np.array(context), np.arange(1), np.array(test), 0)
    return Trial(table, split, ToySession(replace(INFO, provenance=provenance)))


def test_nothing_is_said_where_nothing_is_wrong():
    assert caveats(trial([*range(3, 13), *range(20, 30)], [30, 31])) == []


def test_test_rows_that_stand_in_the_context_are_counted():
    (remarks,) = caveats(trial([*range(10), *range(20, 30)], [37, 38, 31, 32]))
    assert remarks.startswith("2 of 4 test rows have the same feature values as a context row")


def test_a_class_with_few_context_rows_is_named():
    (remarks,) = caveats(trial([*range(3, 13), *range(20, 24)], [30, 31]))
    assert remarks.startswith("only 4 context rows for class 'yes'") and "--n" in remarks


def test_many_classes_with_few_context_rows_are_counted():
    frame = pd.DataFrame({"a": np.arange(30), "y": [f"c{row % 11}" for row in range(30)]})
    split = Split(np.arange(12), np.arange(1), np.array([28, 29]), 0)
    (remarks,) = caveats(Trial(table_from_frame(frame, Origin("made", "file")), split, ToySession()))
    assert remarks.startswith("11 of 11 classes have few context rows, some only 1") and "--n" in remarks


@pytest.mark.parametrize(
    ("source", "provenance", "count"), [("OpenML", REAL, 1), ("file", REAL, 0), ("OpenML", "x", 0)]
)
def test_weights_that_saw_real_tables_are_no_fair_rival_on_a_public_one(source, provenance, count):
    remarks = caveats(trial([*range(3, 13), *range(20, 30)], [30, 31], source, provenance))
    assert len(remarks) == count
    assert all("perhaps on made itself" in one and "--model tabpfn-v2" in one for one in remarks)


def test_an_early_end_of_training_is_told():
    assert early_stop(None) == early_stop(SimpleNamespace(stopped="")) == []
    assert early_stop(SimpleNamespace(stopped="it was late")) == ["training stopped early: it was late"]


def test_a_refusal_names_the_end_of_training_before_the_vetoes_before_nothing():
    assert refusal("it was late", (1, 2)) == "training stopped because it was late"
    assert refusal("", (1, 2)).startswith("2 steps had a lower held-out loss but were worse calibrated")
    assert refusal("", ()) == ""


def test_warnings_about_code_underneath_are_kept_from_the_user():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for kind in (DeprecationWarning, FutureWarning, ImportWarning, UserWarning, RuntimeWarning):
            warnings.warn(f"a {kind.__name__}" + "!" * 300, kind, stacklevel=1)
    kept = user_warnings(caught)
    assert [one[:12] for one in kept] == ["a UserWarnin", "a RuntimeWar"]
    assert all(len(one) == 200 for one in kept)


@pytest.mark.parametrize(
    ("terms", "count"), [("tabpfn-2.5-license-v1.0, non-commercial", 1), ("Apache 2.0", 0)]
)
def test_a_licence_that_forbids_production_use_is_said(terms, count):
    unit = trial([*range(3, 13), *range(20, 30)], [30, 31])
    unit.session.info = replace(unit.session.info, license=terms)
    remarks = caveats(unit)
    assert len(remarks) == count
    assert all(terms in remark and "forbids production use" in remark for remark in remarks)
