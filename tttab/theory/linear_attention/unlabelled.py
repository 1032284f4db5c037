"""Laws and trials of unlabelled rows: the step whitened by their Gram matrix, and pseudo-labels.

W' = W + 2 eta P g u' with P an estimate of Sx^-1, on fresh contexts and with a step fixed beforehand
(convention F).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tttab.theory.linear_attention.crossing import exact_crossing
from tttab.theory.linear_attention.draws import Draws
from tttab.theory.linear_attention.isotropic import Isotropic, initial_loss
from tttab.theory.linear_attention.law import (
    Parabola,
    context_moment,
    expected_product,
    loss,
    residual_moment,
)
from tttab.theory.linear_attention.measure import Measured, average
from tttab.theory.linear_attention.problem import LinearProblem, matrix_root
from tttab.theory.linear_attention.settings import Sampling


def known_step(problem: LinearProblem) -> Parabola:
    """Return the loss after the step with P = Sx^-1 as a parabola in its size."""
    d, k = problem.d, problem.k
    return _parabola(problem, k * (k + d + 1), k * d * problem.training_noise)


def own_step(problem: LinearProblem) -> Parabola | None:
    """Return the same for P = (Z'Z/k)^-1 of the training rows themselves; None for k <= d + 1.

    P g = k (v + (Z'Z)^-1 Z'noise), and E (Z'Z)^-1 = Sx^-1 / (k - d - 1).
    """
    d, k = problem.d, problem.k
    if k <= d + 1:
        return None
    return _parabola(problem, k**2, k**2 * problem.training_noise * d / (k - d - 1))


def _parabola(problem: LinearProblem, energy: float, offset: float) -> Parabola:
    """Return the parabola where E[P g | u] = k v and E[(P g)'Sx(P g) | u] = energy v'Sx v + offset."""
    change = residual_moment(problem)
    slope = 4 * problem.k * float(torch.trace(change.T @ problem.covariance @ change))
    moment = context_moment(problem)
    return Parabola(
        loss(problem), slope, 4 * expected_product(problem, energy * problem.covariance, offset, moment)
    )


def whitening_moments(d: int, m: float) -> tuple[float, float]:
    """Return E[S^-1] and E[S^-2] over the identity, S the Gram matrix of m white rows over m > d + 3."""
    first = m / (m - d - 1)
    return first, m**2 * (m - 1) / ((m - d) * (m - d - 1) * (m - d - 3))


def unlabelled_step(problem: LinearProblem, m: float) -> Parabola:
    """Return the parabola for P from m unlabelled rows: exact, as P is independent and no axis is special."""
    known, (first, second) = known_step(problem), whitening_moments(problem.d, m)
    return Parabola(known.start, first * known.slope, second * known.curvature)


def gain_share(d: int, m: float) -> float:
    """Return the gain over that of the known Sx: (m-d)(m-d-3) / ((m-1)(m-d-1)), which goes to 1 - d/m."""
    first, second = whitening_moments(d, m)
    return first**2 / second


def pays_from(problem: LinearProblem, other: Parabola | None) -> float | None:
    """Return the m from which unlabelled rows beat the step `other`; None: with no number of rows."""
    if other is None:
        return None
    known, d = known_step(problem).gain, problem.d
    return exact_crossing(lambda m: other.gain - gain_share(d, m) * known, d + 3.001, 1e7 * d)


def measure_rules(
    problem: LinearProblem, unlabelled: Sequence[int], etas: Sequence[float], sampling: Sampling
) -> list[Measured]:
    """Return the measured gains of the rules plain, known, own, then of each m alone, then of own with m."""
    d = problem.d
    root, moment = matrix_root(problem.covariance), context_moment(problem)
    change, inverse = residual_moment(problem), torch.linalg.inv(problem.covariance)
    most = max(unlabelled, default=0)

    def trials(draws: Draws, size: int) -> Tensor:
        u, g, own = _draw(problem, root, draws, size)
        free = draws.normal(size, most, d) @ root
        grams = [free[:, :m].mT @ free[:, :m] for m in unlabelled]
        turned = [g, g @ inverse, _solved(own / problem.k, g) if problem.k > d + 1 else torch.zeros_like(g)]
        turned += [_solved(gram / m, g) for gram, m in zip(grams, unlabelled, strict=True)]
        turned += [_solved((own + s) / (problem.k + m), g) for s, m in zip(grams, unlabelled, strict=True)]
        reach, aim = (u * (u @ moment)).sum(1), u @ change.T @ problem.covariance
        gains = [
            4 * (h * aim).sum(1) * eta - 4 * (h * (h @ problem.covariance)).sum(1) * reach * eta**2
            for h, eta in zip(turned, etas, strict=True)
        ]
        return torch.stack(gains)

    trial_bytes = 8 * d * (problem.n + problem.k + most + 8 * d)
    return average(sampling, trial_bytes, ["semi", d, problem.n, problem.k], trials).measured


def _draw(problem: LinearProblem, root: Tensor, draws: Draws, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return u and g, each of shape (size, d), and Z'Z, (size, d, d)."""
    x = draws.normal(size, problem.n, problem.d) @ root
    y = x @ problem.task + problem.noise**0.5 * draws.normal(size, problem.n)
    u = (x.mT @ y[..., None])[..., 0]
    z = draws.normal(size, problem.k, problem.d) @ root
    aim = problem.task - u @ problem.weights.T
    residual = (z @ aim[..., None])[..., 0] + problem.training_noise**0.5 * draws.normal(size, problem.k)
    return u, (z.mT @ residual[..., None])[..., 0], z.mT @ z


def _solved(gram: Tensor, g: Tensor) -> Tensor:
    return torch.linalg.solve(gram, g[..., None])[..., 0]


def shared_step(problem: LinearProblem, m: int) -> Parabola:
    """Return the leading order for P from the k training rows and m others, whose law is not known.

    It takes P for independent of g, which it is not; the step that it gives is near the best.
    """
    known = known_step(problem)
    rows = problem.k + m
    first, second = whitening_moments(problem.d, max(rows, problem.d + 4))  # finite beyond d + 3 rows
    return Parabola(known.start, first * known.slope, second * known.curvature)


@dataclass(frozen=True)
class Pseudo:
    """Labels from the same model with a longer context; Sx = I, the loss on the student's own context.

    The step is fixed in units of |u|^2: v' = v - kappa g, g = U'U (v - v_T) of the m unlabelled queries U.
    """

    d: int
    n: int
    """Rows of the student's context, the first of the teacher's."""
    teacher: int
    m: int
    noise: float = 0.0

    @property
    def start(self) -> float:
        """L_S, the student's loss before the step."""
        return initial_loss(Isotropic.pretrained(self.d, self.n, 1, self.noise))

    @property
    def teacher_loss(self) -> float:
        """L_T."""
        return initial_loss(Isotropic.pretrained(self.d, self.teacher, 1, self.noise))

    @property
    def law(self) -> Parabola:
        """The exact loss as a parabola in kappa, from E v'v_T."""
        student, teacher = (Isotropic.pretrained(self.d, n, 1, self.noise) for n in (self.n, self.teacher))
        square = self.n * (self.n + 1) + self.n * student.power * self.d
        product = square + self.n * (self.teacher - self.n)
        mixed = 1 - student.weight * self.n - teacher.weight * self.teacher
        mixed += student.weight * teacher.weight * product
        energy, other = self.start - self.noise, self.teacher_loss - self.noise
        pull, size = energy - mixed, energy - 2 * mixed + other
        return Parabola(self.start, 2 * self.m * pull, self.m * (self.m + self.d + 1) * size)

    @property
    def limit(self) -> float | None:
        """The limit of the gain, m/(m+d) (L_S - L_T); None with noise."""
        if self.noise:
            return None
        apart = 1 / (1 + self.n / self.d) - 1 / (1 + self.teacher / self.d)
        return self.m / (self.m + self.d) * apart

    def measure(self, sampling: Sampling) -> Measured:
        """Return the measured gain of the best step, every row drawn."""
        kappa = self.law.best_step
        starts = [Isotropic.pretrained(self.d, n, 1, self.noise) for n in (self.n, self.teacher)]

        def trials(draws: Draws, size: int) -> Tensor:
            x = draws.normal(size, self.teacher, self.d)
            y = x[..., 0] + self.noise**0.5 * draws.normal(size, self.teacher)
            aims = []
            for rows, start in zip((self.n, self.teacher), starts, strict=True):
                # b - w u with b = e1.
                aim = -start.weight * (x[:, :rows].mT @ y[:, :rows, None])[..., 0]
                aim[:, 0] += 1
                aims.append(aim)
            queries = draws.normal(size, self.m, self.d)
            g = (queries.mT @ (queries @ (aims[0] - aims[1])[..., None]))[..., 0]
            gain = 2 * kappa * (aims[0] * g).sum(1) - kappa**2 * (g * g).sum(1)
            return gain[None]

        names = ["pseudo", self.d, self.n, self.teacher, self.m]
        (found,) = average(sampling, 8 * self.d * (self.teacher + self.m + 8), names, trials).measured
        return found
