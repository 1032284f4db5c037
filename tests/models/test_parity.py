"""What is trained is what is served: the adapter against tabpfn's own estimator."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from tabpfn import TabPFNClassifier

from tests.support.small_models import SIZES, small_model
from tttab.contracts import Execution
from tttab.errors import SplitError
from tttab.models import open_model
from tttab.models.catalog import WEIGHTS
from tttab.rules import get_rule
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation

TINY = WEIGHTS / "tttab-tiny-classifier.safetensors"


@pytest.fixture(scope="module")
def parts(mixed_frame):
    x, y = mixed_frame
    return x[:40], y[:40], x[40:], y[40:]


@pytest.fixture(scope="module")
def adapted(tiny_model, parts):
    x, y, x_query, y_query = parts
    context = tiny_model.context(x, y, 3)
    schedule = Schedule(steps=4, lr=1e-3, guard="off")
    run = Adaptation(tiny_model, get_rule("full"), context, (x_query, y_query), schedule)
    assert len(list(run)) == 4
    assert run.result.accepted
    return run.result


def plain_estimator(path=TINY, **settings):
    return TabPFNClassifier(
        model_path=path, device="cpu", inference_precision=torch.float32, random_state=0, **settings
    )


@pytest.mark.parametrize("members", [1, 3])
def test_training_logits_equal_served_logits_member_by_member(parts, members, monkeypatch):
    x, y, x_query, y_query = parts
    session = open_model("tttab-tiny", device="cpu")
    session._weights.inference_config.N_ESTIMATORS = members
    context = session.context(x, y, 3)
    queries = session.queries(context, x_query, y_query)
    with torch.no_grad():
        ours = session.logits(context, queries, np.arange(len(queries))).numpy()
    theirs = plain_estimator(n_estimators=members).fit(x, y).predict_raw_logits(x_query)
    assert ours.shape == theirs.shape == (members, 80, 3)
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


def probabilities(session, context, x_query, y_query):
    """Those of the classes of the 80 query rows, computed as in training."""
    queries = session.queries(context, x_query, y_query)
    with torch.no_grad():
        return session.log_probabilities(context, queries, np.arange(80)).exp().numpy()


def test_training_probabilities_equal_served_probabilities(tiny_model, parts):
    x, y, x_query, y_query = parts
    context = tiny_model.context(x, y, 3)
    trained = probabilities(tiny_model, context, x_query, y_query)
    assert np.abs(trained - tiny_model.predict(context, x_query)).max() < 1e-5
    assert np.abs(trained - plain_estimator().fit(x, y).predict_proba(x_query)).max() < 1e-5


def test_a_column_constant_in_the_context_trains_as_it_is_served(tiny_model, parts):
    x, y, x_query, y_query = (part.copy() for part in parts)
    x_query["constant"] = np.linspace(-3, 3, len(x_query))
    context = tiny_model.context(x, y, 3)
    trained = probabilities(tiny_model, context, x_query, y_query)
    assert np.abs(trained - tiny_model.predict(context, x_query)).max() < 1e-5


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("architecture", ["tabpfn_v2", "tabpfn_v2_5"])
def test_a_column_constant_but_for_missing_cells_trains_as_it_is_served(parts, architecture, recompute):
    x, y, x_query, y_query = (part.copy() for part in parts)
    x_query["constant"] = np.linspace(-3, 3, len(x_query))
    x.loc[x.index[:3], "constant"] = np.nan
    x_query.loc[x_query.index[-3:], "constant"] = np.nan
    session = small_model(architecture)
    context = session.context(x, y, 3)
    served = session.serve(context).predict(x_query)[np.arange(80), y_query]
    queries, how = session.queries(context, x_query, y_query), Execution(recompute_activations=recompute)
    losses = session.row_scores(context, queries, np.arange(80), how).loss
    assert np.abs(losses + np.log(served)).max() < 1e-4


def test_unseen_categories_count_as_missing(tiny_model, parts):
    x, y, x_query, _ = (part.copy() for part in parts)
    context = tiny_model.context(x, y, 3)
    strange, missing = x_query.copy(), x_query.copy()
    strange["colour"] = "violet"
    strange["colour"] = strange["colour"].astype("category")
    missing["colour"] = np.nan
    assert np.array_equal(tiny_model.predict(context, strange), tiny_model.predict(context, missing))


def test_memory_cache_and_file_agree_after_adaptation(adapted, parts, tmp_path):
    x, y, x_query, y_query = parts
    session, context = adapted.session, adapted.context
    memory = probabilities(session, context, x_query, y_query)
    file = tmp_path / "adapted.safetensors"
    session.save(file)
    served = session.predict(context, x_query)
    loaded = plain_estimator(file).fit(x, y).predict_proba(x_query)
    cached = plain_estimator(file, fit_mode="fit_with_cache").fit(x, y).predict_proba(x_query)
    reopened = open_model(str(file), device="cpu")
    again = reopened.predict(reopened.context(x, y, 3), x_query)
    for other in (served, loaded, cached, again):
        assert np.abs(memory - other).max() < 1e-5
    assert np.abs(memory - plain_estimator().fit(x, y).predict_proba(x_query)).max() > 1e-3


def test_a_server_keeps_the_weights_it_was_made_with(tiny_model, parts):
    x, y, x_query, _ = parts
    fork = tiny_model.fork()
    context = fork.context(x, y, 3)
    server = fork.serve(context)
    before = server.predict(x_query)
    with torch.no_grad():
        for parameter in fork.module.parameters():
            parameter.mul_(0.5)
    assert np.array_equal(server.predict(x_query), before)
    assert not np.array_equal(fork.predict(context, x_query), before)


@pytest.fixture(scope="module")
def prepared(parts):
    """Each architecture's session, context and queries, made once."""

    @cache
    def get(architecture):
        x, y, x_query, y_query = parts
        session = small_model(architecture)
        context = session.context(x, y, 3)
        return session, context, session.queries(context, x_query, y_query)

    return get


