"""Bundles under faults: at any moment the folder holds one whole bundle, the old one or the new one."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.forked import forked
from tttab.bundle import Bundle, save_bundle, staging
from tttab.bundle.manifest import check_files, read_manifest

KILLS = 20
ROUNDS = 10


class StandIn:
    """A session that only knows how to be saved: 200 kB named by a number."""

    seed, suffix, package, random_embeddings = 0, "safetensors", "tabpfn", True

    def __init__(self, number: int) -> None:
        from tttab.core import ModelInfo

        self.number = number
        self.info = ModelInfo("stand-in", "none.safetensors", "0" * 64, "nothing", "classification")

    def parameters(self, group):
        from types import SimpleNamespace

        return [SimpleNamespace(device=SimpleNamespace(type="cpu"), dtype="torch.float32")]

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


SAVING = [
    (os, "replace", 6),  # one of them in the proof that renaming works
    (staging, "flush_to_disk", 2),
    (staging, "sha256_of", 2),
    (staging, "_write", 3),
    (staging, "flush_folder", 2),
]
CLEARING = [(staging, "_remove", 2), (Path, "unlink", 3), (Path, "rmdir", 1)]
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "place", "name", "calls"),
    [(KeyboardInterrupt(), *step) for step in (*SAVING, *CLEARING)] + [(FULL, *step) for step in SAVING],
)
def test_an_error_at_any_moment_leaves_one_whole_bundle(tmp_path, monkeypatch, error, place, name, calls):
    save_bundle(tmp_path, stand_in(1))
    for moment in range(2 * calls):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, failing(getattr(place, name), moment, error))
            with pytest.raises(type(error)):
                save_bundle(tmp_path, stand_in(2 + moment))
        assert assert_whole(tmp_path) in range(1, 3 + moment)
    save_bundle(tmp_path, stand_in(100))
    assert assert_whole(tmp_path) == 100
    assert len(list(tmp_path.iterdir())) == 4  # lock, manifest, weights, context: no leftovers


@pytest.mark.parametrize(("place", "name", "calls"), CLEARING)
def test_an_old_file_that_cannot_be_removed_does_not_fail_the_save(tmp_path, monkeypatch, place, name, calls):
    save_bundle(tmp_path, stand_in(1))
    for number in range(calls):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, failing(getattr(place, name), 2 * number, PermissionError()))
            save_bundle(tmp_path, stand_in(2 + number))
        assert assert_whole(tmp_path) == 2 + number
    save_bundle(tmp_path, stand_in(100))
    assert len(list(tmp_path.iterdir())) == 4


def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def save(folder, numbers):
    for number in numbers:
        save_bundle(folder, stand_in(number))


def killed(folder):
    """Kill saving processes at random moments; return how many bundles were seen, and files at the end."""
    start = time.perf_counter()
    save(folder, [1, 2, 0])
    one = (time.perf_counter() - start) / 3
    rng, seen = random.Random(0), set()
    for _ in range(KILLS):
        pid = child(lambda: save(folder, range(1, 10**6)))
        time.sleep(rng.uniform(0, 4 * one))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        seen.add(assert_whole(folder))
    save(folder, [1])
    assert_whole(folder)
    return len(seen), len(os.listdir(folder))


def raced(folder):
    """Let two processes save; return the last bundle's number, files at the end and reads in between."""
    save(folder, [0])
    pids = [child(lambda start=start: save(folder, range(start, start + ROUNDS))) for start in (100, 200)]
    reads = 0
    while pids:
        read_manifest(folder)
        reads += 1
        pids = [pid for pid in pids if os.waitpid(pid, os.WNOHANG)[0] == 0]
    return assert_whole(folder), len(os.listdir(folder)), reads


def nursery(ask, folder) -> list[int]:
    """Return what `ask` says of a folder in a process that may have children."""
    code, out, err = forked(lambda: print(*ask(folder))).end(seconds=120)
    assert code == 0, err
    return [int(word) for word in out.split()]


