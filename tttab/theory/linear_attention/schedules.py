"""Several steps against the single one: constant size, decaying sizes, gradient flow to its best time.

Divergence is reported. A row whose mean loss exceeds the untrained one says so, with the share of trials that
got worse. One that is no finite number says `finite: False` and has no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tttab.theory.experiment import Row
from tttab.theory.linear_attention.curves import best_step
from tttab.theory.linear_attention.isotropic import Isotropic, best_loss, initial_loss
from tttab.theory.linear_attention.measure import Measured, Moments, average, checked
from tttab.theory.linear_attention.paths import Paths, banded, dense
from tttab.theory.linear_attention.settings import Sampling, Simulation

Loss = Callable[[Paths], Tensor]
"""From paths to the losses of several schedules, shape (schedules, trials)."""
MULTIPLES = tuple(2.0 ** (j / 2) for j in range(-10, 3))
"""First steps that are tried, in units of the single step's."""
TIMES = tuple(2.0 ** (j / 2) for j in range(-10, 9))
"""Stopping times of gradient flow that are tried, in the same unit."""
WITNESS_SHARE = 0.25
"""Trials of the row-level witness, over those that measure."""
MEDIAN_TRIALS = 100_000
"""Trials that a median is of, at most: they are all held at once."""
FLOW_SHARE = 0.2
"""Trials of gradient flow, which costs an eigenvalue problem each, over those that measure."""


@dataclass(frozen=True)
class StepSizes:
    """Step t has size multiple x decay^t x the single step's."""

    name: str
    decay: float
    steps: int
    multiple: float = 1.0
    tuned: bool = False

    @property
    def identity(self) -> Row:
        """The fields of a row that name the schedule."""
        decay = self.decay if self.name == "decay" else None
        return {
            "schedule": self.name,
            "decay": decay,
            "steps": self.steps,
            "tuned": self.tuned,
            "multiple": self.multiple,
        }


def schedule_rows(settings: Simulation, n: int, k: int, count: int, decays: Sequence[float]) -> Iterator[Row]:
    """Yield single step, constant size, each decay and gradient flow, untuned and with the best first step.

    `tuned` rows choose their first step (flow: its time) by the least mean loss on separate trials; all
    rows see the same measuring trials. `loss_rows` is the row-level witness; `agrees` compares the two
    simulations' mean log loss, and the single step with the exact law. With noise everything comes from
    rows, and `loss_rows` is None. The last row, `kind: best`, has the share of the best gain found that
    the single step keeps.
    """
    p = Isotropic.pretrained(settings.d, n, k, settings.noise)
    measurement = _Measurement(settings, p)
    plain = [StepSizes("constant", 1.0, count), *(StepSizes("decay", decay, count) for decay in decays)]
    rows = []
    for row in measurement.rows([StepSizes("single", 1.0, 1), *plain, *measurement.tuned(plain)], count):
        rows.append(row)
        yield row
    rows.append(measurement.flow_row())
    yield rows[-1]
    yield _head(settings, p) | _best(rows)


def _best(rows: Sequence[Row]) -> Row:
    best = min((row for row in rows if not row["diverged"]), key=_measured, default=rows[0])
    single, start = rows[0]["loss_measured"], rows[0]["loss_start"]
    gain = start - best["loss_measured"]
    return {
        "kind": "best",
        "schedule": best["schedule"],
        "decay": best["decay"],
        "gain_single": start - single,
        "gain_best": gain,
        "share_kept": (start - single) / gain if gain > 0 else None,
    }


def _measured(row: Row) -> float:
    return float(row["loss_measured"])


