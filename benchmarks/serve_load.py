"""`tttab serve` under load on loopback: many clients at once, slow clients, and `kill -9` with a restart.

Run: python -m benchmarks.serve_load [--clients 1000] [--seconds 30] [--n 200] [--columns 10] [--slow 100]
     [--slow-seconds 40] [--rows 1] [--threads 1] [--out FILE]

A bundle of the bundled model is served by a process of its own; this one holds the clients, each with a
connection that it keeps: a request, the whole answer, the next request. Latencies are the clients', so what
this process takes of a shared core is in them. Four rows:
    crowd    all clients for --seconds: requests per second that were answered 200, p50, p95, p99
    slow     a tenth of the clients beside --slow others whose request comes a byte a second, for
             --slow-seconds: what those were answered (the server waits 30 s for a body), or `open` at the end
    killed   the server is killed in the middle of a crowd: requests that failed then, and nothing else did
    again    started again on the same port: seconds to the first answer, and whether it is the same one
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.run_speed import save

SLOW_PAUSE = 1.0
"""Seconds between two bytes of a slow client's request."""
KILLED_AFTER = 0.4
"""Share of the time after which the server is killed."""


def main() -> None:
    args = parse()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * args.clients + 100)), hard))
    with tempfile.TemporaryDirectory() as folder:
        bundle, body = make_bundle(Path(folder) / "load", args)
        rows = measure(bundle, body, args)
    save(args, rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--slow", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--slow-seconds", type=float, default=40.0)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--rows", type=int, default=1, help="rows of a request")
    parser.add_argument("--threads", type=int, default=1, help="of the server's torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def measure(bundle: Path, body: bytes, args: argparse.Namespace) -> list[dict[str, object]]:
    rows = []
    with served(bundle, 0, args) as (server, port):
        expected = asyncio.run(first_answer(port, body))
        rows.append(told("crowd", asyncio.run(crowd(port, body, args.clients, args.seconds)), args))
        some = max(1, args.clients // 10)
        rows.append(told("slow", asyncio.run(crowd(port, body, some, args.slow_seconds, args.slow)), args))
        rows.append(told("killed", asyncio.run(killed(server, port, body, args)), args))
    start = time.perf_counter()
    with served(bundle, port, args):
        same = asyncio.run(first_answer(port, body)) == expected
        rows.append({"phase": "again", "seconds": round(time.perf_counter() - start, 1), "same_answer": same})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def make_bundle(folder: Path, args: argparse.Namespace) -> tuple[Path, bytes]:
    """Return a bundle's folder and a request's body."""
    import pandas as pd

    from tttab.bundle import Bundle, save_bundle
    from tttab.data import Origin, schema_of, table_from_frame
    from tttab.models import open_model

    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(args.n + args.rows, args.columns))).add_prefix("c")
    y = np.where(x["c0"] + rng.normal(size=len(x)) > 0, "yes", "no")
    table = table_from_frame(x.assign(y=y), Origin("load", "file"))
    context = table.x.iloc[: args.n], table.y[: args.n]
    save_bundle(folder, Bundle(open_model("tttab-tiny", device="cpu"), *context, schema_of(table)))
    rows = x.tail(args.rows).round(4).to_dict("records")
    return folder, json.dumps({"rows": rows}).encode()


@contextmanager
def served(bundle: Path, port: int, args: argparse.Namespace):
    """Yield the server's process and its port."""
    command = [sys.executable, "-m", "tttab", "serve", str(bundle), "--port", str(port)]
    command += ["--device", args.device]
    threads = {name: str(args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | threads)
    try:
        found = next(found for line in server.stderr if (found := re.search(r"http://[\d.]+:(\d+)", line)))
        yield server, int(found[1])
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


class Crowd:
    """What the clients saw."""

    def __init__(self, seconds: float) -> None:
        self.end = time.perf_counter() + seconds
        self.seconds, self.latencies, self.statuses = seconds, [], Counter()


async def crowd(port: int, body: bytes, clients: int, seconds: float, slow: int = 0) -> Crowd:
    seen = Crowd(seconds)
    others = [asyncio.create_task(dribble(port, body, seen)) for _ in range(slow)]
    await asyncio.gather(*(client(port, body, seen) for _ in range(clients)))
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    return seen


async def killed(server: subprocess.Popen[str], port: int, body: bytes, args: argparse.Namespace) -> Crowd:
    task = asyncio.create_task(crowd(port, body, max(1, args.clients // 10), args.seconds))
    await asyncio.sleep(KILLED_AFTER * args.seconds)
    server.send_signal(signal.SIGKILL)
    return await task


async def client(port: int, body: bytes, seen: Crowd) -> None:
    """Ask and wait for the whole answer, again and again; a connection that fails ends this client."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < seen.end:
            start = time.perf_counter()
            writer.write(request(body))
            status, _ = await answer(reader)
            seen.statuses[status] += 1
            if status == 200:
                seen.latencies.append(time.perf_counter() - start)
        writer.close()
    except (OSError, asyncio.IncompleteReadError, ValueError):
        seen.statuses["failed"] += 1


async def dribble(port: int, body: bytes, seen: Crowd) -> None:
    """Send a request a byte at a time and note how the server ends it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    ended, status = asyncio.create_task(answer(reader)), "open"
    try:
        head, _, rest = request(body).partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        for place in range(len(rest)):
            if ended.done():
                break
            writer.write(rest[place : place + 1])
            await asyncio.sleep(SLOW_PAUSE)
        status, _ = await ended
    except (OSError, asyncio.IncompleteReadError, ValueError):
        status = "closed"
    finally:
        ended.cancel()
        seen.statuses[f"slow: {status}"] += 1
        writer.close()


def request(body: bytes) -> bytes:
    head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = re.search(r"content-length: (\d+)", head)
    return int(head.split()[1]), await reader.readexactly(int(length[1]) if length else 0)


async def first_answer(port: int, body: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(body))
    status, content = await answer(reader)
    assert status == 200, content
    writer.close()
    return content


def told(phase: str, seen: Crowd, args: argparse.Namespace) -> dict[str, object]:
    times = np.percentile(seen.latencies or [np.nan], [50, 95, 99])
    row = {
        "phase": phase,
        "rows_of_a_request": args.rows,
        "n": args.n,
        "requests_per_second": round(len(seen.latencies) / seen.seconds, 1),
        **{f"p{level}_ms": round(1e3 * value, 1) for level, value in zip((50, 95, 99), times, strict=True)},
        "statuses": {str(status): count for status, count in sorted(seen.statuses.items(), key=str)},
    }
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    main()
