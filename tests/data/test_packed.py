"""Compressed CSV: the same rows as the plain file, whole and in pieces; damage is told."""

from __future__ import annotations

import bz2
import gzip
import lzma

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tttab.data import load_table, read_frame
from tttab.data.chunks import read_pieces
from tttab.errors import DataError

PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}


@pytest.fixture
def plain(tmp_path):
    """Write a CSV of 500 rows with text in quotes, line breaks and missing cells."""
    rng = np.random.default_rng(5)
    text = rng.choice(["x", "y, z", 'q"u', "line\nbreak", None], 500)
    frame = pd.DataFrame({"a": rng.normal(size=500), "t": text, "code": "007", "y": rng.integers(0, 2, 500)})
    frame.to_csv(tmp_path / "plain.csv", index=False)
    return tmp_path / "plain.csv"


@pytest.mark.parametrize("packing", PACK)
def test_packed_rows_are_the_plain_rows(plain, packing):
    path = plain.with_name(f"Packed.CSV{packing.upper()}")
    path.write_bytes(PACK[packing](plain.read_bytes()))
    pd.testing.assert_frame_equal(read_frame(path).frame, read_frame(plain).frame, check_exact=True)
    assert load_table(str(path)).fingerprint == load_table(str(plain)).fingerprint
    pieces = list(read_pieces(path, 60, text_columns=["code"]))
    expected = list(read_pieces(plain, 60, text_columns=["code"]))
    assert len(pieces) == len(expected) == 9
    for piece, other in zip(pieces, expected, strict=True):
        pd.testing.assert_frame_equal(piece.frame, other.frame, check_exact=True)
    shares = [piece.done for piece in pieces]
    assert shares[0] > 0 and shares == sorted(shares) and shares[-1] == 1.0


@pytest.mark.parametrize("packing", PACK)
def test_parts_that_were_packed_one_by_one_are_one_text(plain, packing):
    data = plain.read_bytes()
    path = plain.with_name(f"parts.tsv{packing}")
    parts = data.replace(b",", b"\t").partition(b"\n")
    path.write_bytes(b"".join(PACK[packing](part) for part in (parts[0] + parts[1], parts[2])))
    assert len(read_frame(path).frame) == 500


@pytest.mark.parametrize(
    ("packing", "damage"),
    [(packing, "cut") for packing in PACK] + [(packing, "turned") for packing in (".gz", ".bz2", ".xz")],
)  # a zst file need not hold a checksum
def test_damage_is_told(plain, packing, damage):
    data = bytearray(PACK[packing](plain.read_bytes()))
    if damage == "cut":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 0xFF
    path = plain.with_name(f"damaged.csv{packing}")
    path.write_bytes(data)
    for read in (read_frame, lambda file: list(read_pieces(file, 20))):
        with pytest.raises(DataError, match="cannot be read as CSV") as caught:
            read(path)
        assert "\n" not in caught.value.message and "| head -c 300" in caught.value.hint


def test_the_separator_and_the_decimal_mark_are_found_inside(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a|y\n1,5|u\n2,25|v\n"))
    raw = read_frame(path)
    assert set(raw.decimals.values()) == {","} and raw.frame["a"].tolist() == ["1,5", "2,25"]
