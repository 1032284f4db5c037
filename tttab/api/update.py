"""A bundle trained further on new labelled rows, for Python and the command: `tttab.update`.

The new rows are further queries under the bundle's own context; a part of them is held out. The new weights
are kept only if the guard prefers them to the old ones on old and new held-out rows together.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tttab.api.calls import collected, held_rows, output_folder
from tttab.api.hints import check_options, in_python_words
from tttab.bundle import Bundle, load_bundle, room_for, save_bundle
from tttab.bundle.record import adaptation_record, table_record
from tttab.contracts import Execution, Session
from tttab.core import Table
from tttab.data.build import fingerprint
from tttab.data.checks import row_hashes
from tttab.data.levels import match_categories
from tttab.data.reading import RawFrame, read_frame
from tttab.data.schema import Schema
from tttab.data.splits import Split
from tttab.errors import DataError, RequestError
from tttab.evaluation.caveats import early_stop, refusal, user_warnings
from tttab.evaluation.trial import Trial
from tttab.rules import get_rule
from tttab.system.files import home_path
from tttab.system.resources import parse_bytes, parse_seconds
from tttab.training.checks import check_schedule
from tttab.training.config import Schedule
from tttab.training.result import Adapted
from tttab.training.selection import Score, Selector, score_of

if TYPE_CHECKING:
    from tttab.contracts import Context

FEWEST_ROWS = 10
"""New rows; of fewer the held-out part would be one row or two."""
COMMON_TWINS = 0.05
"""If a larger share of the bundle's rows equals another one, an equal new row may still be a new one."""
OLD, NEW = "old_held_out", "new_held_out"
_KEPT = ("steps", "lr", "optimizer", "split", "guard", "precision", "loss")
"""Fields of the bundle's schedule that an update keeps; a foreign bundle may hold values of any type."""


@dataclass(frozen=True)
class UpdateRequest:
    """The options of an update; None: as the bundle was adapted."""

    rule: str | None = None
    steps: int | None = None
    lr: float | None = None
    seed: int = 0
    time: str | float | None = None
    """The most that training may take: seconds, or `120s`, `10m`, `1h`; None: all steps."""
    max_memory: str = "4G"


@dataclass(frozen=True)
class UpdateResult:
    """The result of an update."""

    bundle: Bundle = field(repr=False)
    """The new version; the old bundle itself where the update was not accepted."""
    adapted: Adapted = field(repr=False)
    accepted: bool
    metrics: Mapping[str, Any]
    """Figures of the old and the new weights on the held-out parts of the new and of the old rows."""
    judged: tuple[Score, Score]
    """Of the old and the new weights, on all held-out rows together."""
    warnings: tuple[str, ...] = ()
    """What to know before believing the figures, a sentence each."""

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        before, after = self.judged
        if self.accepted:
            return (
                f"Step {self.adapted.step} of {len(self.adapted.history)} lowered the loss of "
                f"{before.rows:,} held-out rows from {before.loss:.4f} to {after.loss:.4f}."
            )
        why = refusal(self.adapted.stopped, self.adapted.vetoed)
        if not why and self.adapted.step:
            why = f"the new ones had a held-out loss of {after.loss:.4f}, the old ones {before.loss:.4f}"
        return f"The old weights are kept: {why or 'no step lowered the loss on new held-out rows'}."

    def __repr__(self) -> str:
        """Return the verdict."""
        return self.verdict


def update(
    bundle: str | os.PathLike[str] | Bundle,
    rows: str | os.PathLike[str] | pd.DataFrame,
    *,
    out: str | os.PathLike[str] | None = None,
    device: str = "auto",
    **options: Any,
) -> UpdateResult:
    """Train a bundle's model further on new labelled rows, as `tttab update` does.

    Args:
        bundle: a folder, or what `load_bundle` or `adapt` gave; it is never changed.
        rows: a file or a frame with the bundle's columns and its target.
        out: a folder for the new version; None, or where it is not accepted: nothing is written.
        device: where a bundle that is a folder runs.
        options: the fields of `UpdateRequest`: rule, steps, lr, seed, time, max_memory.

    Raises:
        DataError: the rows do not fit the bundle, or are too few.
        TttabError: an option makes no sense, or the bundle cannot be used.
    """
    check_options(options, UpdateRequest)
    with in_python_words({}), collected() as caught:
        opened = bundle if isinstance(bundle, Bundle) else load_bundle(home_path(bundle), device=device)
        raw = RawFrame(rows) if isinstance(rows, pd.DataFrame) else read_rows(Path(rows), opened.schema)
        trial = update_trial(opened, raw, UpdateRequest(**options))
        if out is not None:
            check_other_folder(home_path(out), bundle)
        with output_folder(out) as claim:
            if claim is not None:
                claim.check_room(room_for(trial.model))
            adaptation = trial.adaptation()
            for _ in adaptation:
                pass
            result = update_result(opened, trial, adaptation.result, caught)
            if claim is not None and result.accepted:
                save_bundle(claim, result.bundle)
    return result


