"""The readers that `fuzz` attacks, with valid inputs of each: `TARGETS`.

To add a reader, add one entry.
"""

from __future__ import annotations

import io
import json
import warnings
from functools import cache

from tools.fuzz_cells import cell_seeds, make_cells, read_cells
from tools.fuzz_inputs import Target, change_lines, damaged, pick, seeds_of
from tools.fuzz_large import gzipped, large_seeds, make_large, read_large, zstandard
from tools.fuzz_models import (
    bundle_seeds,
    change_checkpoint,
    change_manifest,
    checkpoint_seeds,
    read_any_model,
    read_bundle,
)


def read_table(path):
    """Load the table; its schema must convert the raw file to the same features, read as new rows are."""
    from tttab.data import load_table, read_frame, schema_of

    table = load_table(str(path))
    schema = schema_of(table)
    raw = read_frame(path, text_columns=schema.text_columns)
    again = schema.apply(raw.frame, raw.decimals)
    if len(again) == len(table) and not again.equals(table.x):
        raise AssertionError("the schema gives other features than the loader")


def read_catalog(path):
    from tttab.data import read_catalog

    return read_catalog(path)


def read_schema(path):
    from tttab.data import schema_from_dict
    from tttab.errors import DataError

    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError("not JSON", "write it again") from error
    return schema_from_dict(content)


def read_results(path):
    """Read a store and write it down in every form; a line that was not damaged must be used."""
    from tttab.bench import html_report, markdown_report, read_store
    from tttab.bench.export import bencheval_frame, rows_frame

    folder = path.parent / "store"
    folder.mkdir(exist_ok=True)
    (folder / "cells-a.jsonl").write_bytes(path.read_bytes())
    contents = read_store(folder)
    whole = {line for seed in seeds_of(TARGETS["store"]) for line in seed.split(b"\n")}
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line in whole and f"cells-a.jsonl:{number}" in contents.damaged:
            raise AssertionError(f"line {number} is whole and was left out")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        html_report(contents), markdown_report(contents)
        if contents.records:
            rows_frame(contents), bencheval_frame(contents)


@cache
def small_frame():
    import pandas as pd

    return pd.DataFrame(
        {
            "number": [1.5, None, -3.25e300, 4.0] * 3,
            "text": ["a", "=1+1", "naïve, 'q'", None] * 3,
            "flag": [True, False, True, True] * 3,
            "day": pd.to_datetime(["2020-01-01", "1969-12-31", None, "2262-01-01"] * 3),
            "level": pd.Categorical(["x", "y", "x", None] * 3),
            "target": ["u", "v", "w"] * 4,
        }
    )


def csv_seeds():
    frame = small_frame()
    return [frame.to_csv(index=False).encode(), frame.to_csv(index=False, sep=";", quoting=1).encode()]


def packed_seeds(pack):
    return lambda: [pack(seed) for seed in csv_seeds()]


def change_packed(pack):
    """Return a function that packs a damaged CSV file."""
    return lambda data, rng: pack(damaged(pick(rng, csv_seeds()), TARGETS["csv"], rng))


def packed_target(suffix, pack):
    """Return the target of packed CSV files; sometimes the content is damaged, not the file."""
    change = change_packed(pack)
    return Target(suffix, packed_seeds(pack), read_table, in_place=True, change=change, by_bytes=0.2)


def parquet_seeds():
    seeds = []
    for compression in ("snappy", None):
        stream = io.BytesIO()
        small_frame().to_parquet(stream, compression=compression)
        seeds.append(stream.getvalue())
    return seeds


def arff_seeds():
    dense = (
        "% comment\n@RELATION 'a b'\n@ATTRIBUTE n REAL\n@ATTRIBUTE 'the text' STRING\n"
        "@ATTRIBUTE d DATE \"yyyy-MM-dd\"\n@ATTRIBUTE y {u,'v w'}\n@DATA\n"
        "1.5,'a,b',\"2020-01-01\",u\n?,?,?,'v w'\n-2e3,'it\\'s',\"1999-12-31\",u\n"
    )
    sparse = "@relation s\n@attribute a numeric\n@attribute y {p,q}\n@data\n{0 3, 1 q}\n{}\n{0 1}\n"
    return [dense.encode(), sparse.encode()]


def catalog_seeds():
    flow = "tables:\n  one: {openml: 1, tags: [a, b]}\n  two:\n    openml: 2\nsuites:\n  s: [one]\n"
    block = (
        "# known tables\ntables:\n  banana:\n    bundled: true\n    target: target\n    rows: 5300\n"
        '    licence: CC BY 4.0\n    source: "KEEL, artificial"\n  r: {openml: 3, task: regression}\n'
        "suites:\n  offline:\n    - banana\n  all:\n    [\n      banana, r\n    ]\n"
    )
    return [flow.encode(), block.encode()]


def schema_seeds():
    from tttab.data import load_table, schema_of

    return [json.dumps(schema_of(load_table(name)).to_dict()).encode() for name in ("credit-g", "titanic")]


