"""`tttab predict` on compressed and separated rows, and on a file that changes while it is read."""

from __future__ import annotations

import bz2
import gzip
import os

import numpy as np
import pandas as pd
import pytest

from tttab.cli import run
from tttab.cli.commands import predict as predict_command


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """A bundle of a table with numbers and text, and its rows."""
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 120)
    colours = np.array(["red", "blue"])[(y + (rng.random(120) < 0.3)) % 2]
    rows = pd.DataFrame(
        {"size": y + rng.normal(0, 0.5, 120), "colour": colours, "y": np.array(["n", "p"])[y]}
    )
    folder = tmp_path_factory.mktemp("files")
    rows.to_csv(folder / "table.csv.xz", index=False)
    command = ["adapt", str(folder / "table.csv.xz"), "--target", "y", "--out", str(folder / "bundle")]
    options = ["--n", "40", "--k", "40", "--test-size", "20", "--rule", "none", "--model", "tttab-tiny"]
    assert run([*command, *options, "--device", "cpu", "--quiet"]) == 0
    return folder / "bundle", rows.drop(columns="y")


def predict(bundle, rows, out):
    return run(["predict", str(bundle), str(rows), "--out", str(out), "--device", "cpu", "--quiet"])


def test_packed_and_separated_rows_have_the_predictions_of_the_plain_ones(adapted, tmp_path, monkeypatch):
    bundle, rows = adapted
    monkeypatch.setattr(predict_command, "CHUNK_ROWS", 50)
    rows.to_csv(tmp_path / "plain.csv", index=False)
    assert predict(bundle, tmp_path / "plain.csv", tmp_path / "expected.csv") == 0
    text = rows.to_csv(index=False)
    piped = rows.to_csv(index=False, sep="|")
    for name, content in {
        "rows.csv.gz": gzip.compress(text.encode()),
        "rows.csv.bz2": bz2.compress(text.encode()),
        "piped.txt": piped.encode(),
        "told.csv": ("sep=|\n" + piped).encode(),
    }.items():
        (tmp_path / name).write_bytes(content)
        assert predict(bundle, tmp_path / name, tmp_path / "found.csv") == 0
        assert (tmp_path / "found.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes(), name


def test_a_file_cut_between_two_pieces_gives_no_predictions(adapted, tmp_path, monkeypatch, capfd):
    bundle, rows = adapted
    path, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    pd.concat([rows] * 1_000).to_csv(path, index=False)
    out.write_text("old")
    first_rows = path.read_bytes()[: path.read_bytes().index(b"\n", path.stat().st_size // 2) + 1]
    monkeypatch.setattr(predict_command, "CHUNK_ROWS", 1_000)
    write = predict_command.PredictionRun._predictions

    def cut_and_write(served, bundle, x):
        os.truncate(path, len(first_rows))
        early = served.count <= 1_000
        return write(served, bundle, x) if early else pd.DataFrame({"prediction": ["n"] * len(x)})

    monkeypatch.setattr(predict_command.PredictionRun, "_predictions", cut_and_write)
    assert predict(bundle, path, out) == 2
    assert "rows.csv was changed while it was read" in capfd.readouterr().err
    assert out.read_text() == "old" and len(list(tmp_path.iterdir())) == 2