def check_other_folder(out: Path, bundle: str | os.PathLike[str] | Bundle) -> None:
    """Raise RequestError where the new version would replace the old one."""
    if not isinstance(bundle, Bundle) and out.exists() and out.samefile(home_path(bundle)):
        raise RequestError("an update cannot replace its own bundle", f"--out {next_version(out)}")


def next_version(folder: Path) -> Path:
    """Return the first folder beside a bundle that is free: `churn-2` for `churn`, then `churn-3`."""
    folder = folder.resolve()
    found = re.fullmatch(r"(.+)-([1-9]\d{0,5})", folder.name)
    stem, number = (found[1], int(found[2])) if found else (folder.name, 1)
    while os.path.lexists(path := folder.with_name(f"{stem}-{number + 1}")):
        number += 1
    return path


def read_rows(path: Path, schema: Schema) -> RawFrame:
    """Return a file of labelled rows; cells of columns of texts stay text, those of labels too."""
    labels = (schema.target,) if schema.classes else ()
    return read_frame(path, text_columns=(*schema.text_columns, *labels))


def labelled(schema: Schema, raw: RawFrame) -> tuple[pd.DataFrame, np.ndarray, tuple[str, ...]]:
    """Return features, labels and remarks of labelled rows.

    Raises:
        DataError: a column is missing, a cell or label is not of its column's kind, or rows are few.
    """
    read = schema.read(raw.frame, raw.decimals)
    if schema.target not in raw.frame.columns:
        raise DataError(
            f"the new rows lack the target {schema.target!r:.60}", "an update needs rows with their labels"
        )
    if len(read.x) < FEWEST_ROWS:
        raise DataError(f"{len(read.x)} new rows are too few, {FEWEST_ROWS} are needed", "collect more rows")
    y = schema.labels(raw.frame[schema.target], raw.decimals.get(schema.target, ""))
    return read.x, y, read.remarks


def update_trial(bundle: Bundle, raw: RawFrame, request: UpdateRequest) -> Trial:
    """Return a trial whose queries are the new rows; its test rows are the bundle's own held-out rows.

    New rows that the bundle already has are left out: they would be both trained on and evaluated on.

    Raises:
        BundleError: the bundle keeps no rows.
        DataError: the rows do not fit the bundle, or too few of them are new.
        RequestError: an option makes no sense.
    """
    bundle.check_rows("an update")
    x, y, remarks = labelled(bundle.schema, raw)
    for remark in remarks:
        warnings.warn(remark, UserWarning, stacklevel=2)
    old = bundle.held or (bundle.x.iloc[:0], bundle.y[:0])
    parts = [match_categories(part, bundle.x) for part in (bundle.x, x, old[0])]
    rows, labels = pd.concat(parts, ignore_index=True), np.concatenate([bundle.y, y, old[1]])
    n, end = len(bundle.y), len(bundle.y) + len(y)
    queries = _not_in_bundle(rows, np.arange(n, end), np.r_[0:n, end : len(rows)])
    split = Split(np.arange(n), queries, np.arange(end, len(rows)), request.seed)
    rule, schedule = _rule_and_schedule(bundle.record, request)
    return Trial(
        _table(bundle, rows, labels), split, bundle.session, rule, schedule, request.seed,
        parse_bytes(request.max_memory),
    )  # fmt: skip


