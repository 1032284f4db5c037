"""Equal values give equal numbers from any dtype and spelling; another kind is refused or counted."""

from __future__ import annotations

import decimal
import time
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tttab.core import Column
from tttab.data import Origin, cells, schema_of, table_from_frame
from tttab.data.cells import Cells
from tttab.data.columns import convert
from tttab.data.frames import as_frame, as_series
from tttab.data.guess import declared_column, guess_column
from tttab.data.spelling import (
    DATE_FORMATS,
    _is_shaped,
    likely_date_formats,
    number_format,
    number_formats,
)
from tttab.errors import DataError, RequestError

NUMBERS = [3.0, -1.0, None, 250.0, 0.0]
TIMES = [
    datetime(2024, 3, 11, 6),
    datetime(1969, 12, 31),
    None,
    datetime(2031, 1, 2),
]
SPANS = [
    timedelta(days=1, hours=6),
    timedelta(days=-2),
    None,
    timedelta(seconds=30),
]
TRUTHS = [True, False, None, True]
LEVELS = ["1", "2", None, "b", "1"]


def arrow(values, kind):
    return pd.Series(pd.arrays.ArrowExtensionArray(pa.array(values, type=kind)))


def periods(values):
    return pd.Series(pd.PeriodIndex([pd.NaT if v is None else pd.Period(v, "h") for v in values]))


SAME = {
    "number": {
        "float64": pd.Series(NUMBERS, dtype="float64"),
        "float32": pd.Series(NUMBERS, dtype="float32"),
        "Int16": pd.Series(NUMBERS, dtype="Int16"),
        "Float64": pd.Series(NUMBERS, dtype="Float64"),
        "objects": pd.Series([3, -1.0, None, np.int16(250), np.float32(0)], dtype=object),
        "decimals": pd.Series([None if v is None else decimal.Decimal(v) for v in NUMBERS], dtype=object),
        "arrow ints": arrow([3, -1, None, 250, 0], pa.int64()),
        "arrow decimals": arrow([decimal.Decimal(3), decimal.Decimal(-1), None, decimal.Decimal(250),
                                 decimal.Decimal(0)], pa.decimal128(9, 2)),
        "categories": pd.Series(pd.Categorical(NUMBERS)),
        "sparse": pd.Series(pd.arrays.SparseArray([3.0, -1.0, np.nan, 250.0, 0.0])),
        "texts": pd.Series(["3", "-1.0", None, "2.5e2", "0"]),
        "numpy texts": pd.Series([*map(np.str_, ("3", "-1")), None, *map(np.str_, ("250", "0"))]),
        "texts with marks": pd.Series(["3.00", "-1", "n/a", "250 ", "0"]),
    },
    "date": {
        "datetime64[s]": pd.Series(TIMES).astype("datetime64[s]"),
        "datetime64[ms]": pd.Series(TIMES).astype("datetime64[ms]"),
        "datetime64[us]": pd.Series(TIMES).astype("datetime64[us]"),
        "datetime64[ns]": pd.Series(TIMES).astype("datetime64[ns]"),
        "zoned": pd.Series(TIMES).astype("datetime64[us]").dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
        "objects": pd.Series(TIMES, dtype=object),
        "arrow s": arrow(TIMES, pa.timestamp("s")),
        "arrow ns zoned": arrow(TIMES, pa.timestamp("ns", "Europe/Paris")),
        "periods": periods(TIMES),
        "texts": pd.Series(["2024-03-11T06:00:00", "1969-12-31", None, "2031-01-02 00:00"]),
    },
    "duration": {
        "timedelta64[s]": pd.Series(SPANS).astype("timedelta64[s]"),
        "timedelta64[ns]": pd.Series(SPANS).astype("timedelta64[ns]"),
        "objects": pd.Series(SPANS, dtype=object),
        "arrow ns": arrow(SPANS, pa.duration("ns")),
        "arrow ms": arrow(SPANS, pa.duration("ms")),
        "texts": pd.Series(["1 days 06:00:00", "-2 days", None, "0 days 00:00:30"]),
    },
    "boolean": {
        "objects": pd.Series(TRUTHS, dtype=object),
        "boolean": pd.Series(TRUTHS, dtype="boolean"),
        "arrow": arrow(TRUTHS, pa.bool_()),
        "floats": pd.Series([1.0, 0.0, np.nan, 1.0]),
        "Int64": pd.Series([1, 0, None, 1], dtype="Int64"),
        "texts": pd.Series(["TRUE", "false", None, "True"]),
        "digits": pd.Series(["1", "0", None, "1.0"]),
        "words": pd.Series(["yes", "No", None, "Y"]),
        "categories": pd.Series(pd.Categorical([True, False, None, True])),
    },
    "level": {
        "texts": pd.Series(LEVELS),
        "bytes": pd.Series([None if v is None else v.encode() for v in LEVELS], dtype=object),
        "mixed objects": pd.Series([1, 2.0, None, "b", True], dtype=object),
        "written otherwise": pd.Series(["1.0", "2.00", None, "b", "+1"]),
        "categories": pd.Series(pd.Categorical(LEVELS)),
        "arrow": arrow(LEVELS, pa.large_string()),
        "arrow dictionary": pd.Series(pd.arrays.ArrowExtensionArray(pa.array(LEVELS).dictionary_encode())),
    },
}  # fmt: skip
FITTED = [(kind, name) for kind, forms in SAME.items() for name in forms]
ODD_AT_FIT = {
    ("number", "categories"): "level",  # a declared category stays one
    ("boolean", "floats"): "number",
    ("boolean", "Int64"): "number",
    ("boolean", "digits"): "number",
    ("boolean", "words"): "level",  # two words for one truth
}