def test_kill_at_random_moments_leaves_one_whole_bundle(tmp_path):
    different, files = nursery(killed, tmp_path)
    assert different > 2  # some were killed after a save, or nothing was tested
    assert files == 4


def test_two_processes_end_with_one_whole_bundle(tmp_path):
    number, files, reads = nursery(raced, tmp_path)
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


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its content, and every folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


def test_nothing_foreign_in_the_folder_is_touched(tmp_path):
    save_bundle(tmp_path, stand_in(1))
    (old,) = tmp_path.glob("weights-*")
    foreign = {
        ".part-photos/1.jpg": b"a",
        ".part-1a2b3c4d/weights.safetensors": b"b",
        ".manifest.json.bak": b"c",
        ".manifest.json.x1y2z3w4.json": b"d",
        "manifest.json.orig": b"e",
        "weights-0123456789abcdef.safetensors": b"f",
        "context-0123456789abcdef.parquet": b"g",
        "result-0123456789abcdef.json": b"h",
        f"copy-{old.name}": old.read_bytes(),
        ".tttab-part-photos/1.jpg": b"i",
        ".tttab-part-0123456789abcdef/weights.safetensors": b"j",
        ".tttab-part-0123456789abcdee/made.json": b"[",
        ".tttab-part-0123456789abcdee/notes.txt": b"k",
        ".tttab-part-0123456789abcded.csv": b"l",
    }
    for name, content in foreign.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for number in (2, 3):
        save_bundle(tmp_path, stand_in(number))
    kept = tree(tmp_path)
    assert {name: kept[name] for name in foreign} == foreign
    assert not (tmp_path / old.name).exists()
    assert assert_whole(tmp_path) == 3


def test_an_old_file_that_was_changed_is_no_longer_ours(tmp_path):
    save_bundle(tmp_path, stand_in(1), {"predictions.csv": lambda path: path.write_text("1\n")})
    (predictions,) = tmp_path.glob("predictions-*")
    predictions.write_text("1\nmy own remarks\n")
    save_bundle(tmp_path, stand_in(2), {"predictions.csv": lambda path: path.write_text("2\n")})
    assert predictions.read_text() == "1\nmy own remarks\n"
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("what", ["foreign", "link", "folder"])
def test_a_manifest_that_is_none_of_ours_is_never_replaced(tmp_path, what):
    from tttab.errors import RequestError

    place = tmp_path / "out" / "manifest.json"
    place.parent.mkdir()
    (tmp_path / "elsewhere.json").write_text('{"name": "my extension"}')
    if what == "folder":
        place.mkdir()
    elif what == "link":
        place.symlink_to("../elsewhere.json")
    else:
        place.write_text('{"name": "my extension"}')
    before = tree(tmp_path)
    with pytest.raises(RequestError, match=r"manifest\.json is"):
        save_bundle(tmp_path / "out", stand_in(1))
    assert tree(tmp_path) == before


def test_a_damaged_manifest_of_ours_is_replaced(tmp_path):
    save_bundle(tmp_path, stand_in(1))
    whole = (tmp_path / "manifest.json").read_bytes()
    for content in (whole[: len(whole) // 2], b"", bytes(100)):
        (tmp_path / "manifest.json").write_bytes(content)
        save_bundle(tmp_path, stand_in(2))
        assert assert_whole(tmp_path) == 2


def test_a_bundle_in_a_folder_whose_name_is_not_utf8(tmp_path):
    bundle = stand_in(1)
    bundle.record["table"] = {os.fsdecode(b"caf\xe9"): os.fsdecode(b"lat\xe9.csv")}
    bundle.session.info = replace(bundle.session.info, file=os.fsdecode(b"m\xe9.ckpt"))
    folder = tmp_path / os.fsdecode(b"o\xe9") / "b"
    save_bundle(folder, bundle)
    manifest = read_manifest(folder)
    assert manifest["record"]["table"] == {"caf?": "lat?.csv"}
    assert manifest["base"]["file"] == "m?.ckpt"
    assert {verdict for _, _, verdict in check_files(folder)} == {"ok"}
