"""Every number of a pre-training run: architecture, shapes, optimiser, budget, and the presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tttab.core import Task
from tttab.errors import RequestError


@dataclass(frozen=True)
class Architecture:
    """TabPFN v2's sizes."""

    emsize: int
    """Width of a cell's embedding."""
    nlayers: int
    nhead: int
    bars: int = 200
    """Buckets of the regressor's bar distribution."""


@dataclass(frozen=True)
class Shapes:
    """How large the training tables are; they widen from the first figure to the last."""

    context: tuple[int, int] = (24, 1000)
    """Context rows, log-uniform."""
    first_context: int = 120
    """The largest context at the start."""
    queries: tuple[int, int] = (64, 160)
    """Query rows, uniform."""
    features: tuple[int, int] = (2, 60)
    first_features: int = 6
    classes: int = 10
    first_classes: int = 3
    ranked: float = 0.25
    """Share of the tables whose measured features are replaced by their ranks in the context."""
    widen_until: float = 0.35
    """Share of the budget after which the tables have their full size."""
    tokens: int = 250_000
    """Cells, rows times (feature pairs + target), in one batch, about."""
    most_tables: int = 512
    most_rows: int = 60_000
    """Rows of all tables of a batch together: CUDA's attention kernels take at most 65,535."""
    fewest_tables: int = 2
    most_tokens: int | None = None
    """Cells of a batch of `fewest_tables`: where a context would need more, it gets fewer rows."""


@dataclass(frozen=True)
class Mixture:
    """What the device's own tables are made of, beside the numbers of `features`."""

    categorical: float = 0.0
    """Share of the tables that are categories alone."""
    mixed: float = 0.0
    """Share of the tables that are categories and numbers."""
    levels: tuple[int, int] = (2, 20)
    """Levels of a category, log-uniform."""
    many_levels: int = 60
    """The most levels of the twentieth of the categories that have more."""
    one_hot: float = 0.15
    """Share of the tables of categories whose columns are indicators of levels."""
    grouped: float = 0.0
    """Share of the tables of numbers whose rows lie around centres with correlated columns, a class each."""
    redundant: float = 0.0
    """Share of the tables of numbers in which blocks of columns repeat one column, and others are noise."""
    two_classes: float = 0.45
    """Share of the tables with two classes; the rest has 2 to the most, uniform."""


@dataclass(frozen=True)
class Optimiser:
    """Muon for the blocks' matrices, AdamW for the rest; warm-up, full rates, then a cosine to zero."""

    muon: float = 2e-3
    adamw: float = 2e-3
    weight_decay: float = 0.01
    warm_up: float = 0.03
    """Share of the budget."""
    decay: float = 1.0
    """Share of the budget, its last, in which the rates fall."""
    clip: float = 1.0
    further: float = 0.4
    """Share of the rates with which training goes on from a file."""


@dataclass(frozen=True)
class PoolUse:
    """Tables of tabicl's prior, made by worker processes beside the training."""

    share: float = 0.4
    """Share of a batch that is drawn from the pool, once it holds enough."""
    rows: int = 640
    """Rows of a pool table; batches with more rows are generated on the device alone."""
    features: tuple[int, ...] = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 30, 40, 50, 60)
    at_least: int = 8
    """Tables of a width before that width is used."""
    measured: float = 0.0
    """Share of the tables from the pool whose columns are measured as the device's own are."""
    at_first: int = 0
    per_step: float = 0.5
    """With a step budget: tables that must have arrived before the first step, and more per step taken, for
    exact repetition."""


@dataclass(frozen=True)
class Recipe:
    """One pre-training run, but for its seed and budget."""

    preset: str
    task: Task
    architecture: Architecture
    shapes: Shapes = field(default_factory=Shapes)
    optimiser: Optimiser = field(default_factory=Optimiser)
    pool: PoolUse = field(default_factory=PoolUse)
    mixture: Mixture = field(default_factory=Mixture)

    def as_dict(self) -> dict[str, Any]:
        """Return every setting as plain data, for logs and cards."""
        return asdict(self)


@dataclass(frozen=True)
class Budget:
    """How long to train: a number of steps (repeatable bit by bit) or minutes of wall clock."""

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        asked = self.minutes if self.steps is None else self.steps
        if asked is None or None not in (self.steps, self.minutes):
            raise RequestError("give a budget: either steps or minutes", "--steps 5000 or --minutes 60")
        if not asked > 0:
            raise RequestError("the budget must be positive", "--steps 5000 or --minutes 60")

    def progress(self, steps: int, seconds: float) -> float:
        """Return the share of the budget that is used, from 0 to 1."""
        used = steps / self.steps if self.steps else seconds / 60.0 / (self.minutes or 1.0)
        return min(1.0, used)