def fitted(values):
    """Return a schema of one feature column, fitted on `values`."""
    y = ["u", "v"] * len(values)
    frame = pd.DataFrame({"c": values, "y": y[: len(values)]})
    return schema_of(table_from_frame(frame, Origin("t", "file", task="classification")))


@pytest.mark.parametrize(("kind", "name"), FITTED)
def test_a_column_is_of_the_kind_of_its_cells_whatever_holds_them(kind, name):
    assert fitted(SAME[kind][name]).columns[0].kind == ODD_AT_FIT.get((kind, name), kind)


@pytest.mark.parametrize(("kind", "name"), [pair for pair in FITTED if pair not in ODD_AT_FIT])
def test_every_pair_of_dtypes_with_equal_values_gives_equal_numbers(kind, name):
    schema = fitted(SAME[kind][name])
    own = schema.read(pd.DataFrame({"c": SAME[kind][name]}))
    for other, values in SAME[kind].items():
        read = schema.read(pd.DataFrame({"c": values}))
        assert not read.unseen, other
        pd.testing.assert_frame_equal(read.x, own.x, obj=other)


def test_the_values_are_the_right_ones():
    days = convert(SAME["date"]["arrow s"], Column("c", "date"))
    assert days[[0, 1, 3]].tolist() == [19793.25, -1.0, 22281.0] and np.isnan(days[2])
    spans = convert(SAME["duration"]["arrow ns"], Column("c", "duration"))
    assert spans[[0, 1]].tolist() == [1.25, -2.0] and spans[3] == pytest.approx(30 / 86400)
    assert convert(pd.Series([True, False]), Column("c", "number")).tolist() == [1.0, 0.0]
    yes = Column("c", "boolean", ("no", "yes"))
    assert list(convert(pd.Series([1, 0, "t", "F", "maybe"], dtype=object), yes)) == [
        "yes", "no", "yes", "no", "maybe",
    ]  # fmt: skip


REFUSED = [(kind, other) for kind in ("number", "date", "duration") for other in SAME if other != kind]


@pytest.mark.parametrize(("kind", "other"), REFUSED)
def test_another_kind_is_refused_by_the_columns_name(kind, other):
    schema = fitted(next(iter(SAME[kind].values())))
    for name, values in SAME[other].items():
        read_as_numbers = kind == "number" and other in ("boolean", "level")
        if read_as_numbers and name not in ("words", "texts"):
            continue  # truth values and digits are numbers
        with pytest.raises(DataError, match="column 'c' holds") as caught:
            schema.apply(pd.DataFrame({"c": values}))
        assert caught.value.hint, name


