"""What a crash, a copy or a stranger left in a pool, a log, a state or a file: one line, or left out."""

from __future__ import annotations

import io
import json
import os
import random
import zipfile

import numpy as np
import pytest
import torch

from tests.support.bomb import Bomb
from tttab.cli import run
from tttab.errors import ModelError, RequestError
from tttab.pretrain.bundle import read_earlier, read_served
from tttab.pretrain.card import FIELDS, read_card, write_card
from tttab.pretrain.curve import keep_until, read_log
from tttab.pretrain.loop import LOG, MODEL, STATE
from tttab.pretrain.pool import Pool
from tttab.pretrain.pool_file import read_file
from tttab.pretrain.settings import PoolUse

CPU = torch.device("cpu")
USE = PoolUse(rows=80, features=(2, 3, 5), at_least=1)
TRIES = int(os.environ.get("TTTAB_FUZZ", "200"))


def arrays(**changed):
    """One table as a file holds it."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 3)).astype(np.float16), rng.integers(0, 3, 80).astype(np.float32)
    return {"x0": x, "y0": y, "n0": np.array(True)} | changed


def stored(content):
    stream = io.BytesIO()
    np.savez(stream, **content)
    return stream.getvalue()


def claiming(shape):
    """A file whose array says that it has another shape."""
    whole, changed = io.BytesIO(stored(arrays())), io.BytesIO()
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(changed, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry.filename, data.replace(b"(80, 3), }", f"{shape}, }}".encode()))
    return changed.getvalue()


def bomb():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x0.npy", "w") as inner:
        for _ in range(300):
            inner.write(bytes(2**20))
    return stream.getvalue()


ODD_POOLS = {
    "empty": lambda: b"",
    "text": lambda: b"x0\n1\n",
    "cut": lambda: stored(arrays())[:-30],
    "one array": lambda: (s := io.BytesIO(), np.save(s, np.zeros(3)))[0].getvalue(),
    "no labels": lambda: stored({"x0": arrays()["x0"], "n0": np.array(True)}),
    "a table without its rows": lambda: stored(arrays() | {"y1": arrays()["y0"], "n1": np.array(True)}),
    "other type": lambda: stored(arrays(x0=arrays()["x0"].astype(np.float64))),
    "text values": lambda: stored(arrays(y0=np.array(["a"] * 80))),
    "other shape": lambda: stored(arrays(y0=np.zeros(79, np.float32))),
    "one dimension": lambda: stored(arrays(x0=np.zeros(80, np.float16))),
    "an infinity": lambda: stored(arrays(x0=np.full((80, 3), np.inf, np.float16))),
    "no number": lambda: stored(arrays(y0=np.full(80, np.nan, np.float32))),
    "half a class": lambda: stored(arrays(y0=np.full(80, 0.5, np.float32))),
    "class below 0": lambda: stored(arrays(y0=np.full(80, -1, np.float32))),
    "class 1e30": lambda: stored(arrays(y0=np.full(80, 1e30, np.float32))),
    "no flag": lambda: stored(arrays(n0=np.array([True, False]))),
    "huge claim": lambda: claiming("(8000000000000, 3)"),
    "large claim": lambda: claiming("(80000000, 3)"),
    "negative claim": lambda: claiming("(-80, 3)"),
    "bomb": bomb,
}


@pytest.mark.parametrize("kind", ODD_POOLS)
def test_a_damaged_pool_file_is_one_error_that_names_it(tmp_path, kind):
    path = tmp_path / "tables-00000000.npz"
    path.write_bytes(ODD_POOLS[kind]())
    with pytest.raises(RequestError, match="is no file of pool tables, or damaged") as caught:
        Pool(tmp_path, USE, CPU, regression=False).take_in()
    assert str(path) in caught.value.message
    assert caught.value.hint.startswith(f"rm {path}")


def test_a_pool_file_is_never_unpickled(tmp_path):
    path, exploded = tmp_path / "tables-00000000.npz", tmp_path / "exploded"
    thing = np.empty(1, object)
    thing[0] = Bomb(exploded)
    np.savez(path, x0=thing, y0=thing, n0=thing)
    exploded.unlink(missing_ok=True)
    with pytest.raises(RequestError, match="is no file of pool tables"):
        read_file(path)
    assert not exploded.exists()


@pytest.mark.timeout(60)
def test_what_is_no_file_in_a_pool_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "tables-00000000.npz")
    with pytest.raises(RequestError, match="no regular file"):
        Pool(tmp_path, USE, CPU, regression=False).take_in()


def test_bytes_changed_at_random_are_refused_or_leave_the_table_as_it_was(tmp_path):
    whole, path, refused = stored(arrays()), tmp_path / "tables-00000000.npz", 0
    for seed in range(TRIES):
        rng = random.Random(seed)
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            (table,) = read_file(path)
        except RequestError:
            refused += 1
        else:
            np.testing.assert_array_equal(table.x, arrays()["x0"])
            np.testing.assert_array_equal(table.y, arrays()["y0"])
    assert refused > TRIES / 2


def test_tables_of_a_width_that_is_not_asked_for_are_refused(tmp_path):
    (tmp_path / "tables-00000000.npz").write_bytes(stored(arrays(x0=np.zeros((80, 4), np.float16))))
    with pytest.raises(RequestError, match="tables of 4 columns, of 2, 3, 5 are needed"):
        Pool(tmp_path, USE, CPU, regression=False).take_in()


def test_a_table_too_large_for_half_precision_is_left_out(monkeypatch):
    from tttab.pretrain import pool

    x, y = np.linspace(-1, 1, 160).reshape(80, 2), np.linspace(-1, 1, 80)
    asked = iter([x, x * 1e5, np.where(x == 1, np.nan, x)])
    monkeypatch.setattr(pool, "_ask_tabicl", lambda *_: (next(asked), y))
    monkeypatch.setattr(pool, "_share_left", lambda *_: 0.5)
    found = [pool.make_table(0, 0, USE)[1] for _ in range(3)]
    assert [table is None for table in found] == [False, True, True]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A finished run's folder."""
    out = tmp_path_factory.mktemp("run") / "run"
    assert run(["pretrain", "--preset", "tiny", "--steps", "2", "--out", str(out), "-q"]) == 0
    return out


