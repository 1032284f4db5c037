"""How a bundle was made, as plain data: table, split, adaptation, figures. The one place that writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tttab.metrics import DECISIONS, best_threshold, decided

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from tttab.contracts import Predictor
    from tttab.core import Table
    from tttab.data.splits import Split
    from tttab.training.config import Schedule
    from tttab.training.result import Adapted


def bundle_record(
    split: Split,
    adapted: Adapted,
    rule: str,
    schedule: Schedule,
    seed: int,
    *,
    table: Table | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return `Bundle.record`.

    Args:
        split: the rows that were used.
        adapted: what training gave.
        rule: the rule's name.
        schedule: how far the weights could move.
        seed: the training streams' seed.
        table: where the rows come from; None where they were handed in.
        metrics: figures of the pretrained and the adapted model, by the rows they were measured on.
    """
    record: dict[str, Any] = {}
    if table is not None:
        record["table"] = table_record(table)
    record |= {
        "split": {
            "n": split.n,
            "k": split.k,
            "test": len(split.test),
            "seed": split.seed,
            "rows": split.digest,
            "notes": list(split.notes),
            **({"held": split.held} if split.held else {}),
        },
        "adaptation": adaptation_record(adapted, rule, schedule, seed),
    }
    return record if metrics is None else record | {"metrics": dict(metrics)}


def threshold_record(
    metric: str,
    server: Predictor,
    x: pd.DataFrame,
    y: np.ndarray,
    weights: np.ndarray | None,
) -> dict[str, Any]:
    """Return the threshold that held-out rows choose, as plain data for `Bundle.record["threshold"]`.

    Args:
        metric: one of `tttab.metrics.DECISIONS`.
        server: what will serve.
        x: the held-out rows.
        y: their class codes, 0 or 1, shape (rows,).
        weights: how much each counts, shape (rows,); None: all alike.
    """
    p, judge = server.predict(x), DECISIONS[metric]
    value = best_threshold(y, p, metric, weights)
    found = {"before": judge(y, decided(p), weights), "after": judge(y, decided(p, value), weights)}
    return {"metric": metric, "value": value, "rows": len(y), **found}


def table_record(table: Table) -> dict[str, Any]:
    """Return which table a bundle was adapted to, as plain data for `Bundle.record["table"]`."""
    names = ("name", "source", "openml_id", "fingerprint", "target")
    return {name: getattr(table, name) for name in names} | {"rows": len(table)}


def adaptation_record(adapted: Adapted, rule: str, schedule: Schedule, seed: int) -> dict[str, Any]:
    """Return how the weights were adapted, as plain data for `Bundle.record["adaptation"]`."""
    metric = {"name": schedule.metric, "before": adapted.metric_before, "after": adapted.metric_after}
    return {
        "rule": rule,
        "schedule": (adapted.schedule or schedule).to_dict(),
        "seed": seed,
        "steps": len(adapted.history),
        "chosen_step": adapted.step,
        "rate": adapted.size,
        "softened": adapted.softened,
        "accepted": adapted.accepted,
        "stopped": adapted.stopped,
        "vetoed": list(adapted.vetoed),
        "seconds": adapted.seconds,
        "held_out_loss": {"before": adapted.before, "after": adapted.after},
        "held_out_ece": {"before": adapted.ece_before, "after": adapted.ece_after},
        "precision": adapted.precision,
        **({"held_out_metric": metric} if schedule.metric else {}),
    }
