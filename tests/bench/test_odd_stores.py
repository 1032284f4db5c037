"""Odd lines in a store: every other line is used, the figures are the good lines' own, the odd are named."""

from __future__ import annotations

import copy
import json
import os
import random
import re
from dataclasses import replace

import pytest

from tests.support.bench_fakes import MACHINE, cell, record, study
from tests.support.odd_stores import DEEP, spoilt, text_of
from tttab.bench import html_report, markdown_report, read_store, summaries
from tttab.bench.lines import read_line
from tttab.bench.sections import SECTIONS, tables_of
from tttab.cli import run

TRIES = int(os.environ.get("TTTAB_FUZZ", "4"))
SMALL = {"tables": ("alpha", "flat"), "seeds": (0, 1)}
GOOD = [MACHINE.to_dict(), *(one.to_dict() for one in study(**SMALL))]
ROW = record(cell(), adapt=1.0).to_dict()
NO_TEXT = (None, 1, True, ["x"], {"a": 1}, "x" * 10_001)
NO_WHOLE = (None, True, "1", 1.5, 200.0, -1, 2**53, 10**400, float("nan"), [1], {"a": 1})
NO_AMOUNT = (None, True, "1", -0.5, float("nan"), float("inf"), 1e13, 10**400, [1.0], {"a": 1}, DEEP)
NO_MAPPING = (None, 1, "x", [], [["a", 1]], DEEP)
WRONG = {
    **dict.fromkeys(
        (("cell", n) for n in ("table", "arm", "key", "fingerprint", "model", "budget")), NO_TEXT
    ),
    **dict.fromkeys((("cell", n) for n in ("rule", "recipe")), NO_TEXT),
    **dict.fromkeys((("cell", n) for n in ("n", "k", "test_asked", "classes")), NO_WHOLE),
    ("cell", "seed"): [value for value in NO_WHOLE if value != -1],
    ("cell", "n"): (0, -200, *NO_WHOLE),
    ("cell", "extra"): ("x", 1),
    ("cell",): NO_MAPPING,
    ("row",): NO_MAPPING,
    ("row", "identity"): (*NO_MAPPING, {}, {"table": "other"}),
    ("row", "identity", "table"): ("other", None, [], float("nan"), DEEP),
    **dict.fromkeys((("row", n) for n in ("arm", "error")), NO_TEXT),
    **dict.fromkeys((("row", n) for n in ("n_context", "k", "steps")), NO_WHOLE),
    ("row", "cache_bytes"): NO_WHOLE[1:],
    ("row", "ms_per_1000_rows"): NO_AMOUNT[1:],
    ("row", "accepted"): (0, 1, "true", []),
    ("row", "metrics"): NO_MAPPING,
    ("row", "metrics", "accuracy"): (True, "0.8", -0.1, 1.1, float("nan"), float("inf"), [0.8], DEEP),
    ("row", "metrics", "log_loss"): (True, "0.8", -0.1, 1e151, float("nan"), float("-inf"), {}),
    ("row", "metrics", "other"): (True, "0.8", -1e151, float("inf"), [], "x"),
    ("row", "seconds"): NO_MAPPING,
    ("row", "seconds", "adapt"): NO_AMOUNT,
    ("wall_seconds",): NO_AMOUNT,
    ("finished",): (*NO_TEXT, "yesterday", ""),
    ("machine",): NO_TEXT,
    ("kind",): (*NO_TEXT, "banana", "rows"),
}
ONE_WRONG = [(path, value) for path, values in WRONG.items() for value in values]
NO_LINE = [
    b"\xff\xfe", b"{", b"[]", b"null", b'"row"', b"{}", b'{"kind": "row"}', b'{"kind": "machine", "id": "a"}',
    b'{"kind": "unavailable"}', b'{"kind": "unavailable", "table": "x", "reason": 5}', b"[" * 100_000,
    b'{"kind": "unavailable", "table": "x", "reason": "\\ud800"}', text_of(ROW)[:-1], text_of(ROW) * 2,
    text_of(MACHINE.to_dict() | {"cores": 3}), text_of(MACHINE.to_dict() | {"id": "x"}),
]  # fmt: skip


def changed(line, path, value):
    line = copy.deepcopy(line)
    holder = line
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    return line


