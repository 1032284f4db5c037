"""Families of covariances and task vectors: two levels, a power law, and a pair without common eigenvectors.

`pair_rows` gives the rows for one covariance; the task turns from aligned to orthogonal to the pre-training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tttab.errors import RequestError
from tttab.seeding import torch_stream
from tttab.theory.experiment import Row
from tttab.theory.linear_attention import limit
from tttab.theory.linear_attention.crossing import exact_crossing
from tttab.theory.linear_attention.curves import FURTHEST
from tttab.theory.linear_attention.law import one_step
from tttab.theory.linear_attention.measure import Measured, checked, matrix_sampler, measure
from tttab.theory.linear_attention.problem import LinearProblem
from tttab.theory.linear_attention.settings import Sampling, Simulation

FAMILIES: dict[str, str] = {
    "two-level": "Sx = I; half of Sb's directions hold 90 % of the tasks",
    "power-law": "Sx with eigenvalues i^-0.5, Sb with i^-1, in one basis",
    "random": "Sx and Sb with those spectra in two random bases: not jointly diagonalisable",
}


@dataclass(frozen=True)
class Family:
    """A pair of covariances, and the two directions between which the task turns."""

    covariance: Tensor
    """Sx, shape (d, d), trace d."""
    prior: Tensor
    """Sb, shape (d, d), with tr(Sb Sx) = 1."""
    likely: Tensor
    """A direction among the likelier half of Sb's, shape (d,)."""
    unlikely: Tensor
    """A direction among the other half, shape (d,)."""

    def task(self, alignment: float) -> Tensor:
        """Return b with share `alignment` of its squared length along `likely`, scaled to b'Sx b = 1."""
        b = alignment**0.5 * self.likely + (1 - alignment) ** 0.5 * self.unlikely
        return b / (b @ self.covariance @ b).sqrt()


