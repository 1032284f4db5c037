"""Claims: one writer per folder, told and ended waiting, nothing left where nothing was kept."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tttab.bundle import bundle_folder
from tttab.errors import RequestError
from tttab.system import claim as module
from tttab.system.claim import LOCK, claimed

HOLDER = """
import sys
from tttab.system.claim import claimed
with claimed(sys.argv[1]) as claim:
    claim.kept = len(sys.argv) > 2
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder():
    """A function that starts a process which claims a folder until it is told to end."""
    started = []

    def hold(folder: Path, *words: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder), *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout.readline() == "held\n"
        started.append(process)
        return process

    yield hold
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_claim_leaves_nothing_unless_something_is_kept(tmp_path):
    with claimed(tmp_path / "a" / "b"):
        assert names(tmp_path) == ["a", "a/b", "a/b/.lock"]
    assert names(tmp_path) == []
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path / "a" / "b"):
        raise KeyboardInterrupt
    assert names(tmp_path) == []
    with claimed(tmp_path / "a" / "b") as claim:
        (claim.folder / "kept.txt").touch()
        claim.kept = True
    assert names(tmp_path) == ["a", "a/b", "a/b/.lock", "a/b/kept.txt"]
    assert (tmp_path / "a/b/.lock").read_bytes() == b""


def test_what_was_there_before_stays(tmp_path):
    (tmp_path / LOCK).touch()
    (tmp_path / "empty").mkdir()
    with claimed(tmp_path / "empty" / "new"), claimed(tmp_path):
        pass
    assert names(tmp_path) == [".lock", "empty"]


def test_who_is_waited_for_is_told_and_waiting_ends(tmp_path, holder, monkeypatch):
    process = holder(tmp_path / "out")
    monkeypatch.setattr(module, "TOLD_AFTER", 0.2)
    monkeypatch.setattr(module, "GIVEN_UP_AFTER", 0.6)
    told = []
    with pytest.raises(RequestError, match=f"process {process.pid} on .* is still writing to .*out after"):
        claimed(tmp_path / "out", waiting=told.append).__enter__()
    (text,) = told
    assert text.startswith(f"waiting for process {process.pid} on ")
    assert "is writing to" in text
    with pytest.warns(UserWarning, match="waiting for process"), pytest.raises(RequestError):
        claimed(tmp_path / "out").__enter__()


def test_waiting_ends_when_the_other_does(tmp_path, holder):
    process = holder(tmp_path / "out")
    threading.Timer(0.3, lambda: process.stdin.close()).start()
    with bundle_folder(tmp_path / "out") as claim:
        assert process.wait(10) == 0
        assert names(tmp_path) == ["out", "out/.lock"]
        assert str(os.getpid()) in (claim.folder / LOCK).read_text()
    assert not (tmp_path / "out" / LOCK).exists()


def test_a_killed_holder_holds_nothing(tmp_path, holder):
    process = holder(tmp_path / "out")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    with claimed(tmp_path / "out"):
        assert f"process {os.getpid()} on" in (tmp_path / "out" / LOCK).read_text()


def test_many_threads_hold_a_folder_one_at_a_time(tmp_path):
    inside, most, done = 0, 0, []

    def work():
        nonlocal inside, most
        for _ in range(5):
            with claimed(tmp_path / "out"):
                inside += 1
                most = max(most, inside)
                inside -= 1
                done.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert (most, len(done)) == (1, 20)
    assert not (tmp_path / "out" / LOCK).exists()


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_a_lock_that_is_no_file_is_refused_and_left_alone(tmp_path, kind):
    lock, victim = tmp_path / "out" / LOCK, tmp_path / "victim"
    lock.parent.mkdir()
    if kind == "link":
        victim.write_text("mine")
    if "link" in kind:
        lock.symlink_to("../victim")
    else:
        os.mkfifo(lock) if kind == "pipe" else lock.mkdir()
    before = names(tmp_path)
    with (
        pytest.raises(RequestError, match=r"\.lock is a link or no regular file") as caught,
        claimed(lock.parent),
    ):
        pass
    assert "ls -l" in caught.value.hint
    assert names(tmp_path) == before
    assert kind != "link" or victim.read_text() == "mine"


@pytest.mark.parametrize("content", [b"my own notes", b"", b"tttab: x"])
def test_a_lock_file_of_others_is_locked_and_not_changed(tmp_path, content):
    (tmp_path / LOCK).write_bytes(content)
    if content != b"my own notes":
        os.link(tmp_path / LOCK, tmp_path / "other name")
    with claimed(tmp_path):
        pass
    assert (tmp_path / LOCK).read_bytes() == content


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_at_once(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(RequestError, match="has no locks") as caught, claimed(tmp_path / "out"):
        pass
    assert "local disk" in caught.value.hint
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made_or_written_is_an_error_at_once(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("gone")
    for place in ("file", "file/x", "dangling", "/proc/1/fdinfo/x"):
        with pytest.raises(OSError), claimed(tmp_path / place):
            pass
    assert names(tmp_path) == ["dangling", "file"]