def write(folder, lines):
    folder.mkdir(exist_ok=True)
    (folder / "cells-a.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return folder


def figures(contents):
    return [[table.rows for table in tables_of(SECTIONS, summary)] for summary in summaries(contents)]


@pytest.mark.parametrize("path", WRONG, ids=".".join)
def test_a_line_with_one_wrong_field_is_no_line(path):
    for value in WRONG[path]:
        with pytest.raises(ValueError):
            pytest.fail(f"{value!r:.60} was read: {read_line(text_of(changed(ROW, path, value)))}")


@pytest.mark.parametrize("line", NO_LINE, ids=lambda line: repr(line[:20]))
def test_what_is_no_line(line):
    with pytest.raises(ValueError):
        pytest.fail(f"was read: {read_line(line)}")


def test_the_line_that_was_spoilt_above_is_one():
    assert read_line(text_of(ROW)) == record(cell(), adapt=1.0)
    assert read_line(text_of(MACHINE.to_dict())) == MACHINE
    wide = {"r2": -7.5, "nll": -3.0, "roc_auc": None, "ece": 0, "brier": 2.0, "of_tomorrow": -2.5}
    found = read_line(text_of(changed(ROW, ("row", "metrics"), wide)))
    assert {name: value for name, value in found.row.metrics.items() if name != "roc_auc"} == {
        name: value for name, value in wide.items() if name != "roc_auc"
    }
    assert found.row.metrics["roc_auc"] != found.row.metrics["roc_auc"]


@pytest.mark.parametrize("missing", [("cell",), ("cell", "table"), ("row", "metrics"), ("finished",)])
def test_a_line_without_a_field_it_needs_is_no_line(missing):
    line = copy.deepcopy(ROW)
    del (line if len(missing) == 1 else line[missing[0]])[missing[-1]]
    with pytest.raises(ValueError):
        read_line(text_of(line))


def test_damaged_lines_are_named_and_change_nothing(tmp_path, capsys):
    """Damage of every kind, spread over a good store: all readers say what they said without it."""
    rng = random.Random(0)
    bad = [text_of(changed(ROW, *wrong)) for wrong in rng.sample(ONE_WRONG, 25)] + rng.sample(NO_LINE, 8)
    lines = [(text_of(line), True) for line in GOOD]
    for line in bad:
        lines.insert(rng.randint(0, len(lines)), (line, False))
    clean = write(tmp_path / "clean", map(text_of, GOOD))
    odd = write(tmp_path / "odd", (line for line, _ in lines))
    names = [f"cells-a.jsonl:{number}" for number, (_, good) in enumerate(lines, 1) if not good]
    before, contents = read_store(clean), read_store(odd)
    assert contents.damaged == tuple(names)
    assert (contents.done, contents.failed) == (before.done, before.failed)
    assert (contents.machines, contents.unavailable) == (before.machines, before.unavailable)
    assert figures(contents) == figures(before)
    answers = {}
    for folder in (clean, odd):
        assert run(["report", str(folder)]) == 0
        answers[folder] = capsys.readouterr()
    assert answers[odd].out == answers[clean].out
    assert all(name in answers[odd].err for name in names[:20])
    assert "and 13 more" in answers[odd].err
    assert "damaged" not in answers[clean].err
    for page in (html_report(contents), markdown_report(contents)):
        assert f"33 damaged lines were left out: {names[0]}" in page


def test_a_line_is_read_to_its_end_and_no_further_than_a_bound(tmp_path):
    long, good = text_of(ROW) + b" " * 2**21, text_of(record(cell(seed=1)).to_dict())
    contents = read_store(write(tmp_path / "odd", [b"", long, good, b"x" * 2**22, b"  ", good[:-9]]))
    assert [one.cell.seed for one in contents.records] == [1]
    assert contents.damaged == ("cells-a.jsonl:2", "cells-a.jsonl:4", "cells-a.jsonl:6")


def test_a_hand_made_row_of_figures_is_what_the_odd_store_says(tmp_path):
    """Right, and not only equal: icl 0.3 and 0.1, ttt 0.2 and 0.1, and two damaged lines of ttt."""
    rows = [(0, "icl@n", 0.3), (0, "ttt@n+k", 0.2), (1, "icl@n", 0.1), (1, "ttt@n+k", 0.1)]
    lines = [record(cell(arm=arm, seed=seed), error).to_dict() for seed, arm, error in rows]
    lines.append(changed(lines[1], ("row", "metrics", "accuracy"), "0.1"))
    lines.append(changed(lines[1], ("cell", "recipe"), {"a": 1}))
    contents = read_store(write(tmp_path / "odd", map(text_of, [MACHINE.to_dict(), *lines])))
    (summary,) = summaries(contents)
    pair = next(found for found in summary.pairs if found.metric == "accuracy")
    assert (pair.base, pair.error, pair.seeds) == (pytest.approx(0.2), pytest.approx(0.15), 2)
    assert pair.difference.estimate == pytest.approx(-0.05)
    assert contents.damaged == ("cells-a.jsonl:6", "cells-a.jsonl:7")


def test_a_mixture_of_anything_breaks_no_reader(tmp_path, capsys):
    """Lines that are odd but may be right: each is used or named, and every reader ends in 0 or 2."""
    forms = [[], ["--json"], ["--markdown", "-"], ["--html", str(tmp_path / "page.html")]]
    exports = [tmp_path / f"rows.{form}" for form in ("csv", "parquet", "bencheval")]
    used = 0
    for seed in range(TRIES):
        rng = random.Random(seed)
        share = rng.choice((0.05, 0.3, 1.0))
        lines = [spoilt(rng, line) if rng.random() < share else text_of(line) for line in GOOD]
        folder = write(tmp_path / "store", lines)
        contents = read_store(folder)
        used += len(contents.records)
        for number, line in enumerate(lines, 1):
            good = line.strip() in (b"", *map(text_of, GOOD))
            assert not (good and f"cells-a.jsonl:{number}" in contents.damaged), line
        commands = [["report", str(folder), *form] for form in forms]
        commands += [["bench", "--out", str(folder), "--export", str(target)] for target in exports]
        for command in commands:
            assert run(command) == (0 if contents.records or contents.unavailable else 2), (seed, command)
        assert all(name in capsys.readouterr().err for name in contents.damaged[:1])
    assert used > 0


EVIL = "\x1b]52;c;YQ==\x07\u202e<script>alert(1)</script>\n\x9b31m"
SECRET = "0123456789abcdef0123"
REASON = f"ConnectionError: https://www.openml.org/api/v1/data/31?api_key={SECRET} refused {EVIL}"


def test_texts_of_a_store_reach_every_page_tame_and_without_secrets(tmp_path, capsys):
    """Names, labels, reasons and machines of an old store: no control, no bidi, no markup, no key."""
    labels = {"model": f"m{EVIL}", "budget": f"b{EVIL}", "fingerprint": f"f{EVIL}"}
    arms = ("icl@n", "ttt@n+k", f"arm{EVIL}")
    rows = [
        record(cell(f"t{EVIL}", arm, n, seed, **labels), 0.3)
        for arm in arms
        for n in (50, 200)
        for seed in (0, 1)
    ]
    rows.append(record(cell(f"t{EVIL}", "gbt", 200, 0, **labels), failed=REASON))
    machine = replace(MACHINE, cpu=f"cpu{EVIL}", versions={f"torch{EVIL}": f"2{EVIL}"})
    lines = [machine.to_dict(), *(one.to_dict() for one in rows)]
    lines.append({"kind": "unavailable", "table": f"away{EVIL}", "reason": REASON})
    folder = write(tmp_path / "store", map(text_of, lines))
    page, table = tmp_path / "page.html", tmp_path / "rows.csv"
    commands = [["report", str(folder), *form] for form in ([], ["--json"], ["--markdown", "-"])]
    commands += [
        ["report", str(folder), "--html", str(page)],
        ["bench", "--out", str(folder), "--export", str(table)],
    ]
    assert [run(command) for command in commands] == [0] * 5
    printed = capsys.readouterr()
    html, rows = page.read_text(encoding="utf-8"), table.read_text(encoding="utf-8")
    for text in (printed.out, printed.err, html, rows):
        assert SECRET not in text
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    for text in (printed.out, html, rows):
        for name in ("t", "m", "b", "arm"):
            assert f"{name}\\x1b]52" in text, "shown, not cut"
    assert "<script" not in html
    assert html.count("ConnectionError: https://www.openml.org/api/v1/data/31") == 2
    assert printed.out.count("refused") == 2 * 3


SIZES = [
    "--n", "20", "--k", "30", "--controls-at", "20", "--test-size", "40", "--arms", "logistic", "--seeds",
    "3",
]  # fmt: skip


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory, mixed_frame):
    """A finished benchmark: its command without --out, and the lines of its store."""
    folder = tmp_path_factory.mktemp("real")
    frame, y = mixed_frame
    frame.assign(target=["abc"[code] for code in y]).to_csv(folder / "mixed.csv", index=False)
    command = ["bench", "--datasets", str(folder / "mixed.csv"), *SIZES]
    assert run([*command, "--out", str(folder / "store")]) == 0
    (path,) = (folder / "store").glob("*.jsonl")
    return command, path.read_bytes().splitlines()


