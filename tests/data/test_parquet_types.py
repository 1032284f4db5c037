"""What each type of a Parquet column arrives as: `columns` decides by these dtypes."""

from __future__ import annotations

import datetime
import decimal

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from tttab.data import load_table, read_frame
from tttab.data.chunks import read_pieces
from tttab.errors import DataError

DAYS = [datetime.date(2020, 1, 2), None, datetime.date(1, 1, 1), datetime.date(9999, 12, 31)]
TIMES = [datetime.time(1, 2), None, datetime.time(3), datetime.time(1, 2)]
TEXTS = ["a", "b", None, "a"]
NUMBERS = [decimal.Decimal("1.50"), None, decimal.Decimal("-2.25"), decimal.Decimal("1.50")]
ARRAYS = {
    # name: (array, dtype of the column, type of its first cell)
    "string": (pa.array(TEXTS), "str", str),
    "large_string": (pa.array(TEXTS, pa.large_string()), "str", str),
    "string_view": (pa.array(TEXTS, pa.string_view()), "str", str),
    "binary": (pa.array([b"a", b"b", None, b"a"]), "object", bytes),
    "fixed_size_binary": (pa.array([b"aa", b"bb", None, b"aa"], pa.binary(2)), "object", bytes),
    "dictionary": (pa.array(TEXTS).dictionary_encode(), "category", str),
    "decimal128": (pa.array(NUMBERS, pa.decimal128(10, 2)), "object", decimal.Decimal),
    "date32": (pa.array(DAYS), "object", datetime.date),
    "time64": (pa.array(TIMES, pa.time64("us")), "object", datetime.time),
    "timestamp": (pa.array([1, None, 3, 1], pa.timestamp("us")), "datetime64[us]", pd.Timestamp),
    "timestamp_ns": (pa.array([1, None, 3, 1], pa.timestamp("ns")), "datetime64[ns]", pd.Timestamp),
    "timestamp_zone": (
        pa.array([1, None, 3, 1], pa.timestamp("us", tz="Europe/Paris")),
        "datetime64[us, Europe/Paris]",
        pd.Timestamp,
    ),
    "duration": (pa.array([1, None, 3, 1], pa.duration("us")), "timedelta64[us]", pd.Timedelta),
    "bool": (pa.array([True, False, True, True]), "bool", None),
    "bool_gaps": (pa.array([True, None, False, True]), "object", bool),
    "int64": (pa.array([1, 2, 3, 4]), "int64", None),
    "int64_gaps": (pa.array([1, None, 3, 4]), "float64", None),
    "uint8": (pa.array([1, 2, 3, 4], pa.uint8()), "uint8", None),
    "float16": (pa.array([1.0, None, 2.5, 1.0], pa.float16()), "float16", None),
    "null": (pa.nulls(4), "object", None),
}


def written(path, array):
    parquet.write_table(pa.table({"x": array, "y": ["u", "v", "u", "v"]}), path)
    return path


@pytest.mark.parametrize("name", ARRAYS)
def test_arrivals(tmp_path, name):
    array, dtype, kind = ARRAYS[name]
    path = written(tmp_path / "t.parquet", array)
    values = read_frame(path).frame["x"]
    if dtype == "str" and pd.api.types.is_object_dtype(pd.Series(["a"]).dtype):
        dtype = "object"  # pandas before version 3
    assert str(values.dtype) == dtype
    assert kind is None or type(values.iloc[0]) is kind
    expected = array.to_pandas()
    pd.testing.assert_series_equal(values, expected, check_names=False, check_dtype=False)
    pieces = [piece.frame["x"] for piece in read_pieces(path, 3)]
    assert [len(piece) for piece in pieces] == [3, 1]
    assert pieces[0].tolist()[0] == values.tolist()[0] or name == "null"
    assert len(load_table(str(path), target="y")) == 4


@pytest.mark.parametrize(
    "array",
    [
        pa.array([[1], [2], None, [3]]),
        pa.array([{"p": 1}, {"p": 2}, None, {"p": 3}]),
        pa.array([[("a", 1)], [], None, [("b", 2)]], pa.map_(pa.string(), pa.int64())),
        pa.array([["x"], ["y"], None, ["z"]]),
    ],
    ids=["list", "struct", "map", "list of texts"],
)
def test_nested_columns_are_refused_by_name_and_only_where_they_are_features(tmp_path, array):
    path = written(tmp_path / "t.parquet", array)
    assert list(read_frame(path).frame.columns) == ["x", "y"], "new rows may have further columns"
    with pytest.raises(DataError, match="column 'x' holds"):
        load_table(str(path), target="y")


def test_nullable_and_other_types_of_pandas_come_back(tmp_path):
    frame = pd.DataFrame(
        {
            "Int64": pd.array([1, None, 2**60 + 1], dtype="Int64"),
            "boolean": pd.array([True, None, False], dtype="boolean"),
            "string": pd.array(["a", None, "b"], dtype="string"),
            "ordered": pd.Categorical(["lo", "hi", "lo"], categories=["lo", "hi"], ordered=True),
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(
        read_frame(tmp_path / "t.parquet").frame, pd.read_parquet(tmp_path / "t.parquet")
    )
    found = read_frame(tmp_path / "t.parquet").frame
    assert [str(dtype) for dtype in found.dtypes] == ["Int64", "boolean", "string", "category"]
    assert found["Int64"][2] == 2**60 + 1


def test_names_with_points_and_texts_in_many_row_groups(tmp_path):
    frame = pd.DataFrame({"a.b": [f"text {n % 7}" for n in range(500)], "list.item": ["x"] * 500})
    frame.to_parquet(tmp_path / "t.parquet", row_group_size=90)
    pd.testing.assert_frame_equal(read_frame(tmp_path / "t.parquet").frame, frame)
    pieces = [piece.frame for piece in read_pieces(tmp_path / "t.parquet", 120)]
    pd.testing.assert_frame_equal(pd.concat(pieces, ignore_index=True), frame)
