"""Threads: what one model is asked by many at once is what it answers one by one, to the last bit.

Python 3.12 took the lock out of `cached_property`, and the network's forward is replaced while inputs are
recorded: both show only where threads meet, so they start together here and change places all the time.
"""

from __future__ import annotations

import copy
import io
import pickle
import sys
import threading
import warnings
from dataclasses import replace

import joblib
import numpy as np
import pytest
from sklearn.base import clone

from tttab.api.estimator import TTTClassifier, TTTRegressor
from tttab.bundle import Bundle
from tttab.rules import get_rule
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation

THREADS = 6


class Silent:
    """`warnings` for scikit-learn, which warns where it finds no filters, and they belong to all threads."""

    def __getattr__(self, name):
        return getattr(warnings, name)

    def warn(self, *_):
        return None


@pytest.fixture(autouse=True)
def many_switches(monkeypatch):
    """Let threads change places a thousand times as often."""
    monkeypatch.setattr("sklearn.utils.parallel.warnings", Silent())
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def together(*works):
    """Run the works at one moment, a thread each; return their answers, or raise the first error."""
    start, answers = threading.Barrier(len(works)), [None] * len(works)

    def run(number):
        start.wait()
        try:
            answers[number] = works[number]()
        except BaseException as error:
            answers[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


@pytest.fixture(scope="module")
def bundle(tiny_model, mixed_frame):
    from tttab.data import Origin, schema_of, table_from_frame

    frame, y = mixed_frame
    table = table_from_frame(frame.assign(kind=np.array(["a", "b", "c"])[y]), Origin("mixed", "file"))
    return Bundle(tiny_model, table.x.iloc[:60], table.y[:60], schema_of(table))


def test_the_first_prediction_may_be_asked_for_by_many_threads(bundle, mixed_frame, monkeypatch):
    frame, _ = mixed_frame
    expected = replace(bundle).predict(frame)
    made = []
    serve = type(bundle.session).serve
    monkeypatch.setattr(
        type(bundle.session), "serve", lambda self, context: made.append(1) or serve(self, context)
    )
    fresh = replace(bundle)
    answers = together(*[lambda: fresh.predict(frame)] * THREADS)
    assert len(made) == 1
    for answer in answers:
        np.testing.assert_array_equal(answer, expected)
    for answer in together(*[lambda: fresh.predict(frame)] * THREADS):
        np.testing.assert_array_equal(answer, expected)


def test_contexts_queries_and_forks_of_one_session_do_not_meet(bundle, tiny_model):
    x, y = bundle.x, bundle.y
    shared = tiny_model.context(x[:40], y[:40], 3)
    expected = tiny_model.queries(shared, x, y).inputs
    rows = np.arange(len(y))
    loss = tiny_model.loss(shared, tiny_model.queries(shared, x, y), rows).item()

    def record():
        return [tiny_model.queries(shared, x, y).inputs for _ in range(4)]

    def own_context():
        return [tiny_model.queries(tiny_model.context(x[:40], y[:40], 3), x, y).inputs for _ in range(2)]

    def fork():
        forks = [tiny_model.fork() for _ in range(12)]
        assert not any("forward" in vars(part) for one in forks for part in one.module.modules())
        return [tiny_model.queries(shared, x, y).inputs]

    for answer in together(record, own_context, fork, record, own_context, fork):
        for inputs in answer:
            for given, wanted in zip(inputs, expected, strict=True):
                np.testing.assert_array_equal(given, wanted)
    assert tiny_model.fork().loss(shared, tiny_model.queries(shared, x, y), rows).item() == loss


def test_adaptations_from_one_session_and_context_are_those_of_a_single_thread(bundle, tiny_model):
    x, y = bundle.x, bundle.y
    context = tiny_model.context(x[:30], y[:30], 3)
    schedule = Schedule(steps=2, batch=20, precision="fp32")

    def adapt(seed):
        run = Adaptation(tiny_model, get_rule("full"), context, (x, y), replace(schedule), seed)
        losses = [step.loss for step in run]
        return losses, run.result.session.serve(context).predict(x)

    expected = [adapt(seed) for seed in range(3)]
    for (losses, p), (wanted, q) in zip(
        together(*[lambda seed=seed: adapt(seed) for seed in range(3)]), expected, strict=True
    ):
        assert losses == wanted
        np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize("kind", [TTTClassifier, TTTRegressor])
def test_an_estimator_predicts_while_others_are_fitted(mixed_frame, kind):
    frame, y = mixed_frame
    y = y if kind is TTTClassifier else frame["size"].to_numpy()
    settings = {"n_context": 40, "steps": 2, "model": "tttab-tiny", "device": "cpu"}
    ask = "predict_proba" if kind is TTTClassifier else "predict_quantiles"
    fitted = kind(**settings).fit(frame, y)
    expected = getattr(copy.deepcopy(fitted), ask)(frame)
    works = [
        *[lambda: getattr(fitted, ask)(frame)] * 3,
        lambda: getattr(clone(fitted).fit(frame, y), ask)(frame),
    ]
    for answer in together(*works):
        np.testing.assert_array_equal(answer, expected)


def test_locks_keep_nothing_from_being_copied(mixed_frame):
    frame, y = mixed_frame
    settings = {"n_context": 40, "steps": 2, "model": "tttab-tiny", "device": "cpu"}
    fitted = TTTClassifier(**settings).fit(frame, y)
    expected = fitted.predict_proba(frame)
    stream = io.BytesIO()
    joblib.dump(fitted, stream)
    stream.seek(0)
    for other in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted), joblib.load(stream)):
        np.testing.assert_array_equal(other.predict_proba(frame), expected)
    assert not hasattr(clone(fitted), "bundle_")


def test_a_copied_server_answers_from_its_own_weights(bundle):
    server = bundle.session.serve(bundle.context)
    expected = server.predict(bundle.x)
    for other in (copy.deepcopy(server), pickle.loads(pickle.dumps(server))):
        np.testing.assert_array_equal(other.predict(bundle.x), expected)
        (module,) = other._estimator.models_
        before = [part.clone() for part in server._estimator.models_[0].parameters()]
        for weight in module.parameters():
            weight.data.zero_()
        assert np.abs(other.predict(bundle.x) - expected).max() > 1e-3
        assert all(a.equal(b) for a, b in zip(before, server._estimator.models_[0].parameters(), strict=True))
        np.testing.assert_array_equal(server.predict(bundle.x), expected)
