"""What runs differently on another device, on the one that TTTAB_TEST_DEVICE names, by default the CPU.

`python -m benchmarks.gpu tests` runs this file on a GPU. Nothing is compared across devices: column
embeddings are random numbers whose stream depends on the device.
"""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import torch

from tests.support.small_models import SIZES, small_model
from tttab.contracts import Execution
from tttab.models import open_model
from tttab.rules import get_rule
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation
from tttab.training.memory_plan import EXECUTION_MODES
from tttab.training.precision import has_bfloat16

pytestmark = pytest.mark.usefixtures("measured_steps")

DEVICE = os.environ.get("TTTAB_TEST_DEVICE", "cpu")
KIND = torch.device(DEVICE).type
ROWS = np.arange(80)
WAYS = [mode.execution(13) for mode in EXECUTION_MODES]


def on_device(*what, **sizes):
    session = small_model(*what, **sizes)
    return type(session)(session.info, session._weights, torch.device(DEVICE))


@pytest.fixture(scope="module")
def parts(mixed_frame):
    x, y = mixed_frame
    return x[:40], y[:40], x[40:], y[40:]


def prepared(session, parts):
    x, y, x_query, y_query = parts
    context = session.context(x, y, 3)
    return context, session.queries(context, x_query, y_query)


def gradient(session, context, queries, rule, how):
    fork = session.fork()
    parameters = get_rule(rule).parameters(fork)
    for parameter in parameters:
        parameter.requires_grad_(True)
    loss = fork.accumulate_gradients(context, queries, ROWS, 1 / 80, how)
    return loss, torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).cpu()


@pytest.mark.parametrize("architecture", list(SIZES))
def test_what_is_trained_is_what_is_served(parts, architecture):
    session = on_device(architecture)
    context, queries = prepared(session, parts)
    losses = session.row_scores(context, queries, ROWS, Execution(13)).loss
    served = session.predict(context, parts[2])[ROWS, parts[3]]
    assert np.abs(losses + np.log(served)).max() < 1e-4
    plain = context.estimator.predict_proba(parts[2])[ROWS, parts[3]]
    assert np.abs(served - plain).max() < 1e-4


@pytest.mark.parametrize(
    ("rule", "how"),
    [("lora", WAYS[0]), ("last-layers:1", WAYS[0]), *(("full", how) for how in WAYS)],
    ids=lambda part: part if isinstance(part, str) else f"{part.by_member}-{part.recompute_activations}",
)
def test_every_way_to_run_a_step_gives_the_gradient_of_tabpfns_own_pass(parts, rule, how):
    session = on_device()
    context, queries = prepared(session, parts)
    fork = session.fork()
    parameters = get_rule(rule).parameters(fork)
    for parameter in parameters:
        parameter.requires_grad_(True)
    exact = fork.loss(context, queries, ROWS) / 80
    exact.backward()
    wanted = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).cpu()
    loss, found = gradient(session, context, queries, rule, how)
    assert loss == pytest.approx(exact.item(), rel=1e-4)
    assert (found - wanted).norm() < 1e-3 * wanted.norm()


@pytest.mark.skipif(not has_bfloat16(KIND), reason="no bfloat16 in hardware")
def test_bfloat16_gives_nearly_the_same_gradient(parts):
    session = on_device()
    context, queries = prepared(session, parts)
    exact = gradient(session, context, queries, "full", Execution(13))[1]
    rounded = gradient(session, context, queries, "full", Execution(13, precision="bf16"))[1]
    assert rounded @ exact > 0.98 * rounded.norm() * exact.norm()


