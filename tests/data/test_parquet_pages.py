"""Page headers against what pyarrow writes; metadata that lies; delta-coded and nested texts."""

from __future__ import annotations

import io
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tttab.data import bounds, parquet_bounds, read_frame
from tttab.data.chunks import read_pieces
from tttab.data.parquet_pages import chunks, page_sizes
from tttab.errors import DataError


def frame(rows=4_000):
    rng = np.random.default_rng(9)
    return pd.DataFrame(
        {
            "number": rng.normal(size=rows),
            "small": rng.integers(0, 3, rows),
            "text": [f"text {n} " + "long " * 30 for n in range(rows)],
            "gaps": rng.choice(["a", "b", None], rows),
        }
    )


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd"])
def test_sizes_are_those_of_the_metadata(tmp_path, version, compression):
    path = tmp_path / "t.parquet"
    table = pa.Table.from_pandas(frame())
    parquet.write_table(
        table,
        path,
        data_page_version=version,
        compression=compression,
        row_group_size=1_500,
        data_page_size=900,
        write_batch_size=100,
    )
    pages = 0
    with open(path, "rb") as raw, parquet.ParquetFile(path) as file:
        for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
            for place in range(group.num_columns):
                chunk = group.column(place)
                start = chunk.dictionary_page_offset or chunk.data_page_offset
                sizes = list(page_sizes(raw, start, start + chunk.total_compressed_size))
                pages += len(sizes)
                headers = chunk.total_uncompressed_size - sum(sizes)
                assert 0 < headers < 600 * len(sizes)
    assert pages > 40


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=60), st.integers(0, 300))
def test_any_bytes_are_sizes_or_one_error(data, end):
    try:
        sizes = [size for size, _ in zip(page_sizes(io.BytesIO(data), 0, end), range(100), strict=False)]
        assert all(size >= 0 for size in sizes)
    except DataError as error:
        assert "header of the page at byte" in error.message


def number(value, length):
    """Return a whole number as Thrift writes it, with as many bytes as asked for."""
    value, found = 2 * value, []
    while value or not found or len(found) < length:
        found.append(value & 127)
        value >>= 7
    return bytes([byte | 128 for byte in found[:-1]] + found[-1:])


def test_metadata_that_lies_is_not_believed(tmp_path, monkeypatch):
    """Without the pages' own headers Arrow would take the memory, or end the process without it."""
    path = tmp_path / "t.parquet"
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 10, pa.int32()), pa.array(["a" * 30_000_000]))
    parquet.write_table(
        pa.table({"t": text, "y": range(10)}), path, compression="zstd", store_schema=False,
        write_statistics=False, dictionary_pagesize_limit=2**30,
    )  # fmt: skip
    data = path.read_bytes()
    group = parquet.ParquetFile(path).metadata.row_group(0)
    for told in {group.total_byte_size, group.column(0).total_uncompressed_size}:
        length = len(number(told, 0))
        assert data.count(number(told, length)) == 1
        data = data.replace(number(told, length), number(1_000, length))
    path.write_bytes(data)
    assert parquet.ParquetFile(path).metadata.row_group(0).total_byte_size == 1_000
    monkeypatch.setattr(bounds, "ROOM", 20_000_000)
    for read in (read_frame, lambda file: list(read_pieces(file, 5))):
        with pytest.raises(DataError, match=r"takes 57\.2 MiB of memory or more"):
            read(path)


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_delta_coded_texts_come_as_pandas_reads_them(tmp_path, encoding):
    path = tmp_path / "t.parquet"
    encodings = {
        "text": encoding,
        "gaps": encoding,
        "number": "BYTE_STREAM_SPLIT",
        "small": "DELTA_BINARY_PACKED",
    }
    table = pa.Table.from_pandas(frame())
    parquet.write_table(table, path, use_dictionary=False, column_encoding=encodings, row_group_size=900)
    pd.testing.assert_frame_equal(read_frame(path).frame, frame())
    pieces = [piece.frame for piece in read_pieces(path, 333)]
    pd.testing.assert_frame_equal(pd.concat(pieces, ignore_index=True), frame())


def test_a_repeated_beginning_is_counted_before_it_is_written_out(tmp_path):
    path = tmp_path / "t.parquet"
    text = pa.chunked_array([pa.array(["a" * 100_000] * 500, pa.large_string())] * 9)
    options = {"use_dictionary": False, "column_encoding": {"t": "DELTA_BYTE_ARRAY"}, "compression": "zstd"}
    parquet.write_table(pa.table({"t": text}), path, store_schema=False, **options)
    assert path.stat().st_size < 2_000
    for read in (read_frame, lambda file: next(read_pieces(file, 10))):
        with pytest.raises(DataError, match=r"of memory or more; 512\.0 MiB are allowed"):
            read(path)


