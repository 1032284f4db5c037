"""Hostile input for the readers: any file is a table, or one line with a hint. More: tools/fuzz.py."""

from __future__ import annotations

import importlib.util
import string
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tttab.data import Origin, load_table, read_frame, schema_of, table_from_frame
from tttab.data.columns import label_text, sort_labels
from tttab.errors import DataError, TttabError

FUZZ = Path(__file__).parents[2] / "tools" / "fuzz.py"
few = settings(max_examples=60, deadline=5000, derandomize=True,
               suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
cells = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.datetimes(), st.dates(),
    st.sampled_from(["=1+1", "2020-01-31", "TRUE", "1.0", "", "NA", "\x00", "\ud800", "%d"]),
)  # fmt: skip


def tidy(error):
    assert error.message and "\n" not in error.message and error.hint


def load_or_refuse(path):
    """Load, or be refused in one line; a table that loads must hold to the conventions."""
    try:
        table = load_table(str(path))
    except TttabError as error:
        return tidy(error)
    assert len(table.x) == len(table.y) >= 2 and table.x.shape[1] >= 1
    for name in table.x:
        values = table.x[name]
        assert values.dtype == np.float64 or all(isinstance(level, str) for level in values.cat.categories)
        assert values.dtype != np.float64 or not np.isinf(values).any()
    if table.task == "classification":
        assert set(table.y) == set(range(len(table.classes))) and len(table.classes) >= 2
    else:
        assert np.isfinite(table.y).all()
    return table


@few
@given(st.lists(st.lists(cells, min_size=3, max_size=3), min_size=0, max_size=12))
def test_any_cells_make_a_table_or_one_line(rows):
    frame = pd.DataFrame(rows, columns=["a", "b", "y"], dtype=object)
    try:
        table = table_from_frame(frame, Origin("t", "file"))
    except TttabError as error:
        return tidy(error)
    again = table_from_frame(frame.copy(), Origin("u", "OpenML"))
    assert again.fingerprint == table.fingerprint
    if len(table) == len(frame):
        pd.testing.assert_frame_equal(schema_of(table).apply(frame), table.x)


def texts(separator, most, *pieces):
    """Return a strategy of texts made of pieces that mean something to a format."""
    return st.lists(st.sampled_from(pieces), max_size=most).map(separator.join)


@few
@given(texts("", 60, "a", "y", ",", ";", '"', "\n", "\r", "1", "-2.5", "=x", " ", "\x00", "é", "u"))
def test_csv(tmp_path, text):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    load_or_refuse(tmp_path / "t.csv")


@few
@given(st.binary(max_size=200), st.sampled_from([".csv", ".tsv", ".arff", ".parquet", ".pq", ".txt"]))
def test_noise_of_any_ending(tmp_path, data, suffix):
    (tmp_path / f"t{suffix}").write_bytes(data)
    load_or_refuse(tmp_path / f"t{suffix}")


@few
@given(st.lists(st.text(string.digits + "-.eE+ ab", max_size=6)))
def test_labels_sort_the_same_whatever_their_order(labels):
    assert sort_labels(labels) == sort_labels(labels[::-1])
    assert all(label_text(label_text(label)) == label_text(label) for label in labels)


@few
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=20))
def test_numbers_come_back_from_csv_to_the_last_bit(tmp_path, values):
    frame = pd.DataFrame({"a": values, "y": [str(n % 2) for n in range(len(values))]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    direct = table_from_frame(frame, Origin("t", "file"))
    assert load_table(str(tmp_path / "t.csv")).fingerprint == direct.fingerprint
    assert read_frame(tmp_path / "t.csv").frame["a"].tolist() == [value + 0.0 for value in values]


@pytest.mark.parametrize("name", ["csv", "parquet", "arff", "datasets.yaml", "schema"])
def test_the_first_inputs_of_the_fuzzer(tmp_path, monkeypatch, name):
    spec = importlib.util.spec_from_file_location("fuzz", FUZZ)
    fuzz = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fuzz", fuzz)
    spec.loader.exec_module(fuzz)
    target = fuzz.TARGETS[name]
    path = tmp_path / f"input{target.suffix}"
    outcomes = set()
    for number in range(60):
        path.write_bytes(fuzz.make_input(target, name, 1, number))
        outcome, detail = fuzz.run_input(target, path)
        assert outcome in ("accepted", "refused"), (number, detail)
        outcomes.add(outcome)
    assert outcomes == {"accepted", "refused"}


@few
@given(
    st.text(max_size=20)
    | st.sampled_from(["9" * 5000, "x" * 5000 + "/t.csv", "~nobody/t.csv", "\x00.csv", "."])
)
def test_any_words_name_a_table_or_are_refused(monkeypatch, text):
    monkeypatch.setenv("TTTAB_OFFLINE", "1")
    try:
        load_table(text)
    except DataError as error:
        assert error.message and error.hint
