"""Every rule and optimiser on the bundled tables: what training gains, what it costs and whom it harms.

    python -m studies rules --jobs 2
    python -m studies rules --apart --steps 5 --sizes 200 --seeds 1 --tables phoneme --out FOLDER
    python -m studies rules --summary

k = min(1000, what is left). One adaptation records the weights that every guard would keep, and the test
rows judge them only afterwards; a metric of another guard than `loss` carries its name (`off: log_loss`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from studies.engine import Figures, Opened, Study, label_of, open_once
from tttab.bench.plan import load
from tttab.bench.records import Cell
from tttab.bench.store import Contents
from tttab.core import Table
from tttab.data.splits import Split, SplitRequest, split_rows

if TYPE_CHECKING:
    import torch

TABLES = (
    "banana",
    "contraceptive",
    "credit-g",
    "phoneme",
    "satimage",
    "segment",
    "spambase",
    "titanic",
    "twonorm",
)
SIZES = (200, 100)
RULES = ("full", "head", "attention", "last-layers:2", "lora", "temperature")
OPTIMIZERS = ("sgd-1", "adamw")
GUARDS = ("loss", "loss+ece", "off")
BASES = ("icl@n", "icl@n+k")
CONTEXTS = ("random", "kcenter", "nearest")
FINETUNED = "finetuned@n+k"
VARIANTS = {
    "full+adamw redraw": ("full", {"split": "redraw"}),
    "full+adamw kfold": ("full", {"split": "kfold"}),
    "full+adamw cold": ("full", {"init": "random"}),
    "full+adamw lr 1e-4": ("full", {"lr": 1e-4}),
    "full+adamw lr 1e-3": ("full", {"lr": 1e-3}),
    "full+sgd-1 kfold": ("full", {"split": "kfold", "optimizer": "sgd-1"}),
}
PHASES = (
    (*BASES, *(f"{rule}+{optimiser}" for rule in RULES for optimiser in OPTIMIZERS)),
    (FINETUNED,),
    (*(f"icl@n {context}" for context in CONTEXTS), *VARIANTS),
)
FINETUNE_SECONDS = 30


@dataclass(frozen=True)
class Rules(Study):
    """What every rule, optimiser and guard makes of every table."""

    name: ClassVar[str] = "rules"
    folder: ClassVar[str] = "rules"
    tables: tuple[str, ...]
    sizes: tuple[int, ...]
    seeds: int
    phases: int
    model: str
    device: str
    steps: int
    """Steps of adamw."""
    test_size: int | None
    """Test rows at most; None: tttab's own share."""
    apart: bool = False

    def cells(self) -> Iterator[Cell]:
        """Yield the cells, phase by phase."""
        from tttab.models import resolve

        label = label_of(resolve(self.model, "classification").path)
        for phase in PHASES[: self.phases]:
            for seed in range(self.seeds):
                for n in self.sizes:
                    for table in self.tables:
                        yield from (self._cell(table, seed, n, arm, label) for arm in phase)

    def _cell(self, name: str, seed: int, n: int, arm: str, label: str) -> Cell:
        table, split = load(name), split_of(name, n, seed, self.test_size)
        return self.keyed(
            Cell(
                name, seed, n, split.k, arm, "", table.fingerprint[:12], label,
                recipe=f"steps {self.steps}", test_asked=self.test_size or 0, classes=len(table.classes),
            )
        )  # fmt: skip

    def rows_of(self, cell: Cell) -> str:
        """Return the hash of all rows of the split."""
        return split_of(cell.table, cell.n, cell.seed, self.test_size).digest

    def open(self, cell: Cell) -> Opened:
        """Return the table under the cell's split, and the model."""
        split = split_of(cell.table, cell.n, cell.seed, self.test_size)
        session = open_once(self.model, self.device)
        return OnOneSplit(load(cell.table), split, session, self)

    def summary(self, contents: Contents) -> str:
        """Return the tables of `studies.rules_summary`."""
        from studies.rules_summary import summary

        return summary(contents, [arm for phase in PHASES for arm in phase])