def test_texts_of_a_fixed_size_are_counted(tmp_path):
    path = tmp_path / "t.parquet"
    values = pa.array([b"a" * 100_000], pa.binary(100_000))
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(6_000, np.int32)), values)
    parquet.write_table(pa.table({"t": text}), path, compression="zstd", store_schema=False)
    with pytest.raises(DataError, match=r"takes 2\.8 GiB of memory or more"):
        read_frame(path)


def test_lists_are_not_read_but_stand_where_they_stood(tmp_path):
    path = tmp_path / "t.parquet"
    table = pa.table(
        {
            "first": pa.array([["a" * 1_000]] * 600),
            "n": range(600),
            "map": pa.array([{"p": ["a" * 1_000]}] * 600),
            "last": pa.array([[1]] * 600),
        }
    )
    parquet.write_table(table, path, compression="zstd")
    found = read_frame(path).frame
    assert list(found.columns) == ["first", "n", "map", "last"]
    assert found["n"].tolist() == list(range(600))
    assert found["first"].tolist() == found["last"].tolist() == [[]] * 600 and found["map"][5] == {}
    pieces = [piece.frame for piece in read_pieces(path, 250)]
    assert [list(piece.columns) for piece in pieces] == [list(found.columns)] * 3
    assert pd.concat(pieces)["n"].tolist() == list(range(600))


def test_many_lists_take_no_time(tmp_path):
    lists = {f"l{number}": [[number]] for number in range(9_000)}
    parquet.write_table(pa.table(lists | {"n": [1]}), tmp_path / "t.parquet")
    start = time.process_time()
    assert list(read_frame(tmp_path / "t.parquet").frame.columns) == [*lists, "n"]
    assert time.process_time() - start < 5


def test_numbered_columns_beside_a_list(tmp_path):
    pd.DataFrame({0: [1, 2], 1: [[1], [2]], 2: [3, 4]}).to_parquet(tmp_path / "t.parquet")
    found = read_frame(tmp_path / "t.parquet").frame
    assert [str(name) for name in found.columns] == ["0", "1", "2"] and found.iloc[1, 2] == 4


def test_a_named_index_beside_a_list(tmp_path):
    table = pd.DataFrame({"n": [1, 2], "l": [[1], [2]]}, index=pd.Index(["x", "y"], name="id"))
    table.to_parquet(tmp_path / "t.parquet")
    found = read_frame(tmp_path / "t.parquet").frame
    assert list(found.columns) == ["id", "n", "l"] and found["id"].tolist() == ["x", "y"]


def test_pages_of_a_few_bytes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_bounds, "MOST_PAGES", 100)
    path = tmp_path / "t.parquet"
    parquet.write_table(
        pa.table({"x": range(500)}), path, use_dictionary=False, data_page_size=1, write_batch_size=1
    )
    with pytest.raises(DataError, match="pages of a few bytes") as caught:
        read_frame(path)
    assert "p.write_table(p.read_table(" in caught.value.hint


def test_statistics_that_do_not_fit_their_column_are_refused(tmp_path):
    """pyarrow's own `RowGroupMetaData.column` ends the process on this file."""
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"t": ["a", "bc"]}), path, store_schema=False, write_statistics=True)
    data = path.read_bytes()
    footer = data.rindex(b"\x15\x0c\x25")  # the schema's element: a byte array, optional
    path.write_bytes(data[:footer] + b"\x15\x04\x25" + data[footer + 3 :])  # a whole number, they say
    for read in (read_frame, lambda file: list(read_pieces(file, 5))):
        with pytest.raises(DataError, match="cannot be read as PARQUET"):
            read(path)


def test_chunks_lie_where_the_metadata_of_pyarrow_says(tmp_path):
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.Table.from_pandas(frame()), path, row_group_size=900)
    with open(path, "rb") as raw, parquet.ParquetFile(path) as file:
        told = [
            (place, start, start + chunk.total_compressed_size)
            for group in map(file.metadata.row_group, range(file.metadata.num_row_groups))
            for place, chunk in enumerate(map(group.column, range(group.num_columns)))
            for start in [chunk.dictionary_page_offset or chunk.data_page_offset]
        ]
        assert [(chunk.column, chunk.start, chunk.end) for chunk in chunks(raw)] == told


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(min_size=12, max_size=80))
def test_any_bytes_are_chunks_or_one_error(data):
    file = io.BytesIO(data + len(data).to_bytes(4, "little") + b"PAR1")
    try:
        list(chunks(file))
    except DataError as error:
        assert "metadata at the file's end" in error.message
