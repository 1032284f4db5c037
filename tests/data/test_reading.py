"""Files into tables: formats, conventions, fingerprints, and one line for every fault."""

from __future__ import annotations

import datetime
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from tttab.data import Origin, load_table, read_frame, table_from_frame
from tttab.data.chunks import read_pieces
from tttab.data.registry import TABLES
from tttab.data.target import guess_task
from tttab.errors import DataError


@pytest.fixture
def write(tmp_path):
    def write(text, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def frame(rows=30):
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "number": rng.normal(size=rows),
            "whole": rng.integers(0, 9, rows),
            "text": rng.choice(["x", "y y", "=1+1", "z;"], rows),
            "yes": rng.random(rows) < 0.5,
            "day": pd.date_range("2020-02-28", periods=rows, freq="12h"),
            "label": rng.choice(["b", "a", "c"], rows),
        }
    )


def test_every_format_gives_one_fingerprint(tmp_path):
    plain = frame()
    plain.loc[[2, 5], ["number", "text", "day"]] = None
    plain.to_csv(tmp_path / "t.csv", index=False)
    plain.to_csv(tmp_path / "s.csv", index=False, sep=";")
    plain.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    plain.to_parquet(tmp_path / "t.parquet")
    plain.astype({"text": "category", "label": "category"}).to_parquet(tmp_path / "c.pq", index=False)
    text = plain.assign(day=plain["day"].astype(str).replace("NaT", None))
    quote = {"text": lambda values: "'" + values + "'", "day": lambda values: "'" + values + "'"}
    rows = text.assign(**{name: change(text[name]) for name, change in quote.items()})
    header = (
        "@relation t\n@attribute number real\n@attribute whole integer\n@attribute text string\n"
        "@attribute yes {False,True}\n@attribute day date 'yyyy-MM-dd HH:mm:ss'\n"
        "@attribute label {c,b,a,never}\n@data\n"
    )
    body = rows.to_csv(index=False, header=False, na_rep="?", quoting=3, sep=",", float_format="%.17g")
    (tmp_path / "t.arff").write_text(header + body)
    files = ["t.csv", "s.csv", "t.tsv", "t.parquet", "c.pq", "t.arff"]
    tables = {name: load_table(str(tmp_path / name), target="label") for name in files}
    assert len({table.fingerprint for table in tables.values()}) == 1
    assert all(table.dates == ("day",) and table.source == "file" for table in tables.values())
    assert tables["s.csv"].notes[0] == "columns are separated by ';'"


def test_fingerprint_is_the_same_in_another_process(write):
    path = write(frame().to_csv(index=False))
    code = f"from tttab.data import load_table; print(load_table({path!r}).fingerprint)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == load_table(path).fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.assign(number=f["number"] + 1e-12),
        lambda f: f.rename(columns={"number": "n"}),
        lambda f: f.assign(text=f["text"].replace("x", "w")),
        lambda f: f.iloc[::-1],
        lambda f: f[["whole", "number", "text", "yes", "day", "label"]],
        lambda f: f.assign(label=f["label"].replace("a", "d")),
        lambda f: f.rename(columns={"label": "target"}),
    ],
)
def test_fingerprint_changes_with_the_content(change):
    origin = Origin("t", "file")
    assert table_from_frame(change(frame()), origin).fingerprint != (
        table_from_frame(frame(), origin).fingerprint
    )


def test_bundled_fingerprints_do_not_move():
    assert load_table("credit-g").fingerprint.startswith("315909f041d2")
    assert load_table("satimage").fingerprint.startswith("02e8876b72b7")


