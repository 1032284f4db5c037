"""What a comparison on one table found: typed, and as plain data, a frame or a page's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tttab.core import ModelInfo, Row, Table
from tttab.data.splits import Split
from tttab.evaluation.caveats import refusal
from tttab.metrics import break_even
from tttab.text import brief, html_text

if TYPE_CHECKING:
    import pandas as pd

    from tttab.bundle import Bundle
    from tttab.evaluation.outcome import Outcome

ICL, TTT, ICL_ALL, BLEND = "icl@n", "ttt@n+k", "icl@n+k", "blend@n+k"
LABELS = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "roc_auc": "ROC AUC",
    "average_precision": "PR AUC", "log_loss": "log loss", "brier": "Brier", "ece": "ECE",
    "rmse": "RMSE", "mae": "MAE", "r2": "R2", "crps": "CRPS", "nll": "NLL",
}  # fmt: skip
"""The metrics' names for people."""


@dataclass(frozen=True)
class TrainingResult:
    """What test-time training did."""

    held_out: Mapping[str, float]
    """Held-out loss, nats, `before` and `after`."""
    chunk: int | None
    """Query rows per forward pass; None where nothing was trained."""
    precision: str
    rate: float
    """Learning rate or step size of the weights that were kept; 0: the untouched ones."""
    softened: bool
    """Whether they were trained on softened targets."""
    stopped: str
    """Why training ended early; empty where it did not."""
    vetoed: tuple[int, ...]
    """Steps that were refused for their calibration."""


@dataclass(frozen=True)
class ArmResult:
    """One method on the test rows; the fields are those of `tttab.core.Row`."""

    arm: str
    n_context: int
    k: int
    metrics: Mapping[str, float]
    seconds: Mapping[str, float]
    ms_per_1000_rows: float | None
    cache_bytes: int | None
    steps: int
    accepted: bool | None
    training: TrainingResult | None = None
    predictions: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)
    """Probabilities, shape (test, classes), or means, shape (test,)."""

    @classmethod
    def of(cls, outcome: Outcome) -> ArmResult:
        """Return the result of an arm's outcome."""
        row, adapted = outcome.row, outcome.adapted
        training = None if adapted is None else TrainingResult(
            held_out={"before": adapted.before, "after": adapted.after},
            chunk=adapted.plan.chunk if adapted.plan else None,
            precision=adapted.precision,
            rate=adapted.size,
            softened=adapted.softened,
            stopped=adapted.stopped,
            vetoed=tuple(adapted.vetoed),
        )  # fmt: skip
        return cls(**{name: getattr(row, name) for name in _ROW_FIELDS}, training=training,
                   predictions=outcome.probabilities)  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, predictions left out."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in _ROW_FIELDS}
        return plain | (asdict(self.training) if self.training else {})


_ROW_FIELDS = (
    "arm", "n_context", "k", "metrics", "seconds", "ms_per_1000_rows", "cache_bytes", "steps", "accepted",
)  # fmt: skip
assert set(_ROW_FIELDS) <= Row.__dataclass_fields__.keys()


