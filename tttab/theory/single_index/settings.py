"""What the single-index experiments share: tasks, seed and device, and the choices of stage I."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

from tttab.theory.experiment import Settings, option

Weak = Literal["distill", "direct", "direct-clipped", "random"]
"""Stage I: the attention's output as teacher, the labels themselves, or none (a random direction)."""
Loss = Literal["squared", "correlation"]
LINK = "A polynomial: He<k> or z^k with weights."
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Common(Settings):
    """The options of every experiment that draws tasks."""

    noise: float = option(0.1, "Size tau of the label noise: labels move by +tau or -tau.", low=0)
    tasks: int = option(0, "Tasks per point (0: the default, more with --full).", low=0)
    seed: int = option(0, "Random seed.")
    device: str = option("cpu", "Where to compute: cpu, cuda or cuda:N.")
    full: bool = option(False, "The long version: more tasks, more points.", switch=True)
    default_tasks: ClassVar[tuple[int, int]] = (16, 96)
    """Tasks per point, of the short version and of the long one."""

    @property
    def count(self) -> int:
        """The number of tasks."""
        return self.tasks or self.by_version(*self.default_tasks)

    @property
    def device_type(self) -> str:
        """The device without its number."""
        return self.device.partition(":")[0]

    def by_version(self, small: T, full: T) -> T:
        """Return the default of the version, the short or the long one."""
        return full if self.full else small


@dataclass(frozen=True, kw_only=True)
class StageOne(Settings):
    """The choices of stage I."""

    temp: float = option(1.0, "Temperature of the attention.", low=0, strict=True)
    tilt: float = option(
        0.05, "Share of positive neurons of stage I's student, minus one half.", low=-0.5, high=0.5
    )
    queries: int = option(2048, "Fresh queries of self-distillation.", low=1)


@dataclass(frozen=True, kw_only=True)
class Ablations(Settings):
    """What the algorithm can leave out."""

    skip_stage_1: bool = option(False, "Start stage II from a random direction.", switch=True)
    no_distill: bool = option(False, "Train stage I on the labels themselves.", switch=True)
    link_fixed: bool = option(False, "Use the same link for every task.", switch=True)

    @property
    def weak(self) -> Weak:
        """What stage I does."""
        if self.skip_stage_1:
            return "random"
        return "direct" if self.no_distill else "distill"