def store_seeds():
    """A small benchmark, and the same rows with the oddest values that a row may have."""
    from tttab.bench.records import Cell, Machine, Record
    from tttab.core import Row, identity_hash

    machine = Machine("CPU", 2, 4.0, "Linux", "3.11.0", {"torch": "2"})
    odd = {"accuracy": 1.0, "log_loss": 1e150, "roc_auc": float("nan"), "of_tomorrow": -1e150}
    seeds = []
    for metrics, seconds, name in (
        ({"accuracy": 0.8, "log_loss": 0.5}, 2.5, "alpha"),
        (odd, 1e-320, "a|<b>\u202e"),
    ):
        lines = [machine.to_dict(), {"kind": "unavailable", "table": "away", "reason": "no network"}]
        for arm, n, seed in (
            ("icl@n", 50, 0),
            ("icl@n", 200, 0),
            ("ttt@n+k", 200, 0),
            ("icl@n+k", 200, 0),
            ("gbt", 200, 1),
        ):
            identity = {"table": name, "arm": arm, "n": n, "seed": seed}
            row = Row(identity, arm, n, 100, metrics, {"adapt": seconds}, seconds, error="no" if seed else "")
            at = Cell(
                name,
                seed,
                n,
                100,
                arm,
                identity_hash(identity),
                "f1",
                "m",
                "paper k=100",
                "full",
                "r",
                classes=2,
            )
            lines.append(Record(at, row, seconds, "2026-01-01T00:00:00+00:00", machine.id).to_dict())
        seeds.append("\n".join(json.dumps(line, separators=(",", ":")) for line in lines).encode() + b"\n")
    return seeds


TARGETS = {
    "csv": Target(
        ".csv",
        csv_seeds,
        read_table,
        (
            b'"',
            b",",
            b";",
            b"\n",
            b"\r",
            b"\0",
            b"\xff",
            b"=cmd|'/C calc'!A0",
            b"inf",
            b"1e999",
            b"NaT",
            b"9999-12-31",
            b"True",
            b"0x10",
            b"99999999999999999999",
            b'""',
            b"\xef\xbb\xbf",
            b"2020-01-01T25",
        ),
    ),
    "csv.gz": packed_target(".csv.gz", gzipped),
    "csv.zst": packed_target(".csv.zst", zstandard),
    "parquet": Target(".parquet", parquet_seeds, read_table, in_place=True),
    "arff": Target(
        ".arff",
        arff_seeds,
        read_table,
        (
            b"@attribute",
            b"@data",
            b"@relation",
            b"{",
            b"}",
            b"'",
            b'"',
            b"?",
            b"%",
            b"\\u",
            b"\\",
            b",",
            b"date",
            b"relational",
            b"{999999999 1}",
            b"1e999",
            b"\n",
        ),
    ),
    "datasets.yaml": Target(
        ".yaml",
        catalog_seeds,
        read_catalog,
        (
            b"&a ",
            b"*a",
            b"!!python/object/apply:os.system [touch /tmp/fuzzed]",
            b"[",
            b"]",
            b"{",
            b"}",
            b"- ",
            b"? ",
            b": ",
            b"<<: *a",
            b"|\n",
            b">\n",
            b"'",
            b'"',
            b"\t",
            b"---\n",
            b"...\n",
            b"%YAML 9.9\n",
            b"#",
            b"../../etc/passwd",
            b"bundled: true",
            b"openml: 1e9",
            b"!!binary ",
            b"2020-01-01",
        ),
    ),
    "schema": Target(
        ".json",
        schema_seeds,
        read_schema,
        (b"[", b"{", b"]", b"}", b'"', b"null", b"NaN", b"1e999", b'"kind":', b'"pickle"', b"-1", b"\\ud800"),
        change=change_lines,
    ),
    "store": Target(
        ".jsonl",
        store_seeds,
        read_results,
        (
            b"[",
            b"{",
            b"]",
            b"}",
            b'"',
            b":",
            b",",
            b"\n",
            b"null",
            b"true",
            b"NaN",
            b"1e999",
            b"1e-320",
            b"-1",
            b"0",
            b"9" * 30,
            b'{"a": 1}',
            b"[1]",
            b'"x"',
            b"\\ud800",
            b"\\u0000",
            b"\\u202e",
            b"<script>",
            b'"kind":"row"',
        ),
        change=change_lines,
    ),
    "numbers": Target(".json", cell_seeds, read_cells, change=make_cells, by_bytes=0.05),
    "dictionaries": Target(".bin", large_seeds, read_large, in_place=True, change=make_large, by_bytes=0.1),
    "manifest": Target(".json", bundle_seeds, read_bundle, change=change_manifest, by_bytes=0.05),
    "checkpoint": Target(
        ".safetensors",
        checkpoint_seeds,
        read_any_model,
        in_place=True,
        change=change_checkpoint,
        by_bytes=0.2,
    ),
}