@pytest.mark.parametrize("by_member", [False, True])
@pytest.mark.parametrize("rule", ["full", "head", "last-layers", "lora", "temperature"])
@pytest.mark.parametrize("architecture", list(SIZES))
def test_chunks_give_the_gradient_of_tabpfns_own_forward_pass(prepared, architecture, rule, by_member):
    session, context, queries = prepared(architecture)

    def gradient(backward):
        fork = session.fork()
        parameters = get_rule(rule).parameters(fork)
        for parameter in parameters:
            parameter.requires_grad_(True).data.add_(0.01)
        loss = backward(fork)
        return loss, torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])

    def whole(fork):
        loss = fork.loss(context, queries, np.arange(80), Execution(by_member=by_member)) / 80
        loss.backward()
        return loss.item()

    def in_chunks(fork):
        frozen = fork.cost_model.frozen_features(context, queries, Execution(11, by_member))
        return fork.accumulate_gradients(context, frozen, np.arange(80), 1 / 80, Execution(13, by_member))

    loss, exact = gradient(whole)
    ours, found = gradient(in_chunks)
    assert ours == pytest.approx(loss, rel=1e-5)
    assert (found - exact).norm() < 1e-5 * exact.norm()


@pytest.mark.parametrize(
    ("rule", "frozen"),
    [("head", 3), ("temperature", 3), ("last-layers:1", 2), ("last-layers", 1), ("lora", 0)],
)
def test_frozen_layers_run_once_and_score_the_same(prepared, rule, frozen):
    session, context, queries = prepared("tabpfn_v2")
    session = session.fork()
    for parameter in get_rule(rule).parameters(session):
        parameter.requires_grad_(True)
    embedded = session.cost_model.frozen_features(context, queries, Execution(13))
    assert (embedded is not queries) == bool(frozen)
    if frozen:
        before = session.row_scores(context, queries, np.arange(80)).loss
        assert np.abs(session.row_scores(context, embedded, np.arange(80)).loss - before).max() < 1e-5
        with torch.no_grad():
            for parameter in session.module.blocks[:frozen].parameters():
                parameter.zero_()
        assert np.abs(session.row_scores(context, embedded, np.arange(80)).loss - before).max() < 1e-5