@lru_cache(maxsize=512)
def split_of(name: str, n: int, seed: int, test_size: int | None) -> Split:
    """Return the split of one unit."""
    table = load(name)
    request = SplitRequest(n, 1000, test_size and min(test_size, len(table) // 4))
    return split_rows(table.y, request, seed, classes=len(table.classes))


@dataclass
class OnOneSplit(Opened):
    """One table under one split: the arms share what is prepared."""

    table: Table
    split: Split
    session: Any
    study: Rules
    _ready: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """Where the model runs."""
        return str(self.session.device)

    def rows(self, which: np.ndarray) -> tuple[Any, np.ndarray]:
        """Return x and y of the numbered rows."""
        return self.table.x.iloc[which], self.table.y[which]

    def context(self, name: str, which: np.ndarray) -> tuple[Any, Any]:
        """Return a prepared context and the test rows under it."""
        if name not in self._ready:
            context = self.session.context(*self.rows(which), len(self.table.classes))
            self._ready[name] = context, self.session.queries(context, *self.rows(self.split.test))
        return self._ready[name]

    def measure(self, arm: str) -> Figures:
        """Run one arm of `PHASES`."""
        if arm == FINETUNED:
            return self.finetuned()
        if arm.startswith("icl@"):
            return self.icl(arm)
        if arm in VARIANTS:
            return self.adapt(*VARIANTS[arm])
        rule, optimiser = arm.split("+")
        return self.adapt(rule, {"optimizer": optimiser})

    def icl(self, arm: str) -> Figures:
        """Judge the untouched model under a context."""
        from tttab.data.context_selection import choose_context

        which = self.split.context
        if arm == "icl@n+k":
            which = np.concatenate([self.split.context, self.split.queries])
        elif arm != "icl@n":
            chosen = choose_context(
                self.split, arm.split()[1], self.table.x, self.table.y, classes=len(self.table.classes)
            )
            which = chosen.context
        return Figures(judge(self.session, *self.context(arm, which)))

    def adapt(self, rule: str, schedule: Mapping[str, Any]) -> Figures:
        """Train once; judge what each guard keeps."""
        from tttab.rules import get_rule
        from tttab.training.config import Schedule
        from tttab.training.loop import Adaptation

        context, test = self.context("icl@n", self.split.context)
        peak = Peak(self.session.device, self.study.apart)
        run = Adaptation(
            self.session, get_rule(rule), context, self.rows(self.split.queries),
            Schedule(**{"steps": self.study.steps, "guard": "loss", "precision": "fp32"} | dict(schedule)),
            self.split.seed, others=GUARDS[1:],
        )  # fmt: skip
        for _ in run:
            pass
        rise, result = peak.rise(), run.result
        metrics = judged = judge(result.session, context, test)
        for name, other in result.others.items():
            theirs = judged if same_weights(other, result.session) else judge(other, context, test)
            metrics = metrics | {f"{name}: {metric}": value for metric, value in theirs.items()}
        training = {
            "held_out_before": result.before, "held_out_after": result.after,
            "held_out_ece_before": result.ece_before, "held_out_ece_after": result.ece_after,
            "size": result.size, "vetoed": len(result.vetoed), "chunk": result.plan.chunk,
        }  # fmt: skip
        return Figures(metrics | plain(training | rise), {"adapt": round(result.seconds, 3)}, result.step)

    def finetuned(self) -> Figures:
        """tabpfn's own fine-tuning on all n + k rows, by its defaults."""
        from tttab.metrics import classification_metrics

        peak = Peak(self.session.device, self.study.apart)
        x, y = self.rows(np.concatenate([self.split.context, self.split.queries]))
        start = time.perf_counter()
        model = self.session.finetuned(x, y, len(self.table.classes), self.split.seed, FINETUNE_SECONDS)
        seconds, rise = time.perf_counter() - start, peak.rise()
        x_test, y_test = self.rows(self.split.test)
        metrics = classification_metrics(y_test, model.predict(x_test))
        return Figures({**metrics, **rise}, {"adapt": round(seconds, 3)})


def judge(session: Any, context: Any, test: Any) -> dict[str, float]:
    """Return the figures of merit on the test rows; what is computed is what is served."""
    import torch

    from tttab.metrics import classification_metrics

    with torch.no_grad():
        parts = [
            session.log_probabilities(context, test, rows).exp().cpu().numpy()
            for rows in np.array_split(np.arange(len(test)), -(-len(test) // 500))
        ]
    return dict(classification_metrics(test.y.cpu().numpy(), np.concatenate(parts)))


def plain(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the values that there are, as floats."""
    return {name: float(value) for name, value in values.items() if value is not None}


def same_weights(one: Any, other: Any) -> bool:
    """Whether two sessions answer alike."""
    import torch

    pairs = zip(one.module.parameters(), other.module.parameters(), strict=True)
    return one.temperature == other.temperature and all(torch.equal(a, b) for a, b in pairs)


class Peak:
    """How far memory rises from when it was made: tensors on a GPU, else the process's resident size.

    A process keeps what earlier cells freed, so resident size tells of a cell only in a process of its own.
    """

    def __init__(self, device: torch.device, apart: bool) -> None:
        import torch

        from tttab.system.resources import resident_bytes

        self.device, self.apart = device, apart
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)
        else:
            with contextlib.suppress(OSError):  # Linux: the peak starts anew
                Path("/proc/self/clear_refs").write_text("5")
            self.before = resident_bytes()

    def rise(self) -> dict[str, float]:
        """Return `rise_bytes`, where it says something."""
        import torch

        from tttab.system.resources import peak_resident_bytes

        if self.device.type == "cuda":
            return {"rise_bytes": torch.cuda.max_memory_allocated(self.device) - self.before}
        return {"rise_bytes": peak_resident_bytes() - self.before} if self.apart else {}