def covariance_family(name: str, d: int, seed: int) -> Family:
    """Return the pair of covariances called `name`.

    Raises:
        RequestError: no such family, or d < 2, where there is nothing to turn to.
    """
    if name not in FAMILIES:
        raise RequestError(f"unknown family {name}; there are {', '.join(FAMILIES)}", "--family two-level")
    if d < 2:
        raise RequestError("alignment needs at least 2 dimensions", "--d 60")
    stream = torch_stream(seed, "linear", "family", name, d)
    rank = torch.arange(1, d + 1, dtype=torch.float64)
    if name == "two-level":
        x_values, b_values = torch.ones_like(rank), torch.where(rank <= d // 2, 9.0, 1.0).double()
    else:
        x_values, b_values = rank**-0.5, rank**-1
    eye = torch.eye(d, dtype=torch.float64)
    turn = name == "random"
    x_basis, b_basis = (_random_basis(d, stream), _random_basis(d, stream)) if turn else (eye, eye)
    covariance = x_basis @ torch.diag(x_values * d / x_values.sum()) @ x_basis.T
    prior = b_basis @ torch.diag(b_values) @ b_basis.T
    halves = torch.randn(d, generator=stream, dtype=torch.float64)
    likely, unlikely = b_basis[:, : d // 2] @ halves[: d // 2], b_basis[:, d // 2 :] @ halves[d // 2 :]
    return Family(
        covariance,
        prior / torch.trace(prior @ covariance),
        likely / likely.norm(),
        unlikely / unlikely.norm(),
    )


def pair_rows(settings: Simulation, family: str, share: float, warm: LinearProblem) -> list[Row]:
    """Return the rows of the pre-trained start and of zero, losses over b'Sx b.

    `gain_limit` is the leading order for this k and any Sx, `gain_papers` the papers' k/(k+d) A^2/(A+B),
    which needs Sx = I, `a2_over_ab` the same for k >> d; all are None with noise and under S, which has
    another limit. C, T and S have no closed form here, but for the noiseless S with Sx = I; their
    `loss_exact` is None. `gamma_limit` and `gamma_exact` are the thresholds of k/d beyond which zero wins
    under F.
    """
    starts = {"pretrained": warm, "zero": warm.from_zero()}
    laws = [one_step(problem) for problem in starts.values()]
    exact = [_exact_loss(settings, problem) for problem in starts.values()]
    etas = [law.best_step for law in laws]
    sampler_name = "vectors" if settings.sampler == "scalars" else settings.sampler
    sampler = matrix_sampler(list(starts.values()), sampler_name)
    names: list[str | int] = ["alignment", family, str(share), warm.d, warm.n, warm.k, str(warm.noise)]

    def look(sampling: Sampling) -> list[Measured]:
        return measure(sampler, sampling, names, settings.convention, etas)

    crossing, limit_crossing = _threshold(warm), _limit_threshold(warm)
    has_limit = not warm.noise and settings.convention != "S"
    rows = []
    for (init, problem), law, (seen, agrees), loss in zip(
        starts.items(), laws, checked(look, settings.sampling, exact), exact, strict=True
    ):
        terms = limit.alignment_terms(problem)
        limit_gain = limit.general_gain(problem)
        rows.append(
            {
                "experiment": "alignment",
                "convention": settings.convention,
                "family": family,
                "alignment": share,
                "d": warm.d,
                "n": warm.n,
                "k": warm.k,
                "alpha": warm.n / warm.d,
                "gamma": warm.k / warm.d,
                "init": init,
                "noise": warm.noise,
                "eta": law.best_step if settings.convention == "F" else seen.step,
                "loss_limit": terms.loss - limit_gain if has_limit else None,
                "loss_exact": loss,
                "loss_measured": seen.mean,
                "stderr": seen.stderr,
                "a2_over_ab": terms.gain if has_limit else None,
                "gain_papers": limit.papers_gain(problem) if has_limit else None,
                "gain_limit": limit_gain if has_limit else None,
                "gain_exact": None if loss is None else law.start - loss,
                "gain_measured": seen.gain,
                "gain_stderr": seen.gain_stderr,
                "gamma_limit": limit_crossing if has_limit else None,
                "gamma_exact": crossing,
                "agrees": agrees,
            }
        )
    return rows


def _exact_loss(settings: Simulation, problem: LinearProblem) -> float | None:
    law = one_step(problem)
    if settings.convention == "F":
        return law.best
    white = torch.equal(problem.covariance, torch.eye(problem.d, dtype=torch.float64))
    if settings.convention == "S" and white and problem.noise == 0:
        return law.start * (problem.d + 1) / (problem.k + problem.d + 1)
    return None


def _threshold(warm: LinearProblem) -> float | None:
    """Return the exact k/d beyond which W = 0 wins under F, from the two parabolas' dependence on k.

    The slope is proportional to k and the curvature is k (k x + y), so two values of k give every k.
    """
    starts = []
    for problem in (warm, warm.from_zero()):
        one, two = one_step(problem.with_rows(1)), one_step(problem.with_rows(2))
        x = two.curvature / 2 - one.curvature
        starts.append((one.start, one.slope, x, one.curvature - x))

    def difference(k: float) -> float:
        warm_loss, cold_loss = (start - slope**2 * k / (4 * (k * x + y)) for start, slope, x, y in starts)
        return cold_loss - warm_loss

    found = exact_crossing(difference, 0.01, FURTHEST * (warm.n + warm.d))
    return None if found is None else found / warm.d


def _limit_threshold(warm: LinearProblem) -> float | None:
    """Return the same threshold in the leading order, where the gain is k s / (k x + y)."""
    if torch.equal(warm.covariance, torch.eye(warm.d, dtype=torch.float64)):
        return limit.general_threshold(warm)
    terms = []
    for problem in (warm, warm.from_zero()):
        one, two = (limit.general_gain(problem.with_rows(k)) for k in (1, 2))
        rest = 1 / one - 1 / two  # 1 / gain = x / s + (y / s) / k
        terms.append((limit.alignment_terms(problem).loss, 1 / one - 2 * rest, 2 * rest))

    def difference(k: float) -> float:
        warm_loss, cold_loss = (start - 1 / (x + y / k) for start, x, y in terms)
        return cold_loss - warm_loss

    found = exact_crossing(difference, 0.01, FURTHEST * (warm.n + warm.d))
    return None if found is None else found / warm.d


def _random_basis(d: int, stream: torch.Generator) -> Tensor:
    """Return an orthogonal matrix, uniform over rotations up to signs, shape (d, d)."""
    return torch.linalg.qr(torch.randn(d, d, generator=stream, dtype=torch.float64))[0]
