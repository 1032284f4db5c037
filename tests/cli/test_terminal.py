"""What reaches the terminal: switches, foreign text, exit codes; nothing there may be forged or leak."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import warnings

import pandas as pd
import pytest
import typer
from rich.console import Console

import tttab.data
from tttab import cli
from tttab.cli import invocation, live_table, output, run, streams
from tttab.cli.commands import predict
from tttab.errors import RequestError
from tttab.system import network
from tttab.system.files import switch

EVIL = "a[/b]\x1b]52;c;aGk=\x07\nerror: forged\u202e:smile: [red]x"
SEEN = r"a[/b]\x1b]52;c;aGk=\x07 error: forged\u202e:smile: [red]x"


@pytest.fixture
def terminal(monkeypatch):
    """Stdout and stderr as rich sees a wide terminal without colours; returns what was drawn."""
    drawn = io.StringIO()
    wide = Console(file=drawn, force_terminal=True, color_system=None, width=1000)
    monkeypatch.setattr(output, "stdout", lambda: wide)
    monkeypatch.setattr(output, "stderr", lambda: wide)
    return drawn


@pytest.fixture
def fresh_consoles():
    """Consoles of this test alone: rich silences one whose pipe broke."""
    for made in (output.stdout, output.stderr):
        made.cache_clear()
    yield
    for made in (output.stdout, output.stderr):
        made.cache_clear()


def without_drawing(text):
    """Return what a terminal shows: rich's own cursor movements and line ends taken away."""
    return re.sub(r"\x1b\[[0-9?]*[A-Za-z]|\r", "", text)


@pytest.mark.parametrize(
    ("word", "on"),
    [("1", True), ("true", True), ("YES", True), (" On ", True), ("", False), ("0", False), ("False", False),
     ("no", False), ("off", False), (None, False)],
)  # fmt: skip
def test_a_switch_knows_every_common_word(monkeypatch, word, on):
    monkeypatch.delenv("TTTAB_TEST_SWITCH", raising=False)
    if word is not None:
        monkeypatch.setenv("TTTAB_TEST_SWITCH", word)
    assert switch("TTTAB_TEST_SWITCH") is on


