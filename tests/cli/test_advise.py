"""`tttab advise` as a user meets it, in Python too."""

from __future__ import annotations

import json
from dataclasses import asdict

import jsonschema
import numpy as np
import pandas as pd
import pytest

import tttab
from tttab.cli import run
from tttab.evaluation import advice

MODEL = ["--model", "tttab-tiny", "--device", "cpu"]


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    monkeypatch.setitem(advice.SMALL_TREES, "max_iter", 3)


@pytest.fixture
def table(tmp_path):
    """A CSV of 90 rows whose label hangs on `size`."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 90)
    x = {
        "size": (y + rng.normal(0, 0.5, 90)).round(3),
        "colour": np.array(["red", "blue"])[rng.integers(0, 2, 90)],
    }
    path = tmp_path / "table.csv"
    pd.DataFrame({**x, "price": rng.normal(0, 1, 90), "label": np.array(["no", "yes"])[y]}).to_csv(
        path, index=False
    )
    return path


def test_the_document_has_its_schema_and_says_what_python_says(table, capfd):
    assert run(["advise", str(table), "--n", "30", "--json", *MODEL]) == 0
    document = json.loads(capfd.readouterr().out)
    assert run(["schema", "advise"]) == 0
    schema = json.loads(capfd.readouterr().out)
    jsonschema.validate(document, schema)
    assert set(schema["properties"]) == set(document)
    assert document["split"]["n"] == 30 and document["split"]["k"] == document["evidence"]["rows"] == 60
    found = tttab.advise(table, n=30, model="tttab-tiny", device="cpu")
    assert document["sentence"] == found.sentence
    assert document["evidence"] == asdict(found.evidence)


def test_the_estimator_says_it_before_fit_and_stays_as_it_is(table):
    frame = pd.read_csv(table)
    estimator = tttab.TTTClassifier(30, model="tttab-tiny", device="cpu")
    found = estimator.advise(frame.drop(columns="label"), frame["label"])
    assert found.evidence == tttab.advise(table, n=30, model="tttab-tiny", device="cpu").evidence
    assert not hasattr(estimator, "n_features_in_")
    with pytest.raises(
        ValueError, match="advice needs 20 rows beside the context, there are 0; n_context=70"
    ):
        tttab.TTTClassifier(90, model="tttab-tiny").advise(frame.drop(columns="label"), frame["label"])


def test_rows_go_to_stdout_and_the_sentence_where_a_pipe_does_not_look(table, capfd):
    assert run(["advise", str(table), "--n", "30", "--quiet", *MODEL]) == 0
    captured = capfd.readouterr()
    names = [line.split("\t")[0] for line in captured.out.splitlines()]
    assert names == ["what", "loss", "vectors", "trees", "longer"]
    assert "no verdict" in captured.err


@pytest.mark.parametrize(("words", "message", "hint"), [
    (["--target", "price", "--n", "30"], "advice is for classes, this target is a number", "tttab run"),
    (["--n", "80"], "advice needs 20 rows beside the context, there are 10", "--n 70"),
    (["--n", "0"], "n must be at least 1", "--n 200"),
    (["--target", "gone"], "gone", "--target"),
    (["--n", "30", "--members", "0"], "0", "--members"),
])  # fmt: skip
def test_a_mistake_gets_one_line_a_hint_and_exit_code_2(table, capfd, words, message, hint):
    assert run(["advise", str(table), "--quiet", *words, *MODEL]) == 2
    captured = capfd.readouterr()
    error, next_command = captured.err.strip().splitlines()
    assert captured.out == "" and message in error and hint in next_command
