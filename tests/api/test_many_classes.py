"""More classes than the model has outputs: every call takes such a table; one set of weights is kept."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import tttab
import tttab.models
from tests.support.small_models import small_model
from tests.support.small_tabicl import small_tabicl
from tttab import TTTClassifier
from tttab.cli import run
from tttab.contracts import Execution
from tttab.data import Origin, table_from_frame
from tttab.models import for_classes
from tttab.models.coded import CodedSession
from tttab.models.families import FAMILIES
from tttab.testing import ToyFamily, ToySession


def frame_of(classes, rows, seed=0):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes)] * 2 + [rng.integers(0, classes, rows - 2 * classes)])
    x = rng.normal(0, 3, (classes, 4))[y] + rng.normal(0, 0.3, (rows, 4))
    return pd.DataFrame(x, columns=list("abcd")).assign(letter=[f"c{code:02d}" for code in y])


@pytest.fixture
def toy(monkeypatch, tmp_path):
    monkeypatch.setattr(tttab.models, "FAMILIES", (*FAMILIES, ToyFamily()))
    ToySession().save(tmp_path / "toy.safetensors")
    return str(tmp_path / "toy.safetensors")


def test_a_model_of_ten_outputs_is_adapted_saved_and_updated_with_a_hundred_classes(toy, tmp_path):
    classes, out = 100, tmp_path / "bundle"
    frame = frame_of(classes, 4 * classes)
    table = table_from_frame(frame, Origin("letters", "file"))
    made = tttab.adapt(table, out=out, model=toy, n=200, k=100, steps=4, lr=0.03, device="cpu")
    assert made.adapted.accepted and made.adapted.after < made.adapted.before
    p = made.bundle.predict(frame)
    assert p.shape == (len(frame), classes)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-9)
    wrong = p.argmax(axis=1) != table.y
    assert wrong.mean() < 0.2
    back = tttab.load_bundle(out, device="cpu")
    np.testing.assert_allclose(back.predict(frame), p, atol=1e-9)
    newer = tttab.update(back, frame_of(classes, 220, seed=1), steps=1)
    assert newer.bundle.session.members == made.bundle.session.members > 2


def test_the_commands_and_the_estimator_take_the_table(toy, tmp_path, capsys):
    frame, file = frame_of(26, 160), tmp_path / "letters.csv"
    frame.to_csv(file, index=False)
    asked = ["--dataset", str(file), "--k", "40", "--steps", "2", "--model", toy, "--device", "cpu"]
    assert run(["run", *asked, "--n", "30", "--test-size", "40", "--out", str(tmp_path / "run")]) == 0
    assert run(["predict", str(tmp_path / "run"), str(file)]) == 0
    header = capsys.readouterr().out.splitlines()
    assert any("p(c25)" in line for line in header)
    assert run(["run", *asked, "--n", "20"]) == 2
    assert "--n 26" in capsys.readouterr().err
    fitted = TTTClassifier(30, n_queries=40, steps=2, model=toy, device="cpu")
    x, y = frame.drop(columns="letter"), frame["letter"]
    p = fitted.fit(x, y).predict_proba(x)
    assert p.shape == (160, 26) and (fitted.predict(x) == y).mean() > 0.5


def test_ten_classes_or_fewer_are_the_models_own_affair_and_members_are_those_of_all_codes():
    session = small_model(members=8)
    assert for_classes(session, 10) is session
    coded = for_classes(session, 26)
    assert isinstance(coded, CodedSession) and coded.members == 8
    assert for_classes(small_model(members=1), 26).members == 8
    assert for_classes(small_model(members=16), 26).members == 16
    assert coded.with_members(3).members == 3


@pytest.mark.parametrize("make", [small_model, small_tabicl])
def test_turns_of_codes_add_up_to_the_whole_gradient(make, mixed_frame):
    x, y = mixed_frame
    session = CodedSession(make(members=1), 2, 3).fork()
    for parameter in session.parameters("all"):
        parameter.requires_grad_(True)
    context = session.context(x[:30], y[:30], 3)
    queries, rows = session.queries(context, x[30:50], y[30:50]), np.arange(20)
    served = session.serve(context).predict(x[30:50])
    scores = session.row_scores(context, queries, rows, Execution())
    np.testing.assert_allclose(scores.predicted, served, atol=1e-5)

    def gradient(*seen):
        loss = session.accumulate_gradients(*seen, rows, 1.0, Execution())
        assert loss == pytest.approx(scores.loss.sum(), rel=1e-4)
        found = torch.cat([p.grad.flatten() for p in session.trainable().values() if p.grad is not None])
        for parameter in session.trainable().values():
            parameter.grad = None
        return found

    whole = gradient(context, queries)
    turns = [session.cost_model.of_members(context, queries, [code]) for code in range(session.members)]
    fewer = session.cost_model.sample(turns[0][0], 20)
    assert fewer.n == 20 and session.accumulate_gradients(fewer, turns[0][1], rows, 1.0, Execution()) > 0
    for parameter in session.parameters("all"):
        parameter.grad = None
    mean = sum(gradient(*seen) for seen in turns) / len(turns)
    assert len(turns) == 4 and (mean - whole).norm() < 1e-4 * whole.norm()