def test_cells_that_would_take_too_much_are_computed_again(prepared, monkeypatch):
    session, context, queries = prepared("tabpfn_v2")
    session = session.fork()
    for parameter in get_rule("last-layers:1").parameters(session):
        parameter.requires_grad_(True)
    (tail, *_) = kept = session.cost_model.frozen_features(context, queries, Execution(13)).tails
    held = sum(4 * (one.context.numel() + one.queries.numel()) for one in kept)
    assert tail.queries.shape[1] == 80 and tail.first == 2
    for most, again in ((held, False), (held - 1, True)):
        monkeypatch.setattr("tttab.models.tabpfn.costs.MOST_KEPT", most)
        assert (session.cost_model.frozen_features(context, queries, Execution(13)) is queries) == again
    recomputed = Execution(13, recompute_activations=True)
    monkeypatch.undo()
    assert session.cost_model.frozen_features(context, queries, recomputed) is queries


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("rule", ["full", "head", "last-layers:1"])
def test_members_that_take_turns_have_their_mean_as_gradient(parts, rule, task):
    x, y, x_query, y_query = parts
    session = small_model("tabpfn_v2", task, members=4).fork()
    parameters = get_rule(rule).parameters(session)
    for parameter in parameters:
        parameter.requires_grad_(True)
    classes = 3 if task == "classification" else 0
    context, costs = session.context(x, y, classes), session.cost_model
    queries = costs.frozen_features(context, session.queries(context, x_query, y_query), Execution(13))
    rows, wanted = np.arange(80), 0.0
    whole = [
        session.member_log_likelihoods(context, queries, rows, which)
        for which in session.whole_calls(context)
    ]
    wanted = -torch.cat(whole).sum(dim=1).mean() / 80
    wanted.backward()
    exact = torch.cat([p.grad.flatten() for p in parameters])
    session.module.zero_grad(set_to_none=True)
    found = [
        session.accumulate_gradients(*costs.of_members(context, queries, [m]), rows, 1 / 320, Execution(13))
        for m in range(4)
    ]
    assert sum(found) == pytest.approx(wanted.item(), rel=1e-5)
    ours = torch.cat([p.grad.flatten() for p in parameters])
    assert (ours - exact).norm() < 1e-5 * exact.norm()


def test_members_see_what_they_see_among_all(parts):
    x, y, x_query, y_query = parts
    session = small_model(members=4)
    context = session.context(x, y, 3)
    queries, rows = session.queries(context, x_query, y_query), np.arange(80)
    with torch.no_grad():
        everyone = session.logits(context, queries, rows)
        for members in ([0], [3], [1, 2]):
            some = session.logits(*session.cost_model.of_members(context, queries, members), rows)
            np.testing.assert_allclose(some, everyone[members], atol=1e-5)


def test_queries_prepared_in_pieces_are_those_prepared_at_once(tiny_model, parts, monkeypatch):
    x, y, x_query, y_query = parts
    context = tiny_model.context(x, y, 3)
    whole, asked = tiny_model.queries(context, x_query, y_query), []
    monkeypatch.setattr("tttab.models.tabpfn.session.PIECE", 27)
    record = type(tiny_model)._record
    monkeypatch.setattr(
        type(tiny_model),
        "_record",
        lambda self, *given: (asked.append(len(given[1])), record(self, *given))[1],
    )
    pieces = tiny_model.queries(context, x_query, y_query)
    assert asked == [27, 27, 26]
    for one, other in zip(pieces.inputs, whole.inputs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(pieces.y, whole.y)


def test_scores_in_chunks_are_the_scores_of_all_rows_at_once(prepared, parts):
    session, context, queries = prepared("tabpfn_v2")
    _, _, x_query, y_query = parts
    chunked = session.row_scores(context, queries, np.arange(80), Execution(13))
    served = session.predict(context, x_query)
    assert np.abs(np.exp(-chunked.loss) - served[np.arange(80), y_query]).max() < 1e-5


def test_a_context_without_a_class_is_refused(tiny_model, parts):
    x, y, _, _ = parts
    with pytest.raises(SplitError, match="class number 2"):
        tiny_model.context(x[y < 2], y[y < 2], 3)


def test_rows_are_served_in_pieces_as_tabpfn_predicts_them_at_once(tiny_model, parts, monkeypatch):
    x, y, x_query, _ = parts
    server = tiny_model.serve(tiny_model.context(x, y, 3))
    (served,) = server._estimator.models_
    assert all("forward" in vars(block) for block in served.blocks), "tttab's own layers answer, not tabpfn's"
    monkeypatch.setattr("tttab.models.tabpfn.predictor.LEAST_ROWS", 7)
    monkeypatch.setattr("tttab.models.tabpfn.predictor.MOST_CELLS", 1)
    assert [len(piece) for piece in server.predict_chunks(x_query[:20])] == [7, 7, 6]
    plain = plain_estimator().fit(x, y).predict_proba(x_query)
    np.testing.assert_allclose(server.predict(x_query), plain, atol=2e-6)
    assert not any("forward" in vars(block) for block in tiny_model.module.blocks), "left as it was found"


def test_chunks_are_larger_on_a_gpu(parts):
    session = small_model()
    context = session.context(parts[0], parts[1], 3)
    on_cpu = session.cost_model.preferred_chunk(context)
    session.device = torch.device("cuda")
    assert on_cpu <= 200 < 10 * on_cpu < session.cost_model.preferred_chunk(context)
