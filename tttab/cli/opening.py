"""What the commands that adapt share: opening table, split and model, and the cautions.

What does not belong here: options, adaptation and results.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tttab.cli import console
from tttab.text import shown

if TYPE_CHECKING:
    from tttab.core import Table
    from tttab.evaluation.arms import Unit
    from tttab.training.config import Schedule
    from tttab.training.loop import Adapted


def open_unit(request: Mapping[str, Any], quiet: bool, *, test: bool = True) -> Unit:
    """Load the table, draw the split and open the model, saying what was decided.

    Args:
        request: the options of `tttab run` by name.
        quiet: say nothing.
        test: keep rows for a test; else every row is context or query.

    Raises:
        TttabError: a request that does not fit; nothing has been written.
    """
    from tttab.cli.options import columns_of, task_of
    from tttab.data.context_selection import check_choice, choose_context
    from tttab.data.splits import SplitRequest, split_rows
    from tttab.errors import RequestError
    from tttab.resources import parse_bytes
    from tttab.rules import get_rule

    budget = parse_bytes(request["max_memory"])
    schedule = _schedule(request)
    get_rule(request["rule"])
    check_choice(request["context"])
    columns, task = columns_of(request["column"]), task_of(request["regression"])
    if request["seed"] < 0:
        raise RequestError(f"the seed must be at least 0, got {request['seed']}", "--seed 0")
    if request["task"] is not None and task is not None:
        raise RequestError("an OpenML task says itself what it is", f"leave out --{task}")
    sizes = SplitRequest(request["n"], request["k"], request["test_size"], strict=request["strict"])
    sizes.check()

    import numpy as np

    from tttab.data import load_table, load_task
    from tttab.data.narrow import keep_classes, keep_features
    from tttab.evaluation.arms import Unit
    from tttab.models import open_model

    with console.waiting("loading the table", quiet=quiet):
        if request["task"] is None:
            table = load_table(request["dataset"], target=request["target"], task=task, columns=columns)
        else:
            table = load_task(request["task"], request["fold"], columns=columns)
    if request["top_classes"] is not None:
        table = keep_classes(table, request["top_classes"])
    everything = np.arange(len(table)), np.arange(0)
    prescribed = table.official_split if test else everything
    split = split_rows(table.y, sizes, request["seed"], classes=len(table.classes), prescribed=prescribed)
    split = choose_context(split, request["context"], table.x, table.y, classes=len(table.classes))
    if request["top_features"] is not None:
        labelled = np.concatenate([split.context, split.queries])
        table = keep_features(table, request["top_features"], labelled)
    console.note(_describe(table), quiet=quiet)
    for note in (*table.notes, *split.notes):
        console.note(f"note: {note}", quiet=quiet)
    start = time.perf_counter()
    with console.waiting("opening the model", quiet=quiet):
        session = open_model(request["model"], table.task, device=request["device"])
    opened = time.perf_counter() - start
    session.check_fits(len(table.classes), table.x.shape[1])
    info = session.info
    console.note(
        f"model: {info.file} ({info.provenance}; sha256 {info.sha256[:12]}…) on {session.device}", quiet=quiet
    )
    return Unit(table, split, session, request["rule"], schedule, request["seed"], budget, opened)


def _schedule(request: Mapping[str, Any]) -> Schedule:
    from tttab.training.config import Schedule
    from tttab.training.loop import check_schedule

    names = ("steps", "lr", "optimizer", "init", "split", "guard", "precision")
    schedule = Schedule(**{name: request[name] for name in names})
    check_schedule(schedule)
    return schedule


def _describe(table: Table) -> str:
    kinds = f"{len(table.classes)} classes" if table.classes else "a regression target"
    where = f"OpenML {table.openml_id}, " if table.openml_id else ""
    return (
        f"table: {table.name} ({where}source: {table.source}), {len(table):,} rows, "
        f"{table.x.shape[1]} features, target {table.target!r} with {kinds}"
    )


def stopped(adapted: Adapted | None) -> list[str]:
    """Return a remark where training ended early."""
    return [f"training stopped early: {adapted.stopped}"] if adapted is not None and adapted.stopped else []


def refusal(about: Mapping[str, Any]) -> str:
    """Say why no trained weights were kept, where it was not for their held-out loss alone."""
    if about["stopped"]:
        return f"training stopped because {about['stopped']}"
    if about["vetoed"]:
        return f"{len(about['vetoed'])} steps had a lower held-out loss but were worse calibrated"
    return ""


def cautions(unit: Unit) -> list[str]:
    """Return what a careful user should know before believing the figures."""
    from tttab.data.checks import duplicates_between, thin_classes
    from tttab.models.catalog import REAL

    table, split = unit.table, unit.split
    found = []
    twins = duplicates_between(table.x, split.context, split.test)
    if twins:
        found.append(f"{twins} of {len(split.test)} test rows also stand in the context, feature for feature")
    for name, count in thin_classes(table, split.context).items():
        found.append(f"only {count} context rows for class {name!r}: a larger --n would help")
    if unit.session.info.provenance == REAL and table.source != "file":
        found.append(
            f"{unit.session.info.file} was further trained on real tables, perhaps on {table.name} itself: "
            "use --model tabpfn-v2 for a fair figure"
        )
    return found


def told(caught: list[warnings.WarningMessage]) -> list[str]:
    """Return the warnings that concern the user: not those about the code of a package underneath."""
    ours = [
        w for w in caught if not issubclass(w.category, DeprecationWarning | FutureWarning | ImportWarning)
    ]
    return [shown(warning.message, 200) for warning in ours]
