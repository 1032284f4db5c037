"""Schemas: new rows are converted as the table was."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tttab.data import Origin, load_table, read_frame, schema_from_dict, schema_of, table_from_frame
from tttab.errors import DataError, TttabError


@pytest.fixture(scope="module")
def table():
    raw = pd.DataFrame(
        {
            "n": [1.5, None, 3.0, 4.0],
            "code": ["007", "b", None, "b"],
            "on": [True, False, True, True],
            "day": pd.to_datetime(["2020-01-01", None, "2021-01-01", "2022-01-01"]),
            "y": ["u", "v", "u", "v"],
        }
    )
    return table_from_frame(raw, Origin("t", "file"))


def test_round_trip_through_json(table):
    schema = schema_of(table)
    assert schema_from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    assert [column.kind for column in schema.columns] == ["number", "level", "boolean", "date"]


def test_the_tables_own_rows_come_out_the_same(tmp_path):
    whole = load_table("credit-g")
    schema = schema_of(whole)
    whole.x.assign(extra=1)[::-1].to_csv(tmp_path / "new.csv", index=False)
    again = schema.apply(read_frame(tmp_path / "new.csv", text_columns=schema.text_columns).frame)
    pd.testing.assert_frame_equal(again, whole.x[::-1].reset_index(drop=True))


def test_apply(table):
    new = pd.DataFrame(
        {"day": ["2020-01-02", None], "on": ["TRUE", None], "extra": [1, 2], "n": ["7", np.inf],
         "code": ["new", "007"]}
    )  # fmt: skip
    x = schema_of(table).apply(new)
    assert list(x.columns) == ["n", "code", "on", "day"]
    assert x["n"][0] == 7.0 and np.isnan(x["n"][1])
    assert list(x["code"].cat.categories) == ["007", "b", "new"] and x["code"][0] == "new"
    assert x["on"][0] == "True" and pd.isna(x["on"][1])
    assert x["day"][0] == pytest.approx(18263.0) and np.isnan(x["day"][1])
    read = schema_of(table).read(new)
    assert read.extra == ("extra",) and read.unseen == {"code": 1}
    assert read.remarks == ("column 'code': 1 cell holds an unknown text, which counts as missing",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": ["n", "on"]}, "the new rows lack 2 of 4 columns: n, on"),
        ({"n": ["one", "2"]}, "column 'n' holds 'one', which is not a number"),
        ({"day": ["2020-01-02", "soon"]}, "column 'day' holds 'soon', which is not a date"),
        ({"day": [1.0, 2.0]}, "column 'day' holds numbers where the table had dates"),
    ],
)
def test_rows_that_do_not_fit(table, change, message):
    new = pd.DataFrame({"n": [1, 2], "code": ["b", "b"], "on": [True, False], "day": ["2020-01-02"] * 2})
    new = new.drop(columns=change.pop("drop", [])).assign(**change)
    with pytest.raises(DataError) as caught:
        schema_of(table).apply(new)
    assert message in caught.value.message and caught.value.hint


def test_two_columns_of_one_name(table):
    new = pd.DataFrame([[1, "b", True, "2020-01-01", 2]], columns=["n", "code", "on", "day", "n"])
    with pytest.raises(DataError, match="two columns named 'n'"):
        schema_of(table).apply(new)


def test_labels(table):
    schema = schema_of(table)
    assert schema.labels(pd.Series(["v", "u"])).tolist() == [1, 0]
    with pytest.raises(DataError, match="'w' is none of the table's classes"):
        schema.labels(pd.Series(["v", "w"]))
    with pytest.raises(DataError, match="1 rows have no value"):
        schema.labels(pd.Series(["v", None]))
    numbers = table_from_frame(
        pd.DataFrame({"x": [1, 2], "y": [0.5, 1.5]}), Origin("t", "file", task="regression")
    )
    assert schema_of(numbers).labels(pd.Series([1, 2])).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("columns"),
        lambda d: d.update(task="ranking"),
        lambda d: d.update(target=3),
        lambda d: d.update(classes=[1, 2]),
        lambda d: d.update(columns=[{"name": "n", "kind": "pickle"}]),
        lambda d: d.update(columns=[{"name": 1, "kind": "number"}]),
        lambda d: d.update(columns=["n"]),
        lambda d: d.update(columns=[{"name": "n", "kind": "category", "levels": "ab"}]),
    ],
)
def test_damaged_schemas_are_one_line(table, damage):
    data = json.loads(json.dumps(schema_of(table).to_dict()))
    damage(data)
    with pytest.raises(DataError, match="no schema of a table"):
        schema_from_dict(data)


def test_long_names_are_cut_in_messages_and_whole_in_commands():
    name = "a question " * 100
    frame = pd.DataFrame({name: ["1", "x"], "other": [1, 2], "y": ["u", "v"]})
    schema = schema_of(table_from_frame(frame, Origin("t", "file")))
    raised = []
    for fails in (
        lambda: schema.read(frame[["other"]]),
        lambda: schema.read(pd.DataFrame([[1, 2, 3]], columns=[name, name, "other"])),
        lambda: table_from_frame(frame, Origin("t", "file", target=name[:-1])),
        lambda: table_from_frame(frame[[name]], Origin("t", "file", target=name)),
        lambda: table_from_frame(frame, Origin("t", "file", columns={name: "date"})),
        lambda: table_from_frame(frame, Origin("t", "file", columns={name: "no such kind"})),
        lambda: table_from_frame(frame, Origin("t", "file", columns={name[1:]: "level"})),
        lambda: table_from_frame(frame.assign(**{name: [[1], [2]]}), Origin("t", "file")),
    ):
        with pytest.raises(TttabError) as caught:
            fails()
        assert len(caught.value.message) < 300, caught.value.message
        raised.append(caught.value)
    assert raised[0].message.startswith("the new rows lack 1 of 2 columns: a question a")
    assert f"--column '{name}'=level" in raised[4].hint and f"--column '{name}'=number" in raised[5].hint
