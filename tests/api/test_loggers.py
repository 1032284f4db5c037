"""What MLflow and W&B are told of a run, by fakes of both; a logger that is not there is one line."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import tttab
from tttab.cli import run as command
from tttab.data import Origin, table_from_frame
from tttab.errors import RequestError
from tttab.evaluation import loggers
from tttab.testing import ToySession

RNG = np.random.default_rng(0)
X = pd.DataFrame({"a": RNG.normal(size=90), "b": RNG.normal(size=90)})
TABLE = table_from_frame(X.assign(y=np.where(X["a"] > 0, "no", "yes")), Origin("made", "file"))
ASKED = {"n": 10, "k": 40, "recipe": "single", "steps": 3, "device": "cpu"}


class Fake:
    """Notes every call of a module, of a run and of its summary."""

    def __init__(self):
        self.calls = []
        self.summary = SimpleNamespace(update=lambda values: self.calls.append(("summary", values)))

    def __getattr__(self, name):
        return lambda *given, **named: self.calls.append((name, *given, named)) or self


@pytest.fixture
def service(monkeypatch):
    def install(name):
        fake = Fake()
        monkeypatch.setitem(sys.modules, name, fake)
        monkeypatch.setattr(loggers, "find_spec", lambda package: package == name)
        monkeypatch.setattr("tttab.models.open_model", lambda *given, **named: ToySession())
        return fake.calls

    return install


def test_mlflow_is_told_what_was_asked_every_step_and_the_figures(service):
    calls = service("mlflow")
    found = tttab.run(TABLE, log="mlflow", **ASKED)
    assert calls[0] == ("start_run", {}) and calls[1][1]["steps"] == "3" and calls[-1][1] == "FINISHED"
    steps = [call for call in calls if call[0] == "log_metrics" and "step" in call[-1]]
    assert [call[-1]["step"] for call in steps] == [1, 2, 3]
    assert all(np.isfinite(list(call[1].values())).all() for call in steps)
    assert set(steps[0][1]) == {f"ttt-n-k.{name}" for name in ("loss", "held_out", "best", "ece", "size")}
    told = {name: value for call in calls if call[0] == "log_metrics" for name, value in call[1].items()}
    assert told["gbt.accuracy"] == found["gbt"].metrics["accuracy"]


def test_wandb_is_told_the_same_and_of_a_failure(service, monkeypatch):
    calls = service("wandb")
    tttab.adapt(TABLE, log="wandb", **ASKED)
    assert calls[0][0] == "init" and calls[0][-1]["config"]["n"] == 10
    assert [call[0] for call in calls].count("log") == 3 and calls[-1] == ("finish", {"exit_code": 0})
    assert "held_out.log_loss" in next(call[1] for call in calls if call[0] == "summary")
    monkeypatch.setattr("tttab.api.calls.adapt_result", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tttab.adapt(TABLE, log="wandb", **ASKED)
    assert calls[-1] == ("finish", {"exit_code": 1})


def test_a_logger_that_is_not_there_is_one_line_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setattr(loggers, "find_spec", lambda package: None)
    assert command(["run", "--dataset", "31", "--log", "mlflow"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "this needs the package mlflow" in said[0] and "pip install 'tttab[mlflow]'" in said[1]
    with pytest.raises(RequestError, match="no logger is called 'paper'; log='mlflow' or log='wandb'"):
        tttab.run(TABLE, log="paper")