def test_conventions():
    when = pd.date_range("1970-01-02 12:00", periods=4, tz="Europe/Paris")
    raw = pd.DataFrame(
        {
            "inf": [1.0, np.inf, -np.inf, 2.0],
            "nullable": pd.array([1, None, 3, 4], dtype="Int64"),
            "bool": pd.array([True, None, False, True], dtype="boolean"),
            "mixed": [1, 1.0, "a", None],
            "zoned": when,
            "days": [datetime.date(1970, 1, 3), None, datetime.date(1969, 12, 31), datetime.date(9999, 1, 1)],
            "span": pd.to_timedelta([1, 2, 3, 4], unit="D"),
            "codes": pd.Categorical([10, 9, 10, 9]),
            "empty": [None] * 4,
            "constant": ["c"] * 4,
            7: [0.0, -0.0, 0.0, 1.0],
            "y": ["no", "yes", "no", "yes"],
        }
    )
    table = table_from_frame(raw, Origin("t", "file"))
    x = table.x
    assert set(x.dtypes.astype(str)) == {"float64", "category"}
    assert all(isinstance(level, str) for name in x if x[name].dtype == "category"
               for level in x[name].cat.categories)  # fmt: skip
    assert np.isnan(x["inf"][1]) and "infinite values count as missing: inf" in table.notes
    assert x["nullable"].tolist()[0] == 1.0 and np.isnan(x["nullable"][1])
    assert x["bool"].tolist()[::2] == ["True", "False"] and pd.isna(x["bool"][1])
    assert x["mixed"].tolist()[:3] == ["1", "1", "a"]
    assert x["zoned"][0] == pytest.approx(1.5 - 1 / 24)
    assert x["days"].tolist()[0] == 2.0 and x["days"][2] == -1.0 and x["days"][3] > 2.9e6
    assert x["span"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert list(x["codes"].cat.categories) == ["9", "10"]
    assert x["empty"].dtype == np.float64 and x["empty"].isna().all()
    assert list(x["constant"].unique()) == ["c"] and "7" in x
    assert not np.signbit(x["7"]).any()
    assert table.dates == ("zoned", "days")


def test_formulas_stay_text(write):
    path = write("a,y\n=1+1,0\n\"=cmd|' /C calc'!A0\",1\n@SUM(1),0\n+1+cmd,1\n")
    assert list(load_table(path).x["a"]) == ["=1+1", "=cmd|' /C calc'!A0", "@SUM(1)", "+1+cmd"]


def test_numbers_as_text_parse_as_pandas_does(write):
    table = load_table(write("a,b,y\n 1,0x1,u\n2e3,7,v\nNA,8,u\n"))
    assert table.x["a"].tolist()[:2] == [1.0, 2000.0] and np.isnan(table.x["a"][2])
    assert table.x["b"].tolist() == ["0x1", "7", "8"]


def test_classes_are_sorted_as_numbers_where_they_are_numbers(write):
    assert load_table(write("x,y\n1,10\n2,9\n3,-1\n")).classes == ("-1", "9", "10")
    assert load_table(write("x,y\n1,10\n2,9\n3,b\n")).classes == ("10", "9", "b")
    assert load_table(write("x,y\n1,true\n2,FALSE\n3,True\n")).classes == ("False", "True")
    assert load_table(write("x,y\n1,1.0\n2,\n3,2.0\n")).classes == ("1", "2")


def test_rows_without_a_target_are_left_out_and_said(write):
    table = load_table(write("x,y\n1,a\n2,\n3,b\n4,NA\n"))
    assert len(table) == 2 and "2 rows without a target are left out" in table.notes
    table = load_table(write("x,y\n" + "".join(f"{n},{n / 7}\n" for n in range(40)) + "1,inf\n2,\n"))
    assert table.task == "regression" and len(table) == 40 and np.isfinite(table.y).all()


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["a", "b"], "classification"),
        ([True, False], "classification"),
        ([1, 2, 3] * 5, "classification"),
        (list(range(20)), "classification"),
        (list(range(21)), "regression"),
        ([0.5, 1.5] * 20, "classification"),
        ([0.1, 0.2, 0.3, 0.4], "regression"),
        ([0.0] * 200 + [3.5, 12.25, 7.0, 0.5], "regression"),
        ([0.5, 1.5, 2.5] * 20 + [9.5], "classification"),
        (pd.date_range("2020-01-01", periods=3), "regression"),
    ],
)
def test_task_guess(values, task):
    assert guess_task(pd.Series(values)) == task


def test_the_guess_can_be_overruled(write):
    path = write("x,y\n" + "".join(f"{n},{n}\n" for n in range(40)))
    assert load_table(path).task == "regression"
    assert "so the task is regression" in load_table(path).notes[-1]
    assert len(load_table(path, task="classification").classes) == 40


def test_last_column_is_the_target_and_said(write):
    table = load_table(write("a,b\n1,x\n2,y\n"))
    assert table.target == "b"
    assert "no target was named: the last column, 'b', is the target" in table.notes
    assert load_table(write("a,b\n1,x\n2,y\n"), target="a").target == "a"


def test_constant_and_duplicate_columns_stay(write):
    assert list(load_table(write("a,b,c,y\n1,1,0,u\n2,2,0,v\n")).x.columns) == ["a", "b", "c"]


def test_byte_order_mark_blank_lines_quotes_and_line_breaks(write):
    table = load_table(write('\ufeff\n\n"a, b","y"\r\n"line\nbreak",u\r\n\r\n"w",v\r\n'))
    assert list(table.x.columns) == ["a, b"] and table.x["a, b"][0] == "line\nbreak"


def test_columns_without_a_name_get_one(write):
    table = load_table(write(",a,y\n0,1,u\n1,2,v\n"))
    assert list(table.x.columns) == ["column_1", "a"] and "called column_N: 1" in table.notes[0]


def test_parquet_with_an_index(tmp_path):
    indexed = frame().set_index("whole")
    indexed.to_parquet(tmp_path / "named.parquet")
    frame().set_index(frame()["text"].rename(None)).to_parquet(tmp_path / "unnamed.parquet")
    assert "whole" in load_table(str(tmp_path / "named.parquet")).x
    assert list(load_table(str(tmp_path / "unnamed.parquet")).x.columns) == list(frame().columns[:-1])


