"""Where reports and exports go: files are replaced, pipes and devices written through, stores untouched."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from tests.support.bench_fakes import cell, fill, record
from tests.support.forked import forked, typed
from tttab.bench import html_report, markdown_report, read_store
from tttab.cli import run


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two cells: the page has no chart of theirs, which would take most of a test's time."""
    return fill(tmp_path_factory.mktemp("output") / "store", [record(cell()), record(cell(arm="gbt"))])


@pytest.fixture(scope="module")
def texts(store):
    """What each option writes."""
    contents = read_store(store)
    return {"--html": html_report(contents), "--markdown": markdown_report(contents)}


def report(store, option, target):
    """Run the command that writes `target`."""
    if option == "--export":
        return run(["bench", "--out", str(store), "--export", str(target), "--quiet"])
    return run(["report", str(store), option, str(target), "--quiet"])


@pytest.mark.parametrize("option", ["--html", "--markdown"])
def test_a_file_is_replaced_its_mode_kept_and_links_followed(store, texts, option, tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("older")
    real.chmod(0o600)
    link.symlink_to("real")
    assert report(store, option, link) == 0
    assert real.read_text() == texts[option]
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


@pytest.mark.parametrize("option", ["--html", "--markdown"])
def test_a_report_may_lie_in_the_store_s_folder_and_is_replaced_there(store, texts, option):
    target = store / "report"
    for _ in range(2):
        assert report(store, option, target) == 0
        assert target.read_text() == texts[option]
    target.unlink()


@pytest.mark.parametrize("option", ["--html", "--markdown", "--export"])
@pytest.mark.parametrize("way", ["itself", "a link", "a new name", "another store's"])
def test_no_file_of_a_store_is_written_over(store, option, way, tmp_path, capsys):
    (own,) = store.glob("cells-*.jsonl")
    before = own.read_bytes()
    other = tmp_path / "cells-b.jsonl"
    other.write_bytes(before)
    (tmp_path / "link.csv").symlink_to(own)
    ways = {"itself": own, "a link": tmp_path / "link.csv", "another store's": other}
    target = ways.get(way, store / "cells-new.jsonl")
    assert report(store, option, target) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert "a store's own" in error or "cannot export" in error
    assert hint.startswith("hint: ")
    assert own.read_bytes() == before
    assert other.read_bytes() == before
    assert [path.name for path in store.iterdir()] == [own.name]


@pytest.mark.parametrize("option", ["--html", "--markdown", "--export"])
def test_a_named_pipe_is_written_through_and_stays_a_pipe(store, texts, option, tmp_path):
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 2**20)  # room for all, so that one thread can write, then read
    assert report(store, option, pipe) == 0
    with open(reader, "rb") as stream:
        got = stream.read()
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    if option in texts:
        assert got.decode() == texts[option]
    else:
        assert got.startswith(b"table,seed,")
        assert got.count(b"\n") == 1 + len(read_store(store).records)


@pytest.mark.parametrize("option", ["--html", "--markdown", "--export"])
def test_a_pipe_that_nobody_reads_is_refused_at_once(store, option, tmp_path, capsys):
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    assert report(store, option, pipe) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: nobody reads")
    assert "cat" in hint
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_stays_a_device(store, tmp_path, capsys):
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        device.symlink_to("/dev/null")
    before = device.stat()
    assert report(store, "--html", device) == 0
    assert (device.stat().st_ino, device.stat().st_mode) == (before.st_ino, before.st_mode)
    assert report(store, "--html", Path("/dev/full")) == 2
    assert "No space left" in capsys.readouterr().err


@pytest.mark.parametrize("sink", ["pipe", "file"])
def test_dev_stdout_is_standard_output(store, texts, sink, tmp_path):
    """Also where it is a file: what stands there already must stay."""
    ask = typed("report", store, "--html", "/dev/stdout", "--quiet")
    if sink == "pipe":
        code, out, _ = forked(ask).end()
        assert (code, out) == (0, texts["--html"])
        return
    target = tmp_path / "page.html"
    target.write_text("<!-- first -->\n")
    with open(target, "ab") as stream:
        code, _, err = forked(ask, stdout=stream.fileno()).end()
    assert code == 0, err
    assert target.read_text() == "<!-- first -->\n" + texts["--html"]


@pytest.mark.parametrize("option", ["--html", "--markdown"])
def test_a_folder_and_a_socket_are_refused(store, option, tmp_path, capsys):
    import socket

    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind(os.path.relpath(tmp_path / "plug"))
        for name, words in (("folder", "is a folder"), ("plug", "no file that can be written")):
            assert report(store, option, tmp_path / name) == 2
            error, _ = capsys.readouterr().err.splitlines()
            assert words in error


def test_two_reports_do_not_go_into_one_file(store, tmp_path, capsys):
    target, link = tmp_path / "report", tmp_path / "link"
    link.symlink_to(target)
    assert run(["report", str(store), "--html", str(target), "--markdown", str(link)]) == 2
    assert "both name" in capsys.readouterr().err
    assert not target.exists()
