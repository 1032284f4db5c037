"""Hostile input: thousands of damaged files for every reader; none may hang, crash or write elsewhere.

    python benchmarks/fuzz.py                     10,000 inputs for every target
    python benchmarks/fuzz.py --inputs 500 csv    fewer, one target
    python benchmarks/fuzz.py --replay csv 4711   one input again, with its traceback

Input number i of a target is a function of the seed, the target's name and i: valid files, cut,
spliced, and with bytes and telling tokens put in. A worker process with a memory limit reads them;
the parent kills it where one input takes longer than 5 s. An audit hook in the worker sees every file
opened for writing outside the scratch folder, every process started, every connection made and every
class looked up by pickle. A reader may succeed or raise a `TttabError` of one line; all else is a
finding, kept in `--keep`.

To add a reader, add one entry to `TARGETS`.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import resource
import selectors
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tttab.errors import TttabError
from tttab.seeding import numpy_stream

SECONDS = 5.0
MEMORY = 6 * 2**30
FORBIDDEN = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect",
    "pickle.find_class", "ctypes.dlopen",
)  # fmt: skip
WRITES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "shutil.rmtree")


@dataclass(frozen=True)
class Target:
    """A reader to attack."""

    suffix: str
    seeds: Callable[[], list[bytes]]
    """Valid inputs to damage."""
    read: Callable[[Path], object]
    """Reads one file; may raise TttabError."""
    tokens: tuple[bytes, ...] = ()
    """Texts that mean something to the format."""
    in_place: bool = False
    """Keep every byte where it is: for binary formats, whose readers stop at the first wrong offset."""


def read_table(path):
    """Load the table; its schema must convert the raw file to the same features."""
    from tttab.data import load_table, read_frame, schema_of

    table = load_table(str(path))
    again = schema_of(table).apply(read_frame(path).frame)
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


def gzip_seeds():
    return [gzip.compress(seed) for seed in csv_seeds()]


def zstandard_seeds():
    import pyarrow

    return [pyarrow.compress(seed, "zstd", asbytes=True) for seed in csv_seeds()]


def dictionary_seeds():
    """Return files of some kilobytes that stand for gigabytes: tall, wide and long dictionaries."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    seeds = []
    for rows, texts, columns in (
        (30_000, ["a" * 10**6], 1),
        (90, ["b" * 10**4, "c"], 30),
        (90_000, ["d"], 2),
    ):
        codes = pa.array(np.arange(rows) % len(texts), pa.int32())
        text = pa.DictionaryArray.from_arrays(codes, pa.array(texts))
        table = pa.table({f"t{number}": text for number in range(columns)} | {"y": np.arange(rows) % 2})
        stream = io.BytesIO()
        parquet.write_table(table, stream, compression="zstd", store_schema=False)
        seeds.append(stream.getvalue())
    return seeds


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


TARGETS = {
    "csv": Target(
        ".csv", csv_seeds, read_table,
        (b'"', b",", b";", b"\n", b"\r", b"\0", b"\xff", b"=cmd|'/C calc'!A0", b"inf", b"1e999", b"NaT",
         b"9999-12-31", b"True", b"0x10", b"99999999999999999999", b'""', b"\xef\xbb\xbf", b"2020-01-01T25"),
    ),
    "csv.gz": Target(".csv.gz", gzip_seeds, read_table),
    "csv.zst": Target(".csv.zst", zstandard_seeds, read_table),
    "parquet": Target(".parquet", parquet_seeds, read_table, in_place=True),
    "dictionaries": Target(".parquet", dictionary_seeds, read_table, in_place=True),
    "arff": Target(
        ".arff", arff_seeds, read_table,
        (b"@attribute", b"@data", b"@relation", b"{", b"}", b"'", b'"', b"?", b"%", b"\\u", b"\\", b",",
         b"date", b"relational", b"{999999999 1}", b"1e999", b"\n"),
    ),
    "datasets.yaml": Target(
        ".yaml", catalog_seeds, read_catalog,
        (b"&a ", b"*a", b"!!python/object/apply:os.system [touch /tmp/fuzzed]", b"[", b"]", b"{", b"}", b"- ",
         b"? ", b": ", b"<<: *a", b"|\n", b">\n", b"'", b'"', b"\t", b"---\n", b"...\n", b"%YAML 9.9\n", b"#",
         b"../../etc/passwd", b"bundled: true", b"openml: 1e9", b"!!binary ", b"2020-01-01"),
    ),
    "schema": Target(
        ".json", schema_seeds, read_schema,
        (b"[", b"{", b"]", b"}", b'"', b"null", b"NaN", b"1e999", b'"kind":', b'"pickle"', b"-1", b"\\ud800"),
    ),
}  # fmt: skip


