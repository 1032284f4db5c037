"""Small files of large tables, for `fuzz`: wide, tall, long texts in dictionaries, sparse rows, packed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma

import numpy as np

from tools.fuzz_inputs import pick
from tttab.seeding import numpy_stream

STARTS = {
    b"PAR1": ".parquet",
    b"@": ".arff",
    b"\x1f\x8b": ".csv.gz",
    b"BZh": ".csv.bz2",
    b"\xfd7zXZ": ".csv.xz",
    b"\x28\xb5\x2f\xfd": ".csv.zst",
}
"""First bytes, and the ending of such files; everything else is CSV."""
PIECE = 20_000
LARGEST_FILE = 100_000_000
"""Bytes: what is larger is no small file."""
LARGEST_TEXT = 4_000_000
"""Characters of the text formats' inputs before they are packed."""


def make_large(data, rng):
    """Return a small file of a large table. `data`, a valid one, is not used."""
    while True:
        try:
            made = pick(rng, [_parquet, _parquet, _csv, _arff])(rng)
        except MemoryError:  # pyarrow may unpack what it is to write; the worker's memory is bounded
            continue
        if len(made) <= LARGEST_FILE:
            return made


def large_seeds():
    """Return one file of each format."""
    rng = numpy_stream(0, "fuzz", "large")
    return [_parquet(rng), _csv(rng), _arff(rng)]


def read_large(path):
    """Read a file whole and in pieces, which must have the same rows, and make a table of it."""
    from tttab.data import Origin, read_frame, schema_of, table_from_frame
    from tttab.data.chunks import read_pieces

    start = path.read_bytes()[:8]
    suffix = next((suffix for first, suffix in STARTS.items() if start.startswith(first)), ".csv")
    path = path.rename(path.parent / f"large{suffix}")
    raw = read_frame(path)
    rows = len(raw.frame)
    if suffix != ".arff":  # that is read whole either way
        in_pieces = sum(len(piece.frame) for piece in read_pieces(path, PIECE))
        if in_pieces != rows:
            raise AssertionError(f"{in_pieces} rows in pieces, {rows} at once")
    table = table_from_frame(raw.frame, Origin("t", "file", decimals=raw.decimals))
    if len(table) == rows:
        new = schema_of(table).read(raw.frame[:PIECE], raw.decimals)
        if new.unseen or not new.x.equals(table.x[:PIECE]):
            raise AssertionError("the schema gives other features than the loader")


