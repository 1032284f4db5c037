"""Samplers against the law and against each other; crossings; several steps; conventions kept apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from tests.theory.linear_attention.test_linear_law import general_problem
from tttab.errors import MemoryPlanError, RequestError
from tttab.theory.linear_attention import curves, isotropic, law
from tttab.theory.linear_attention.alignment import AlignmentSettings, alignment
from tttab.theory.linear_attention.context import ContextSettings, context
from tttab.theory.linear_attention.covariances import covariance_family
from tttab.theory.linear_attention.draws import Draws
from tttab.theory.linear_attention.isotropic import Isotropic
from tttab.theory.linear_attention.measure import Measured, checked, matrix_sampler, measure, sampler_of
from tttab.theory.linear_attention.noise import NoiseSettings, noise
from tttab.theory.linear_attention.paths import banded, dense
from tttab.theory.linear_attention.samples import SamplesSettings, samples
from tttab.theory.linear_attention.settings import Backend, Sampling, Simulation
from tttab.theory.linear_attention.step_rules import TRIAL_SIZES
from tttab.theory.linear_attention.step_size import StepSizeSettings, step_size
from tttab.theory.linear_attention.steps import StepsSettings, steps
from tttab.training import optimizers

CPU = Backend()
NOISY = Isotropic.pretrained(8, 6, 5, 0.3, 0.7)
CLEAN = Isotropic.pretrained(20, 10, 20)


@pytest.mark.parametrize("sampler", ["scalars", "vectors", "rows"])
@pytest.mark.parametrize("p", [NOISY, CLEAN], ids=["noisy", "clean"])
def test_every_sampler_meets_the_exact_law_of_every_convention(p, sampler):
    starts = [p, p.from_zero()]
    etas = [curves.best_step(start) for start in starts]
    for convention in "FCTS":
        seen = measure(sampler_of(starts, sampler), Sampling(20_000, 3), ["t", sampler], convention, etas)
        for measured, start in zip(seen, starts, strict=True):
            assert not measured.differs(isotropic.best_loss(start, convention))
            others = [isotropic.best_loss(start, other) for other in "FCTS" if other != convention]
            if start is CLEAN:  # from the pre-trained start, noiseless, the four are far apart
                assert all(measured.differs(other) for other in others)


@pytest.mark.parametrize("field", ["start", "reach", "square", "along", "size", "pull", "labels"])
def test_samplers_agree_in_distribution(field):
    found = {}
    for number, name in enumerate(("scalars", "vectors", "rows")):
        trials = sampler_of([NOISY], name).draw(Draws(CPU, 11, "ks", number), 4000)[0]
        found[name] = getattr(trials, field).numpy()
    assert ks_2samp(found["scalars"], found["rows"]).pvalue > 0.001
    assert ks_2samp(found["vectors"], found["rows"]).pvalue > 0.001


def test_distribution_test_can_fail():
    other = replace(NOISY, train_noise=1.4)
    one = sampler_of([NOISY], "scalars").draw(Draws(CPU, 1, "a"), 4000)[0].size.numpy()
    two = sampler_of([other], "scalars").draw(Draws(CPU, 1, "b"), 4000)[0].size.numpy()
    assert ks_2samp(one, two).pvalue < 0.001


@pytest.mark.parametrize("sampler", ["vectors", "rows"])
def test_matrix_samplers_meet_the_general_law(sampler):
    problem = general_problem()
    parabola = law.one_step(problem)
    sampler = matrix_sampler([problem], sampler)
    seen = measure(sampler, Sampling(40_000, 1), ["general"], "F", [parabola.best_step])[0]
    assert not seen.differs(parabola.best)
    assert seen.differs(law.one_step(replace(problem, weights=problem.weights.T)).best)


def test_random_pair_is_not_jointly_diagonalisable():
    family = covariance_family("random", 6, 1)
    commutator = family.covariance @ family.prior - family.prior @ family.covariance
    assert float(commutator.abs().max()) > 0.01


def test_gpu_gamma_sampler_has_the_right_law():
    draws = Draws(replace(CPU, dtype="float32"), 1, "gamma")
    for shape in (1.0, 4.5, 150.0):
        sample = 2 * draws._gamma(shape, 20_000).double().numpy()
        reference = np.random.default_rng(0).chisquare(2 * shape, 20_000)
        assert ks_2samp(sample, reference).pvalue > 0.001


def test_other_seeds_give_other_numbers():
    def run(seed):
        return next(context(ContextSettings(d=10, trials=500, seed=seed, n=(2,), k=20)))

    assert run(1)["loss_measured"] != run(2)["loss_measured"]


def test_blocks_respect_the_memory_budget():
    backend = Backend(memory=1 << 20)
    assert backend.block(1000, 10**9) * 1000 <= 1 << 20
    assert backend.block(10, 7) == 7
    with pytest.raises(MemoryPlanError, match="one trial needs 3 MiB"):
        backend.block(3 << 20, 10)


def test_blocks_merge_to_the_moments_of_the_whole():
    sampler = sampler_of([CLEAN], "scalars")
    small = Backend(memory=sampler.bytes_per_trial * 300)
    seen = measure(sampler, Sampling(2000, 1, small), ["merge"], "T", [0.0])[0]
    losses = []
    for number, size in enumerate([300] * 6 + [200]):
        trials = sampler.draw(Draws(small, 1, "linear", "merge", number), size)[0]
        losses.append(trials.losses("T", trials.steps("T")))
    whole = torch.cat(losses)
    assert seen.mean == pytest.approx(float(whole.mean()), rel=1e-12)
    assert seen.stderr == pytest.approx(float(whole.std()) / 2000**0.5, rel=1e-12)


def test_a_chance_deviation_is_looked_at_again_and_an_error_stays():
    samplings = []

    def look(sampling):
        samplings.append(sampling)
        return [Measured(1.0 if len(samplings) == 1 else 0.0, 0.1)]

    assert checked(look, Sampling(100, 5), [0.0])[0][1] is True
    assert samplings[1].trials == 400 and samplings[1].seed != 5
    assert checked(lambda sampling: [Measured(1.0, 0.1)], Sampling(100), [0.0])[0][1] is False


@pytest.mark.parametrize("seen", [Measured(np.nan, np.nan), Measured(np.inf, np.nan), Measured(0.0, np.inf)])
def test_what_is_not_finite_agrees_with_nothing(seen):
    assert seen.differs(0.0)
    assert checked(lambda sampling: [seen], Sampling(100), [0.0])[0][1] is False
    assert checked(lambda sampling: [seen], Sampling(100), [0.0], may_overflow=True)[0][1] is None


def test_a_median_stands_beside_a_mean_that_few_paths_carry_away():
    settings = StepsSettings(d=6, trials=400, n=3, k=12, count=20, decay=(0.9,))
    rows = [row for row in steps(settings) if row.get("kind") != "best"]
    (lost,) = [row for row in rows if row["schedule"] == "constant" and not row["tuned"]]
    assert lost["median"] < 1e-3 * lost["loss_measured"]
    single, unit = rows[0], curves.best_step(Isotropic.pretrained(6, 3, 12))
    paths = dense(Isotropic.pretrained(6, 3, 12), Draws(CPU, 1, "any"), 4000)
    found = paths.losses("F", [torch.full((4000,), unit, dtype=torch.float64)])
    assert single["median"] == pytest.approx(float(found.median()), rel=0.1)


def test_steps_that_overflow_say_so_and_have_no_verdict():
    *rows, best = steps(StepsSettings(d=6, trials=200, n=3, k=12, count=600, decay=(0.9,)))
    (lost,) = [row for row in rows if not row["finite"]]
    assert (lost["schedule"], lost["tuned"], lost["agrees"], lost["diverged"]) == (
        "constant",
        False,
        None,
        True,
    )
    paths = dense(Isotropic.pretrained(6, 3, 12), Draws(CPU, 0, "any"), 50)
    unit = torch.full((50,), curves.best_step(Isotropic.pretrained(6, 3, 12)), dtype=torch.float64)
    found = paths.losses("F", [unit] * 600)
    assert 0 < float((~(found <= paths.single.start)).double().mean()) - 0.1 < lost["share_worse"]
    assert all(row["agrees"] for row in rows if row["finite"])
    assert np.isfinite(best["gain_best"])


def test_the_line_search_covers_what_the_one_of_tttab_run_can_reach():
    most = np.prod(optimizers.REFINEMENTS)
    low, high = min(optimizers.COARSE) / most, max(optimizers.COARSE) * most
    assert (TRIAL_SIZES[0], TRIAL_SIZES[-1]) == pytest.approx((low, high), rel=1e-12)
    assert TRIAL_SIZES[1] / TRIAL_SIZES[0] == pytest.approx(min(optimizers.REFINEMENTS))


def test_threshold_is_found_by_simulation_alone():
    row = curves.threshold(Simulation(d=60, trials=20_000, seed=2), 30)
    assert row["gamma_limit"] == pytest.approx(0.9, abs=1e-6)
    assert row["gamma_exact"] == pytest.approx(1.26, abs=0.01)
    low, high = row["interval"]
    assert low < row["gamma_measured"] < high and high - low < 0.1
    assert abs(row["gamma_measured"] - row["gamma_exact"]) < high - low
    assert row["agrees"]


def test_on_the_same_context_zero_never_wins():
    row = curves.threshold(Simulation(d=20, convention="S", trials=2000), 10)
    assert row["gamma_exact"] is None and row["gamma_measured"] is None and row["agrees"]


def test_improvement_rises_and_falls_with_the_context():
    *rows, top = context(ContextSettings(d=60, trials=2000, n=(1, 4, 13, 40, 120), k=120))
    gains = [row["gain_exact"] for row in rows]
    assert gains[0] < gains[1] < gains[2] > gains[3] > gains[4]
    assert top["n_exact"] == pytest.approx(top["n_rule"], rel=0.2)
    assert all(row["agrees"] for row in rows)


def test_noise_favours_the_pretrained_start():
    rows = list(noise(NoiseSettings(d=40, trials=2000, n=20, k=80, levels=(0.0, 2.0))))
    both = [row for row in rows if row["where"] == "both"]
    lead = [both[i + 1]["loss_exact"] - both[i]["loss_exact"] for i in (0, 2)]
    assert lead[0] < 0 < lead[1]
    assert all(row["agrees"] for row in rows)


def test_equivalent_context_has_the_loss_it_stands_for():
    row = next(samples(SamplesSettings(d=40, trials=500, n=(20,), k=(80,))))
    untrained = isotropic.initial_loss(Isotropic.pretrained(40, row["n_equivalent"], 1))
    assert untrained == pytest.approx(row["loss_exact"], rel=1e-9)
    assert row["n_equivalent"] > 20


def test_alignment_raises_the_improvement_of_misaligned_tasks():
    grid = AlignmentSettings(d=12, trials=3000, n=6, k=24, family=("two-level", "random"), share=(0.0, 1.0))
    rows = list(alignment(grid))
    gains = [
        row["gain_exact"] for row in rows if row["init"] == "pretrained" and row["family"] == "two-level"
    ]
    assert gains[0] > 1.5 * gains[1]
    assert all(row["agrees"] for row in rows)


def test_bidiagonal_paths_agree_with_rows_in_distribution():
    p = Isotropic.pretrained(12, 8, 9)
    fast, slow = banded(p, 6, Draws(CPU, 1, "fast"), 4000), dense(p, Draws(CPU, 1, "slow"), 4000)
    eta = curves.best_step(p)
    for convention in ("F", "S"):
        one, two = (
            paths.losses(convention, [torch.full((4000,), 0.5 * eta, dtype=torch.float64)] * 6).numpy()
            for paths in (fast, slow)
        )
        assert ks_2samp(one, two).pvalue > 0.001


def test_flow_is_the_limit_of_many_small_steps():
    p = Isotropic.pretrained(6, 8, 9, 0.2)
    paths = dense(p, Draws(CPU, 1, "flow"), 3)
    unit = torch.full((3,), curves.best_step(p), dtype=torch.float64)
    many = paths.losses("F", [unit / 20_000] * 20_000)
    assert paths.flow("F", [1.0], unit)[0].numpy() == pytest.approx(many.numpy(), rel=1e-3)


def test_constant_steps_diverge_and_decay_does_not():
    *rows, best = steps(StepsSettings(d=30, trials=2000, seed=1, n=15, k=60, decay=(0.4,)))
    by_name = {(row["schedule"], row["tuned"]): row for row in rows}
    assert by_name["constant", False]["diverged"] and not by_name["decay", False]["diverged"]
    assert by_name["single", False]["loss_exact"] is not None
    assert 0 < best["share_kept"] < 1
    assert all(row["agrees"] for row in rows)


def test_step_rules_are_ordered():
    grid = StepSizeSettings(d=60, trials=20_000, seed=1, n=30, k=120, multiple=(0.0, 1.0, 2.0))
    rows = list(step_size(grid))
    lost = {row["rule"]: row["lost"] for row in rows if row["kind"] == "choice"}
    assert abs(lost["exact"]) < 0.01 < lost["line search"]
    assert lost["estimated |b|^2"] < lost["exact"]
    same = {row["rule"]: row["loss_same_context"] for row in rows if row["kind"] == "choice"}
    assert same["line search"] < same["exact"]
    curve = [row["loss_exact"] for row in rows if row["kind"] == "curve"]
    assert curve[0] == pytest.approx(curve[2]) and curve[1] < curve[0]
    assert not any(row["agrees"] is False for row in rows)


def test_one_dimension_works():
    rows = list(samples(SamplesSettings(d=1, trials=200, n=(1, 2), k=(1, 2))))
    assert all(np.isfinite(row["loss_measured"]) for row in rows)


def test_unknown_names_are_refused():
    with pytest.raises(RequestError, match="no sampler nothing"):
        sampler_of([CLEAN], "nothing")
    with pytest.raises(RequestError, match="unknown family"):
        covariance_family("nothing", 5, 0)