@pytest.fixture
def spare(ended, tmp_path):
    """A copy of it."""
    out = tmp_path / "run"
    out.mkdir()
    for path in ended.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    return out


GOOD = {"kind": "training", "loss": 1.0, "held_out": {}, "step": 1, "tables": 4, "pooled": 0, "tokens": 9}
GOOD |= {"seconds": 1.0, "waited": 0.0}
ODD_LINES = [
    b"{half", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"x" * 2**21,
    *(json.dumps({name: value for name, value in GOOD.items() if name != lost}).encode() for lost in GOOD),
    *(json.dumps(GOOD | wrong).encode() for wrong in (
        {"step": "1"}, {"step": -1}, {"step": 1.5}, {"step": True}, {"step": 10**30}, {"tables": 10**400},
        {"loss": "1"}, {"loss": None}, {"held_out": []}, {"held_out": {"n": "x"}}, {"kind": 1},
        {"seconds": []}, {"waited": None},
    )),
]  # fmt: skip


def test_damaged_lines_of_a_log_are_left_out_and_named(tmp_path):
    log, good = tmp_path / LOG, json.dumps(GOOD | {"loss": float("nan")}).encode()
    lines = [good, *(line for odd in ODD_LINES for line in (odd, good))]
    log.write_bytes(b"\n".join(lines) + b'\n{"cut off')
    damaged = []
    found = list(read_log(log, damaged))
    assert len(found) == 1 + len(ODD_LINES)
    assert all(line["tables"] == 4 for line in found)
    assert damaged == [f"{LOG}:{2 * number}" for number in range(1, 1 + len(ODD_LINES))]
    with pytest.raises(RequestError, match=f"{LOG}:2 is no line of a log") as caught:
        list(read_log(log))
    assert f"sed -i 2d {log}" in caught.value.hint


def test_a_resumed_run_keeps_damaged_lines_to_be_named(tmp_path):
    log = tmp_path / LOG
    lines = [json.dumps(GOOD | {"step": step}).encode() for step in (1, 2, 3)]
    log.write_bytes(b"\n".join([lines[0], b"{half", lines[1], lines[2]]) + b'\n{"cut off')
    keep_until(log, 2)
    assert log.read_bytes() == b"\n".join([lines[0], b"{half", lines[1]]) + b"\n"


