"""CSV as people write it: separators, `sep=`, quoted headers, decimal commas; all else as pandas reads it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from pandas._libs.parsers import STR_NA_VALUES
from pyarrow import parquet

from tttab.data import load_table, read_frame, schema_from_dict, schema_of
from tttab.data.chunks import read_pieces
from tttab.data.csv_format import MISSING_WORDS, exact_floats
from tttab.data.registry import TABLES
from tttab.errors import DataError


@pytest.fixture
def write(tmp_path):
    def write(text, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def odd_frame():
    rng = np.random.default_rng(11)
    text = ["x", "y, z", "a;b", 'q"u', "t\tt", "é", "line\nbreak", "5|6", "NA", "0,5 or so", None]
    return pd.DataFrame(
        {
            "f": np.where(rng.random(90) < 0.2, np.nan, rng.normal(size=90)),
            "i": rng.integers(-5, 9, 90),
            "t": rng.choice(text, 90),
            "b": rng.random(90) < 0.5,
            "d": pd.date_range("2020-01-01", periods=90, freq="h"),
            "m": rng.choice(["1", "2.5", "x", None], 90),
        }
    )


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [0, 1])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_every_separator_is_read_as_pandas_reads_it(write, separator, quoting, ending):
    frame = odd_frame() if ending != "\r" else odd_frame().replace("line\nbreak", "no break")
    text = frame.to_csv(index=False, sep=separator, quoting=quoting, lineterminator=ending)
    path = write(text)
    expected = pd.read_csv(path, sep=separator, low_memory=False, **exact_floats())
    raw = read_frame(path)
    pd.testing.assert_frame_equal(raw.frame, expected, check_exact=True)
    assert not raw.decimals
    assert raw.notes == (() if separator == "," else (f"columns are separated by {separator!r}",))
    pieces = list(read_pieces(path, 37))
    with pd.read_csv(path, sep=separator, low_memory=False, chunksize=37, **exact_floats()) as parts:
        for piece, part in zip(pieces, parts, strict=True):
            pd.testing.assert_frame_equal(piece.frame, part, check_exact=True)
    assert [piece.decimals for piece in pieces] == [{}] * 3


def test_the_tables_of_the_package_come_as_pandas_reads_them(tmp_path):
    for path in sorted(TABLES.glob("*.parquet")):
        expected = parquet.read_table(path).to_pandas()
        pd.testing.assert_frame_equal(read_frame(path).frame, expected, check_exact=True)
        expected.to_csv(tmp_path / "t.csv", index=False)
        from_csv = pd.read_csv(tmp_path / "t.csv", low_memory=False, **exact_floats())
        raw = read_frame(tmp_path / "t.csv")
        pd.testing.assert_frame_equal(raw.frame, from_csv, check_exact=True)
        assert not raw.decimals and raw.notes == ()


@pytest.mark.parametrize(
    ("text", "names", "first"),
    [
        ('"price, EUR";"b";"y"\n"1";"2";"u"\n', ["price, EUR", "b", "y"], [1, 2, "u"]),
        ("price, EUR;b;y\n1;2;u\n3;4;v\n", ["price, EUR", "b", "y"], [1, 2, "u"]),
        ('"a;b",y\n1,u\n2,v\n', ["a;b", "y"], [1, "u"]),
        ('"a|b";y\n1;u\n2;v\n', ["a|b", "y"], [1, "u"]),
        ('a,"b\n;c;d;e"\n1,u\n2,v\n', ["a", "b\n;c;d;e"], [1, "u"]),
        ('x;5" tube;y\n1;2;u\n3;4;v\n', ["x", '5" tube', "y"], [1, 2, "u"]),
        ("tags;more,y\np;q;r,1\ns,2\n", ["tags;more", "y"], ["p;q;r", 1]),
        ("a,b|c,y\n1,2,u\n", ["a", "b|c", "y"], [1, 2, "u"]),
        ("a\n1;2\n3\n", ["a"], ["1;2"]),
        ("a,b,y\n1,2\n3,4,v\n", ["a", "b", "y"], [1, 2, None]),
        ("\n \n\na|y\n\n1|u\n", ["a", "y"], [1, "u"]),
        ("sep=;\na;b\n1;2\n", ["a", "b"], [1, 2]),
        ('"sep=|"\r\na|b\r\n1|2\r\n', ["a", "b"], [1, 2]),
        ("\ufeffsep=,\na,b;c\n1,2\n", ["a", "b;c"], [1, 2]),
        ("SEP=^\ra^b\r1^2\r", ["a", "b"], [1, 2]),
        ("sep=\t\na\tb\n1\t2\n", ["a", "b"], [1, 2]),
        ("sep=x\n1\n2\n", ["sep=x"], [1]),
    ],
)
def test_the_separator_is_found_outside_quotes(write, text, names, first):
    path = write(text)
    frame = read_frame(path).frame
    assert list(frame.columns) == names
    assert frame.iloc[0].astype(object).where(frame.iloc[0].notna(), None).tolist() == first
    (piece,) = read_pieces(path, 100)
    pd.testing.assert_frame_equal(piece.frame, frame)


def test_a_long_first_line_is_read_to_its_end(write):
    names = [f"question {number}: {'why ' * 20}" for number in range(2_000)]
    path = write(";".join(f'"{name}"' for name in names) + "\n" + ";".join("1" * 2_000) + "\n")
    assert list(read_frame(path).frame.columns) == [name.strip() for name in names]


@pytest.mark.parametrize(
    ("columns", "decimal"),
    [
        (["0,5", "1,25"], ","),
        (["1,5", "x"], ","),
        (["-1.234,5", "7"], ","),
        (["1.234.567", "1.234"], ","),
        (["12,5 %", "3,75 %"], ","),
        (["1,5e3", ",5"], ","),
        (["1 234,50", "7"], ","),
        (["1,234", "2,500"], ","),  # three digits each: a decimal comma, as nothing speaks against it
        (["1,234", "2.5"], "."),
        (["1,5", "2.5"], "."),
        (["1,234,567", "1,234"], "."),
        (["1,234.5", "1,234"], "."),
        (["Doe, John", "0,5", "Roe, Jane", "Poe, E. A.", "Boe, B."], "."),
        (["1,2,3", "4,5,6"], "."),
        (["1", "2"], "."),
        (["0.5", "1.5"], "."),
        (["1.234", "2.345"], "."),
    ],
)
def test_decimal_marks(write, columns, decimal):
    raw = read_frame(write("a;y\n" + "".join(f'"{cell}";u\n' for cell in columns)))
    assert raw.decimals.get("a", ".") == decimal
    assert ("numbers are written with a decimal comma" in raw.notes) == (decimal == ",")


def test_a_decimal_comma_leaves_every_cell_as_it_stands(write):
    text = "price;count;when;flag;gone\n0,5;1.234;2024-01-31;True;\nNA;5;;False;\n-1,25;007;x;True;\n"
    path = write(text)
    raw = read_frame(path)
    assert set(raw.decimals.values()) == {","}
    cells = {name: values.astype(object).where(values.notna(), None).tolist() for name, values in
             raw.frame.items()}  # fmt: skip
    assert cells == {
        "price": ["0,5", None, "-1,25"],
        "count": ["1.234", "5", "007"],
        "when": ["2024-01-31", None, "x"],
        "flag": ["True", "False", "True"],
        "gone": [None, None, None],
    }
    assert {str(dtype) for dtype in raw.frame.dtypes} <= {"str", "object"}
    pieces = list(read_pieces(path, 1))
    assert [set(piece.decimals.values()) for piece in pieces] == [{","}] * 3
    assert [piece.frame["count"].tolist() for piece in pieces] == [["1.234"], ["5"], ["007"]]


def test_points_elsewhere_decide_where_commas_might_be_thousands(write):
    raw = read_frame(write('a;b\n1,234;"x"\n5,678;"y"\n'))
    assert set(raw.decimals.values()) == {","}
    raw = read_frame(write("a;b\n1,234;0.5\n5,678;1.25\n"))
    assert not raw.decimals and raw.frame["b"].tolist() == [0.5, 1.25]
    assert raw.frame["a"].tolist() == ["1,234", "5,678"]


MIXED = """price;rate;count;weight;size;share;name;y
0,5;0.25;1.234;1.250;1,250;1.5 %;a;u
1.234,5;10.5;2;7.125;2,500;20 %;b;v
-2;1.125;3;4.000;3,125;0.25 %;c;u
7,25;3;4;1.001;9,875;7 %;d;v
"""


def test_columns_of_one_file_may_have_different_decimal_marks(write, tmp_path):
    path = write(MIXED)
    table = load_table(str(path))
    said = "numbers are written with a decimal comma, with a decimal point in: rate, weight, share"
    assert said in table.notes
    found = {name: table.x[name].tolist() for name in table.x if name != "name"}
    assert found == {
        "price": [0.5, 1234.5, -2.0, 7.25],
        "rate": [0.25, 10.5, 1.125, 3.0],
        "count": [1234.0, 2.0, 3.0, 4.0],
        "weight": [1.25, 7.125, 4.0, 1.001],
        "size": [1.25, 2.5, 3.125, 9.875],
        "share": [0.015, 0.2, 0.0025, 0.07],
    }
    schema = schema_from_dict(json.loads(json.dumps(schema_of(table).to_dict())))
    forms = {column.name: column.format for column in schema.columns if column.kind == "number"}
    assert forms == {"price": "1.234,5", "rate": "1234.5", "count": "1.234,5", "weight": "1234.5",
                     "size": "1234,5", "share": "1234.5%"}  # fmt: skip
    header, *rows = MIXED.splitlines()
    for number, row in enumerate(rows):  # each row alone, which may hold no sure mark
        (piece,) = read_pieces(write(f"{header}\n{row}\n", "new.csv"), 9, text_columns=schema.text_columns)
        assert schema.apply(piece.frame, piece.decimals).iloc[0].equals(table.x.iloc[number])


def test_cells_with_commas_in_a_comma_separated_file_stay_text(write):
    raw = read_frame(write('a,y\n"0,5",u\n"1,25",v\n'))
    assert not raw.decimals and raw.frame["a"].tolist() == ["0,5", "1,25"]


def test_empty_cells_beside_whole_numbers_of_twenty_digits_are_missing(write):
    path = write(f"a,y\n{2**64},u\nx,v\n,u\nNA,v\n")
    (piece,) = read_pieces(path, 9)
    for frame in (read_frame(path).frame, piece.frame, read_frame(path, text_columns=["a"]).frame):
        assert frame["a"].isna().tolist() == [False, False, True, True]
    assert load_table(str(path)).columns[0].levels == (str(2**64), "x")


def test_the_words_for_missing_cells_are_those_of_pandas():
    assert set(MISSING_WORDS) == set(STR_NA_VALUES)


def test_text_columns_stay_text_in_every_text_format(write):
    for text, name in (("code|n\n007|1\n010|2\n", "t.csv"), ("code\tn\n007\t1\n010\t2\n", "t.tsv")):
        path = write(text, name)
        assert read_frame(path, text_columns=["code", "absent"]).frame["code"].tolist() == ["007", "010"]
        (piece,) = read_pieces(path, 9, text_columns=["code", "absent"])
        assert piece.frame["code"].tolist() == ["007", "010"] and piece.frame["n"].tolist() == [1, 2]


def test_text_columns_of_parquet_and_arff_keep_their_types(tmp_path, write):
    pd.DataFrame({"code": [7, 10], "t": ["007", "1"]}).to_parquet(tmp_path / "t.parquet")
    arff = write("@relation r\n@attribute code numeric\n@attribute t string\n@data\n7,007\n10,1\n", "t.arff")
    for path in (tmp_path / "t.parquet", arff):
        frame = read_frame(path, text_columns=["code", "t"]).frame
        (piece,) = read_pieces(path, 9, text_columns=["code", "t"])
        assert frame["code"].tolist() == [7, 10] and frame["t"].tolist() == ["007", "1"]
        pd.testing.assert_frame_equal(piece.frame, frame)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a, a ,y\n1,2,u\n", "two columns named 'a'"),
        (",column_1,y\n1,2,u\n", "two columns named 'column_1'"),
        ("a,y\n1,2,3,4\n1,2\n", "2 columns have a name, its first row has 4 cells"),
        ("a,y\n1,2\n1,2,3\n", "cannot be read as CSV"),
        ("a\x00,y\n1,u\n", "NUL byte in line 1"),
        ("a,y\r1,u\r2\x00,v\r", "NUL byte in line"),
        ("x" * 4_001 + ",y\n1,u\n", "column 1 has 4,001 characters"),
    ],
)
def test_faults_in_one_line(write, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read_frame(write(text))
    assert "\n" not in caught.value.message and len(caught.value.message) < 300 and caught.value.hint


def test_a_trailing_separator_in_every_row_is_no_cell(write):
    assert read_frame(write("a,y\n1,u,\n2,v,\n")).frame["a"].tolist() == [1, 2]


def test_a_name_as_long_as_allowed(write):
    assert list(load_table(str(write("x" * 4_000 + ",y\n1,u\n2,v\n"))).x.columns) == ["x" * 4_000]
