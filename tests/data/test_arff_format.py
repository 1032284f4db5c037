"""The ARFF reader against liac-arff, on files that are right; on wrong ones it names the line."""

from __future__ import annotations

import arff
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        ("1,p", "1,p'p'", "line 5: a quote is not closed, or stands in the middle"),
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