class _Measurement:
    """Measures schedules of one problem, by the fast sampler and by the witness."""

    def __init__(self, settings: Simulation, p: Isotropic) -> None:
        self._settings, self._p = settings, p
        self._noisy = bool(p.noise or p.training_noise)

    def tuned(self, schedules: Sequence[StepSizes]) -> list[StepSizes]:
        """Return the schedules with the best multiple in `MULTIPLES`, chosen on trials of their own."""
        tried = [replace(s, multiple=m, tuned=True) for s in schedules for m in MULTIPLES]
        length = max(schedule.steps for schedule in schedules)
        moments = self._average(self._walks(tried), length, "tuning", self._settings.sampling, 0.25)
        means = np.nan_to_num(moments.mean, nan=np.inf).reshape(len(schedules), -1)
        return [tried[i * len(MULTIPLES) + int(best)] for i, best in enumerate(means.argmin(1))]

    def rows(self, schedules: Sequence[StepSizes], length: int) -> list[Row]:
        """Return the measured rows of schedules of at most `length` steps."""
        exact = [
            best_loss(self._p, self._settings.convention) if s.steps == 1 and s.name == "single" else None
            for s in schedules
        ]
        identities = [schedule.identity for schedule in schedules]
        return self._measure(identities, self._walks(schedules), length, exact, 1.0)

    def flow_row(self) -> Row:
        """Return gradient flow stopped at the best of `TIMES`, chosen on trials of their own."""
        tuning = self._average(
            self._flows(TIMES), self._p.d, "flow tuning", self._settings.sampling, FLOW_SHARE / 2
        )
        time = TIMES[int(tuning.mean.argmin())]
        identity = {"schedule": "flow", "decay": None, "steps": None, "tuned": True, "multiple": time}
        return self._measure([identity], self._flows([time]), self._p.d, [None], FLOW_SHARE)[0]

    def _measure(
        self, identities: Sequence[Row], loss: Loss, length: int, exact: Sequence[float | None], share: float
    ) -> list[Row]:
        count = len(identities)
        kept: list[Tensor] = []

        def keeping(paths: Paths) -> Tensor:
            found = loss(paths)
            if sum(part.shape[1] for part in kept) < MEDIAN_TRIALS:
                kept.append(found.cpu())
            return _numbers(paths, found)

        def witnessed(paths: Paths) -> Tensor:
            return _numbers(paths, loss(paths))

        def look(sampling: Sampling) -> list[Measured]:
            kept.clear()
            fast = self._average(keeping, length, "measure", sampling, share)
            slow = fast
            if not self._noisy:
                slow = self._average(
                    witnessed, length, "measure", sampling, share * WITNESS_SHARE, witness=True
                )
            with np.errstate(invalid="ignore"):
                apart, joint = fast.mean - slow.mean, np.hypot(fast.stderr, slow.stderr)
            differences = [Measured(float(m), float(s)) for m, s in zip(apart, joint, strict=True)]
            return [*fast.measured, *slow.measured, *differences]

        twin = [None if self._noisy else 0.0] * count
        exacts = [*exact, *[None] * (6 * count), *twin, *[None] * count]
        seen = checked(look, self._settings.sampling, exacts, may_overflow=True)
        medians = torch.cat(kept, dim=1).nan_to_num(nan=torch.inf, posinf=torch.inf).median(dim=1).values
        found = []
        for i, identity in enumerate(identities):
            (mean, first), (worse, _), (rows, _), (apart, second) = (
                seen[i + j * count] for j in (0, 2, 3, 7)
            )
            verdicts = [verdict for verdict in (first, second) if verdict is not None]
            found.append(
                _head(self._settings, self._p)
                | identity
                | {
                    "loss_start": initial_loss(self._p),
                    "loss_exact": exact[i],
                    "loss_measured": mean.mean,
                    "stderr": mean.stderr,
                    "median": float(medians[i]),
                    "loss_rows": None if self._noisy else rows.mean,
                    "share_worse": worse.mean,
                    "diverged": not mean.mean < initial_loss(self._p),
                    "finite": mean.finite and apart.finite,
                    "agrees": all(verdicts) if verdicts else None,
                }
            )
        return found

    def _walks(self, schedules: Sequence[StepSizes]) -> Loss:
        def value(paths: Paths) -> Tensor:
            unit, convention = self._unit(paths), self._settings.convention
            return torch.stack(
                [
                    paths.losses(convention, [s.multiple * s.decay**t * unit for t in range(s.steps)])
                    for s in schedules
                ]
            )

        return value

    def _flows(self, times: Sequence[float]) -> Loss:
        return lambda paths: paths.flow(self._settings.convention, times, self._unit(paths))

    def _unit(self, paths: Paths) -> Tensor:
        """Return the convention's single step, shape (trials,)."""
        if self._settings.convention == "F":
            return torch.full_like(paths.single.start, best_step(self._p))
        return paths.single.steps(self._settings.convention)

    def _average(
        self, value: Loss, length: int, name: str, sampling: Sampling, share: float, *, witness: bool = False
    ) -> Moments:
        p, rows, size = self._p, witness or self._noisy, min(length + 1, self._p.d)
        numbers = p.d * (p.n + 2 * p.k + 3 * p.d) if rows else size * (12 + (6 * p.d if size == p.d else 0))
        return average(
            replace(sampling, trials=max(int(sampling.trials * share), 2)),
            int(8 * numbers + 512),
            ["steps", name, length, str(p), int(rows)],
            lambda draws, count: value(dense(p, draws, count) if rows else banded(p, length, draws, count)),
        )


def _numbers(paths: Paths, losses: Tensor) -> Tensor:
    """Return losses, their logarithms and whether they rose, shape (3 schedules, trials)."""
    worse = ~(losses <= paths.single.start)  # a path that overflowed is no number, and worse
    return torch.cat([losses, losses.log(), worse.to(losses)])


def _head(settings: Simulation, p: Isotropic) -> Row:
    return {
        "experiment": "steps",
        "convention": settings.convention,
        "d": p.d,
        "n": int(p.n),
        "k": int(p.k),
        "alpha": p.n / p.d,
        "gamma": p.k / p.d,
        "noise": settings.noise,
    }
