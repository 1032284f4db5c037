"""The ARFF reader against liac-arff, on files that are right; on wrong ones it names the line."""

from __future__ import annotations

from datetime import datetime

import arff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tttab.data import load_table, read_frame
from tttab.data.arff_dates import EPOCH
from tttab.data.arff_format import Attribute, parse_arff
from tttab.errors import DataError

words = st.text(st.sampled_from("ab ,{}%'\"\\\\?é\t"), min_size=1, max_size=6)
cells = st.tuples(
    st.none() | st.floats(allow_nan=False, allow_infinity=False), st.none() | words, st.sampled_from("pq")
)


@settings(max_examples=150, deadline=5000, derandomize=True)
@given(st.lists(cells, min_size=1, max_size=8), st.sampled_from(["n", "a b", "a,b", "é"]), st.booleans())
def test_what_liac_arff_writes_is_read_as_liac_arff_reads_it(rows, name, crlf):
    attributes = [(name, "REAL"), ("the text", "STRING"), ("y", ["p", "q"])]
    text = arff.dumps({"relation": "r", "attributes": attributes, "data": [list(row) for row in rows]})
    try:
        expected = arff.loads(text)["data"]
    except arff.ArffException:
        return  # liac-arff does not read all that it writes
    found = parse_arff(text.replace("\n", "\r\n") if crlf else text)
    assert [list(row) for row in zip(*found.columns, strict=True)] == expected
    assert [attribute.kind for attribute in found.attributes] == ["number", "text", "nominal"]


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("1, 'a b' ,p", [1.0, "a b", "p"]),
        ("?,?,?", [None, None, None]),
        ("-1e3,'?',\"q\"", [-1000.0, "?", "q"]),
        ("1,'it\\'s \\u00e9\\n',p", [1.0, "it's é\n", "p"]),
        ("\t2 ,x y,p  % no comment", None),
        ("{}", [0.0, "0", "p"]),
        ("{2 q, 0 5}", [5.0, "0", "q"]),
        ("{1 'a, b'}", [0.0, "a, b", "p"]),
        ("{0 ?}", [None, "0", "p"]),
    ],
)
def test_rows(line, row):
    head = "% c\n@RELATION r\n\n@Attribute n Real\n@attribute 's s' string\n@attribute y {p,'q'}\n@DATA\n"
    text = head + line + "\n"
    if row is None:
        with pytest.raises(DataError, match="line 8: 'p  % no comment' is no level of attribute 'y'"):
            parse_arff(text)
        return
    found = parse_arff(text)
    assert [column[0] for column in found.columns] == row
    assert found.attributes[2] == Attribute("y", "nominal", ("p", "q"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@data", "", "line 5: expected @relation"),
        ("@data\n1,p\n", "", "there is no line @data"),
        ("numeric", "relational", "line 2: attribute 'a' has the type 'relational'"),
        ("numeric", "", "line 2: attribute 'a' has the type ''"),
        ("a numeric", "", "line 2: an attribute needs a name and a type"),
        ("1,p", "1", "line 5: 1 values for 2 attributes"),
        ("1,p", "x,p", "line 5: 'x' is no number"),
        ("1,p", "1,r", "line 5: 'r' is no level"),
        ("1,p", "1,'p", "line 5: a quote is not closed"),
        ("1,p", "1,p'p'", "line 5: a quote is not closed, or is in the middle"),
        ("1,p", "{0 1", "line 5: a sparse row is not closed"),
        ("1,p", "{2 1}", "line 5: '2 1' is no number of an attribute and a value"),
        ("1,p", "{0 '1}", "line 5: a quote is not closed"),
        ("1,p", "{0 1,}", "line 5: '' is no number of an attribute"),
    ],
)
def test_faults_name_their_line(old, new, message):
    text = "@relation r\n@attribute a numeric\n@attribute y {p,q}\n@data\n1,p\n"
    with pytest.raises(DataError) as caught:
        parse_arff(text.replace(old, new, 1))
    assert caught.value.message.startswith(message) and caught.value.hint


@pytest.mark.parametrize("piece", [" ", "'", "'a, ", ",", "\\", "\\'", "{0 1, ", "0 1, ", '\\"', "%"])
def test_long_damaged_lines_take_no_more_than_their_length(piece):
    """Found by timing: such lines took liac-arff minutes."""
    for head in (
        "@attribute a {",
        "@attribute ",
        "@attribute a numeric\n@data\n",
        "@attribute a string\n@data\n{0 '",
    ):
        try:
            parse_arff(head + piece * 50_000 + "\n")
        except DataError as error:
            assert len(error.message) < 300


def parsed(cells, *, kind="numeric"):
    """Return the column of a file with these cells."""
    text = f"@relation r\n@attribute a {kind}\n@data\n" + "".join(f"{cell}\n" for cell in cells)
    return parse_arff(text).columns[0]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1", 1.0), ("-1.5e-3", -0.0015), ("+2", 2.0), (".5", 0.5), ("5.", 5.0), ("1E5", 1e5),
        ("1e999", np.inf), ("-Infinity", -np.inf), ("inf", np.inf), ("?", None), ("' 7 '", 7.0),
    ],
)  # fmt: skip
def test_numbers(cell, value):
    assert parsed([cell]) == [value]


def test_not_a_number_is_nan():
    assert all(value != value for value in parsed(["NaN", "nan"]))


@pytest.mark.parametrize("cell", ["1_000", "١٢", "0x10", "1.5f", "1 000", "--1", "1e", ".", "+", "in"])
def test_what_python_or_java_takes_for_numbers_beyond_the_grammar(cell):
    with pytest.raises(DataError, match=r"line 4: .* is no number \(attribute 'a'\)"):
        parsed([cell])