@pytest.mark.parametrize("kind", ["level", "boolean"])
@pytest.mark.parametrize("other", ["date", "duration"])
def test_dates_among_texts_are_counted_cell_by_cell(kind, other):
    schema = fitted(next(iter(SAME[kind].values())))
    for values in SAME[other].values():
        assert schema.read(pd.DataFrame({"c": values})).unseen == {"c": 3}


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1 + 2j, 3j, 0j, 1j]),
        pd.Series([1 + 2j, None], dtype=object),
        pd.Series([np.complex64(1), 2.0], dtype=object),
        pd.Series([[1], [2]], dtype=object),
        arrow([{"a": 1}, None], pa.struct([("a", pa.int64())])),
        arrow([[1], None], pa.list_(pa.int64())),
    ],
    ids=["complex", "complex objects", "numpy complex", "lists", "structs", "arrow lists"],
)
def test_what_is_no_cell_is_refused_at_fit_and_later(values):
    with pytest.raises(DataError, match="column 'c' holds"):
        fitted(values)
    for kind in SAME:
        with pytest.raises(DataError, match="column 'c' holds"):
            fitted(next(iter(SAME[kind].values()))).apply(pd.DataFrame({"c": values}))


def test_an_empty_column_is_served_whatever_comes_later():
    for empty in (pd.Series([None] * 4), pd.Series([np.nan] * 4), pd.Series(pd.Categorical([None] * 4))):
        schema = fitted(empty)
        assert schema.columns[0].kind == "empty"
        for forms in SAME.values():
            for values in forms.values():
                x = schema.apply(pd.DataFrame({"c": values}))
                assert x["c"].dtype == np.float64 and x["c"].isna().all()


def test_levels_are_told_apart_by_value_but_codes_keep_their_zeros():
    schema = fitted(pd.Series(["007", "7b", "1.0", "x"]))
    new = pd.Series([7, 1, "007", "1", "x", "8"], dtype=object)
    read = schema.read(pd.DataFrame({"c": new}))
    assert list(read.x["c"]) == ["007", "1.0", "007", "1.0", "x", "8"] and read.unseen == {"c": 1}
    both = fitted(pd.Series(["007", "7", "x"]))
    assert list(both.apply(pd.DataFrame({"c": [7, "007"]}))["c"]) == ["7", "007"]
    assert fitted(pd.Series(["1", "1.0", "x"])).columns[0].levels == ("1", "x")
    big = fitted(pd.Series([str(2**60), str(2**60 + 1), "x"]))
    assert list(big.apply(pd.DataFrame({"c": pd.Series([2**60 + 1], dtype="Int64")}))["c"]) == [
        str(2**60 + 1)
    ]


def guessed(texts, mark=""):
    return guess_column(pd.Series(texts, name="c"), mark)


@pytest.mark.parametrize("marker", ["?", "-", " ", "n/a", "NULL", ".", "None"])
def test_numbers_but_for_a_marker_are_numbers(marker):
    texts = [f"{n / 7:.3f}" for n in range(60)] + [marker]
    guess = guessed(texts)
    assert guess.column.kind == "number" and guess.dropped == {marker: 1}
    values = convert(pd.Series(texts), guess.column)
    assert np.isnan(values[-1]) and values[7] == 1.0 and not np.isnan(values[:-1]).any()


def test_one_odd_text_among_many_numbers_is_left_out_and_kept_in_mind():
    texts = [str(n) for n in range(100)] + ["error"]
    guess = guessed(texts)
    assert (guess.column.kind, guess.column.missing) == ("number", ("error",))
    assert np.isnan(convert(pd.Series(["error", "5"]), guess.column)).tolist() == [True, False]
    with pytest.raises(DataError, match="'broken', which is not a number"):
        convert(pd.Series(["broken"]), guess.column)
    assert guessed([*"123456789", "X"]).column.kind == "level"
    assert guessed([str(n % 22) for n in range(100)] + ["X"] * 5).column.kind == "level"


