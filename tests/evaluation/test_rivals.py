"""Rivals that learn by means of their own: which rows teach which, and what is made of them."""

from __future__ import annotations

from dataclasses import replace

import lightgbm
import numpy as np
import pytest

from tests.support.toys import WatchedSession
from tttab.bench import ALL_ARMS
from tttab.evaluation import rivals
from tttab.evaluation.arms import ARMS
from tttab.evaluation.baselines import BaggedTrees
from tttab.evaluation.rivals import RivalData, fit_distilled, fit_medoids, fit_redrawn, teach

N, ROWS = 30, 70


@pytest.fixture
def given(mixed_frame):
    x, y = mixed_frame
    return RivalData(WatchedSession(), x[:ROWS], y[:ROWS], N, "classification", 3, 0, "made")


def contexts_of(given):
    number = {size: row for row, size in enumerate(given.x["size"])}
    return [[number[s] for s in sizes] for part, sizes, _ in given.session.seen if part == "context"]


def test_dear_arms_run_where_they_are_named_alone():
    earlier = ("icl@n", "ttt@n+k", "icl@n+k", "redraw@n", "redraw@n+k", "temperature@n", "head@n")
    assert (*earlier, "icl@n-random", "icl@n-kcenter", "gbt", "logistic") == ALL_ARMS
    assert {"blend@n+k", "finetuned@n", "medoids@n", "lightgbm@n+k"} < ARMS.keys() - set(ALL_ARMS)


def test_no_row_stands_in_its_own_teacher_s_context(given):
    p = teach(given)
    contexts = contexts_of(given)
    asked = [sorted(set(range(ROWS)) - set(rows)) for rows in contexts]
    assert len(contexts) == 5 and sorted(row for rows in asked for row in rows) == list(range(ROWS))
    for rows, own in zip(contexts, asked, strict=True):
        context = given.session.context(given.x.iloc[rows], given.y[rows], 3)
        np.testing.assert_allclose(p[own], given.session.serve(context).predict(given.x.iloc[own]))


def test_a_class_of_one_row_is_unknown_to_that_row_s_teacher(given):
    y = np.where(np.arange(ROWS) == 8, 2, given.y % 2)
    p = teach(replace(given, y=y))
    assert p[8, 2] == 0 and (p[:, 2] > 0).sum() == ROWS * 4 // 5
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)


def test_distilled_trees_are_those_of_gbt_with_a_row_per_class_weighed_by_its_soft_label(given, monkeypatch):
    p = np.full((ROWS, 3), 0.1)
    p[np.arange(ROWS), (given.y + 1) % 3] = 0.8  # a teacher that is wrong everywhere
    monkeypatch.setattr(rivals, "teach", lambda given: p)
    fitted = fit_distilled(given)
    found = fitted.server.predict(given.x)
    assert (found.argmax(axis=1) == (given.y + 1) % 3).mean() > 0.7
    np.testing.assert_allclose(found.mean(axis=0), p.mean(axis=0), atol=0.02)
    assert (fitted.n_context, fitted.k) == (0, ROWS) and 1000 < fitted.server.cache_bytes < 10**6
    values = replace(given, task="regression", classes=0)
    monkeypatch.setattr(rivals, "teach", lambda given: p[:, 0])
    np.testing.assert_allclose(
        fit_distilled(values).server.predict(given.x).mean(), p[:, 0].mean(), atol=1e-6
    )


def test_predictlm_s_recipe_draws_fifteen_contexts_from_all_rows_and_serves_all(given):
    fitted = fit_redrawn(given)
    first, *drawn, whole = contexts_of(given)
    assert first == list(range(56)) and whole == list(range(ROWS))
    assert len(drawn) == 15 and len({tuple(rows) for rows in drawn}) == 15
    assert {len(rows) for rows in drawn} == {56} and max(map(max, drawn)) > 56
    measured = ROWS - len({row for rows in drawn for row in rows})
    assert measured <= 2
    assert (fitted.n_context, fitted.k, fitted.adapted.step) == (ROWS, ROWS - N, 15)


def test_medoids_are_those_of_the_model_s_own_vectors(given, monkeypatch):
    centres = np.repeat(np.arange(N), [3] * 10 + [2] * 20)  # 30 groups; the last row of each is its middle
    vectors = np.stack([100.0 * centres, np.zeros(ROWS)], axis=1)
    middle = np.flatnonzero(np.diff(centres, append=N))
    vectors[np.setdiff1d(np.arange(ROWS), middle), 1] = np.tile([1.0, -1.0], 20)
    monkeypatch.setattr(WatchedSession, "row_vectors", lambda self, context, x: vectors)
    fitted = fit_medoids(given)
    first, chosen = contexts_of(given)
    assert first == list(range(N)) and sorted(set(centres[chosen])) == list(range(N))
    assert {row for row in chosen if centres[row] < 10} == set(middle[:10].tolist())
    assert (fitted.n_context, fitted.k) == (N, 0)


def test_lightgbm_is_stopped_early_in_eight_folds_and_averaged(given, monkeypatch):
    asked, train = [], lightgbm.train

    def watched(settings, data, rounds, valid_sets, callbacks):
        sizes = [part.construct().num_data() for part in (data, *valid_sets)]
        asked.append((rounds, *sizes))
        return train(settings, data, rounds, valid_sets=valid_sets, callbacks=callbacks)

    monkeypatch.setattr(lightgbm, "train", watched)
    monkeypatch.setattr(BaggedTrees, "PATIENCE", 10)
    model = BaggedTrees(3, 0).fit(given.x, given.y)
    assert {(rounds, a + b) for rounds, a, b in asked} == {(10_000, ROWS)} and len(asked) == 8
    assert {b for _, _, b in asked} == {8, 9} and all(b.num_trees() < 3_000 for b in model.boosters)
    p = model.predict_proba(given.x)
    assert p.shape == (ROWS, 3)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (p.argmax(axis=1) == given.y).mean() > 0.8
    two = BaggedTrees(2, 0).fit(given.x, given.y // 2).predict_proba(given.x)
    assert two.shape == (ROWS, 2) and np.ptp(two[:, 1]) > 0.1
    value = BaggedTrees(0, 0).fit(given.x, 10.0 * given.y).predict(given.x)
    assert np.corrcoef(value, given.y)[0, 1] > 0.8