@pytest.mark.parametrize("name", ["TTTAB_OFFLINE", "TTTAB_DEBUG"])
def test_another_word_ends_every_command_in_one_line(monkeypatch, capsys, name):
    monkeypatch.setenv(name, "maybe")
    with pytest.raises(RequestError, match="neither on nor off"):
        switch(name)
    assert run(["data", "list"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"error: the environment variable {name} is 'maybe', neither on nor off", f"hint: export {name}=1"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "sink", [output.note, output.warn, output.print_line, output.print_summary, output.fail]
)
@pytest.mark.parametrize("drawing", [True, False], ids=["terminal", "pipe"])
def test_a_name_is_one_harmless_line_wherever_it_is_printed(request, capsys, sink, drawing):
    drawn = request.getfixturevalue("terminal") if drawing else None
    sink(EVIL)
    text = drawn.getvalue() if drawing else "".join(capsys.readouterr())
    lead = {output.warn: "warning: ", output.fail: "error: "}.get(sink, "")
    assert text == f"{lead}{SEEN}\n"


def test_a_table_shows_names_as_they_are(terminal, capsys):
    output.print_table((EVIL, "b"), [(EVIL, "one\ntwo")], title=EVIL, left=(EVIL,))
    lines = terminal.getvalue().splitlines()
    assert len(lines) == 4 and "\x1b" not in terminal.getvalue()
    assert [line.count(SEEN) for line in lines] == [1, 1, 0, 1]
    assert "one two" in lines[3]
    assert capsys.readouterr().out == ""


def test_a_stacked_table_keeps_our_line_breaks_and_no_others(terminal):
    output.print_table(("a\nb",), [("0.5\n+0.1",), ("\x1b[2J",)], stacked=True)
    lines = [line.strip() for line in terminal.getvalue().splitlines()]
    assert lines[:2] == ["a", "b"] and lines[3:] == ["0.5", "+0.1", r"\x1b[2J"]


def test_a_table_in_a_pipe_has_one_line_per_row(capsys):
    output.print_table((EVIL, "b\tc"), [(EVIL, None), ("x", 0.123456)])
    assert capsys.readouterr().out == f"{SEEN}\tb c\n{SEEN}\t-\nx\t0.1235\n"


def test_progress_spinner_and_the_live_board_show_names_as_they_are(terminal):
    with output.progress() as bar:
        bar.add_task(EVIL, total=2, info=EVIL)
    with output.waiting(EVIL):
        pass
    cells = [bench_fake(table=EVIL)]
    output.stderr().print(live_table.Board(cells).table())
    text = without_drawing(terminal.getvalue())
    assert text.count(SEEN) >= 4
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text


def bench_fake(table):
    from tttab.bench.records import Cell

    return Cell(
        table=table, seed=0, n=5, k=5, arm="gbt", key="k", fingerprint="f", model="", budget="", rule="",
        recipe="", test_asked=0, classes=2,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp932"])
def test_json_keeps_the_value_and_drives_no_terminal(monkeypatch, encoding):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    value = {EVIL: ["\x9b31m \u2028 köln 色 \U0001f600 \U000e0041", "bad\udcff"]}
    output.print_json(value)
    output.print_json_line(value)
    text = written.getvalue().decode(encoding)
    assert not re.search(r"[^\n -~]" if encoding != "utf-8" else r"[\x80-\x9f\u2028\u202e\U000e0041]", text)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    document, line = text.split("\n}\n")
    for one in (document + "}", line):
        assert json.loads(one) == {EVIL: [value[EVIL][0], "bad?"]}
    assert line.count("\n") == 1


def test_predictions_on_stdout_drive_no_terminal(capsys):
    frame = pd.DataFrame({"prediction": [EVIL, "b"], f"p({EVIL})": [0.75, 0.5]})
    with predict._writer(None, False) as write:
        write(frame)
        write(frame)
    row = f"{SEEN}\t0.75\nb\t0.5\n"
    assert capsys.readouterr().out == f"prediction\tp({SEEN})\n" + row + row
    assert list(frame["prediction"]) == [EVIL, "b"]


def test_hints_can_be_typed_whatever_the_names_hold(capsys, monkeypatch, tmp_path):
    name = "gone [b] $(x)'"
    assert run(["report", name]) == 2
    hint = capsys.readouterr().err.splitlines()[1]
    assert hint == """hint: tttab bench --suite smoke --out 'gone [b] $(x)'"'"''"""
    assert run(["data", "get", "no such [b]"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "hint: tttab data get 'no such [b]'"
    monkeypatch.setattr(invocation, "words", ["bench", "--out", "a b;c", "--seeds", "1", "x\x1b\ny"])
    assert invocation.rerun_command(seeds="2 3") == r"tttab bench --out 'a b;c' 'x\x1b y' --seeds '2 3'"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932"])
def test_an_encoding_that_lacks_characters_gets_their_escapes(monkeypatch, tmp_path, encoding):
    """On stdout; names that differ stay different, and JSON keeps the values."""
    path = tmp_path / "t.csv"
    rows = "".join(f"{n},{('赤', 'blu')[n % 2]},{('はい', 'いいえ')[n % 3 == 0]}\n" for n in range(30))
    path.write_text("x,色,y\n" + rows, encoding="utf-8")
    written = {}
    for words in (["data", "show", str(path), "--target", "y"], ["data", "show", str(path), "--columns"],
                  ["data", "show", str(path), "--json"], ["run", "--help"], ["data", "list"]):  # fmt: skip
        stream = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, encoding=encoding))
        assert run(words) == 0
        written[words[-1]] = stream.getvalue().decode(encoding)
    has = encoding == "cp932"
    assert ("色" if has else r"\u8272") in written["--columns"]
    dot = "\xb7" if encoding == "cp1252" else "-"
    yes, no = ("はい", "いいえ") if has else (r"\u306f\u3044", r"\u3044\u3044\u3048")
    assert f"{no}: 10 {dot} {yes}: 20" in written["y"]
    assert json.loads(written["--json"])["classes"] == {"いいえ": 10, "はい": 20}
    assert "--dataset" in written["--help"] and "credit-g" in written["list"]


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (EOFError("file ended early"), 3, "error: internal error: EOFError: file ended early"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (typer.Abort(), 130, "error: interrupted"),
        (BrokenPipeError(32, "Broken pipe"), 2, "error: [Errno 32] Broken pipe"),
        (MemoryError(), 2, "error: there is not enough memory"),
        (RuntimeError(EVIL), 3, f"error: internal error: RuntimeError: {SEEN}"),
        (FileNotFoundError(2, "No such file", EVIL), 2, f"error: [Errno 2] No such file: {EVIL!r}"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_was_raised_decides_the_exit_code(monkeypatch, capsys, tmp_path, raised, code, said):
    def fail(*_, **__):
        raise raised

    monkeypatch.setattr(tttab.data, "load_table", fail, raising=False)
    with open(tmp_path / "out", "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)  # a stream whose reader is there
        assert run(["data", "show", "credit-g"]) == code
        assert sys.stdout is stream
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")] == [said]


def test_a_traceback_is_as_harmless_as_a_line(monkeypatch, capsys):
    def fail(*_, **__):
        try:
            raise ValueError("https://hub.example/m?token=abc")
        except ValueError as error:
            raise RuntimeError(EVIL) from error

    monkeypatch.setattr(tttab.data, "load_table", fail, raising=False)
    monkeypatch.setenv("TTTAB_DEBUG", "true")
    assert run(["data", "show", "credit-g"]) == 3
    err = capsys.readouterr().err
    assert "ValueError: https://hub.example/m?…\n" in err and "direct cause" in err
    assert re.search(r"RuntimeError: a\[/b\]\\x1b\]52;c;aGk=\\x07\n", err)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", err)


@pytest.mark.parametrize(
    "words",
    [["data", "list"], ["data", "list", "--json"], ["run", "--help"], ["--version"],
     ["data", "show", "credit-g"]],
    ids=" ".join,
)  # fmt: skip
def test_a_reader_that_goes_away_ends_the_command_with_0(monkeypatch, capfd, fresh_consoles, words):
    for _ in range(3):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w", encoding="utf-8") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            assert run(words) == 0
        assert capfd.readouterr().err == ""
        output.stdout.cache_clear()


def test_an_error_keeps_its_code_where_nobody_reads_stderr(monkeypatch, fresh_consoles):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert run(["data", "show", "no-such-name"]) == 2


def test_closed_streams_are_as_the_null_device():
    command = f"{sys.executable} -m tttab data"
    script = f"{command} list >&-; echo $?; {command} show nothing 2>&- >&- <&-; echo $?"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.stdout.split(), done.stderr) == (["0", "2"], "")


def test_a_full_output_is_one_line(monkeypatch, capsys):
    with open("/dev/full", "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert run(["data", "list"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: [Errno 28] No space left on device",
        "hint: check the path, its permissions and the free disk space",
    ]


def test_what_libraries_say_is_harmless_and_holds_no_secret(monkeypatch, capsys):
    def library(argv):
        print("\x1b[33mwarning: https://hub.example/m?token=abc\x1b[0m", file=sys.stderr)
        sys.stderr.writelines(["see https://a.example?b=c\n"])
        assert isinstance(sys.stderr, streams.Discreet) and not sys.stderr.isatty()
        warnings.showwarning(UserWarning(EVIL), UserWarning, "library.py", 1)
        print(logging.lastResort.format(logging.makeLogRecord({"msg": EVIL})))
        return 1

    for owner, name in ((sys, "stderr"), (warnings, "showwarning"), (logging.lastResort, "formatter")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(cli, "run", library)
    with pytest.raises(SystemExit) as caught:
        cli.main([])
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    assert out == f"{SEEN}\n"
    assert err.splitlines() == [
        "\x1b[33mwarning: https://hub.example/m?…\x1b[0m", "see https://a.example?…",
        f"warning: UserWarning: {SEEN}",
    ]  # fmt: skip


def test_too_small_an_address_space_is_one_line_before_torch_is_loaded(monkeypatch, capsys):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda which: (1_500_000 * 1024, -1))
    assert run(["predict", "bundle", "rows.csv"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: the address space is limited to 1.4 GiB; models need 2.8 GiB", "hint: ulimit -v unlimited"
    ]  # fmt: skip
    assert run(["predict", "--help"]) == 0
    assert run(["data", "list"]) == 0


def test_a_silent_name_look_up_is_given_up_in_time(monkeypatch):
    def silence(*_, **__):
        over.wait(30)
        raise TimeoutError("timed out")

    over = threading.Event()
    monkeypatch.setattr("socket.create_connection", silence)
    start = time.monotonic()
    assert network.obstacle("hub.example", 443, 0.2) == "no answer in 0.2 s"
    assert time.monotonic() - start < 5
    over.set()