@pytest.mark.parametrize(
    ("texts", "mark", "form", "values"),
    [
        (["0,5", "-1,25", "3"], "", "1234,5", [0.5, -1.25, 3.0]),
        (["1.234,5", "7,0"], "", "1.234,5", [1234.5, 7.0]),
        (["1,234.5", "7"], "", "1,234.5", [1234.5, 7.0]),
        (["1,234", "12,345"], "", "1,234.5", [1234.0, 12345.0]),
        (["1,234", "12,345"], ",", "1234,5", [1.234, 12.345]),
        (["1.234", "12.345"], ",", "1.234,5", [1234.0, 12345.0]),
        (["1.25", "12.345"], ",", "1234.5", [1.25, 12.345]),
        (["1.234", "12.345"], ".", "1234.5", [1.234, 12.345]),
        (["1,234", "12,345"], ".", "1,234.5", [1234.0, 12345.0]),
        (["1 234,5", "1\u00a0000", "2\u202f000"], "", "1 234,5", [1234.5, 1000.0, 2000.0]),
        (["1'234.5", "1\u2019000"], "", "1'234.5", [1234.5, 1000.0]),
        (["5%", "12.5 %", "0"], "", "1234.5%", [0.05, 0.125, 0.0]),
        (["5,5%", "7%"], "", "1234,5%", [0.055, 0.07]),
        (["$1,200.00", "-$3.50", "$ 7"], "", "1,234.5", [1200.0, -3.5, 7.0]),
        (["12 €", "1,5€"], "", "1234,5", [12.0, 1.5]),
        (["\u22125", "+3"], "", "", [-5.0, 3.0]),
    ],
)
def test_spellings_of_numbers(texts, mark, form, values):
    guess = guessed(texts, mark)
    assert (guess.column.kind, guess.column.format) == ("number", form)
    assert convert(pd.Series(texts), guess.column, mark) == pytest.approx(values, abs=1e-15)


@pytest.mark.parametrize("texts", [["007", "010"], ["1_000", "2_000"], ["0x1", "2"], ["1e", "2"], ["1.2.3"],
                                   ["12,34,5", "1"], ["(5)", "6"], ["\u0663"], ["1 2", "3 4"]])  # fmt: skip
def test_what_is_no_number_stays_a_text(texts):
    assert guessed(texts).column.kind == "level"


@given(st.lists(st.floats(-1e15, 1e15, allow_nan=False), min_size=1, max_size=8), st.sampled_from(
    [form for form in number_formats("", percent=False) if form]))  # fmt: skip
def test_a_number_written_in_a_format_is_read_back_exactly(values, form):
    mark, group = number_format(form).decimal, number_format(form).group
    swap = str.maketrans({",": group or None, ".": mark})
    texts = [f"{value:,.6f}".translate(swap) for value in values]
    read = convert(pd.Series(texts), Column("c", "number", format=form))
    assert read.tolist() == [float(f"{value:.6f}") + 0.0 for value in values]


def test_new_rows_may_be_written_otherwise_than_the_table():
    plain, comma = Column("c", "number"), Column("c", "number", format="1.234,5")
    assert convert(pd.Series(["0,5", "1,25"]), plain).tolist() == [0.5, 1.25]
    assert convert(pd.Series(["1.234", "5"]), plain).tolist() == [1.234, 5.0]
    assert convert(pd.Series(["1.234", "5"]), plain, ",").tolist() == [1234.0, 5.0]
    assert convert(pd.Series(["0.5", "1.25"]), comma).tolist() == [0.5, 1.25]
    assert convert(pd.Series(["1.234", "5"]), comma).tolist() == [1234.0, 5.0]
    assert convert(pd.Series([1.5, 2.0]), comma).tolist() == [1.5, 2.0]
    with pytest.raises(DataError, match="'5%', which is not a number"):
        convert(pd.Series(["5%"]), plain)


@pytest.mark.parametrize(
    ("texts", "cell", "value"),
    [
        (["1.25", "12.345"], "12.345", 12.345),
        (["1,234.5", "7"], "1,234", 1234.0),
        (["1,5", "7"], "1.234", 1234.0),
        (["1.234", "7.000"], "1.234", 1234.0),
    ],
)
def test_a_cell_is_the_same_number_whatever_stands_beside_it(texts, cell, value):
    column = guessed(texts, ",").column
    assert convert(pd.Series([cell]), column, ",").tolist() == [value]
    assert convert(pd.Series([*texts, cell]), column, ",")[-1] == value


def test_a_declared_format_goes_before_the_files_decimal_mark():
    for text, cell, value in (("number:1234.5", "1.234", 1.234), ("number:1,234.5", "1,234", 1234.0)):
        assert convert(pd.Series([cell]), declared_column("c", text), ",").tolist() == [value]


