"""Bundles under faults: at any moment the folder holds one whole bundle, the old one or the new one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tttab import bundle as format_
from tttab.bundle import Bundle, save_bundle
from tttab.manifest import check_files, read_manifest

KILLS = 20
ROUNDS = 10

NURSERY = """
import os, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
from test_bundle_faults import KILLS, ROUNDS, assert_whole, stand_in
from tttab.bundle import save_bundle
from tttab.manifest import read_manifest

def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid

def save(numbers):
    for number in numbers:
        save_bundle(folder, stand_in(number))

folder, mode = sys.argv[2:]
start = time.perf_counter()
save([1, 2, 0])
one = (time.perf_counter() - start) / 3
if mode == "kill":
    rng, seen = random.Random(0), set()
    for number in range(KILLS):
        pid = child(lambda: save(range(1, 10**6)))
        time.sleep(rng.uniform(0, 4 * one))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        seen.add(assert_whole(folder))
    save([1])
    assert_whole(folder)
    print(len(seen), len(os.listdir(folder)))
else:
    pids = [child(lambda: save(range(start, start + ROUNDS))) for start in (100, 200)]
    reads = 0
    while pids:
        read_manifest(folder)
        reads += 1
        pids = [pid for pid in pids if os.waitpid(pid, os.WNOHANG)[0] == 0]
    print(assert_whole(folder), len(os.listdir(folder)), reads)
"""


class StandIn:
    """A session that only knows how to be saved: 200 kB named by a number."""

    seed = 0

    def __init__(self, number: int) -> None:
        from tttab.core import ModelInfo

        self.number = number
        self.info = ModelInfo("stand-in", "none.safetensors", "0" * 64, "nothing", "classification")
        self.module = self

    def parameters(self):
        from types import SimpleNamespace

        yield SimpleNamespace(device=SimpleNamespace(type="cpu"), dtype="torch.float32")

    def save(self, path: str, extra) -> None:
        Path(path).write_bytes(self.number.to_bytes(4, "big") * 50_000)


def stand_in(number: int) -> Bundle:
    """Return a bundle whose weights and context both hold `number`."""
    import pandas as pd

    from tttab.data.schema import Column, Schema

    schema = Schema((Column("x", "number"),), "y", "classification", ("no", "yes"))
    x = pd.DataFrame({"x": np.full(10, float(number))})
    return Bundle(StandIn(number), x, np.arange(10) % 2, schema, {"number": number})


def assert_whole(folder: str | Path) -> int:
    """Assert that every file is that of the manifest, and return the bundle's number."""
    import pandas as pd

    assert {verdict for _, _, verdict in check_files(folder)} == {"ok"}
    manifest = read_manifest(folder)
    number = manifest["record"]["number"]
    files = manifest["files"]
    assert (Path(folder) / files["weights"]["file"]).read_bytes()[:4] == number.to_bytes(4, "big")
    assert (pd.read_parquet(Path(folder) / files["context"]["file"])["x"] == number).all()
    return number


def failing(call, moment: int, error: BaseException):
    """Return `call` that raises at its `moment`-th use, before or after its work."""
    count = -1

    def wrapped(*args, **kwargs):
        nonlocal count
        count += 1
        if count == moment // 2 and moment % 2 == 0:
            raise error
        answer = call(*args, **kwargs)
        if count == moment // 2:
            raise error
        return answer

    return wrapped


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize(
    ("place", "name", "calls"),
    [
        (os, "replace", 3),
        (format_, "flush_to_disk", 2),
        (format_, "sha256_of", 2),
        (format_, "write_text_atomically", 1),
        (format_, "_flush_folder", 2),
        (format_, "_remove_leftovers", 1),
    ],
)
def test_an_error_at_any_moment_leaves_one_whole_bundle(tmp_path, monkeypatch, error, place, name, calls):
    save_bundle(tmp_path, stand_in(1))
    for moment in range(2 * calls):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, failing(getattr(place, name), moment, error))
            with pytest.raises(type(error)):
                save_bundle(tmp_path, stand_in(2))
        assert assert_whole(tmp_path) in (1, 2)
    save_bundle(tmp_path, stand_in(3))
    assert assert_whole(tmp_path) == 3
    assert len(list(tmp_path.iterdir())) == 4  # lock, manifest, weights, context: no leftovers


def nursery(folder: Path, mode: str) -> list[int]:
    command = [sys.executable, "-c", NURSERY, str(Path(__file__).parent), str(folder), mode]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return [int(word) for word in done.stdout.split()]


def test_kill_at_random_moments_leaves_one_whole_bundle(tmp_path):
    different, files = nursery(tmp_path, "kill")
    assert different > 2  # some were killed after a save, or nothing was tested
    assert files == 4


def test_two_processes_end_with_one_whole_bundle(tmp_path):
    number, files, reads = nursery(tmp_path, "race")
    assert number in (100 + ROUNDS - 1, 200 + ROUNDS - 1)
    assert files == 4
    assert reads > 10


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_old_bundle_whole(small_disk):
    save_bundle(small_disk, stand_in(1))
    (small_disk / "ballast").write_bytes(bytes(120_000))
    with pytest.raises(OSError, match="No space left"):
        save_bundle(small_disk, stand_in(2))
    assert assert_whole(small_disk) == 1
    (small_disk / "ballast").unlink()
    save_bundle(small_disk, stand_in(2))
    assert assert_whole(small_disk) == 2


def test_a_full_disk_in_safetensors_is_a_bundle_error(small_disk, tiny_model):
    from tttab.errors import BundleError

    bundle = stand_in(1)
    bundle.session = tiny_model
    with pytest.raises((OSError, BundleError), match="No space left"):
        save_bundle(small_disk, bundle)
    assert not list(small_disk.glob("*weights*"))
