"""`tttab explain` on a real bundle: a table, a page that stands alone, JSON, and refusals."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from tttab.bundle import Bundle, load_bundle, save_bundle
from tttab.cli import run
from tttab.data import Origin, schema_of, table_from_frame


@pytest.fixture(scope="module")
def place(tiny_model, mixed_frame, tmp_path_factory):
    frame, y = mixed_frame
    frame = frame.assign(kind=np.array(["a", "<b>", "c"])[y])
    table = table_from_frame(frame, Origin("mixed", "file"))
    folder = tmp_path_factory.mktemp("explain")
    bundle = Bundle(tiny_model, table.x.iloc[:40], table.y[:40], schema_of(table))
    save_bundle(folder / "kinds", bundle)
    frame.tail(30).to_csv(folder / "rows.csv", index=False)
    frame.drop(columns="kind").tail(3).to_csv(folder / "bare.csv", index=False)
    return folder


def test_values_add_up_to_what_the_bundle_predicts(place, capsys, mixed_frame, monkeypatch):
    monkeypatch.delenv("NUMBA_DISABLE_JIT")
    command = [
        "explain", str(place / "kinds"), str(place / "bare.csv"), "--background", "3", "--device", "cpu",
    ]  # fmt: skip
    assert run([*command, "--rows", "2", "--json"]) == 0
    assert os.environ["NUMBA_DISABLE_JIT"] == "1", "shap's helpers would be compiled for seconds"
    found = json.loads(capsys.readouterr().out)
    p = load_bundle(place / "kinds", device="cpu").predict(mixed_frame[0].tail(3).head(2))
    assert found["outputs"] == ["<b>", "a", "c"] and found["loss_when_shuffled"] is None
    for row, expected in zip(found["rows"], p, strict=True):
        total = np.array(found["base"]) + np.array(row["values"]).sum(axis=0)
        assert np.allclose(total, expected, atol=1e-5) and np.allclose(row["prediction"], expected, atol=1e-5)


def test_the_page_stands_alone_and_shows_texts_as_texts(place, tmp_path, capsys):
    page = tmp_path / "why.html"
    command = [
        "explain", str(place / "kinds"), str(place / "rows.csv"), "--background", "2", "--device", "cpu",
    ]  # fmt: skip
    assert run([*command, "--rows", "4", "--out", str(page)]) == 0
    printed, said = capsys.readouterr()
    lines = [line.split("\t") for line in printed.splitlines()]
    assert lines[0] == ["feature", "mean |SHAP|", "loss when shuffled"] and len(lines) == 5
    text = page.read_text()
    assert "<script" not in text and "<b>" not in text and "&lt;b&gt;" in text
    assert text.count("<svg") >= 3 and "Row 4:" in text
    assert str(page) in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{kinds}", "{none}"], "none.csv"),
        (["{none}", "{rows}"], "no bundle"),
        (["{kinds}", "{rows}", "--out", "{folder}"], "explain"),
    ],
)
def test_what_cannot_be_explained_is_one_line_and_a_hint(place, tmp_path, capsys, arguments, message):
    names = {
        "kinds": place / "kinds",
        "rows": place / "rows.csv",
        "none": tmp_path / "none.csv",
        "folder": place,
    }
    assert run(["explain", *[word.format(**names) for word in arguments], "--device", "cpu"]) == 2
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert message in error and hint.startswith("hint: ")
