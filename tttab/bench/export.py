"""A store as one table for other programs: Parquet or CSV with a line per cell, or the form of bencheval.

bencheval (TabArena's aggregation) reads `method, task, seed, metric_error, time_train_s, time_infer_s`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tttab.bench.grid import error_of
from tttab.bench.output import output_path
from tttab.bench.records import Record
from tttab.bench.store import Contents
from tttab.errors import RequestError, StoreError
from tttab.text import shown

if TYPE_CHECKING:
    import pandas as pd

BENCHEVAL_COLUMNS = ("method", "task", "seed", "metric_error", "time_train_s", "time_infer_s", "imputed")


def export(contents: Contents, target: str | os.PathLike[str]) -> tuple[Path, list[str]]:
    """Write the store to `target`: `….parquet`, `….csv`, or `….bencheval` (CSV); return it with remarks.

    Raises:
        RequestError: another ending, or as `output_path`.
        StoreError: the store is empty.
    """
    path = Path(target)
    form = path.suffix.removeprefix(".") or path.name
    if form not in ("parquet", "csv", "bencheval"):
        raise RequestError(
            f"cannot export to {path.name}", "--export rows.parquet, rows.csv or rows.bencheval"
        )
    if not contents.records:
        raise StoreError("there are no rows to export", "tttab bench --suite smoke")
    if not path.suffix:
        path = path.with_name(f"rows.{form}")
    frame, remarks = bencheval_frame(contents) if form == "bencheval" else (rows_frame(contents), [])
    with output_path(path) as part:
        if form == "parquet":
            frame.to_parquet(part, index=False)
        else:
            frame.to_csv(part, index=False)
    return path, remarks


def rows_frame(contents: Contents) -> pd.DataFrame:
    """Return one line per cell, failed ones with their reason; metrics and seconds as columns.

    Texts stand as `tttab.text.shown` shows them. A metric that has the name of another column is left out.
    """
    import pandas as pd

    return pd.DataFrame([_flat(record) for record in contents.records])


def bencheval_frame(contents: Contents) -> tuple[pd.DataFrame, list[str]]:
    """Return the cells as bencheval reads them, and what a reader must know.

    The error is 1 - ROC AUC for two classes, log loss for more and RMSE for regression, as in TabArena.
    bencheval wants a full table. So a method that was tried on every (task, seed) but failed somewhere gets
    the worst error there, marked `imputed`; to leave the cell out would flatter it. A method that was not
    tried everywhere is left out and named in the remarks.
    """
    import pandas as pd

    tried = {(_method(r), r.cell.table, r.cell.seed): r for r in reversed(contents.records)}
    places = {(task, seed) for _, task, seed in tried}
    methods = {method for method, _, _ in tried}
    full = sorted(m for m in methods if all((m, *place) in tried for place in places))
    lines = [_line(tried[m, *place], m) for place in sorted(places) for m in full]
    frame = pd.DataFrame(lines, columns=list(BENCHEVAL_COLUMNS))
    frame["imputed"] |= frame["metric_error"].isna()
    groups = frame.groupby(["task", "seed"])
    for column in ("metric_error", "time_train_s", "time_infer_s"):
        frame[column] = frame[column].fillna(groups[column].transform("max"))
    remarks = [f"left out, not tried on every table and seed: {m}" for m in sorted(methods.difference(full))]
    if failed := int(frame["imputed"].sum()):
        why = "failed or without a defined error"
        remarks.append(f"{failed} cells, {why}, carry the worst of their table and seed, see `imputed`")
    lost = frame["metric_error"].isna()
    if lost.any():
        remarks.append(f"left out, every method failed there: {int(lost.sum())} lines")
    return frame[~lost].reset_index(drop=True), remarks


def _line(record: Record, method: str) -> tuple[str | float | None, ...]:
    cell, row = record.cell, record.row
    train, infer = row.seconds.get("adapt"), row.seconds.get("predict")
    return method, shown(cell.table), cell.seed, _error(record), train, infer, record.failed


def _error(record: Record) -> float | None:
    if record.failed:
        return None
    metrics = record.row.metrics
    if record.cell.task == "regression":
        return metrics.get("rmse")
    metric = "roc_auc" if record.cell.classes == 2 else "log_loss"
    return error_of(metric, metrics[metric]) if metric in metrics else None


def _method(record: Record) -> str:
    cell = record.cell
    test = f"{cell.test_asked} test rows" * bool(cell.test_asked)
    labels = (f"{cell.arm} n={cell.n}", cell.budget, cell.rule, cell.recipe, cell.model, test)
    return shown(" | ".join(filter(None, labels)))


def _flat(record: Record) -> dict[str, Any]:
    cell, row = record.cell, record.row
    labels = {name: getattr(cell, name) for name in type(cell).__dataclass_fields__}
    sizes = {"n_context": row.n_context, "ms_per_1000_rows": row.ms_per_1000_rows}
    cost = {"cache_bytes": row.cache_bytes, "steps": row.steps, "accepted": row.accepted}
    seconds = {f"seconds_{name}": value for name, value in row.seconds.items()}
    measurement = {
        "wall_seconds": record.wall_seconds,
        "finished": record.finished,
        "machine": record.machine,
    }
    flat = {**labels, **row.metrics, **sizes, **seconds, **cost, **measurement, "error": row.error} | labels
    return {shown(name): shown(value) if isinstance(value, str) else value for name, value in flat.items()}