@pytest.mark.parametrize(
    ("cells", "levels"),
    [
        (["00", "0", "false", "-0", "0e5", "x"], ["00", "0", "0", "0", "0", "x"]),
        (["1e" + "9" * 20, "1e" + "9" * 18, "x"], ["1e" + "9" * 20, "1e" + "9" * 18, "x"]),
        ([date(2024, 1, 31), datetime(2024, 1, 31, 12, 30), 3.0, "x"],
         ["2024-01-31", "2024-01-31 12:30:00", "3", "x"]),
        ([pd.Timestamp("2024-01-31 01:00", tz="Europe/Berlin"), np.datetime64("2024-01-31"),
          pd.Period("2024-02"), "x"], ["2024-01-31", "2024-01-31", "2024-02-01", "x"]),
    ],
)  # fmt: skip
def test_a_level_is_found_again_whatever_stands_beside_it(cells, levels):
    frame = pd.DataFrame({"c": pd.Series(cells, dtype=object), "y": (["u", "v"] * 9)[: len(cells)]})
    table = table_from_frame(frame, Origin("t", "file", columns={"c": "level"}))
    assert list(table.x["c"]) == levels
    for rows in (slice(None), *(slice(n, n + 1) for n in range(len(cells)))):
        read = schema_of(table).read(frame[rows])
        assert list(read.x["c"]) == levels[rows] and not read.unseen


def test_a_declared_truth_has_one_level_whatever_its_words():
    words = ["true", "FALSE", "yes", "0", "1.0", "off", "maybe"]
    frame = pd.DataFrame({"c": words, "y": list("uvuvuvu")})
    table = table_from_frame(frame, Origin("t", "file", columns={"c": "boolean"}))
    assert list(table.x["c"]) == ["1.0", "0", "1.0", "0", "1.0", "0", "maybe"]
    read = schema_of(table).read(pd.DataFrame({"c": ["t", "no", "maybe", "perhaps"]}))
    assert list(read.x["c"]) == ["1.0", "0", "maybe", "perhaps"] and read.unseen == {"c": 1}


def test_formats_of_dates_are_tried_where_their_shape_is_there():
    assert likely_date_formats([f"{n}.25" for n in range(50)]) == []
    assert likely_date_formats(["31.01.2024", "1.2.2024", "?"]) == ["%d.%m.%Y"]
    assert likely_date_formats(["Jan 31, 2024 7:05 PM"]) == ["%b %d, %Y %I:%M %p", "%B %d, %Y %I:%M %p"]
    moment = pd.Timestamp("2031-05-04 07:09:06.25")
    for form in DATE_FORMATS:
        for text in (
            moment.strftime(form),
            moment.strftime(form).replace("0", ""),
            moment.strftime(form).lower(),
        ):
            fitting = pd.to_datetime(pd.Series([text]), format=form, errors="coerce").notna()[0]
            assert _is_shaped(form)(text) or not fitting, (form, text)


@pytest.mark.parametrize(
    ("texts", "form", "other", "days"),
    [
        (["31.01.2024", "01.02.2024"], "%d.%m.%Y", "", [19753.0, 19754.0]),
        (["1/31/2024", "2/1/2024"], "%m/%d/%Y", "", [19753.0, 19754.0]),
        (["31/1/2024", "1/2/2024"], "%d/%m/%Y", "", [19753.0, 19754.0]),
        (["1/2/2024", "3/4/2024"], "%m/%d/%Y", "%d/%m/%Y", [19724.0, 19786.0]),
        (["2024/01/31", "-", "2024/02/01"], "%Y/%m/%d", "", [19753.0, np.nan, 19754.0]),
        (["31.01.2024 06:00", "01.02.2024 18:00"], "%d.%m.%Y %H:%M", "", [19753.25, 19754.75]),
        (["31 Jan 2024", "01 Feb 2024"], "%d %b %Y", "", [19753.0, 19754.0]),
        (["2024-01-31", "?"], "", "", [19753.0, np.nan]),
    ],
)
def test_spellings_of_dates(texts, form, other, days):
    guess = guessed(texts)
    assert (guess.column.kind, guess.column.format, guess.other) == ("date", form, other)
    assert np.array_equal(convert(pd.Series(texts), guess.column), days, equal_nan=True)
    assert convert(pd.Series(["2024-01-31"]), guess.column).tolist() == [19753.0]