_SMALL = Architecture(emsize=128, nlayers=8, nhead=4)
_NANO = Architecture(emsize=64, nlayers=5, nhead=2, bars=100)
_TINY = Architecture(emsize=32, nlayers=2, nhead=2, bars=20)
_TINY_SHAPES = Shapes(
    context=(16, 32), first_context=32, queries=(16, 16), features=(2, 4), first_features=4, tokens=1500
)
_NANO_LONG = Recipe(
    "nano-long",
    "classification",
    _NANO,
    Shapes(context=(50, 1000), queries=(64, 128), tokens=10_000, most_tables=64, ranked=0.5),
    Optimiser(muon=3e-3, adamw=3e-3, further=0.6),
    PoolUse(rows=1120),
)
_NANO_RANKED = replace(_NANO_LONG, preset="nano-ranked", shapes=replace(_NANO_LONG.shapes, ranked=0.85))
_NANO_TABICL = replace(_NANO_RANKED, preset="nano-tabicl", pool=replace(_NANO_RANKED.pool, share=0.95))
_NANO_MEASURED = replace(_NANO_TABICL, preset="nano-measured", pool=replace(_NANO_TABICL.pool, measured=0.5))
_NANO_KINDS = Recipe(
    "nano-kinds",
    "classification",
    replace(_NANO, nlayers=8),
    Shapes(
        context=(50, 1000),
        queries=(64, 192),
        features=(2, 100),
        tokens=12_000,
        most_tables=64,
        fewest_tables=1,
        most_tokens=36_000,
        ranked=0.5,
    ),
    Optimiser(muon=3e-3, adamw=3e-3, further=0.1, warm_up=0.001, decay=0.3),
    PoolUse(
        share=0.35,
        rows=1200,
        features=(4, 8, 16, 32, 64, 100),
        measured=0.5,
        at_first=560,
        per_step=0.02,
    ),
    Mixture(categorical=0.25, mixed=0.25, grouped=0.15, redundant=0.3, two_classes=0.35),
)

PRESETS: dict[str, Recipe] = {
    "small": Recipe(
        "small",
        "classification",
        _SMALL,
        Shapes(context=(50, 1500), queries=(64, 192), features=(2, 100), ranked=0.5),
        Optimiser(further=0.75),
        _NANO_KINDS.pool,
        _NANO_KINDS.mixture,
    ),
    "nano": Recipe(
        "nano",
        "classification",
        _NANO,
        Shapes(context=(20, 700), queries=(48, 96), tokens=8_000, most_tables=64),
        Optimiser(muon=3e-3, adamw=3e-3),
    ),
    "nano-long": _NANO_LONG,
    "nano-ranked": _NANO_RANKED,
    "nano-tabicl": _NANO_TABICL,
    "nano-measured": _NANO_MEASURED,
    "nano-deep": replace(
        _NANO_MEASURED,
        preset="nano-deep",
        architecture=replace(_NANO, nlayers=8),
        pool=replace(_NANO_MEASURED.pool, share=0.7),
    ),
    "nano-kinds": _NANO_KINDS,
    "nano-regressor": replace(
        _NANO_KINDS,
        preset="nano-regressor",
        optimiser=replace(_NANO_KINDS.optimiser, further=0.6, warm_up=0.03, decay=1.0),
        mixture=replace(_NANO_KINDS.mixture, grouped=0.0),
    ),
    "tiny": Recipe(
        "tiny", "classification", _TINY, _TINY_SHAPES, Optimiser(muon=1e-3, adamw=1e-3), PoolUse(share=0.0)
    ),
}
"""`small`: 10 to 30 minutes on one large GPU; `nano`: an hour or two on 2 cores; `nano-long`: to train nano's
network further on longer tables; `nano-deep`: further with three more blocks, ranks, and mostly tables of
tabicl's prior, half of those with columns of many zeros, in levels or missing; `tiny`: for tests. Tried
between `nano-long` and `nano-deep`: `nano-ranked` (ranks), `nano-tabicl` (and tables of tabicl's prior nearly
alone), `nano-measured` (and half of those measured)."""

MINUTES: dict[str, float] = {
    "small": 20.0,
    "nano": 90.0,
    "nano-long": 80.0,
    "nano-ranked": 80.0,
    "nano-tabicl": 80.0,
    "nano-measured": 80.0,
    "nano-deep": 160.0,
    "nano-kinds": 900.0,
    "nano-regressor": 120.0,
    "tiny": 0.1,
}
"""The budget of each preset where none is given."""


def recipe(preset: str, task: str) -> Recipe:
    """Return the recipe of `preset` for `task`.

    Raises:
        RequestError: no such preset or task.
    """
    if preset not in PRESETS:
        raise RequestError(f"no preset {preset!r}; there are {', '.join(PRESETS)}", "--preset nano")
    if task not in ("classification", "regression"):
        raise RequestError(f"no task {task!r}", "--task classification or --task regression")
    return replace(PRESETS[preset], task=task)