def test_a_run_with_a_damaged_log_ends_well_and_says_so(spare, capsys):
    log = spare / LOG
    whole = log.read_bytes()
    log.write_bytes(b"{half}\n" + whole)
    assert run(["pretrain", "--preset", "tiny", "--steps", "2", "--out", str(spare), "-q"]) == 0
    assert "1 damaged lines were left out of the curve: log.jsonl:1" in capsys.readouterr().err
    assert log.read_bytes().startswith(b"{half}\n" + whole)
    served = spare / "served.json"
    served.write_text("{}")
    asked = ["pretrain", "bundle", str(spare), str(spare / "m.safetensors"), "--preset", "tiny"]
    assert run([*asked, "--served", str(served)]) == 2
    assert "log.jsonl:1 is no line of a log" in capsys.readouterr().err
    log.write_bytes(b"")
    assert run([*asked, "--served", str(served)]) == 2
    assert "has no evaluation" in capsys.readouterr().err


def changed_states(state):
    """Yield (name, a state that no run wrote)."""
    yield "list", [state]
    yield "tensor", torch.zeros(2)
    yield "no network", {name: value for name, value in state.items() if name != "network"}
    yield "no momentum", state | {"optimisers": {"adamw": state["optimisers"]["adamw"]}}
    yield "counters", state | {"counters": state["counters"] | {"more": 1}}
    for name, value in (
        ("step", -1),
        ("step", 1.5),
        ("step", "1"),
        ("seconds", float("nan")),
        ("tokens", True),
    ):
        yield f"{name} {value}", state | {"counters": state["counters"] | {name: value}}
    network = dict(state["network"])
    first = next(iter(network))
    yield "nan", state | {"network": network | {first: torch.full_like(network[first], float("nan"))}}
    yield "shape", state | {"network": network | {first: network[first][:1]}}
    yield "lost", state | {"network": {name: value for name, value in network.items() if name != first}}


def test_a_damaged_state_is_one_line_that_says_how_to_go_on(spare, capsys):
    whole = (spare / STATE).read_bytes()
    state = torch.load(spare / STATE, weights_only=True)
    command = ["pretrain", "--preset", "tiny", "--steps", "2", "--out", str(spare), "-q"]
    for name, other in [*changed_states(state), ("cut", None)]:
        if other is None:
            (spare / STATE).write_bytes(whole[:-100])
        else:
            torch.save(other, spare / STATE)
        assert run(command) == 2, name
        error, hint = capsys.readouterr().err.splitlines()
        assert str(spare / STATE) in error, name
        assert hint.startswith("hint: "), name
    assert run([*command[:2], "tiny", "--steps", "2", "--out", str(spare / "fresh"), "-q"]) == 0