def test_parquet_pieces_have_the_named_index_too(tmp_path):
    frame = pd.DataFrame({"x": range(5), "id": list("abcde")}).set_index("id")
    frame.to_parquet(tmp_path / "t.parquet")
    pieces = [piece.frame for piece in read_pieces(tmp_path / "t.parquet", 2)]
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    pd.testing.assert_frame_equal(
        pd.concat(pieces, ignore_index=True), read_frame(tmp_path / "t.parquet").frame
    )


def test_csv_pieces_with_a_row_that_is_too_long_are_refused(write):
    path = write("a,b\n1,2\n3,4\n1,5,2\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match="cannot be read as CSV"):
            list(read_pieces(path, 2))


def test_a_folder_named_like_a_partition_is_no_column(tmp_path):
    (tmp_path / "year=2020").mkdir()
    frame().to_parquet(tmp_path / "year=2020" / "t.parquet")
    assert "year" not in load_table(str(tmp_path / "year=2020" / "t.parquet")).x


def test_arff_dates_of_any_spelling(write):
    path = write(
        "@RELATION t\r\n@Attribute 'the date' DATE 'yyyy-MM-dd'\r\n@attribute d date\r\n"
        "@attribute date {date,x}\r\n@data\r\n2020-01-02,'1970-01-02T12:00:00',date\r\n?,?,x\r\n", "t.arff",
    )  # fmt: skip
    table = load_table(path)
    assert table.dates == ("the date", "d") and table.x["d"][0] == 1.5 and table.classes == ("date", "x")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "t.csv", "is empty"),
        ("\n\n", "t.csv", "cannot be read as CSV"),
        ("a,b\n", "t.csv", "has no rows"),
        ("a\n1\n2\n", "t.csv", "no column besides the target"),
        ("a,y\n1,u\n", "t.csv", "at least 2 are needed"),
        ("a,y\n1,\n2,\n", "t.csv", "has 0 rows with a target"),
        ("a,y\n1,u\n2,u\n", "t.csv", "one class only, 'u'"),
        ('a,y\n"1,u\n3,v\n', "t.csv", "cannot be read as CSV"),
        (b"a,y\n\xff\xfe,u\n1,v\n", "t.csv", "cannot be read as CSV"),
        (b"PAR1 rubbish PAR1", "t.parquet", "cannot be read as PARQUET"),
        (b"\x80\x04K\x01.", "t.parquet", "cannot be read as PARQUET"),
        ("@relation", "t.arff", "cannot be read as ARFF"),
        ("@relation t\n@attribute a numeric\n@data\nx\n", "t.arff", "cannot be read as ARFF"),
        # Found by coverage-guided fuzzing: liac-arff's own error cannot be printed because of the %.
        ("@relation t\n@attribute y {u}\n@data\n20%d\n", "t.arff", "line 4: '20%d' is no level of"),
    ],
)
def test_faulty_files_give_one_line_and_a_hint(write, text, name, message):
    with pytest.raises(DataError, match=message) as caught:
        load_table(write(text, name))
    assert "\n" not in caught.value.message and caught.value.hint


def test_truncated_parquet(tmp_path):
    whole = (TABLES / "titanic.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read as PARQUET"):
        load_table(str(tmp_path / "t.parquet"))


def test_parquet_with_text_that_is_not_utf8(tmp_path):
    """Found by fuzzing: Arrow hands such text out and fails only when it is looked at."""
    text = pa.array([b"\xff\xfe", b"u"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"a": text, "y": ["u", "v"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="cannot be read as PARQUET"):
        load_table(str(tmp_path / "t.parquet"))


def test_missing_file_names_its_neighbour(write, tmp_path):
    write("a,y\n1,u\n2,v\n", "sales.csv")
    with pytest.raises(DataError, match="there is no file") as caught:
        load_table(str(tmp_path / "sale.csv"))
    assert "sales.csv" in caught.value.hint


@pytest.mark.parametrize("path", ["/dev/zero", "/", "./no/such/folder/t.csv", "/dev/stdin"])
def test_what_is_no_regular_file(path):
    with pytest.raises(DataError):
        load_table(path)


def test_missing_target_names_the_nearest(write):
    with pytest.raises(DataError, match="no column 'lable'; the nearest is 'label'") as caught:
        load_table(write("a,label,z\n1,u,0\n2,v,0\n"), target="lable")
    assert caught.value.hint == "--target label"


def test_regression_of_text_is_one_line(write):
    with pytest.raises(DataError, match="'u', which is not a number"):
        load_table(write("a,y\n1,u\n2,v\n"), task="regression")


def test_unknown_name_names_the_nearest():
    with pytest.raises(DataError, match="no data set 'Spambse'; the nearest known name is 'spambase'"):
        load_table("Spambse")