def test_what_was_decided_is_said_and_can_be_declared():
    frame = pd.DataFrame({
        "price": [f"{n},5" for n in range(30)], "zip": ["12345", "54321", "99999"] * 10,
        "when": ["01/02/2024", "03/04/2024"] * 15, "mark": [*map(str, range(29)), "?"], "y": [0, 1] * 15,
    })  # fmt: skip
    table = table_from_frame(frame, Origin("t", "file"))
    assert [column.kind for column in table.columns] == ["number", "number", "date", "number"]
    for note in (
        "texts were read as numbers written like 1234,5 (--column NAME=level keeps texts): price",
        "texts were read as numbers (--column NAME=level keeps texts): zip, mark",
        "column 'mark': 1 cell is no number, missing from now on: '?'",
        "column 'when': its dates could also be read as %d/%m/%Y; --column when=date:%d/%m/%Y does so",
    ):
        assert note in table.notes
    declared = {"zip": "level", "when": "date:%d/%m/%Y", "mark": "level", "price": "number:1.234,5"}
    table = table_from_frame(frame, Origin("t", "file", columns=declared))
    assert [column.kind for column in table.columns] == ["number", "level", "date", "level"]
    assert table.x["when"][0] == (date(2024, 2, 1) - date(1970, 1, 1)).days
    assert table.x["price"][2] == 2.5 and "?" in table.columns[3].levels


def test_a_column_can_be_left_out_but_not_the_target():
    frame = pd.DataFrame({"id": [f"c{n}" for n in range(30)], "n": range(30), "y": [0, 1, 1] * 10})
    told = table_from_frame(frame, Origin("t", "file")).notes
    assert any("(--column NAME=ignore leaves it out): id" in note for note in told)
    table = table_from_frame(frame, Origin("t", "file", columns={"id": "ignore"}))
    assert list(table.x) == ["n"] and not any("id" in note.split() for note in table.notes)
    with pytest.raises(RequestError, match="'y' cannot be declared as 'ignore'"):
        table_from_frame(frame, Origin("t", "file", columns={"y": "ignore"}))


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"zap": "level"}, "no column 'zap' to declare; the nearest is 'zip'"),
        ({"zip": "category"}, "the kinds are number, level, date, duration, boolean"),
        ({"zip": "number:12.3"}, "no example of a number"),
        ({"zip": "date:%Q"}, "no format of dates"),
        ({"zip": "date:%H:%M"}, "no format of dates"),
        ({"zip": "level:x"}, "cannot be declared as 'level:x'"),
        ({"name": "number"}, "'name' is declared to hold numbers, but most of its cells are none, 'a' for"),
        ({"name": "date:%d.%m.%Y"}, "'name' is declared to hold dates, but most of its cells are none"),
    ],
)
def test_declarations_that_do_not_fit(declared, message):
    frame = pd.DataFrame({"zip": ["1", "2"], "name": ["a", "b"], "y": [0, 1]})
    with pytest.raises((DataError, RequestError), match=message) as caught:
        table_from_frame(frame, Origin("t", "file", columns=declared))
    assert caught.value.hint
    with pytest.raises(RequestError):
        declared_column("c", "pickle")


def test_targets_of_every_kind():
    def target(values, task=None, **origin):
        frame = pd.DataFrame({"x": range(len(values)), "y": values})
        return table_from_frame(frame, Origin("t", "file", task=task, **origin))

    spans = target(SAME["duration"]["arrow ns"])
    assert spans.task == "regression" and spans.y.tolist() == [1.25, -2.0, pytest.approx(30 / 86400)]
    assert target(SAME["date"]["texts"]).y.tolist() == [19793.25, -1.0, 22281.0]
    comma = target(["1,5", "2,25", "-0,5"])
    assert comma.task == "regression" and comma.y.tolist() == [1.5, 2.25, -0.5]
    assert schema_of(comma).labels(pd.Series(["7,5", "8"])).tolist() == [7.5, 8.0]
    assert schema_of(comma).labels(pd.Series([7.5])).tolist() == [7.5]
    rating = target([1, 2, 3] * 9)
    assert rating.task == "classification"
    assert "so the task is classification (--regression asks for the other)" in rating.notes[-1]
    assert target([1, 2, 3] * 9, "regression").y.tolist() == [1.0, 2.0, 3.0] * 9
    assert target(["1", "0"] * 9, "regression").y.tolist() == [1.0, 0.0] * 9
    assert schema_of(target(["no", "yes"] * 3)).labels(pd.Series([True, False])).tolist() == [1, 0]
    with pytest.raises(DataError, match=r"row 2 holds 1\.79769e\+308 in the target 'y'"):
        target([1.5, 1.7976931348623157e308, 2.25, 0.1])
    with pytest.raises(DataError, match="one class only, 'no'; 2 rows without a target"):
        target(["no", None, "no", None])
    with pytest.raises(DataError, match=r"one class only, '7\.5'") as caught:
        target([7.5] * 5)
    assert caught.value.hint == "--regression"
    assert target([7.5] * 5, "regression").y.tolist() == [7.5] * 5


