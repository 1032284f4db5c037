"""The papers' single step against a direct gradient, and AdamW against torch's."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support.small_models import small_model
from tttab.errors import RequestError
from tttab.rules import get_rule
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation
from tttab.training.optimizers import OPTIMIZERS, PATIENCE, REFINEMENTS, AdamW, SingleStep
from tttab.training.selection import Score


@pytest.fixture(scope="module")
def given():
    return small_model()


@pytest.fixture
def start(given, mixed_frame):
    x, y = mixed_frame
    context = given.context(x[:30], y[:30], 3)

    def begin(rule="full", session=given, **schedule):
        settings = {"optimizer": "sgd-1", "precision": "fp32"} | schedule
        return Adaptation(session, get_rule(rule), context, (x[30:], y[30:]), Schedule(**settings))

    return begin


def quadratic(curvature, at, optimiser, sign=1.0):
    """Run an optimiser on f(w) = curvature w^2 / 2 from `at`; return the sizes and places it tried."""
    w = torch.nn.Parameter(torch.tensor([float(at)], dtype=torch.float64))

    def gradient(*, whole):
        w.grad = sign * curvature * w.detach()
        return float(curvature * w.detach() ** 2 / 2)

    schedule = Schedule(steps=30, lr=0.1, warmup=3, weight_decay=0.01, clip=1e9)
    training = SimpleNamespace(parameters=[w], gradient=gradient, schedule=schedule, rate=schedule.lr)
    updates, tried = optimiser.updates(training, Score(curvature * at**2 / 2, 0.1, 10)), []
    score = None
    while True:
        try:
            tried.append((updates.send(score).size, w.item()))
        except StopIteration:
            return tried
        score = Score(float(curvature * w.detach() ** 2 / 2), 0.1, 10)


def test_the_single_step_is_the_gradient_of_the_mean_loss_of_all_training_queries(start, given, mixed_frame):
    x, y = mixed_frame
    run = start(guard="off")
    list(run)
    fork = given.fork()
    fork.module.requires_grad_(True)
    queries = fork.queries(run.result.context, x[30:], y[30:])
    held = set(run._held.tolist())
    train = np.array([row for row in range(90) if row not in held])
    log_p = fork.log_probabilities(run.result.context, queries, train)
    (-log_p[torch.arange(len(train)), queries.y[train]].mean()).backward()
    for name, parameter in fork.module.named_parameters():
        moved = run.result.session.module.get_parameter(name)
        if parameter.grad is None:
            assert torch.equal(moved, parameter)
        else:
            expected = parameter.detach() - run.result.size * parameter.grad
            assert (moved - expected).abs().max() < 1e-5
    assert run.result.step == 1 and run.result.size > 0


def test_micro_batches_of_the_single_step_add_up_exactly(start, monkeypatch):
    whole = start(guard="off")
    list(whole)
    monkeypatch.setattr("tttab.models.tabpfn.forward.chunks_of", lambda rows, chunk: np.array_split(rows, 9))
    cut = start(guard="off")
    list(cut)
    assert cut.result.size == pytest.approx(whole.result.size, rel=1e-4)
    for a, b in zip(
        whole.result.session.module.parameters(), cut.result.session.module.parameters(), strict=True
    ):
        assert (a - b).abs().max() < 1e-5


def test_the_gradient_is_computed_once_and_every_size_is_judged(start, monkeypatch):
    run = start()
    calls = []
    plain = Adaptation.gradient
    monkeypatch.setattr(
        Adaptation, "gradient", lambda self, *, whole: calls.append(whole) or plain(self, whole=whole)
    )
    history = list(run)
    assert calls == [True]
    assert len({step.size for step in history}) >= len(history) - 1
    assert run.result.after == min([run.result.before, *(step.held_out for step in history)])


@pytest.mark.parametrize("curvature", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("at", [0.1, 30.0])
def test_the_line_search_finds_the_best_step_of_a_quadratic_at_any_scale(curvature, at):
    tried = quadratic(curvature, at, SingleStep())
    size, end = tried[-1]
    assert size * curvature == pytest.approx(1.0, rel=0.25)
    assert abs(end) < 0.25 * at


def test_a_ray_that_only_rises_is_given_up_early():
    rising, falling = quadratic(1.0, 3.0, SingleStep(), sign=-1.0), quadratic(1.0, 3.0, SingleStep())
    assert len(rising) < len(falling)
    assert len(rising) == 1 + PATIENCE + 2 * len(REFINEMENTS) + 1


def test_adamw_is_torchs_adamw_under_the_same_rates():
    tried = quadratic(2.0, 5.0, AdamW())
    w = torch.nn.Parameter(torch.tensor([5.0], dtype=torch.float64))
    reference = torch.optim.AdamW([w], lr=0.1, weight_decay=0.01)
    for rate, end in tried:
        reference.param_groups[0]["lr"] = rate
        w.grad = 2.0 * w.detach()
        reference.step()
        assert end == pytest.approx(w.item(), abs=1e-9)
    assert tried[0][0] < tried[2][0] > tried[-1][0] > 0


def test_every_optimiser_repeats_exactly(start):
    for name in OPTIMIZERS:
        runs = [start(optimizer=name, steps=2, batch=16) for _ in range(2)]
        losses = [[step.held_out for step in run] for run in runs]
        assert losses[0] == losses[1]


def test_a_cold_start_forgets_the_given_weights_and_repeats(start, given):
    runs = [start(optimizer="adamw", steps=1, init="random", guard="off") for _ in range(2)]
    warm = start(optimizer="adamw", steps=1, guard="off")
    for run in (*runs, warm):
        list(run)
    cold, again, usual = (run.result.session.module.feature_group_embedder.weight for run in (*runs, warm))
    own = given.module.feature_group_embedder.weight
    assert torch.equal(cold, again)
    assert (usual - own).abs().max() < 1e-2 < (cold - own).abs().max()


@pytest.mark.parametrize(
    "bad",
    [{"optimizer": "adam"}, {"init": "warm"}, {"split": "k-fold"}, {"guard": "ece"}, {"precision": "fp16"}],
)
def test_unknown_names_are_refused_with_the_option_to_type(start, bad):
    with pytest.raises(RequestError) as caught:
        list(start(**bad))
    assert caught.value.hint.startswith(f"--{next(iter(bad))} ")
