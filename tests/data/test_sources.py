"""Where a file stands: streams and folders are refused, a quoted `~` is found, a change is told."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from tttab.data import load_table, read_frame
from tttab.data import reading as reading_module
from tttab.data.chunks import read_pieces
from tttab.errors import DataError

ROWS = 60_000


def write_table(path):
    frame = pd.DataFrame({"a": np.arange(ROWS) / 7, "t": "some text", "y": np.arange(ROWS) % 2})
    if path.suffix == ".parquet":
        frame.to_parquet(path, row_group_size=5_000)
    elif path.suffix == ".arff":
        text = "@relation r\n@attribute a real\n@attribute t string\n@attribute y {0,1}\n@data\n"
        path.write_text(text + frame.to_csv(index=False, header=False))
    else:
        text = frame.to_csv(index=False).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def cut_between_rows(path):
    """Leave a file that is whole in itself, as a writer's flush does."""
    data = path.read_bytes()
    path.write_bytes(data[: data.find(b"\n", len(data) // 2) + 1 or len(data) // 2])


def grow(path):
    with open(path, "ab") as stream:
        stream.write(b"1.5,some text,0\n")


def replace(path):
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    stamp = path.stat()
    os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    other.replace(path)


def touch(path):
    os.utime(path, ns=(1, 1))


def remove(path):
    path.unlink()


@pytest.mark.parametrize("change", [cut, cut_between_rows, grow, replace, touch, remove])
@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet"])
def test_a_change_between_two_pieces_is_told(tmp_path, change, ending):
    path = tmp_path / f"t{ending}"
    write_table(path)
    pieces = read_pieces(path, 1_000)
    next(pieces)
    change(path)
    with pytest.raises(DataError, match=r"t\.[a-z.]+ was changed while it was read") as caught:
        list(pieces)
    assert caught.value.hint.startswith("cp ")


@pytest.mark.parametrize("change", [cut_between_rows, grow, replace])
@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet", ".arff"])
def test_a_change_while_the_whole_file_is_read_is_told(tmp_path, monkeypatch, change, ending):
    path = tmp_path / f"t{ending}"
    write_table(path)
    form = path.with_suffix("").suffix or path.suffix
    read = reading_module._READERS[form]

    def read_and_change(source, text_columns):
        found = read(source, text_columns)
        change(path)
        return found

    monkeypatch.setitem(reading_module._READERS, form, read_and_change)
    with pytest.raises(DataError, match="was changed while it was read"):
        read_frame(path)


def test_a_file_that_keeps_still_is_read_and_may_be_left_early(tmp_path):
    path = tmp_path / "t.csv"
    write_table(path)
    assert sum(len(piece.frame) for piece in read_pieces(path, 7_000)) == ROWS
    pieces = read_pieces(path, 7_000)
    next(pieces)
    pieces.close()  # what is left early is not judged, and no file stays open (ResourceWarning)


def test_a_fault_in_a_file_at_rest_is_not_called_a_change(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "1,2\n" * 5_000 + "1,2,3\n")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        list(read_pieces(path, 100))


@pytest.mark.parametrize("read", [read_frame, lambda path: next(read_pieces(path, 9))])
def test_what_is_no_file_is_refused_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    os.symlink("loop.csv", tmp_path / "loop.csv")
    named = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    try:
        os.chdir(tmp_path)  # a socket's name is short
        named.bind("socket.csv")
    finally:
        os.chdir(here)
        named.close()
    wanted = {
        tmp_path / "pipe.csv": ("is a stream", f"cat {tmp_path / 'pipe.csv'} > rows.csv"),
        tmp_path / "folder.csv": ("is a folder", f"ls {tmp_path / 'folder.csv'}"),
        tmp_path / "socket.csv": ("is not a regular file", "ls -l "),
        tmp_path / "loop.csv": ("cannot be read: ", "ls -ld "),
        tmp_path / ("x" * 300 + ".csv"): ("cannot be read: ", "ls -ld "),
        tmp_path / "absent" / "t.csv": ("there is no file", f"ls {tmp_path / 'absent'}"),
        "/dev/stdin": ("is a stream", "cat /dev/stdin > rows.csv"),
        "/dev/fd/0": ("is a stream", "cat /dev/fd/0 > rows.csv"),
        "/dev/zero": ("is not a regular file", "ls -l /dev/zero"),
        "nul\0.csv": ("there is no file", "ls"),
    }
    for path, (message, hint) in wanted.items():
        start = time.perf_counter()
        with pytest.raises(DataError, match=message) as caught:
            read(path)
        assert caught.value.hint.startswith(hint) and "\n" not in caught.value.message
        assert time.perf_counter() - start < 2


def test_standard_input_is_refused_however_it_is_fed(tmp_path):
    """A redirected file is regular, but has no ending and no second reading."""
    write_table(tmp_path / "t.csv")
    code = (
        "from tttab.data import read_frame\n"
        "try: read_frame('/dev/stdin')\n"
        "except ValueError as error: print(error.hint)"
    )
    with open(tmp_path / "t.csv") as stream:
        done = subprocess.run([sys.executable, "-c", code], stdin=stream, capture_output=True, text=True)
    assert done.stdout == "cat /dev/stdin > rows.csv\n", done.stderr


def test_a_quoted_home_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_table(tmp_path / "t.csv")
    assert len(read_frame("~/t.csv").frame) == ROWS
    assert sum(len(piece.frame) for piece in read_pieces("~/t.csv", 20_000)) == ROWS
    assert len(load_table("~/t.csv", target="y")) == ROWS
    with pytest.raises(DataError, match=f"there is no file {tmp_path}/u.csv") as caught:
        read_frame("~/u.csv")
    assert str(tmp_path / "t.csv") in caught.value.hint
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    (tmp_path / "~" / "t.csv").write_text("mine\n1\n")
    assert list(read_frame("~/t.csv").frame.columns) == ["mine"], "a folder may be called ~"
