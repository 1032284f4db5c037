"""The papers' single step against a direct gradient, and AdamW against torch's."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from tttab.data.splits import hold_out
from tttab.errors import RequestError
from tttab.rules import get_rule
from tttab.testing import ToySession
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation
from tttab.training.optimizers import (
    COARSE,
    OPTIMIZERS,
    PATIENCE,
    REFINEMENTS,
    AdamW,
    NotFinite,
    Race,
    SingleStep,
    get_optimizer,
)
from tttab.training.selection import Score

TOY = ToySession()


@pytest.fixture
def start(mixed_frame):
    x, y = mixed_frame
    context = TOY.context(x[:30], y[:30], 3)

    def begin(**schedule):
        settings = {"optimizer": "sgd-1", "precision": "fp32"} | schedule
        return Adaptation(TOY, get_rule("full"), context, (x[30:], y[30:]), Schedule(**settings))

    return begin


def turns(updates, judge):
    """Yield an optimiser's updates; `judge` scores each before the next."""
    score = None
    while True:
        try:
            update = updates.send(score)
        except StopIteration:
            return
        yield update
        score = judge(update)


def quadratic(curvature, at, optimiser, sign=1.0):
    """Run an optimiser on f(w) = curvature w^2 / 2 from `at`; return the sizes and places it tried."""
    w = torch.nn.Parameter(torch.tensor([float(at)], dtype=torch.float64))

    def gradient(*, whole):
        w.grad = sign * curvature * w.detach()
        return float(curvature * w.detach() ** 2 / 2)

    schedule = Schedule(steps=30, lr=0.1, warmup=3, weight_decay=0.01, clip=1e9)
    training = SimpleNamespace(parameters=[w], gradient=gradient, schedule=schedule, rates=[schedule.lr])
    updates = optimiser.updates(training, Score(curvature * at**2 / 2, 0.1, 10))
    judged = turns(updates, lambda update: Score(float(curvature * w.detach() ** 2 / 2), 0.1, 10))
    return [(update.size, w.item()) for update in judged]


def test_the_single_step_is_the_gradient_of_the_mean_loss_of_all_training_queries(start, mixed_frame):
    x, y = mixed_frame
    run = start(guard="off")
    list(run)
    fork = TOY.fork()
    fork.module.requires_grad_(True)
    train = hold_out(y[30:], 0.2, 0, classes=3)[0]
    queries = fork.queries(run.result.context, x[30:], y[30:])
    log_p = fork.log_probabilities(run.result.context, queries.inputs[train])
    (-log_p[torch.arange(len(train)), queries.y[train]].mean()).backward()
    for name, parameter in fork.module.named_parameters():
        moved = run.result.session.module.get_parameter(name)
        assert (moved - (parameter - run.result.size * parameter.grad)).abs().max() < 1e-5
    assert run.result.step == 1 and run.result.size > 0


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


def line_search(losses, start=(3.0, 4.0), before=2.0):
    """Return the updates of a line search whose trials score as `losses` say, and its last weights."""
    w = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    frozen = torch.nn.Parameter(torch.tensor([7.0]))
    w.grad = torch.tensor([0.6, 0.8], dtype=torch.float64)
    training = SimpleNamespace(parameters=[w, frozen], gradient=lambda *, whole: 1.25 if whole else math.nan)
    updates, losses = SingleStep().updates(training, Score(before, 0.1, 10)), iter(losses)
    seen = list(turns(updates, lambda update: Score(next(losses, 9.0), 0.1, 10)))
    assert frozen.item() == 7.0
    return seen, w.detach()


def test_the_line_search_tries_fourfold_sizes_until_two_are_worse_and_then_halves_the_gap_twice():
    """The gradient's norm is 1 and the loss 2, so that a size of 2 promises all of it."""
    tried, end = line_search([1.9, 1.8, 1.9, 1.7, 1.8, 1.9, 1.6, 1.8, 1.7, 1.5])
    factors = [4.0**power for power in (-5, -4, -3, -2, -1, 0)]
    best = 4.0**-2
    factors += [best / 2, best * 2]  # the half is better
    best /= 2
    factors += [best / math.sqrt(2), best * math.sqrt(2)]
    best *= math.sqrt(2)
    assert [update.size for update in tried] == pytest.approx([2 * factor for factor in (*factors, best)])
    assert end.tolist() == pytest.approx([3.0 - 2 * best * 0.6, 4.0 - 2 * best * 0.8])
    total = len(COARSE) + 2 * len(REFINEMENTS) + 1
    assert [update.done for update in tried] == [*range(10), total]
    for update in tried:
        assert (update.number, update.total, update.loss, update.evaluate) == (1, total, 1.25, True)