def test_resuming_runs_what_was_damaged_and_nothing_else(benchmark, tmp_path, capsys):
    command, lines = benchmark
    whole = read_store(write(tmp_path / "whole", lines))
    assert len(whole.done) == 3
    for seed in range(TRIES):
        rng = random.Random(seed)
        place = rng.randrange(1, 4)
        row = json.loads(lines[place])
        wrong = rng.choice([w for w in ONE_WRONG if w[0][:3] != ("row", "metrics", "other")])
        bad = rng.choice([text_of(changed(row, *wrong)), lines[place][:-40]])
        folder = write(tmp_path / f"odd{seed}", [*lines[:place], bad, *lines[place + 1 :]])
        assert list(read_store(folder).done) == [p for p in whole.done if p[0] != row["cell"]["key"]]
        capsys.readouterr()
        assert run([*command, "--out", str(folder), "--dry-run"]) == 0
        plan = capsys.readouterr()
        assert plan.out.splitlines()[-1].split("\t")[:3] == ["all", "3", "1"]
        assert f"cells-a.jsonl:{place + 1}" in plan.err
        assert run([*command, "--out", str(folder), "--quiet"]) == 0
        assert f"cells-a.jsonl:{place + 1}" in capsys.readouterr().err
        again = read_store(folder).done
        assert {p: again[p].row.metrics for p in again} == {p: whole.done[p].row.metrics for p in whole.done}
        assert (folder / "cells-a.jsonl").read_bytes().splitlines()[place] == bad, "what was there stays"