def test_huge_values_count_as_missing_like_infinite_ones():
    frame = pd.DataFrame({"x": [1.0, -3.4e38, np.inf, 2.0], "y": [0, 1, 0, 1]})
    table = table_from_frame(frame, Origin("t", "file", task="classification"))
    assert table.x["x"].isna().tolist() == [False, True, True, False]
    assert "values beyond 1e+30 count as missing: x" in table.notes
    assert "infinite values count as missing: x" in table.notes
    pd.testing.assert_frame_equal(schema_of(table).apply(frame), table.x)


def test_whole_numbers_beyond_all_floats_are_infinite():
    cells = pd.Series([10**400, -(10**400), 5, None], dtype=object)
    values = convert(cells, guess_column(cells).column)
    assert np.array_equal(values, [np.inf, -np.inf, 5.0, np.nan], equal_nan=True)


def test_long_labels_are_cut_in_messages():
    long = pd.Series(["2020-01-01 " * 100_000] * 2, name="y")
    schema = schema_of(table_from_frame(pd.DataFrame({"x": [1, 2], "y": ["u", "v"]}), Origin("t", "file")))
    for raises in (
        lambda: table_from_frame(pd.DataFrame({"x": [1, 2], "y": long}), Origin("t", "file")),
        lambda: schema.labels(long),
    ):
        with pytest.raises(DataError) as caught:
            raises()
        assert len(caught.value.message) < 200 and "'2020-01-01 2020" in caught.value.message


@pytest.mark.parametrize("text", ["9" * 40_000 + "x", "9" * 1_000_000, "1," * 100_000, "2020-01-01" * 20_000,
                                  " " * 200_000 + "1", "-" * 200_000, "1 days " * 50_000])  # fmt: skip
def test_long_near_numbers_take_no_time(text):
    start = time.perf_counter()
    frame = pd.DataFrame({"a": [text, "2", "3", "4"], "y": [text, "u", "u", text]})
    schema = schema_of(table_from_frame(frame, Origin("t", "file")))
    schema.read(frame)
    assert schema.labels(frame["y"]).tolist() in ([0, 1, 1, 0], [1, 0, 0, 1])
    assert time.perf_counter() - start < 5


def test_frames_of_other_libraries_keep_names_and_values():
    frame = polars.DataFrame({
        "größe": [1.5, None, 3.0], "id": [2**60, None, 1], "when": [date(2024, 1, 31), None, None],
        "on": [True, None, False], "colour": polars.Series(["red", None, "blue"], dtype=polars.Categorical),
    })  # fmt: skip
    for known in (frame, frame.to_arrow()):
        read = as_frame(known)
        assert list(read.columns) == ["größe", "id", "when", "on", "colour"]
        kinds = [guess_column(read[name]).column.kind for name in read]
        assert kinds == ["number", "number", "date", "boolean", "level"]
        assert convert(read["when"], Column("when", "date"))[0] == 19753.0
    assert as_series(frame["on"]).isna().tolist() == [False, True, False]
    assert as_frame(np.zeros((2, 2))) is None and as_frame([[1]]) is None


def test_long_texts_of_a_dictionary_are_read_once():
    texts = pd.Categorical.from_codes(np.arange(200_000) % 2, categories=["x" * 500_000, "y"])
    frame = pd.DataFrame({"c": texts, "y": np.arange(200_000) % 2})
    start = time.perf_counter()
    schema = schema_of(table_from_frame(frame, Origin("t", "file", task="classification")))
    assert schema.read(frame).x["c"].cat.codes.tolist()[:4] == [0, 1, 0, 1]
    assert time.perf_counter() - start < 5