def update_result(
    bundle: Bundle, trial: Trial, adapted: Adapted, caught: Sequence[warnings.WarningMessage]
) -> UpdateResult:
    """Judge new weights on old and new held-out rows, by the guard that chose them.

    Args:
        bundle: the old one.
        trial: as `update_trial` gives it.
        adapted: what training gave.
        caught: the warnings that were raised on the way.
    """
    new, old = held_rows(trial), trial.rows("test")
    rows = pd.concat([new[0], old[0]], ignore_index=True), np.concatenate([new[1], old[1]])
    how = adapted.execution or Execution()
    before, after = (_score(one, trial.context, *rows, how) for one in (trial.model, adapted.session))
    choice = Selector(trial.schedule.guard, before)
    if adapted.step:
        choice.consider(adapted.step, adapted.size, after, dict)
    metrics = {
        name: _compared(trial, adapted, *part) for name, part in ((NEW, new), (OLD, old)) if len(part[1])
    }
    kept = bundle
    if choice.step:
        kept = replace(
            bundle, session=adapted.session, record=_record(bundle, trial, adapted, metrics), held=rows
        )
    remarks = [*user_warnings(caught), *early_stop(adapted)]
    if bundle.held is None:
        remarks.append("the bundle has no held-out rows, so only new ones evaluated the update")
    return UpdateResult(
        kept, adapted, choice.step > 0, metrics, (before, after), tuple(dict.fromkeys(remarks))
    )


def _not_in_bundle(rows: pd.DataFrame, new: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the numbers of new rows whose features no known row has; all, where twins are common."""
    hashes = row_hashes(rows)
    if len(np.unique(hashes[known])) < (1 - COMMON_TWINS) * len(known):
        return new
    fresh = new[~np.isin(hashes[new], hashes[known])]
    if len(fresh) < FEWEST_ROWS:
        raise DataError(
            f"{len(new) - len(fresh)} of {len(new)} new rows are already in the bundle",
            f"at least {FEWEST_ROWS} rows that the bundle does not have",
        )
    if len(fresh) < len(new):
        warnings.warn(
            f"{len(new) - len(fresh):,} rows are left out: the bundle has them already",
            stacklevel=3,
        )
    return fresh


def _rule_and_schedule(record: Mapping[str, Any], request: UpdateRequest) -> tuple[str, Schedule]:
    """Return rule and schedule: the bundle's, as far as they are valid, with the request's overrides."""
    adaptation = record.get("adaptation", {})
    saved, default = adaptation.get("schedule", {}), Schedule()
    saved = saved if isinstance(saved, dict) else {}
    inherited = {name: saved[name] for name in _KEPT if type(saved.get(name)) is type(getattr(default, name))}
    rates = saved.get("rates")
    if request.lr is None and isinstance(rates, list) and all(type(rate) is float for rate in rates):
        inherited["rates"] = tuple(rates)
    overrides = {name: value for name in ("steps", "lr") if (value := getattr(request, name)) is not None}
    limit = None if request.time is None else parse_seconds(request.time)
    schedule = Schedule(**inherited | overrides, max_seconds=limit)
    rule = request.rule or adaptation.get("rule", "none")
    check_schedule(schedule)
    if request.seed < 0:
        raise RequestError(f"the seed must be at least 0, got {request.seed}", "--seed 0")
    if get_rule(str(rule)).name == "none":
        raise RequestError("the bundle was adapted with the rule 'none', which trains nothing", "--rule full")
    return rule, schedule


def _table(bundle: Bundle, x: pd.DataFrame, y: np.ndarray) -> Table:
    schema = bundle.schema
    digest = fingerprint(x, y, schema.classes, schema.target)
    names = schema.columns, schema.label
    return Table(
        "update", schema.task, x, y, schema.classes, schema.target, digest, "file", None, (), None, *names
    )


def _score(session: Session, context: Context, x: pd.DataFrame, y: np.ndarray, how: Execution) -> Score:
    found = session.row_scores(context, session.queries(context, x, y), np.arange(len(y)), how)
    return score_of(found, y, context.classes, None)


def _compared(trial: Trial, adapted: Adapted, x: pd.DataFrame, y: np.ndarray) -> dict[str, Any]:
    """Return figures of the models alone: trees that are mixed in have seen the old held-out rows."""
    servers = (session.serve(trial.context) for session in (trial.model, adapted.session))
    before, after = (server.metrics(x, y, server.predict(x)) for server in servers)
    return {"rows": len(y), "before": before, "after": after}


def _record(bundle: Bundle, trial: Trial, adapted: Adapted, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of the new version; what it says of the version before moves to `updates`."""
    old = bundle.record
    before = {name: old[name] for name in ("adaptation", "metrics") if name in old}
    earlier = old["updates"] if isinstance(old.get("updates"), list) else []
    table = table_record(trial.table) | {"rows": trial.split.k}
    return {
        **old,
        "adaptation": adaptation_record(adapted, trial.rule, trial.schedule, trial.seed),
        "metrics": dict(metrics),
        "updates": [*earlier, {"rows": table["rows"], "fingerprint": table["fingerprint"], "before": before}],
    }