def test_regression_is_trained_as_it_is_served(parts):
    x, y, x_query, _ = parts
    session = on_device("tabpfn_v2", "regression")
    values = y + np.sin(np.arange(40))
    context = session.context(x, values)
    queries = session.queries(context, x_query, np.zeros(80))
    server = session.serve(context)
    whole = server.predict(x_query)
    np.testing.assert_allclose(np.concatenate(list(server.predict_chunks(x_query))), whole, atol=1e-5)
    scores = [session.row_scores(context, queries, ROWS, how).loss for how in (Execution(), Execution(13))]
    np.testing.assert_allclose(*scores, atol=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd-1"])
def test_adaptation_lowers_the_loss_and_its_file_opens_again(parts, tmp_path, optimizer):
    x, y, x_query, y_query = parts
    session = open_model("tttab-tiny", device=DEVICE)
    context = session.context(x, y, 3)
    before = session.predict(context, x_query)
    run = Adaptation(
        session, get_rule("full"), context, (x_query, y_query), Schedule(steps=4, optimizer=optimizer)
    )
    list(run)
    assert run.result.accepted and run.result.after < run.result.before
    file = tmp_path / "adapted.safetensors"
    run.result.session.save(file)
    again = open_model(str(file), device=DEVICE)
    served = run.result.session.predict(context, x_query)
    np.testing.assert_allclose(again.predict(again.context(x, y, 3), x_query), served, atol=1e-5)
    np.testing.assert_array_equal(session.predict(context, x_query), before)


def test_threads_may_share_one_server(parts):
    session = open_model("tttab-tiny", device=DEVICE)
    server = session.serve(session.context(parts[0], parts[1], 3))
    alone, answers = server.predict(parts[2]), [None] * 4

    def ask(place):
        answers[place] = server.predict(parts[2])

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers:
        np.testing.assert_allclose(answer, alone, atol=1e-6)


@pytest.mark.skipif(KIND != "cuda", reason="tensors are counted by the allocator on a GPU alone")
@pytest.mark.parametrize("megabytes", [600, 1200])
def test_a_gpu_holds_no_more_than_was_planned(parts, megabytes):
    session = on_device(emsize=192, nlayers=6, nhead=6)
    context, _ = prepared(session, parts)
    torch.cuda.reset_peak_memory_stats()
    run = Adaptation(
        session, get_rule("full"), context, parts[2:], Schedule(steps=2), budget=megabytes * 2**20
    )
    list(run)
    assert run.result.plan is not None
    assert torch.cuda.max_memory_allocated() <= megabytes * 2**20


def test_linear_trials_follow_the_law():
    from tttab.theory.linear_attention.isotropic import Isotropic, fixed_step
    from tttab.theory.linear_attention.measure import measure, sampler_of
    from tttab.theory.linear_attention.settings import Backend, Sampling

    p = Isotropic.pretrained(20, 10, 20)
    best = fixed_step(p)
    for name in ("rows", "vectors", "scalars"):
        sampling = Sampling(20_000, 0, Backend(DEVICE), name)
        seen = measure(sampler_of([p], name), sampling, ["device"], "F", [best.best_step])[0]
        assert not seen.differs(best.best), name


def test_the_single_index_pipeline_runs():
    from tttab.theory.single_index.algorithm import Pipeline, train
    from tttab.theory.single_index.attention import population_gamma
    from tttab.theory.single_index.tasks import IndexLaw, draw_basis, draw_rows, draw_tasks

    law = IndexLaw(8, 2, (0.0, 0.0, 0.0, 1.0), 0.0, vary=4)
    generator = torch.Generator(device=DEVICE).manual_seed(0)
    basis = draw_basis(law, generator)
    drawn = draw_tasks(law, basis, 4, generator)
    x, y = draw_rows(drawn, 4096, generator)
    trained = train(Pipeline(), population_gamma(law, basis)[0].to(basis), x, y, generator)
    rows, labels = draw_rows(drawn, 256, generator)
    error = (trained.predict(rows) - labels).square().mean()
    assert error < 0.5 * labels.var()


@pytest.mark.parametrize("kind", ["pair", "gpt2"])
def test_transformers_are_pretrained_and_adapted(kind, tmp_path):
    pytest.importorskip("transformers")
    from tttab.theory.transformer.adapt import LabelledRows, TaskTraining, adapt_prompt, predict
    from tttab.theory.transformer.model import ModelSettings
    from tttab.theory.transformer.pretrain import Pretraining, checkpoint_path, load_checkpoint, pretrain
    from tttab.theory.transformer.tasks import Law, sample_prompts

    law = Law("linear", 3, 3)
    model = ModelSettings(kind, 3, width=16, layers=1, heads=2, rows=20)
    settings = Pretraining(law, model, 30, batch=16, rows=20, warmup=3, lr=3e-3)
    precision = "bfloat16" if KIND == "cuda" else "float32"
    steps = list(pretrain(settings, tmp_path, DEVICE, every=10, precision=precision))
    assert [step.step for step in steps] == [10, 20, 30]
    network, _ = load_checkpoint(checkpoint_path(settings, tmp_path), DEVICE)
    drawn = sample_prompts(law, 3, 20, torch.Generator(device=DEVICE).manual_seed(0))
    rows = LabelledRows(drawn.x, drawn.y)
    adapted = adapt_prompt(network, rows.part(None, 16), TaskTraining(steps=4))
    found = predict(network, adapted, rows.part(None, 16), drawn.x[:, 16:])
    assert found.shape == (3, 4) and found.isfinite().all()


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_pretraining_steps_run_and_are_continued(task, tmp_path):
    from tttab.pretrain.loop import Run, train
    from tttab.pretrain.settings import Budget, recipe

    for steps in (2, 4):
        last = list(train(Run(recipe("tiny", task), Budget(steps=steps), tmp_path, device=DEVICE)))[-1]
        assert last.counters.step == steps and last.counters.skipped == 0
    assert np.isfinite(list(last.held_out.values())).all()
