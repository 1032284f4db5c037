"""Small files that stand for much: each is read, or refused in one line, in seconds and within a gigabyte."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from tttab.data import bounds, load_table, read_frame
from tttab.data.chunks import read_pieces
from tttab.errors import DataError

READ_ALL = """
import json, sys, time
import pandas, pyarrow.parquet
from tttab.data import load_table
from tttab.data.chunks import read_pieces
from tttab.errors import TttabError
from tttab.system.resources import peak_resident_bytes

def read(ask):
    before, start = peak_resident_bytes(), time.process_time()
    try:
        ask()
        told = "read"
    except TttabError as error:
        told = error.message
    return told, time.process_time() - start, peak_resident_bytes() - before

for path in sys.argv[1:]:
    whole = read(lambda: load_table(path, target="y"))
    pieces = read(lambda: [len(piece.frame) for piece in read_pieces(path, 20_000)])
    print(json.dumps([path, whole, pieces]))
"""


def text_table(path, texts, rows, **options):
    """Write a column of few long texts as a file of some hundred bytes, as any writer may."""
    codes = pa.array(np.arange(rows) % len(texts), pa.int32())
    column = pa.DictionaryArray.from_arrays(codes, pa.array(texts))
    table = pa.table({"t": column, "y": np.arange(rows) % 2})
    parquet.write_table(table, path, compression="zstd", store_schema=False, **options)


def hostile_files(folder):
    """Return (path, part of the message or `read`)."""
    wide = ",".join(f"c{number}" for number in range(10_000)) + ",y\n"
    arff = "@relation r\n" + "".join(f"@attribute a{number} numeric\n" for number in range(300))
    arff += "@attribute y {u,v}\n@data\n"
    texts = {
        "commas.csv": ("," * 1_000_000, "1,000,001 columns"),
        "columns.csv": (",".join(f"c{number}" for number in range(100_000)) + "\n1\n", "100,000 columns"),
        "first_row.csv": ("a,y\n" + "," * 1_000_000, "first row has"),
        "ragged.csv": (wide + "1\n" * 60_000, "of memory or more"),
        "header.csv": ("x" * 5_000_000 + ",y\n1,2\n", "first line of more than"),
        "name.csv": ("x" * 100_000 + ",y\n1,2\n", "has 100,000 characters"),
        "line.csv": ("a,y\n" + "x" * 20_000_000 + ",1\n2,3\n", "line 2 of"),
        "quotes.csv": ("a,y\n" + '1,"' * 1_000_000, "cannot be read as CSV"),
        "open_quotes.csv": (',"' * 1_000_000, "500,001 columns"),
        "rows.arff": (arff + "{}\n" * 60_000, "of memory or more"),
        "columns.arff": (arff.replace("@data", "@attribute b real\n" * 10_000 + "@data"), "columns; at most"),
        "line.arff": (arff + "'" + "\\'" * 10_000_000 + "\n", "is longer than 16 MiB"),
        "name.arff": ("@relation r\n@attribute " + "a" * 100_000 + " real\n" + arff[12:], "characters"),
    }
    for name, (text, told) in texts.items():
        (folder / name).write_text(text)
        yield folder / name, told
    text_table(folder / "text.parquet", ["a" * 10**6], 30_000)
    yield folder / "text.parquet", "read"
    parquet.write_table(pa.table({"z": np.zeros(25_000_000, np.int8)}), folder / "zeros.parquet")
    yield folder / "zeros.parquet", "of memory or more"
    parquet.write_table(pa.table({f"c{n}": [0, 1] for n in range(10_100)}), folder / "columns.parquet")
    yield folder / "columns.parquet", "10,100 columns"
    (folder / "rows.csv.gz").write_bytes(gzip.compress(b"a,y\n" + b"0,1\n" * 2**23))
    yield folder / "rows.csv.gz", "of memory or more"
    (folder / "line.csv.gz").write_bytes(gzip.compress(b"a,y\n" + b"0" * 2**25))
    yield folder / "line.csv.gz", "line 2 of"
    (folder / "rows.csv.zst").write_bytes(pa.compress(b"a,y\n" + b"0,1\n" * 2**23, "zstd", asbytes=True))
    yield folder / "rows.csv.zst", "of memory or more"


def test_small_files_that_stand_for_much(tmp_path):
    files = dict(hostile_files(tmp_path))
    done = subprocess.run([sys.executable, "-c", READ_ALL, *map(str, files)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(files) == 19
    for (path, told), (_, whole, pieces) in zip(files.items(), answers, strict=True):
        for message, seconds, growth in (whole, pieces):
            assert told in message, (path.name, message)
            assert seconds < 5 and growth < 1e9, (path.name, seconds, growth)


def test_long_texts_stay_one_dictionary_with_the_same_values(tmp_path):
    path = tmp_path / "t.parquet"
    texts = ["a" * 200_000, "b" * 100_000, "c"]
    text_table(path, texts, 1_000)
    frame = read_frame(path).frame
    assert frame["t"].dtype == "category" and frame["t"].tolist() == (texts * 334)[:1_000]
    assert sorted(load_table(str(path)).x["t"].cat.categories) == sorted(texts)
    pieces = [piece.frame for piece in read_pieces(path, 300)]
    assert [text for piece in pieces for text in piece["t"]] == frame["t"].tolist()
    assert [len(piece) for piece in pieces] == [300, 300, 300, 100]


def test_long_texts_of_many_columns_are_counted_together(tmp_path):
    """Each of 30 columns would take 30 MB written out, all of them a gigabyte."""
    rows, texts = 300, ["a" * 200_000, "b"]
    codes = pa.array(np.arange(rows) % 2, pa.int32())
    column = pa.DictionaryArray.from_arrays(codes, pa.array(texts))
    table = pa.table({f"t{number}": column for number in range(30)})
    parquet.write_table(table, tmp_path / "t.parquet", compression="zstd", store_schema=False)
    frame = read_frame(tmp_path / "t.parquet").frame
    kinds = [frame[name].dtype == "category" for name in frame]
    assert kinds == sorted(kinds) and 1 <= kinds.count(False) <= 2
    assert all(frame[name].tolist() == texts * 150 for name in ("t0", "t29"))


def test_short_texts_too_many_times_are_refused(tmp_path):
    """Half a megabyte on disk, five gigabytes written out: too short on average to stay a dictionary."""
    codes = pa.array(np.zeros(20_000_000, np.int8))
    column = pa.DictionaryArray.from_arrays(codes, pa.array(["a" * 250]))
    parquet.write_table(pa.table({"y": column}), tmp_path / "t.parquet", store_schema=False)
    with pytest.raises(DataError, match=r"takes 7\.4 GiB of memory or more; 512\.0 MiB are allowed"):
        read_frame(tmp_path / "t.parquet")
    piece = next(read_pieces(tmp_path / "t.parquet", 20_000))
    assert len(piece.frame) == 20_000 and set(piece.frame["y"]) == {"a" * 250}


def test_short_texts_come_as_pandas_reads_them(tmp_path):
    path = tmp_path / "t.parquet"
    text_table(path, ["x", "a longer text", "z"], 5_000, row_group_size=700)
    expected = pd.read_parquet(path)
    pd.testing.assert_frame_equal(read_frame(path).frame, expected)
    pieces = [piece.frame for piece in read_pieces(path, 999)]
    pd.testing.assert_frame_equal(pd.concat(pieces, ignore_index=True), expected)


def test_room_grows_with_the_file_and_ends_with_the_memory_of_the_machine(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "1,2\n" * 1_000)
    assert bounds.room_for(path, whole=False).most == bounds.ROOM
    monkeypatch.setattr(bounds, "ROOM", 10)
    assert bounds.room_for(path, whole=False).most == bounds.RATIO * 4_004
    monkeypatch.setattr(bounds, "free_memory", lambda: 50_000)
    with pytest.raises(DataError, match=r"takes about .* of memory or more, 48.8 KiB are free"):
        read_frame(path)
    assert sum(len(piece.frame) for piece in read_pieces(path, 100)) == 1_000, "pieces are not held at once"


def test_free_memory_is_that_of_the_container(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(bounds, "CONTAINER", limit)
    machine = bounds.free_memory()
    limit.write_text("max\n")
    assert bounds.free_memory() == pytest.approx(machine, rel=0.5)
    limit.write_text(f"{2**40}\n")
    assert bounds.free_memory() == pytest.approx(machine, rel=0.5)
    limit.write_text("1000\n")
    assert bounds.free_memory() == 0


def test_wide_tables_of_numbers_are_a_matter_of_memory(tmp_path, monkeypatch):
    """5,000 columns of a million rows are refused by their size alone, and before a row is read."""
    path = tmp_path / "t.parquet"
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 50)), columns=map(str, range(50)))
    frame.to_parquet(path)
    assert read_frame(path).frame.equals(frame)
    monkeypatch.setattr(bounds, "free_memory", lambda: 40 * 50 * bounds.CELL)
    with pytest.raises(DataError, match="are free") as caught:
        read_frame(path)
    assert "iter_batches(" in caught.value.hint
