"""What is trained is what is served: the TabICL family against tabicl's own estimator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tabicl import TabICLClassifier

from tests.support.small_tabicl import VERSIONS, small_tabicl
from tttab.contracts import Execution
from tttab.errors import ModelError, SplitError
from tttab.models import open_model
from tttab.rules import get_rule
from tttab.training.config import Schedule
from tttab.training.footprint import _peak, measure_step
from tttab.training.loop import Adaptation
from tttab.training.memory_plan import EXECUTION_MODES

ALL = np.arange(60)


def parts_of(mixed_frame, classes):
    """Return context and queries of a table with so many classes, each of which has context rows."""
    x, y = mixed_frame
    y = y + 3 * (np.arange(len(y)) % -(-classes // 3))
    y = np.unique(np.minimum(y, classes - 1), return_inverse=True)[1]
    return x[:60], y[:60], x[60:], y[60:]


CASES = {
    "few classes": {"classes": 10, "of": 3},
    "one member": {"classes": 10, "of": 3, "members": 1},
    "five members": {"classes": 10, "of": 3, "members": 5},
    "first generation": {"classes": 10, "of": 3, "members": 3, "version": "v1"},
    "as many classes as outputs": {"classes": 6, "of": 6},
    "a tree": {"classes": 4, "of": 9},
    "a deep tree": {"classes": 2, "of": 6, "members": 3},
    "a tree of the first generation": {"classes": 4, "of": 7, "version": "v1"},
}


@pytest.fixture(params=CASES, ids=str)
def case(request, mixed_frame):
    """Return (session, context x, y, query x, y, number of classes)."""
    settings = dict(CASES[request.param])
    of = settings.pop("of")
    return small_tabicl(**settings), *parts_of(mixed_frame, of), of


@pytest.fixture(scope="module")
def few(mixed_frame):
    return small_tabicl(members=3), *parts_of(mixed_frame, 3), 3


@pytest.fixture(scope="module")
def many(mixed_frame):
    return small_tabicl(classes=4, members=2), *parts_of(mixed_frame, 9), 9


def plain(path, session, **settings):
    """Return tabicl's own estimator of a file, as a user makes it."""
    return TabICLClassifier(
        model_path=path, device="cpu", n_estimators=session.members, random_state=session.seed, **settings
    )


def prepared(session, x, y, x_query, y_query, classes):
    context = session.context(x, y, classes)
    return context, session.queries(context, x_query, y_query)


def probabilities(session, context, queries):
    with torch.no_grad():
        return torch.softmax(session.logits(context, queries, ALL).mean(0) / 0.9, dim=-1).numpy()


def test_untouched_weights_predict_alike_in_every_way_and_in_plain_tabicl(case, tmp_path):
    session, x, y, x_query, y_query, classes = case
    context, queries = prepared(*case)
    file = tmp_path / "untouched.ckpt"
    session.save(file)
    # Several members of TabICL v1 at a time, tabicl mixes up their columns where it keeps no cache.
    uncached = plain(file, session, batch_size=1).fit(x, y).predict_proba(x_query)
    reopened = open_model(str(file), device="cpu")
    assert reopened.members == session.members
    scores = session.row_scores(context, queries, ALL, Execution(17))
    cached = [plain(file, session, kv_cache=True)] if classes <= session.module.max_classes else []
    for other in (
        probabilities(session, context, queries),
        session.predict(context, x_query),
        reopened.predict(reopened.context(x, y, classes), x_query),
        *(estimator.fit(x, y).predict_proba(x_query) for estimator in cached),
    ):
        np.testing.assert_allclose(other, uncached, atol=1e-5)
    np.testing.assert_allclose(scores.loss, -np.log(uncached[ALL, y_query]), atol=1e-4)
    np.testing.assert_allclose(scores.predicted, uncached, atol=1e-5)
    assert np.ptp(uncached, axis=0).max() > 0.02, "a network that tells rows apart"
    assert (
        session.serve(context).cache_bytes is None if not cached else session.serve(context).cache_bytes > 0
    )


def test_members_are_tabicls_own_one_by_one(case):
    session, *_ = case
    context, queries = prepared(*case)
    with torch.no_grad():
        ours = session.logits(context, queries, ALL).numpy()
    own, generator, x = context.estimator, context.estimator.ensemble_generator_, case[3]
    data, theirs = generator.transform(own.X_encoder_.transform(x), mode="both"), []
    for method, (inputs, labels) in data.items():
        outputs = own._batch_forward(inputs, labels, generator.feature_shuffles_[method])
        orders = generator.class_shuffles_[method]
        theirs += [output[:, order] for output, order in zip(outputs, orders, strict=True)]
    assert ours.shape == (len(theirs), 60, context.classes)
    np.testing.assert_allclose(ours, np.stack(theirs), atol=2e-5 * np.abs(ours).max())