def make_input(target, name, seed, number):
    """Return input `number`: one to eight damages to a valid file, now and then plain noise."""
    rng = numpy_stream(seed, "fuzz", name, number)
    seeds = _seeds(name)
    data = bytearray(seeds[rng.integers(len(seeds))])
    if rng.random() < 0.02:
        return rng.bytes(int(rng.integers(0, 400)))
    for _ in range(2 ** int(rng.integers(0, 4))):
        _damage(data, target, rng)
    return bytes(data)


@cache
def _seeds(name):
    return TARGETS[name].seeds()


def _damage(data, target, rng):
    """Change `data` in place at one spot."""
    at = int(rng.integers(0, len(data) + 1))
    length = int(min(len(data) - at, 2 ** rng.integers(0, 8)))
    match int(rng.integers(0, 2 if target.in_place and rng.random() < 0.98 else 7)):
        case 0:
            data[at : at + 1] = _some_bytes(1, target, rng)
        case 1:
            bit = 1 << int(rng.integers(8 if target.in_place else 7))
            data[at : at + 1] = bytes([(data[at] if at < len(data) else 0) ^ bit])
        case 2:
            del data[at : at + length]
        case 3:
            data[at:at] = data[at : at + length] * int(rng.integers(1, 9))
        case 4:
            other = int(rng.integers(0, len(data) + 1))
            data[at:at] = data[other : other + length]
        case 5:
            if rng.random() < 0.2:
                del data[at:]
        case _:
            token = target.tokens[rng.integers(len(target.tokens))] if target.tokens else b""
            token = token or _some_bytes(4, target, rng)
            data[at:at] = token * int(rng.choice([1, 1, 1, 2, 50]))


def _some_bytes(count, target, rng):
    """Return noise: printable for text formats, for the most part, so that it gets past the decoder."""
    if target.in_place or rng.random() < 0.1:
        return rng.bytes(count)
    return rng.integers(32, 127, count).astype("uint8").tobytes()


def run_input(target, path):
    """Return (`accepted`, `refused` or `traceback`, detail)."""
    try:
        target.read(path)
    except TttabError as error:
        tidy = error.message and "\n" not in error.message and error.hint
        return ("refused", "") if tidy else ("traceback", f"untidy message: {error.message!r}")
    except Exception:
        return "traceback", traceback.format_exc(limit=-4)
    return "accepted", ""