@pytest.mark.parametrize(
    ("pattern", "cell", "value"),
    [
        ('"dd.MM.yyyy"', "02.01.2024", datetime(2024, 1, 2)),
        ('"dd.MM.yyyy"', "2.1.2024", datetime(2024, 1, 2)),
        ("d.M.yyyy", "31.12.1969", datetime(1969, 12, 31)),
        ("'MM/dd/yyyy HH:mm'", "'02/29/2024 23:59'", datetime(2024, 2, 29, 23, 59)),
        ("", "2024-01-31T12:34:56", datetime(2024, 1, 31, 12, 34, 56)),
        ("\"yyyy-MM-dd'T'HH:mm:ss.SSS\"", "2024-01-31T12:34:56.7", datetime(2024, 1, 31, 12, 34, 56, 7000)),
        (r"'yyyy-MM-dd\'T\'HH:mm:ss'", "2024-01-31T12:34:56", datetime(2024, 1, 31, 12, 34, 56)),
        ("yyyyMMdd", "20240131", datetime(2024, 1, 31)),
        ("yyyyMMddHHmm", "202401310930", datetime(2024, 1, 31, 9, 30)),
        ("'dd MMM yyyy'", "'5 Mar 2024'", datetime(2024, 3, 5)),
        ("'MMMM d, yyyy'", "'may 5, 2024'", datetime(2024, 5, 5)),
        ("\"d 'o''clock' yyyy\"", "\"7 o'clock 2024\"", datetime(2024, 1, 7)),
        ("\"yyyy''MM\"", "\"2024'05\"", datetime(2024, 5, 1)),
        ("HH:mm", "06:30", datetime(1970, 1, 1, 6, 30)),
        ("'yyyy (d+M)'", "'2024 (3+4)'", datetime(2024, 4, 3)),
        ("dd.MM.yyyy", "?", None),
    ],
)  # fmt: skip
def test_dates_are_read_as_declared(pattern, cell, value):
    assert parsed([cell], kind=f"date {pattern}") == [value]


@pytest.mark.parametrize(
    ("pattern", "cell"),
    [
        ("dd.MM.yyyy", "2024-01-31"), ("dd.MM.yyyy", "31.02.2024"), ("dd.MM.yyyy", "13.13.2024"),
        ("dd.MM.yyyy", "01.02.24"), ("dd.MM.yyyy", "01.02.2024 x"), ("yyyyMMdd", "2024131"),
        ("HH:mm", "24:00"), ("", "2024-01-31"), ("'dd MMM yyyy'", "'5 Mrz 2024'"), ("yyyy.MM", "2024-05"),
        ("dd.MM.yyyy", "\u0660\u0661.02.2024"), ("dd.MM.yyyy", "9" * 50_000),
    ],
)  # fmt: skip
def test_a_cell_that_is_no_such_date_names_its_line(pattern, cell):
    with pytest.raises(DataError, match=r"line 5: .* is no date like .* \(attribute 'a'\)") as caught:
        parsed(["?", cell], kind=f"date {pattern}")
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("'dd.MM.yyyy hh:mm a'", "has the letter 'h'; known are y, M, d, H, m, s, S"),
        ("'EEE dd'", "has the letter 'E'"),
        ("\"yyyy-MM-dd'T'HH:mm:ssZ\"", "has the letter 'Z'"),
        ("dd.MM.yy", "has years of two digits"),
        ("yyyy-MM-MM", "has the month twice"),
        ('"yyyy \'open"', "has a quote that is not closed"),
        ("'...'", "has no field"),
        (f"'yyyy{' ' * 100_000}'", "has more than 100 characters"),
    ],
)
def test_patterns_that_are_not_known_are_refused_by_name(pattern, told):
    with pytest.raises(DataError) as caught:
        parsed(["1"], kind=f"date {pattern}")
    assert (
        caught.value.message.startswith("line 2: attribute 'a': the date pattern")
        and told in caught.value.message
    )


def test_a_sparse_row_leaves_out_the_first_day_that_counts():
    text = "@relation r\n@attribute d date yyyy\n@attribute n real\n@data\n{1 2}\n{0 2024}\n{}\n{0 ?}\n"
    found = parse_arff(text)
    assert found.columns == [[EPOCH, datetime(2024, 1, 1), EPOCH, None], [2.0, 0.0, 0.0, 0.0]]
    assert found.attributes[0] == Attribute("d", "date", pattern="yyyy")


def test_a_declared_date_is_a_date_column(tmp_path):
    text = '@relation t\n@attribute b date "dd.MM.yyyy"\n@attribute y {u,v}\n@data\n'
    text += "02.01.1970,u\n?,v\n01.01.1900,u\n"
    (tmp_path / "t.arff").write_text(text)
    frame = read_frame(tmp_path / "t.arff").frame
    assert str(frame["b"].dtype) == "datetime64[us]"
    table = load_table(str(tmp_path / "t.arff"))
    assert table.dates == ("b",) and table.x["b"].tolist()[::2] == [1.0, -25567.0] and table.x["b"].isna()[1]


def test_dense_rows_between_sparse_ones_keep_their_place():
    text = (
        "@relation r\n@attribute a numeric\n@attribute b {x,y}\n@data\n{0 3}\n4,y\n{}\n{1 y, 0 5, 0 6}\n{}\n"
    )
    assert parse_arff(text).columns == [[3.0, 4.0, 0.0, 6.0, 0.0], ["x", "y", "x", "y", "x"]]