def test_the_line_search_goes_to_the_largest_size_while_it_pays_and_a_score_that_is_no_number_is_worst():
    tried, _ = line_search([2.0 - 0.1 * trial for trial in range(8)])
    assert tried[7].size == 2 * COARSE[-1] and len(tried) == 13
    tried, _ = line_search([math.nan, -math.inf, 9.0])
    assert [update.size for update in tried[:2]] == [2 * COARSE[0], 2 * COARSE[1]]
    assert tried[-1].size == 2 * COARSE[2], "9 is the smallest of the numbers"


def test_a_negative_loss_searches_down_the_gradient_and_no_gradient_not_at_all():
    tried, _ = line_search([1.0], before=-2.0)
    assert tried[0].size == 2 * COARSE[0]
    w = torch.nn.Parameter(torch.tensor([1.0]))
    w.grad = torch.zeros(1)
    training = SimpleNamespace(parameters=[w], gradient=lambda *, whole: 0.5)
    assert list(SingleStep().updates(training, Score(2.0, 0.1, 10))) == []


def test_adamw_clips_the_joint_norm_decays_and_leaves_alone_what_has_no_gradient():
    schedule = Schedule(steps=5, lr=0.1, warmup=2, weight_decay=0.3, clip=1.0, evaluate_every=2)
    rng = torch.Generator().manual_seed(0)
    gradients = [
        [torch.randn(3, generator=rng) * scale, torch.randn(2, generator=rng)] for scale in (9, 0.1, 1, 4, 0)
    ]
    ours, theirs, unused = ([torch.nn.Parameter(torch.ones(size)) for size in (3, 2)] for _ in range(3))
    turns = iter(gradients)

    def gradient(*, whole):
        assert not whole
        for parameter, value in zip(ours, next(turns), strict=True):
            parameter.grad = value.clone()
        return 0.5

    training = SimpleNamespace(
        parameters=[*ours, unused[0]], gradient=gradient, schedule=schedule, rates=[0.2]
    )
    reference = torch.optim.AdamW(theirs, lr=1.0, weight_decay=0.3)
    rises = [0.5, 1.0, 1.0, 1.0, 1.0]
    shares = [rise * (1 + math.cos(math.pi * done / 5)) / 2 for done, rise in enumerate(rises)]
    for turn, update in enumerate(AdamW().updates(training, Score(1.0, 0.1, 10))):
        for parameter, value in zip(theirs, gradients[turn], strict=True):
            parameter.grad = value.clone()
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        reference.param_groups[0]["lr"] = update.size
        reference.step()
        assert update.size == pytest.approx(0.2 * shares[turn])
        assert (update.number, update.done, update.total, update.loss) == (turn + 1, turn + 1, 5, 0.5)
        assert update.evaluate is (turn + 1 in (2, 4, 5))
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one, other, atol=1e-6)
    assert turn == 4 and torch.equal(unused[0], torch.ones(3))


def test_without_a_warm_up_the_first_step_has_the_whole_rate():
    for warmup in (0, 1):
        w = torch.nn.Parameter(torch.ones(1))
        w.grad = torch.ones(1)
        schedule = Schedule(steps=2, warmup=warmup)
        training = SimpleNamespace(
            parameters=[w], gradient=lambda *, whole: 0.5, schedule=schedule, rates=[0.25]
        )
        sizes = [update.size for update in AdamW().updates(training, Score(1.0, 0.1, 10))]
        assert sizes == pytest.approx([0.25, 0.125])


def test_optimisers_are_found_by_name_and_a_near_miss_is_told():
    assert {name: get_optimizer(name) for name in OPTIMIZERS} == {
        one.name: one for one in (SingleStep(), AdamW(), Race())
    }
    for name, close in [("adam", "adamw"), ("sgd", "sgd-1"), ("zzz", "adamw")]:
        with pytest.raises(RequestError, match=f"no optimiser is called '{name}'") as caught:
            get_optimizer(name)
        assert caught.value.hint == f"--optimizer {close}"


def test_a_gradient_that_is_no_number_ends_a_line_search_before_the_first_trial():
    def gradient(*, whole):
        raise NotFinite("at step 1")

    with pytest.raises(NotFinite):
        next(SingleStep().updates(SimpleNamespace(gradient=gradient), Score(1.0, 0.1, 10)))