@pytest.mark.parametrize(
    "identity", [None, 5, "", "[]", "{}", '{"recipe": 5, "seed": 0}', '{"recipe": {}, "seed": 0}']
)
def test_a_state_of_nothing_is_not_bundled(spare, identity, capsys):
    state = torch.load(spare / STATE, weights_only=True)
    torch.save(state | {"identity": identity}, spare / STATE)
    (spare / "served.json").write_text("{}")
    asked = ["pretrain", "bundle", str(spare), str(spare / "m.safetensors"), "--preset", "tiny"]
    assert run([*asked, "--served", str(spare / "served.json")]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert f"{spare / STATE}" in error and "is no state of a run" in error
    assert hint == "hint: name the folder that tttab pretrain wrote"


ODD_JSON = {
    "nothing": b"", "half": b"{half", "a list": b"[1]", "a text": b'"x"', "deep": b"[" * 100_000,
    "NaN": b'{"a": NaN}', "bytes": b"\xff\xfe", "large": b" " * 100_001,
    "digits": b'{"a": ' + b"9" * 5000 + b"}",
}  # fmt: skip
ODD_YAML = {
    "half": b"- {preset", "a mapping": b"preset: nano\n", "a text": b"nano\n", "texts": b"- nano\n",
    "no preset": b"- seed: 1\n", "numbers as names": b"- preset: x\n  1: 2\n", "bytes": b"\xff\xfe",
    "large": b"#" * 100_001, "deep": b"[" * 5000, "indented": b"- " * 40,
    "laughs": b"- &a [x, x]\n- &b [*a, *a]\n- [*b, *b]\n",
    "python": b"- !!python/object/apply:os.getcwd []\n",
    "control": b"- preset: \x07\n", "date": b"- preset: 2020-99-99\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD_JSON)
def test_a_way_of_serving_that_is_none(tmp_path, kind):
    path = tmp_path / "served.json"
    path.write_bytes(ODD_JSON[kind])
    with pytest.raises(RequestError, match=r"served\.json") as caught:
        read_served(path)
    assert caught.value.hint == "tttab pretrain choose MODEL"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ODD_YAML)
def test_runs_before_that_are_none(tmp_path, kind):
    path = tmp_path / "earlier.yaml"
    path.write_bytes(ODD_YAML[kind])
    with pytest.raises(RequestError, match=r"earlier\.yaml") as caught:
        read_earlier(path)
    assert "as under `training` on a card" in caught.value.hint


def test_what_is_right_is_read_and_a_mistake_s_line_is_named(tmp_path):
    path = tmp_path / "file"
    path.write_text('{"SOFTMAX_TEMPERATURE": 0.9, "PREPROCESS_TRANSFORMS": [{"name": "none"}]}')
    assert read_served(path) == {"SOFTMAX_TEMPERATURE": 0.9, "PREPROCESS_TRANSFORMS": [{"name": "none"}]}
    path.write_text("- preset: nano\n  curve: [{tables: 4, n=50: 0.5}]\n- preset: nano-long\n")
    assert read_earlier(path) == [
        {"preset": "nano", "curve": [{"tables": 4, "n=50": 0.5}]},
        {"preset": "nano-long"},
    ]
    path.write_text('{\n"a": 1,\n}')
    with pytest.raises(RequestError, match="file:3 is no way of serving"):
        read_served(path)
    path.write_text("- preset: nano\n- preset: *nano\n")
    with pytest.raises(RequestError, match="file:2 is no list of runs: aliases are not allowed"):
        read_earlier(path)
    with pytest.raises(RequestError, match=r"cannot read .*: No such file"):
        read_earlier(tmp_path / "nowhere")


def test_a_card_is_read_again_as_it_was_written_and_a_damaged_one_is_refused(tmp_path):
    path, shared = tmp_path / "card.md", {"n=50": 0.5}
    head = dict.fromkeys(FIELDS, "x") | {"training": [{"curve": [shared, shared]}]}
    write_card(path, head, "text\n---\nmore\n")
    assert read_card(path) == (head, "text\n---\nmore\n")
    for damage in (
        b"---\n- x\n---\n",
        b"---\n5\n---\n",
        b"---\n{half\n---\n",
        b"---\na: &a [*a]\n---\n",
        b"\xff",
        b"",
    ):
        path.write_bytes(damage)
        with pytest.raises(ModelError, match=r"card\.md"):
            read_card(path)
    path.write_bytes(b"---\nname: x\nfile: {half\n---\n")
    with pytest.raises(ModelError, match=r"card\.md:4"):
        read_card(path)


@pytest.mark.parametrize(
    "served", ['{"N_ESTIMATORS": "many"}', '{"NO_SUCH_FIELD": 1}', '{"PREPROCESS_TRANSFORMS": [5]}']
)
def test_an_older_file_stays_where_the_way_of_serving_is_none(spare, served, capsys):
    target, card, way = spare / "old.safetensors", spare / "old.md", spare / "served.json"
    target.write_bytes(b"older")
    way.write_text(served)
    asked = ["pretrain", "bundle", str(spare), str(target), "--preset", "tiny", "--served", str(way)]
    assert run(asked) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and hint.startswith("hint: ")
    assert target.read_bytes() == b"older"
    way.write_text("{}")
    card.write_bytes(b"---\n{half\n---\n")
    assert run(asked) == 2
    assert "old.md" in capsys.readouterr().err
    assert target.read_bytes() == b"older"
    card.unlink()
    assert run(asked) == 0
    assert target.stat().st_size > (spare / MODEL).stat().st_size / 3
    assert read_card(card)[0]["storage"] in ("float16", "float32")