@pytest.mark.parametrize("rule", ["full", "head", "lora", "temperature"])
@pytest.mark.parametrize("of", ["few", "many"])
def test_memory_cache_and_file_agree_after_adaptation(request, of, rule, tmp_path):
    session, x, y, x_query, y_query, classes = request.getfixturevalue(of)
    context = session.context(x, y, classes)
    schedule = Schedule(steps=3, lr=3e-3, guard="off", precision="fp32")
    run = Adaptation(session, get_rule(rule), context, (x_query, y_query), schedule)
    assert len(list(run)) == 3
    adapted, file = run.result.session, tmp_path / "adapted.ckpt"
    adapted.save(file)
    memory = probabilities(adapted, context, adapted.queries(context, x_query, y_query))
    reopened = open_model(str(file), device="cpu")
    for other in (
        adapted.predict(context, x_query),
        plain(file, session).fit(x, y).predict_proba(x_query),
        reopened.predict(reopened.context(x, y, classes), x_query),
    ):
        np.testing.assert_allclose(other, memory, atol=1e-5)
    assert np.abs(memory - session.predict(context, x_query)).max() > 1e-3


def gradient(case, rule, backward):
    """Return the gradient that `backward(fork, context, queries)` leaves, and what it returns."""
    fork = case[0].fork()
    for parameter in get_rule(rule).parameters(fork):
        parameter.requires_grad_(True).data.add_(0.01)
    context, queries = prepared(fork, *case[1:])
    loss = backward(fork, context, queries)
    grads = [p.grad.flatten() for p in fork.trainable().values() if p.grad is not None]
    return torch.cat(grads), loss


def tabicls_own(fork, context, queries):
    """Backpropagate the served loss through tabicl's own forward pass, the one that it is trained with."""
    x = torch.cat([context.inputs, queries.inputs], dim=1)
    logits = fork.module.train()(x, context.labels.float())
    order = context.columns[:, None].expand(-1, 60, -1)
    mean = logits.gather(-1, order).mean(0) / fork.log_temperature.exp()
    loss = torch.nn.functional.cross_entropy(mean, queries.y, reduction="sum") / 60
    loss.backward()
    return loss.item()


def tabicls_own_tree(fork, context, queries):
    """Backpropagate through tabicl's own tree, without its manager, which takes no gradients."""
    module, means = fork.module, 0
    module.icl_predictor.inference_mgr = lambda work, inputs, auto_batch: work(**inputs)
    column, embed = module.col_embedder.tf_col, module.col_embedder.tf_col.forward
    column.forward = lambda cells, **given: embed(cells.clone(), **given)  # tabicl writes over them
    for inputs, labels, order in zip(
        torch.cat([context.inputs, queries.inputs], dim=1), context.labels, context.columns, strict=True
    ):
        module.col_embedder.train(), module.row_interactor.train()
        rows = module.row_interactor(module.col_embedder(inputs[None], y_train=labels[None].float()))[0]
        module.eval()
        module.icl_predictor._fit_hierarchical(rows[:60], labels)
        p = module.icl_predictor._predict_hierarchical(rows[60:], float(fork.log_temperature.exp()))
        means = means + (p + 1e-6).log()[:, order] / len(context.inputs)
    loss = torch.nn.functional.cross_entropy(means, queries.y, reduction="sum") / 60
    loss.backward()
    return loss.item()


WAYS = (
    Execution(7),
    Execution(13, by_member=True),
    Execution(20, recompute_activations=True),
    Execution(20, by_member=True, recompute_activations=True),
)


@pytest.mark.parametrize("rule", ["full", "last-layers", "head"])
@pytest.mark.parametrize(
    ("of", "own"), [("few", tabicls_own), ("many", tabicls_own_tree)], ids=["few", "many"]
)
def test_every_way_to_run_a_step_gives_the_gradient_of_tabicls_own_passes(request, of, own, rule):
    case = request.getfixturevalue(of)
    theirs, loss = gradient(case, rule, own)

    def ours(fork, context, queries, how):
        queries = fork.cost_model.frozen_features(context, queries, how)
        assert (queries.rows is None and queries.last is None) == (rule == "full")
        assert (queries.last is not None) == (rule == "head" and of == "few")
        return fork.accumulate_gradients(context, queries, ALL, 1 / 60, how)

    for how in WAYS:
        found, mine = gradient(case, rule, lambda *parts, how=how: ours(*parts, how))
        assert mine == pytest.approx(loss, abs=1e-5), how
        assert (found - theirs).norm() < 1e-4 * theirs.norm(), how


def test_the_temperature_has_its_gradient_in_every_way_to_run_a_step(few, many):
    for case in (few, many):
        found = [
            gradient(case, "temperature", lambda f, c, q, how=how: f.accumulate_gradients(c, q, ALL, 1, how))
            for how in (Execution(), Execution(9), Execution(9, by_member=True))
        ]
        step = torch.tensor(1e-3)

        def loss(fork, context, queries, move=step):
            fork.log_temperature.data.add_(move)
            return fork.row_scores(context, queries, ALL, Execution()).loss.sum()

        ahead, behind = (
            gradient_free(case, lambda f, c, q, m=move: loss(f, c, q, m)) for move in (step, -step)
        )
        slope = (ahead - behind) / 2e-3
        for grad, _ in found:
            assert grad.item() == pytest.approx(slope, rel=0.02)