def race(gradients, scores, rates, steps=200, every=2, taught=False):
    """Run a race whose lanes score as `scores(rate, step)` says; return updates and places after each."""
    w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    batches, asked = [], []

    def gradient(*, whole, repeat, labels):
        assert not whole
        asked.append(labels)
        if not repeat:
            batches.append(len(batches))
        w.grad = gradients(batches[-1], w.detach())
        return float(batches[-1])

    schedule = Schedule(steps=steps, warmup=0, clip=1e9, evaluate_every=every, taught=taught)
    training = SimpleNamespace(parameters=[w], gradient=gradient, schedule=schedule, rates=rates)

    def judge(update):
        return Score(scores(update.size, update.number), 0.1, 10) if update.evaluate else None

    judged = turns(Race().updates(training, Score(1.0, 0.1, 10)), judge)
    return [(update, w.item() if not taught else asked[-1]) for update in judged]


def test_lanes_of_a_race_see_the_same_batches_and_show_the_mean_of_their_weights():
    seen = race(lambda batch, w: w - batch - 1.0, lambda rate, step: 1.0, [0.1, 0.3])[:20]
    assert [(update.number, update.size, update.loss) for update, _ in seen] == [
        (number, rate, number - 1.0) for number in range(1, 11) for rate in (0.1, 0.3)
    ]
    w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    alone, places = torch.optim.AdamW([w], lr=0.3, weight_decay=0.0), []
    for batch, (_, place) in enumerate([one for one in seen if one[0].size == 0.3]):
        w.grad = w.detach() - batch - 1.0
        alone.param_groups[0]["lr"] = 0.3 * (1 + math.cos(math.pi * batch / 12)) / 2
        alone.step()
        places.append(w.item())
        assert place == pytest.approx(sum(places) / len(places))


def test_the_slower_half_is_left_behind_twice_and_the_winner_goes_on_until_nothing_improves():
    """Cycles of 12, 24 and 48 steps: two heats. The winner improves until step 40 and ends 40 later."""
    ends = {1e-3: 40, 3e-4: 200, 3e-3: 10}

    def score(rate, step):
        return 1.0 - {1e-3: 3, 3e-4: 2, 3e-3: 1}[rate] * 1e-3 * min(step, ends[rate])

    seen = [update for update, _ in race(lambda batch, w: torch.ones_like(w), score, list(ends), steps=400)]
    steps = {rate: max(update.number for update in seen if update.size == rate) for rate in ends}
    assert steps == {3e-3: 12, 3e-4: 36, 1e-3: 80}
    assert len(seen) <= 2 * 80 and seen[-1].done == len(seen)
    ends[3e-3] = 200
    two = [update for update, _ in race(lambda batch, w: torch.ones_like(w), score, [1e-3, 3e-3], steps=120)]
    assert [max(u.number for u in two if u.size == rate) for rate in (3e-3, 1e-3)] == [36, 80]


def test_a_solved_table_ends_the_race_although_its_tiny_loss_still_halves():
    def score(rate, step):
        return 9e-4 * 0.5 ** (step / 10)

    seen = race(lambda batch, w: torch.ones_like(w), score, [1e-3])
    assert seen[-1][0].number == 2 + 24, "nothing after the first score was worth a milli-nat"


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50])
def test_a_short_race_keeps_its_steps_and_scores_its_last(steps):
    seen = race(lambda batch, w: torch.ones_like(w), lambda rate, step: 1.0 - rate * step, [1e-3, 3e-4, 3e-3],
                steps, every=1000)  # fmt: skip
    updates = [update for update, _ in seen]
    assert steps - 3 < len(updates) <= steps and updates[-1].evaluate
    longest = max(update.number for update in updates)
    assert steps <= 2 * longest or steps < 6


def test_a_lane_whose_gradient_is_no_number_leaves_and_the_last_ends_the_race():
    from tttab.training import optimizers

    def gradients(batch, w):
        if abs(w.item()) > 0.02:
            raise optimizers.NotFinite("at step 9")
        return torch.ones_like(w)

    updates = race(gradients, lambda rate, step: 1.0 / step, [1e-4, 1e-2], steps=40)
    assert max(update.number for update, _ in updates if update.size == 1e-2) == 3
    assert max(update.number for update, _ in updates) > 12
    with pytest.raises(NotFinite):
        race(gradients, lambda rate, step: 1.0 / step, [1e-2], steps=40)


def test_where_there_are_teachers_every_rate_runs_on_labels_and_on_what_they_say():
    seen = race(lambda batch, w: torch.ones_like(w), lambda rate, step: 1.0, [1e-3, 3e-4], taught=True)
    lanes = [(update.size, labels) for update, labels in seen[:4]]
    assert lanes == [(1e-3, True), (1e-3, False), (3e-4, True), (3e-4, False)]
    assert all(update.softened != labels for update, labels in seen)
    assert Race().copies(Schedule(rates=(1e-3, 3e-4), taught=True).lanes) == 3 + 4 * 4