def work(name, seed, start, stop, folder):
    """Read inputs start..stop-1, one JSON line each: the worker's side."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    target, trespasses = TARGETS[name], []
    make_input(target, name, seed, 0)  # lazy imports happen before the hook is set
    for number, content in enumerate(target.seeds()):
        path = Path(folder, f"seed{number}{target.suffix}")
        path.write_bytes(content)
        run_input(target, path)
    sys.addaudithook(lambda event, args: _watch(event, args, folder, trespasses))
    print(json.dumps({"ready": True}), flush=True)
    for number in range(start, stop):
        path = Path(folder, f"input{target.suffix}")
        path.write_bytes(make_input(target, name, seed, number))
        print(json.dumps({"begin": number}), flush=True)
        began = time.perf_counter()
        outcome, detail = run_input(target, path)
        seconds = time.perf_counter() - began
        if trespasses:
            outcome, detail = "trespass", "; ".join(trespasses)
            trespasses.clear()
        print(json.dumps([number, outcome, seconds, detail]), flush=True)


def _watch(event, args, folder, trespasses):
    if event in FORBIDDEN:
        trespasses.append(f"{event} {args[:1]}")
    elif event in WRITES and not str(args[0]).startswith(folder):
        trespasses.append(f"{event} {args[0]}")
    elif event == "open" and isinstance(args[0], str) and isinstance(args[2], int):
        writing = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writing and not args[0].startswith(folder):
            trespasses.append(f"open for writing {args[0]}")


def attack(name, inputs, seed, keep):
    """Run one target in workers that are replaced when they hang or die: the parent's side."""
    counts, slowest, number = Counter(), 0.0, 0
    while number < inputs:
        with tempfile.TemporaryDirectory() as folder:
            for result in _listen(name, seed, number, inputs, folder):
                number, outcome, seconds, detail = result
                counts[outcome] += 1
                slowest = max(slowest, seconds)
                if outcome not in ("accepted", "refused"):
                    _keep(name, seed, number, detail, keep)
                number += 1
                if sys.stderr.isatty() and number % 50 == 0:
                    sys.stderr.write(f"\r{name}: {number:,} of {inputs:,} ")
    return counts, slowest


def _listen(name, seed, start, stop, folder):
    """Yield the worker's results; a hang or a death ends it with a result of its own."""
    command = [sys.executable, __file__, "--worker", name, str(seed), str(start), str(stop), folder]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    waiting, current, silence = selectors.DefaultSelector(), None, 60.0
    waiting.register(worker.stdout, selectors.EVENT_READ)
    try:
        while True:
            if not waiting.select(silence):
                yield [
                    start if current is None else current,
                    "hang",
                    silence,
                    f"no answer in {silence:.0f} s",
                ]
                return
            line = worker.stdout.readline()
            if not line:
                if worker.wait() != 0 or current is not None:
                    detail = f"exit {worker.returncode}: {worker.stderr.read()[-2000:]}"
                    yield [start if current is None else current, "death", 0.0, detail]
                return
            message = json.loads(line)
            if isinstance(message, list):
                current = None
                yield message
            else:
                current, silence = message.get("begin"), SECONDS
    finally:
        worker.kill()
        worker.communicate()


def _keep(name, seed, number, detail, keep):
    keep.mkdir(parents=True, exist_ok=True)
    stem = f"{name}-{seed}-{number}"
    (keep / f"{stem}{TARGETS[name].suffix}").write_bytes(make_input(TARGETS[name], name, seed, number))
    (keep / f"{stem}.txt").write_text(detail)


def replay(name, seed, number):
    """Read one input again and print what happens."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"input{TARGETS[name].suffix}")
        path.write_bytes(make_input(TARGETS[name], name, seed, number))
        print(path.read_bytes()[:2000])
        print(TARGETS[name].read(path))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help=f"any of {', '.join(TARGETS)} [default: all]")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "NUMBER"))
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, seed, start, stop, folder = options.worker
        return work(name, int(seed), int(start), int(stop), folder)
    if options.replay:
        return replay(options.replay[0], options.seed, int(options.replay[1]))
    columns = ("accepted", "refused", "traceback", "trespass", "hang", "death")
    print("\t".join(("target", "inputs", *columns, "slowest s", "seconds")))
    findings = 0
    for name in options.targets or TARGETS:
        began = time.perf_counter()
        counts, slowest = attack(name, options.inputs, options.seed, options.keep)
        findings += sum(counts[column] for column in columns[2:])
        cells = [name, counts.total(), *(counts[column] for column in columns)]
        print("\t".join(map(str, cells)), f"{slowest:.2f}", f"{time.perf_counter() - began:.0f}", sep="\t",
              flush=True)  # fmt: skip
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