def test_real_numbers_beside_decimal_commas_are_read_as_they_are():
    cells = [1.234, "2.345,5", "0,25", 7, np.float32(0.5), decimal.Decimal("1.250"), None, "1.234"] * 3
    schema = fitted(pd.Series(cells, dtype=object))
    assert schema.columns[0].format == "1.234,5" and not schema.columns[0].missing
    read = schema.apply(pd.DataFrame({"c": pd.Series(cells[:8], dtype=object)}))["c"]
    assert (
        read[:6].tolist() == [1.234, 2345.5, 0.25, 7.0, 0.5, 1.25] and np.isnan(read[6]) and read[7] == 1234
    )
    assert schema.apply(pd.DataFrame({"c": [1.234]}))["c"].tolist() == [1.234]


@pytest.mark.parametrize("first", [None, "1 day, 14:36:23.109691678"])
def test_the_days_of_a_text_do_not_depend_on_the_other_cells(first):
    # Exactly -83452 days and 16:21:03; pandas holds both cells in nanoseconds if one has them.
    days = convert(pd.Series([first, "-83452 days 16:21:03"], dtype=object), Column("c", "duration"))
    assert days[1] == -83452 + (16 * 3600 + 21 * 60 + 3) / 86400


@pytest.mark.parametrize(
    ("values", "kind", "days"),
    [
        (arrow([9 * 10**15, None], pa.duration("s")), "duration", 9e15 / 86400),
        (arrow([9 * 10**13, None], pa.timestamp("s")), "date", 9e13 / 86400),
        (arrow([-(2**62), None], pa.duration("us")), "duration", -(2**62) / 86_400_000_000),
        (pd.Series([timedelta(1), decimal.Decimal("nan")], dtype=object), "duration", 1.0),
        (pd.Series([date(9999, 12, 31), decimal.Decimal("nan")], dtype=object), "date", 2932896.0),
    ],
)
def test_days_beyond_what_nanoseconds_or_microseconds_hold(values, kind, days):
    found = convert(values, Column("c", kind))
    assert found[0] == days and np.isnan(found[1])


def test_a_declared_column_may_hold_nothing_but_marks_for_missing_cells():
    table = table_from_frame(
        pd.DataFrame({"x": ["?", "n/a"], "y": ["u", "v"]}), Origin("t", "file", columns={"x": "number"})
    )
    assert table.columns[0].kind == "number" and table.x["x"].isna().all()


def test_objects_that_are_equal_and_differ_in_text_stay_apart():
    cells = [1, True, 1.0, "1", "True", 0.0, -0.0, False, decimal.Decimal("1.00"), b"a", "a", None]
    labels = Cells("text", pd.Series(cells * 200, dtype=object)).labels
    assert [labels[1][code] for code in labels[0][:11]] == [
        "1", "True", "1", "1", "True", "0", "0", "False", "1.00", "a", "a",
    ]  # fmt: skip
    assert labels[0][11] == -1 and (labels[0][12:24] == labels[0][:12]).all()


@pytest.mark.parametrize("dtype", ["object", "str", "string"])
def test_equal_cells_are_converted_once(dtype, monkeypatch):
    seen = []
    monkeypatch.setattr(cells, "label_text", lambda value: seen.append(value) or str(value))
    rows = np.arange(100_000)
    frame = pd.DataFrame({"c": np.array(["ä", "b", "true"], dtype=object)[rows % 3], "y": rows % 2})
    table = table_from_frame(frame.astype({"c": dtype}), Origin("t", "file", task="classification"))
    assert table.columns[0].levels == ("b", "true", "ä") and len(seen) < 10


def test_many_columns_of_words_take_a_millisecond_each():
    words = np.array(["red", "green", "blue"], dtype=object)
    frame = pd.DataFrame({f"c{number}": words[np.arange(40) % 3] for number in range(1_500)})
    start = time.process_time()
    table = table_from_frame(frame.assign(y=np.arange(40) % 2), Origin("t", "file"))
    assert time.process_time() - start < 4 and set(table.x.dtypes.astype(str)) == {"category"}
