"""Writing files: whole or not at all, never over what is no file of ours, never with an error at the end."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from tttab.errors import RequestError
from tttab.system import files
from tttab.system.files import atomic_path, cache_folder, check_writable, plain, write_text_atomically

NOT_UTF8 = os.fsdecode(b"o\xe9")


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_new_file_has_the_mode_of_any_new_file_and_an_old_one_keeps_its_own(tmp_path):
    before = os.umask(0o027)
    try:
        write_text_atomically(tmp_path / "new.txt", "a")
        (tmp_path / "secret.txt").write_text("old")
        (tmp_path / "secret.txt").chmod(0o600)
        write_text_atomically(tmp_path / "secret.txt", "b")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.txt").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "secret.txt").stat().st_mode) == 0o600
    assert (tmp_path / "secret.txt").read_text() == "b"
    assert listing(tmp_path) == ["new.txt", "secret.txt"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_an_old_file_keeps_its_owner(tmp_path):
    (tmp_path / "theirs.txt").touch()
    os.chown(tmp_path / "theirs.txt", 12345, 23456)
    write_text_atomically(tmp_path / "theirs.txt", "b")
    found = (tmp_path / "theirs.txt").stat()
    assert (found.st_uid, found.st_gid) == (12345, 23456)


def test_the_umask_is_never_set(tmp_path, monkeypatch):
    """It belongs to the whole process: setting it for a moment shows in other threads' files."""
    monkeypatch.setattr(os, "umask", None)
    write_text_atomically(tmp_path / "a.txt", "a")
    assert (tmp_path / "a.txt").read_text() == "a"


def test_links_are_followed_and_stay(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "file.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("far/file.txt")
    (tmp_path / "dangling.txt").symlink_to("far/none.txt")
    for name in ("link.txt", "dangling.txt"):
        write_text_atomically(tmp_path / name, "new")
        assert (tmp_path / name).is_symlink()
    assert (tmp_path / "far" / "file.txt").read_text() == "new"
    assert (tmp_path / "far" / "none.txt").read_text() == "new"
    assert listing(tmp_path / "far") == ["file.txt", "none.txt"]


def test_a_circle_of_links_is_an_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        write_text_atomically(tmp_path / "a", "new")


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a folder", "a device"])
def test_what_is_no_regular_file_is_never_replaced(tmp_path, kind):
    target = tmp_path / "target"
    with socket.socket(socket.AF_UNIX) as server:
        if kind == "a named pipe":
            os.mkfifo(target)
        elif kind == "a socket":
            server.bind(str(target))
        elif kind == "a folder":
            target.mkdir()
        else:
            target.symlink_to(os.devnull)
        before = target.stat()
        with pytest.raises(RequestError, match=kind):
            write_text_atomically(target, "new")
    assert target.stat() == before
    assert listing(tmp_path) == ["target"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "file.txt") as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "file.txt").read_text() == "old"
    assert listing(tmp_path) == ["file.txt"]


def test_names_and_texts_that_are_not_utf8_can_be_written(tmp_path):
    target = tmp_path / NOT_UTF8 / f"{NOT_UTF8}.json"
    write_text_atomically(target, json.dumps({NOT_UTF8: NOT_UTF8}, ensure_ascii=False))
    assert json.loads(target.read_bytes()) == {"o?": "o?"}


def test_the_longest_name_can_be_written(tmp_path):
    target = tmp_path / ("n" * 251 + ".txt")
    write_text_atomically(target, "a")
    assert target.read_text() == "a"


def test_plain_is_what_json_and_utf8_can_hold():
    value = {
        NOT_UTF8: Path(NOT_UTF8),
        "numbers": (np.float32(0.5), np.int64(7), np.bool_(True), 2**70, float("nan"), np.inf),
        "array": np.array([[1.0, np.nan]]),
        "bytes": b"\xff",
        "nothing": None,
        3: np.str_("x"),
        "when": np.datetime64("2020-01-02"),
        "wide": np.longdouble(1),
    }
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False).encode()
    assert json.loads(text) == {
        "o?": "o?",
        "numbers": [0.5, 7, True, 2**70, None, None],
        "array": [[1.0, None]],
        "bytes": "\ufffd",
        "nothing": None,
        "3": "x",
        "when": "2020-01-02",
        "wide": "1.0",
    }


def test_check_writable_proves_new_folders_and_leaves_nothing(tmp_path):
    check_writable(tmp_path / "a" / NOT_UTF8 / "c", needed=1000)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("place", ["file/x", "link", "link/x", "n" * 300])
def test_check_writable_refuses_what_could_not_be_made(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(OSError):
        check_writable(tmp_path / place)
    assert listing(tmp_path) == ["file", "link"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_check_writable_tries_every_step_that_comes_at_the_end(tmp_path, monkeypatch, call):
    def fail(*_):
        raise OSError(errno.EIO, "no such luck")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="no such luck"):
        check_writable(tmp_path)
    assert listing(tmp_path) == []


def test_check_writable_asks_for_the_room_that_is_needed(tmp_path):
    with pytest.raises(OSError, match=r"(No space left|File too large).*MB are needed") as caught:
        check_writable(tmp_path, needed=2**62)
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert listing(tmp_path) == []


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """A machine without a home, and a temporary folder that others can write; the cache's wanted place."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("TTTAB_CACHE", raising=False)
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    files._private_folder.cache_clear()
    yield tmp_path / f"tttab-{os.getuid()}"
    files._private_folder.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep caches elsewhere")
def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.delenv("TTTAB_CACHE", raising=False)
    assert cache_folder() == tmp_path / "home" / ".cache" / "tttab"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "shared" / "tttab"
    monkeypatch.setenv("TTTAB_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    assert (tmp_path / "own").is_dir()


def test_without_a_home_the_cache_is_a_private_temporary_folder(homeless):
    assert cache_folder() == homeless == cache_folder()
    assert stat.S_IMODE(homeless.stat().st_mode) == 0o700


@pytest.mark.parametrize("trap", ["link", "open to all", "another user's", "file"])
def test_a_temporary_cache_that_another_user_laid_out_is_not_used(homeless, trap, monkeypatch):
    if trap == "link":
        (homeless.parent / "elsewhere").mkdir(mode=0o700)
        homeless.symlink_to("elsewhere")
    elif trap == "file":
        homeless.touch()
    else:
        homeless.mkdir()
        homeless.chmod(0o777 if trap == "open to all" else 0o700)
    if trap == "another user's":
        if os.geteuid() != 0:
            pytest.skip("only root may give folders away")
        os.chown(homeless, 12345, 12345)
    found = cache_folder()
    assert found not in (homeless, homeless.parent / "elsewhere")
    assert found.parent == homeless.parent
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert cache_folder() == found
