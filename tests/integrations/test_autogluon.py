"""The wrapper under AutoGluon's own base class, where that is installed (it needs pandas before 2.4)."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

from tests.support.small_models import small_model
from tttab.errors import MissingExtra

RNG = np.random.default_rng(3)
X = pd.DataFrame({"a": RNG.normal(size=80), "b": pd.Categorical(RNG.choice(list("xyz"), 80))})
Y = {
    "binary": (X["a"] > 0).astype(int),
    "multiclass": pd.cut(X["a"], 3, labels=False),
    "regression": 2 * X["a"],
}


def test_without_autogluon_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "autogluon.core.models", None)
    monkeypatch.delitem(sys.modules, "tttab.integrations.autogluon", raising=False)
    with pytest.raises(MissingExtra) as caught:
        import tttab.integrations.autogluon  # noqa: F401
    assert caught.value.hint == "pip install 'tttab[autogluon]'"


@pytest.mark.parametrize("task", Y)
def test_it_fits_predicts_and_comes_back_from_disk(task, tmp_path):
    pytest.importorskip("autogluon.core")
    from tttab.integrations.autogluon import TTTModel

    file = tmp_path / "small.safetensors"
    small_model(task="regression" if task == "regression" else "classification", members=1).save(file)
    given = {"model": str(file), "n_context": 30, "steps": 2}
    model = TTTModel(path=str(tmp_path / "ag"), name="ttt", problem_type=task, hyperparameters=given)
    model.fit(X=X, y=pd.Series(Y[task]), num_cpus=1, num_gpus=0, time_limit=600)
    assert model.model.max_seconds == pytest.approx(480, rel=0.02)
    assert (model.model.random_state, model.model.n_context_, model.model.device) == (0, 30, "cpu")
    p = model.predict_proba(X)
    assert p.shape == ((80, 3) if task == "multiclass" else (80,)) and np.isfinite(p).all()
    model.save()
    assert np.array_equal(TTTModel.load(model.path).predict_proba(X), p)
