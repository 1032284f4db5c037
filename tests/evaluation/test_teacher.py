"""Teachers: no row is in the context of its own, and the better one counts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.toys import WatchedSession
from tttab.errors import RequestError
from tttab.evaluation import teacher
from tttab.evaluation.teacher import HARD, soft_targets, teacher_of
from tttab.training.config import Schedule

TRAIN = np.arange(3, 60)
"""Of 60 queries the first three are held out."""


class Fixed:
    """Trees or a model that answer a probability of the true class, found by the row's first cell."""

    def __init__(self, truth, p):
        self.truth, self.p, self.asked = truth, p, []

    def fit(self, x, y):
        self.shown = list(x.iloc[:, 0])
        return self

    def predict(self, x):
        self.asked += list(x.iloc[:, 0])
        labels = [self.truth[value] for value in x.iloc[:, 0]]
        return np.where(np.eye(3)[labels] == 1, self.p, (1 - self.p) / 2)

    predict_proba = predict


@pytest.fixture
def rows(mixed_frame):
    x, y = mixed_frame
    x = x.assign(number=np.arange(120.0)).loc[:, ["number", *x.columns]]
    session = WatchedSession()
    return session, session.context(x[:60], y[:60], 3), x[60:], y[60:]


def test_no_query_is_in_the_context_of_its_teacher_and_a_held_out_one_teaches_none(rows, monkeypatch):
    session, context, x, y = rows
    truth, seen = dict(zip(x["number"], y, strict=True)), []

    def teach(shown):
        seen.append((shown, one := Fixed(truth, 0.6)))
        return one

    session.serve = lambda context: teach(list(context.x["number"]))
    monkeypatch.setattr(teacher, "baseline", lambda name, x, task, seed: teach(list(x["number"])))
    targets = soft_targets(session, context, x, y, 7, TRAIN)
    taught = set(x["number"].iloc[TRAIN])
    for shown, one in seen:
        assert set(shown) == set(context.x["number"]) | taught - set(one.asked)
    every = sorted(number for _, one in seen for number in one.asked)
    assert every == sorted([*taught, *taught]), "once by the trees, once by the model"
    assert np.array_equal(targets[:3], np.eye(3)[y[:3]])
    np.testing.assert_allclose(targets[TRAIN, y[TRAIN]], HARD + (1 - HARD) * 0.6)
    np.testing.assert_allclose(targets.sum(axis=1), 1)


@pytest.mark.parametrize(("model", "trees", "expected"), [(0.9, 0.1, 0.9), (0.1, 0.8, 0.8)])
def test_the_mixture_with_the_smallest_loss_teaches(rows, monkeypatch, model, trees, expected):
    session, context, x, y = rows
    truth = dict(zip(x["number"], y, strict=True))
    session.serve = lambda context: Fixed(truth, model)
    monkeypatch.setattr(teacher, "baseline", lambda *_: Fixed(truth, trees))
    targets = soft_targets(session, context, x, y, 7, TRAIN)
    np.testing.assert_allclose(targets[TRAIN, y[TRAIN]], HARD + (1 - HARD) * expected)


def test_who_asks_for_none_gets_none_and_a_regression_table_has_no_classes(rows):
    session, context, x, y = rows
    assert teacher_of(session, context, (x, y), Schedule(), 0) is None
    with pytest.raises(RequestError, match="for regression") as caught:
        teacher_of(session, SimpleNamespace(classes=0), (x, y), Schedule(taught=True), 0)
    assert caught.value.hint == "--recipe default"
