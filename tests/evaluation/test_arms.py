"""Arms: every one runs, trains only what it says, shares what it can, and has an identity of its own."""

from __future__ import annotations

import numpy as np
import pytest

from tttab.core import identity_hash
from tttab.data import Origin, table_from_frame
from tttab.data.splits import SplitRequest, split_rows
from tttab.errors import RequestError
from tttab.evaluation.arms import ARMS, Outcome, Progress, Trial
from tttab.training.config import Schedule


@pytest.fixture(scope="module")
def unit(tiny_model, mixed_frame):
    x, y = mixed_frame
    table = table_from_frame(x.assign(label=np.array(["a", "b", "c"])[y]), Origin("made", "file"))
    split = split_rows(table.y, SplitRequest(n=30, k=40, test_size=40), 0, classes=3)
    return Trial(table, split, tiny_model, schedule=Schedule(steps=2, lr=1e-3))


@pytest.fixture(scope="module")
def outcomes(unit):
    return {arm: list(unit.run(arm)) for arm in ARMS}


def test_every_arm_ends_with_one_outcome_on_the_test_rows(unit, outcomes):
    for arm, events in outcomes.items():
        assert [type(event) for event in events[:-1]] == [Progress] * (len(events) - 1)
        last = events[-1]
        assert isinstance(last, Outcome)
        assert last.row.arm == arm
        assert last.probabilities.shape == (40, 3)
        assert np.allclose(last.probabilities.sum(axis=1), 1, atol=1e-5)


def test_arms_read_as_many_rows_as_they_say(outcomes):
    read = {arm: events[-1].row.n_context for arm, events in outcomes.items()}
    assert {arm for arm, rows in read.items() if rows == 70} == {"icl@n+k", "redraw@n+k"}
    assert {arm for arm, rows in read.items() if rows == 0} == {"gbt", "logistic"}
    assert all(
        rows == 30 for arm, rows in read.items() if arm not in ("icl@n+k", "redraw@n+k", "gbt", "logistic")
    )


def test_redrawn_training_is_done_once_for_both_arms(outcomes):
    assert len(outcomes["redraw@n"]) == 3
    assert len(outcomes["redraw@n+k"]) == 1
    assert outcomes["redraw@n"][-1].adapted is outcomes["redraw@n+k"][-1].adapted


def test_temperature_moves_probabilities_and_no_weights(outcomes, tiny_model):
    adapted = outcomes["temperature@n"][-1].adapted
    for name, parameter in tiny_model.module.named_parameters():
        assert np.array_equal(
            parameter.detach(), dict(adapted.session.module.named_parameters())[name].detach()
        )
    assert outcomes["temperature@n"][-1].probabilities.argmax(1).tolist() == (
        outcomes["icl@n"][-1].probabilities.argmax(1).tolist()
    )


def test_identities_differ_by_arm_and_by_what_changes_the_number(unit):
    keys = {identity_hash(unit.identity(arm)) for arm in ARMS}
    assert len(keys) == len(ARMS)
    other = Trial(unit.table, unit.split, unit.session, schedule=Schedule(steps=3, lr=1e-3))
    changed = {arm for arm in ARMS if other.identity(arm) != unit.identity(arm)}
    assert changed == {arm for arm, about in ARMS.items() if about.rule is not None}
    assert unit.identity("gbt")["model"] is None


def test_an_unknown_arm_is_refused(unit):
    with pytest.raises(RequestError, match="no arm"):
        list(unit.run("ttt"))
