"""Files that are not read as they are: the hint is typed into a shell, and what it makes is read."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import lzma
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from tttab.data import load_table, read_frame
from tttab.data.bounds import MOST_COLUMNS, ROOM
from tttab.data.foreign import free_name
from tttab.errors import DataError

ROWS = pd.DataFrame({"n": [0.5, -1.25, 3.0], "t": ["grün", "a, b", "Ω"], "y": ["u", "v", "u"]})
WESTERN = ROWS.replace("Ω", "é")
TEXT = ROWS.to_csv(index=False).encode()
LINES = ROWS.to_json(orient="records", lines=True, force_ascii=False).encode()
ARRAY = ROWS.to_json(orient="records", force_ascii=False).encode()
ARFF = "@relation r\n@attribute n real\n@attribute t string\n@attribute y {u,v}\n@data\n"
ARFF = (ARFF + "0.5,grün,u\n-1.25,'a, b',v\n3,Ω,u\n").encode()


def binary(write):
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def tar(mode):
    def write(stream):
        with tarfile.open(fileobj=stream, mode=mode) as archive:
            about = tarfile.TarInfo("inside.csv")
            about.size = len(TEXT)
            archive.addfile(about, io.BytesIO(TEXT))

    return binary(write)


def zipped(stream):
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("inside.csv", TEXT)


PARQUET = binary(ROWS.to_parquet)
FILES = {
    # name: (content, what the message says, the rows the hint leads to)
    "latin1.csv": (WESTERN.to_csv(index=False).encode("latin1"), "not UTF-8 text", WESTERN),
    "latin1.tsv.gz": (
        gzip.compress(WESTERN.to_csv(index=False, sep="\t").encode("latin1")),
        "not UTF-8 text",
        WESTERN,
    ),
    "utf16.csv": (TEXT.decode().encode("utf-16"), "UTF-16 text", ROWS),
    "utf16.txt.xz": (lzma.compress(TEXT.decode().encode("utf-16")), "UTF-16 text", ROWS),
    "utf16le.csv": (WESTERN.to_csv(index=False).encode("utf-16-le"), "UTF-16LE text", WESTERN),
    "utf16be.csv": (WESTERN.to_csv(index=False).encode("utf-16-be"), "UTF-16BE text", WESTERN),
    "utf32.csv": (TEXT.decode().encode("utf-32"), "UTF-32 text", ROWS),
    "nul.csv": (TEXT.replace(b"-1.25", b"-1.\x0025"), "NUL byte in line 3", ROWS),
    "rows.jsonl": (LINES, "is JSON Lines", ROWS),
    "rows.ndjson": (LINES, "is JSON Lines", ROWS),
    "array.json": (ARRAY, "is JSON", ROWS),
    "lines.json": (LINES, "is JSON Lines", ROWS),
    "called.csv": (LINES, "is JSON Lines", ROWS),
    "rows.feather": (binary(ROWS.to_feather), "a feather file", ROWS),
    "rows.orc": (binary(ROWS.to_orc), "an ORC file", ROWS),
    "rows.dta": (binary(lambda s: WESTERN.to_stata(s, write_index=False)), "a dta file", WESTERN),
    "packed.csv": (gzip.compress(TEXT), "cannot be read as CSV: it holds gzip data", ROWS),
    "packed.tsv": (bz2.compress(ROWS.to_csv(index=False, sep="\t").encode()), "holds bzip2 data", ROWS),
    "unpacked.csv.gz": (TEXT, "cannot be read as GZ: it holds plain text", ROWS),
    "other.csv.gz": (lzma.compress(TEXT), "holds xz data", ROWS),
    "columns.csv": (PARQUET, "holds Parquet", ROWS),
    "text.parquet": (TEXT, "cannot be read as PARQUET: it holds plain text", ROWS),
    "weka.csv": (ARFF, "holds ARFF", ROWS),
    "noending": (TEXT, "has no known ending, it holds plain text", ROWS),
    "it's $HOME;.dat": (TEXT, "has no known ending", ROWS),
    "-option.dat": (TEXT, "has no known ending", ROWS),
    "text.xlsx": (TEXT, "has no known ending, it holds plain text", ROWS),
    "noending.gz": (gzip.compress(TEXT), "has no known ending", ROWS),
    "packed.parquet.gz": (gzip.compress(PARQUET), "has no known ending", ROWS),
    "packed.arff.bz2": (bz2.compress(ARFF), "has no known ending", ROWS),
    "inside.csv.gz": (gzip.compress(PARQUET), "holds Parquet inside", ROWS),
    "archive.zip": (binary(zipped), "a zip archive", ROWS),
    "archive.tar": (tar("w"), "a tar archive", ROWS),
    "archive.tgz": (tar("w:gz"), "a tar archive", ROWS),
}


def refused(path):
    with pytest.raises(DataError) as caught:
        read_frame(path)
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


def type_hint(error, folder):
    """Type the hint; return the files that are new, those in a new folder too."""
    before = set(folder.rglob("*"))
    contents = {path: path.read_bytes() for path in before if path.is_file()}
    done = subprocess.run(error.hint, shell=True, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, (error.hint, done.stderr)
    for path, content in contents.items():
        moved = error.hint.startswith("mv ") and not path.exists()
        assert moved or path.read_bytes() == content, f"{error.hint} overwrites {path}"
    return [path for path in folder.rglob("*") if path not in before and path.is_file()]


@pytest.mark.skipif(shutil.which("iconv") is None, reason="the hint is for systems that have iconv")
@pytest.mark.parametrize("name", FILES)
def test_what_the_hint_makes_is_read(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, message, rows = FILES[name]
    (tmp_path / name).write_bytes(content)
    error = refused(name)
    assert message in error.message
    (made,) = type_hint(error, tmp_path)
    frame = read_frame(made).frame
    assert frame["n"].tolist() == rows["n"].tolist() and frame["t"].tolist() == rows["t"].tolist()
    assert frame["y"].tolist() == rows["y"].tolist()


def test_one_step_after_the_other_for_a_packed_foreign_file(tmp_path):
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(LINES))
    (unpacked,) = type_hint(refused(tmp_path / "rows.jsonl.gz"), tmp_path)
    (made,) = type_hint(refused(unpacked), tmp_path)
    assert made.name == "rows.csv" and read_frame(made).frame["t"].tolist() == ROWS["t"].tolist()


def test_a_hint_overwrites_nothing(tmp_path):
    for name in ("rows.csv", "rows-2.csv"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    (made,) = type_hint(refused(tmp_path / "rows.jsonl"), tmp_path)
    assert made.name == "rows-3.csv" and len(read_frame(made).frame) == 3
    assert free_name(tmp_path / "x", "new.csv.gz").name == "new.csv.gz"


def test_workbooks(tmp_path):
    """What Excel writes is a zip archive; whether the package that reads it is there decides the hint."""
    path = tmp_path / "book.xlsx"
    if importlib.util.find_spec("openpyxl") is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("xl/workbook.xml", "<workbook/>")
        error = refused(path)
        assert f"{sys.executable} -m pip install openpyxl && " in error.hint
        assert "pandas.read_excel(sys.argv[1]).to_csv(sys.argv[2], index=False)" in error.hint
    else:
        ROWS.to_excel(path, index=False)
        error = refused(path)
        (made,) = type_hint(error, tmp_path)
        assert read_frame(made).frame["t"].tolist() == ROWS["t"].tolist()
    assert "is an Excel workbook" in error.message


@pytest.mark.parametrize("first", ["PAR1", "ORCID", "BZh9", "[a]", "{a}", "@home", "ARROW1", "utf-16"])
def test_names_that_begin_like_other_formats_are_names(tmp_path, first):
    (tmp_path / "t.csv").write_text(f"{first},y\n1,u\n2,v\n")
    assert list(load_table(str(tmp_path / "t.csv")).x.columns) == [first]


def test_too_many_columns_and_too_many_rows_end_in_a_part_that_is_read(tmp_path):
    wide = tmp_path / "wide.csv"
    count = MOST_COLUMNS + 5
    for separator, packing in ((",", ""), (";", ""), ("\t", ".gz"), ("|", "")):
        line = separator.join(f"c{number}" for number in range(count)) + "\n"
        text = line + separator.join(["1"] * count) + "\n"
        path = wide.with_suffix(f".csv{packing}")
        path.write_bytes(gzip.compress(text.encode()) if packing else text.encode())
        (made,) = type_hint(refused(path), tmp_path)
        assert list(read_frame(made).frame.columns) == [*(f"c{n}" for n in range(500)), f"c{count - 1}"]
        made.unlink()
    pd.DataFrame({f"c{number}": [0, 1] for number in range(count)}).to_parquet(tmp_path / "wide.parquet")
    (made,) = type_hint(refused(tmp_path / "wide.parquet"), tmp_path)
    assert list(read_frame(made).frame.columns) == [*(f"c{n}" for n in range(500)), f"c{count - 1}"]


def test_too_much_for_the_memory_ends_in_first_rows_that_are_read(tmp_path, monkeypatch):
    room = ROOM // 8
    for module in ("bounds", "chunks", "parquet_format"):
        monkeypatch.setattr(f"tttab.data.{module}.ROOM", room)
    tall = tmp_path / "tall.csv.gz"
    tall.write_bytes(gzip.compress(b"a,y\n" + b"0,1\n" * (room // 90)))
    (made,) = type_hint(refused(tall), tmp_path)
    assert 125_000 < len(read_frame(made).frame) < room // 90
    rows = 3_200_000
    pd.DataFrame({"z": np.zeros(rows, np.int8)}).to_parquet(tmp_path / "tall.parquet")
    (made,) = type_hint(refused(tmp_path / "tall.parquet"), tmp_path)
    assert 125_000 < len(read_frame(made).frame) < rows
    table = pa.table({"t": pa.DictionaryArray.from_arrays(np.zeros(rows // 5, np.int8), ["a" * 250])})
    parquet.write_table(table, tmp_path / "texts.parquet", store_schema=False)
    (made,) = type_hint(refused(tmp_path / "texts.parquet"), tmp_path)
    assert 12_500 < len(read_frame(made).frame) < rows // 5
    names = "".join(f"@attribute a{number} real\n" for number in range(500))
    (tmp_path / "tall.arff").write_text("@relation r\n" + names + "@data\n" + "{}\n" * 3_750)
    (made,) = type_hint(refused(tmp_path / "tall.arff"), tmp_path)
    assert 1_250 < len(read_frame(made).frame) < 3_750