def gradient_free(case, score):
    fork = case[0].fork()
    fork.log_temperature.data.add_(0.01)
    return score(fork, *prepared(fork, *case[1:]))


def test_bfloat16_trains_near_float32_and_scores_in_float32(few):
    exact, loss = gradient(few, "full", lambda f, c, q: f.accumulate_gradients(c, q, ALL, 1, Execution()))
    rough, other = gradient(
        few, "full", lambda f, c, q: f.accumulate_gradients(c, q, ALL, 1, Execution(precision="bf16"))
    )
    assert other == pytest.approx(loss, rel=0.02)
    assert torch.nn.functional.cosine_similarity(exact, rough, dim=0) > 0.98
    assert (exact - rough).abs().max() > 0
    context, queries = prepared(*few)
    scores = few[0].row_scores(context, queries, ALL, Execution()).loss
    assert np.array_equal(few[0].row_scores(context, queries, ALL, Execution(precision="bf16")).loss, scores)


@pytest.mark.parametrize("version", VERSIONS)
def test_equal_weights_give_equal_bytes_and_other_processes_the_same_order_of_members(version, tmp_path):
    session = small_tabicl(version)
    for name in ("a.ckpt", "b.ckpt"):
        session.save(tmp_path / name, {"note": "kept"})
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "b.ckpt").read_bytes()


def test_every_matrix_that_lora_adds_to_takes_part(few):
    fork = few[0].fork()
    factors = get_rule("lora").parameters(fork)
    for factor in factors:
        factor.requires_grad_(True)
    context, queries = prepared(fork, *few[1:])
    fork.accumulate_gradients(context, queries, ALL, 1, Execution())
    assert factors and all(factor.grad is not None for factor in factors)


@pytest.mark.parametrize(
    ("of", "modes"), [("few", EXECUTION_MODES), ("many", EXECUTION_MODES[:1])], ids=["few", "many"]
)
def test_what_a_step_allocates_is_foretold_from_a_few_rows_in_every_mode(request, of, modes):
    session, *parts = request.getfixturevalue(of)
    fork = session.fork()
    for parameter in fork.parameters("all"):
        parameter.requires_grad_(True)
    context, queries = prepared(fork, *parts)
    feet = {}
    for mode in modes:
        how = mode.execution()
        foot = feet[mode.by_member, mode.recompute_activations] = measure_step(
            fork, fork.cost_model, context, queries, how
        )
        allocated = _peak(fork, context, queries, 60, how)
        # Recomputed, the peak is that of one layer at a time and grows less than in proportion.
        most = 2.5 if mode.recompute_activations else 1.4
        assert 0.8 * allocated < foot.bytes(60, 60) < most * allocated, mode
    if len(feet) == len(EXECUTION_MODES):
        assert feet[False, True].query_row < 0.7 * feet[False, False].query_row
        assert feet[True, False].query_row < 0.7 * feet[False, False].query_row


def test_members_stand_in_an_order_that_no_process_changes(few):
    context = few[0].context(*few[1:3], 3)
    generator = context.estimator.ensemble_generator_
    for name in ("ensemble_configs_", "feature_shuffles_", "class_shuffles_"):
        assert list(getattr(generator, name)) == ["none", "power"]
    first = torch.from_numpy(generator.transform(None, mode="train")["none"][0]).float()
    assert torch.equal(context.inputs[: len(first)], first)


def test_a_context_without_a_class_or_with_constant_features_only_is_refused(few):
    session, x, y, *_ = few
    with pytest.raises(SplitError, match="class number 2"):
        session.context(x[y < 2], y[y < 2], 3)
    with pytest.raises(SplitError, match="constant"):
        session.context(x[["constant"]], y, 3)


def test_more_members_than_make_sense_are_refused(few):
    assert few[0].with_members(5).members == 5 and few[0].members == 3
    with pytest.raises(ModelError, match="1 to 64 members"):
        few[0].with_members(65)


def test_members_see_what_they_see_among_all(few):
    session, *_ = few
    context, queries = prepared(*few)
    with torch.no_grad():
        everyone = session.logits(context, queries, ALL)
        for members in ((0,), (1,), (1, 0)):
            some = session.logits(*session.cost_model.of_members(context, queries, members), ALL)
            np.testing.assert_allclose(some, everyone[list(members)], atol=1e-5)


def test_tabicls_own_fine_tuner_is_not_asked_for_more_classes_than_outputs(many):
    session, x, y, *_, classes = many
    assert session.finetuned(x, y, classes, 0) is None