def _size(rng, most):
    """Return a size from 1 to `most`, most often far smaller: in an hour many are tried."""
    most = most if rng.random() < 0.15 else max(2, most // 100)
    return int(10 ** rng.uniform(0, np.log10(most)))


def _columns(rng):
    """Return a number of columns: few, many, or more than are read. In between, time is honest work."""
    return int(
        pick(rng, [rng.integers(1, 5), rng.integers(1, 5), _size(rng, 1_000), 10 ** rng.uniform(4.001, 5)])
    )


def _parquet(rng):
    """Return a Parquet file: some columns and many rows, or many columns."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    stream = io.BytesIO()
    wide = rng.random() < 0.15
    rows = 1 + _size(rng, 20 if wide else 1_000_000)
    kinds = [_texts, _texts, _texts, _plain, _plain, _plain, _nested]
    distinct = [pick(rng, kinds)(rng, rows) for _ in range(int(rng.integers(1, 4)))]
    count = (_size(rng, 2_000) if rng.random() < 0.97 else 20_000) if wide else len(distinct)
    names = [f"c{number}" for number in range(count)]
    arrays = [distinct[number % len(distinct)] for number in range(count)]
    if rng.random() < 0.9:
        names, arrays = [*names, "y"], [*arrays, pa.array(np.arange(rows) % 3 % 2)]
    parquet.write_table(
        pa.table(arrays, names=names),
        stream,
        compression=pick(rng, ["zstd", "snappy", "gzip", "none"]),
        dictionary_pagesize_limit=2**26,
        row_group_size=int(pick(rng, [2**20, 2**20, max(1000, rows // 3)])),
        use_dictionary=True,
        write_statistics=bool(rng.random() < 0.5),
    )
    return stream.getvalue()


def _texts(rng, rows):
    """Return few long texts, many times."""
    import pyarrow as pa

    kind = pick(rng, [pa.string(), pa.string(), pa.large_string(), pa.binary()])
    long = _size(rng, 2_000_000)
    words = [pick(rng, ["x", "1", "é", "2020-01-01 ", " "]) * (long // number) for number in (1, 2, 3)]
    values = pa.array([word.encode() for word in words], pa.binary()).cast(kind)
    codes = rng.integers(0, 3, rows).astype("int32") if rng.random() < 0.5 else np.zeros(rows, "int32")
    gaps = rng.random(rows) < pick(rng, [0, 0, 0.1, 1])
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=gaps), values)


def _plain(rng, rows):
    """Return values of any other flat type."""
    import pyarrow as pa

    kind = pick(
        rng,
        [
            pa.int64(),
            pa.float32(),
            pa.float16(),
            pa.bool_(),
            pa.uint8(),
            pa.null(),
            pa.timestamp("ns", "Europe/Berlin"),
            pa.timestamp("s"),
            pa.date32(),
            pa.time64("us"),
            pa.duration("ms"),
            pa.decimal128(38, 10),
            pa.decimal256(70, 2),
        ],
    )
    if kind == pa.null():
        return pa.nulls(rows)
    if pa.types.is_decimal(kind):
        return pa.array(np.arange(rows) % 97).cast(pa.decimal128(20, 0)).cast(kind)
    if kind == pa.float16():
        return pa.array((np.arange(rows) % 97).astype("float16"))
    return pa.array(np.arange(rows) % 97, pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)


def _nested(rng, rows):
    """Return lists or structures; long lists in few rows too."""
    import pyarrow as pa

    if rng.random() < 0.3:
        return pa.StructArray.from_arrays([pa.nulls(rows, pa.int8())], ["inner"])
    each = max(1, min(_size(rng, 100_000), 2_000_000 // rows))
    values = pa.array(np.zeros(rows * each, "int8"))
    return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * each, pa.int32()), values)


def _csv(rng):
    """Return CSV: many columns, many rows, long cells, long names, or few of all; packed now and then."""
    mark = pick(rng, ",,;\t|")
    columns = _columns(rng)
    cell = pick(
        rng, ["", "1", "a", '""', '"x\ny"', "1,5", "2020-01-01", "1.2.2020", " ", "1e5", "7 days", "true"]
    )
    if cell.count(mark):
        cell = f'"{cell}"'
    name = pick(rng, ["c", "c", "c", "n" * _size(rng, 10_000)])
    header = mark.join(f"{name[: 200_000 // columns + 1]}{number}" for number in range(columns))
    row = mark.join([cell * _size(rng, 1000 if rng.random() < 0.1 and '"' not in cell else 1)] * columns)
    rows = 1 + _size(rng, max(2, LARGEST_TEXT // (len(row) + 3)))
    lines = [f"{header}{mark}y", *(f"{row}{mark}{'uv'[number % 2]}" for number in range(rows))]
    if rng.random() < 0.3:
        at = int(rng.integers(0, len(lines)))
        lines[at] += pick(rng, [mark, mark * _size(rng, 1_000_000), "x" * _size(rng, 3_000_000), '"', "\0"])
    data = "\n".join(lines).encode()
    return pick(rng, [bytes, bytes, bytes, gzipped, bz2.compress, lzma.compress, zstandard])(data)


def gzipped(data):
    return gzip.compress(data, mtime=0)


def zstandard(data):
    import pyarrow as pa

    return pa.Codec("zstd").compress(data, asbytes=True)


def _arff(rng):
    """Return ARFF: many attributes, many empty rows, many levels, long values."""
    count = _columns(rng)
    kinds = [
        "numeric",
        "string",
        "{a,b}",
        "{p}",
        'date "yyyy-MM-dd"',
        "{" + ",".join(f"l{n}" for n in range(300)) + "}",
    ]
    kind = kinds[0] if count > 10 and rng.random() < 0.8 else ""
    head = [
        f"@attribute a{number} {kind or pick(rng, kinds[: 4 + 2 * (count < 10)])}" for number in range(count)
    ]
    head += ["@attribute y {p,q}", "@data"]
    row = pick(
        rng,
        [
            "{}",
            "{}",
            "{0 ?}",
            f"{{{count} q}}",
            f"{{0 {'1' * _size(rng, 1000)}}}",
            ",".join(["?"] * (count + 1)),
            "?",
        ],
    )
    rows = 1 + _size(rng, max(2, LARGEST_TEXT // (len(row) + 1)))
    lines = ["@relation r", *head, *[row] * rows]
    lines[-rows::2] = [f"{{{count} q}}"] * len(lines[-rows::2])
    if rng.random() < 0.3:
        at = int(rng.integers(0, len(lines)))
        lines[at] += pick(
            rng, ["," * _size(rng, 1_000_000), "'" * _size(rng, 1_000_000), "x" * _size(rng, 3_000_000), " {"]
        )
    return "\n".join(lines).encode()