def setting(
    table: Table, split: Split, info: ModelInfo, device: str, request: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a document has under `dataset`, `request`, `split` and `model`, as plain data."""
    of_table = ("name", "source", "openml_id", "fingerprint", "target")
    of_model = ("name", "file", "sha256", "provenance", "parameters")
    return {
        "dataset": {
            **{name: getattr(table, name) for name in of_table},
            "rows": len(table),
            "features": table.x.shape[1],
            "classes": list(table.classes),
            "notes": list(table.notes),
        },
        "request": dict(request),
        "split": {"n": split.n, "k": split.k, "test": len(split.test), "notes": list(split.notes)},
        "model": {**{name: getattr(info, name) for name in of_model}, "device": device},
    }


@dataclass(frozen=True)
class RunResult:
    """Test-time training on one table, compared with its rivals."""

    table: Table = field(repr=False)
    split: Split = field(repr=False)
    model: ModelInfo
    device: str
    request: Mapping[str, Any]
    """The options by name."""
    arms: tuple[ArmResult, ...]
    warnings: tuple[str, ...]
    """What to know before believing the figures, a sentence each."""
    versions: Mapping[str, str]
    peak_rss_mb: float
    """The most memory the process held, MiB."""
    bundle: Bundle | None = field(default=None, repr=False)
    """The adapted model with its context: it predicts and can be saved. None where no arm adapts one."""

    def __getitem__(self, arm: str) -> ArmResult:
        """Return the result of an arm by its name."""
        found = next((result for result in self.arms if result.arm == arm), None)
        if found is None:
            raise KeyError(arm)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data: the document of `tttab run --json`."""
        return {
            **setting(self.table, self.split, self.model, self.device, self.request),
            "arms": [result.to_dict() for result in self.arms],
            "peak_rss_mb": self.peak_rss_mb,
            "versions": dict(self.versions),
            "warnings": list(self.warnings),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one line per arm: rows read, metrics, seconds to adapt, milliseconds per 1,000 rows."""
        import pandas as pd

        lines = [
            {"n_context": one.n_context, **one.metrics, "adapt_seconds": one.seconds["adapt"],
             "ms_per_1000_rows": one.ms_per_1000_rows, "cache_bytes": one.cache_bytes}
            for one in self.arms
        ]  # fmt: skip
        return pd.DataFrame(lines, index=pd.Index([one.arm for one in self.arms], name="arm"))

    def predictions(self) -> pd.DataFrame:
        """Return one line per test row: its number in the table, its label, what each arm predicts."""
        import pandas as pd

        y, classes = self.table.y[self.split.test], np.array(self.table.classes, dtype=object)
        columns: dict[str, Any] = {"row": self.split.test, "label": classes[y] if len(classes) else y}
        for one in self.arms:
            if not len(classes):
                columns[one.arm] = one.predictions
            for number, name in enumerate(classes):
                columns[f"{one.arm}:{name}"] = one.predictions[:, number]
        return pd.DataFrame(columns)

    @property
    def break_even_predictions(self) -> float:
        """After how many predictions adapting has paid for itself against all n + k rows as context.

        Infinite where a prediction from the short context is no cheaper.
        """
        ttt, full = self[TTT], self[ICL_ALL]
        return break_even(ttt.seconds["adapt"], ttt.ms_per_1000_rows or 0.0, full.ms_per_1000_rows or 0.0)

    @property
    def verdict(self) -> str:
        """What test-time training gained, what it cost and when it has paid for itself, shortly."""
        return f"{self._gain()}{self._mixed()}{threshold_words(self.bundle)}"

    def _mixed(self) -> str:
        mixed = next((one for one in self.arms if one.arm == BLEND), None)
        if mixed is None or self.bundle is None or self.bundle.blend is None:
            return ""
        loss = next(name for name in ("log_loss", "rmse") if name in mixed.metrics)
        return (
            f" Mixed with {self.bundle.blend.weight:.0%} of boosted trees it has a {LABELS[loss]} of "
            f"{mixed.metrics[loss]:.4f}."
        )

    def _gain(self) -> str:
        before, ttt = self[ICL], self[TTT]
        n, k, training = self.split.n, self.split.k, ttt.training
        stopped, vetoed = (training.stopped, training.vetoed) if training else ("", ())
        if ttt.accepted is None or training is None:
            why = stopped or "the rule `none` trains nothing"
            return f"Nothing was trained: {why}. Both arms are plain in-context learning with {n} rows."
        if not ttt.accepted:
            why = refusal(stopped, vetoed) or f"no step lowered the loss on the held-out part of the {k} rows"
            return (
                f"TTT kept the pretrained weights: {why} "
                f"(loss {training.held_out['before']:.4f}), and checking took {ttt.seconds['adapt']:.1f} s."
            )
        loss = "log_loss" if "log_loss" in before.metrics else "nll"
        name = {"log_loss": "log loss", "nll": "negative log likelihood"}[loss]
        old, new = before.metrics[loss], ttt.metrics[loss]
        return (
            f"With the same {n} context rows TTT {'lowered' if new < old else 'RAISED'} the {name} "
            f"from {old:.4f} to {new:.4f} and moved {_second_figure(before.metrics, ttt.metrics)}; "
            f"it cost {ttt.seconds['adapt']:.1f} s, and {self._payback()}."
        )

    def _payback(self) -> str:
        rows, count = self.split.n + self.split.k, self.break_even_predictions
        if np.isinf(count):
            return f"a prediction is no cheaper here than with all {rows} rows as context"
        return (
            f"against icl@n+k ({rows} rows as context) it has paid for itself after {count:,.0f} predictions"
        )

    def __repr__(self) -> str:
        """Return the figures and the verdict."""
        head = f"{self.table.name}: {len(self.split.test):,} test rows"
        return f"{head}\n{self.to_frame().to_string()}\n{self.verdict}"

    def _repr_html_(self) -> str:
        """Return the same for a notebook."""
        head = f"{self.table.name}: {len(self.split.test):,} test rows"
        return f"<p>{html_text(head)}</p>{self.to_frame().to_html()}<p>{html_text(self.verdict)}</p>"


def threshold_words(bundle: Bundle | None) -> str:
    """Say from which probability on a row counts as of the second class, and what that changed."""
    chosen = bundle.record.get("threshold") if bundle is not None else None
    if bundle is None or chosen is None:
        return ""
    return (
        f" Rows count as {brief(bundle.schema.classes[1])} from a probability of {chosen['value']:.3f} on: "
        f"{LABELS.get(chosen['metric'], 'F1')} of {chosen['rows']} held-out rows {chosen['after']:.3f}, "
        f"at one half {chosen['before']:.3f}."
    )


def _second_figure(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    if "accuracy" in before:
        return f"accuracy by {100 * (after['accuracy'] - before['accuracy']):+.1f} points"
    return f"the RMSE by {100 * (after['rmse'] / before['rmse'] - 1):+.1f} %"
