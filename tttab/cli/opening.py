"""What the commands that adapt share: putting the request together, and saying what was decided.

What does not belong here: options, adaptation and results.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tttab.cli import output
from tttab.cli.options import columns_of

if TYPE_CHECKING:
    from tttab.core import Table
    from tttab.evaluation.arms import Trial
    from tttab.evaluation.setup import TrialRequest
    from tttab.training.loop import Step


def open_trial(options: Mapping[str, Any], quiet: bool, *, keep_test: bool = True) -> Trial:
    """Load the table, draw the split and open the model, saying what was decided.

    Args:
        options: the options of `tttab run` by name.
        quiet: say nothing.
        keep_test: keep rows for a test; else every row is context or query.

    Raises:
        TttabError: a request that does not fit; nothing has been written.
    """
    from tttab.evaluation import setup

    request = _request(options)
    request.check()
    with output.waiting("loading the table", quiet=quiet):
        table, split = setup.draw_rows(request, keep_test=keep_test)
    output.note(_describe(table), quiet=quiet)
    for note in (*table.notes, *split.notes):
        output.note(f"note: {note}", quiet=quiet)
    with output.waiting("opening the model", quiet=quiet):
        trial = setup.open_trial(request, table, split)
    info = trial.model.info
    where = f"sha256 {info.sha256[:12]}…) on {trial.model.device}"
    output.note(f"model: {info.file} ({info.provenance}; {where}", quiet=quiet)
    if info.chosen:
        output.note(f"auto took {info.chosen}", quiet=quiet)
    return trial


def _request(options: Mapping[str, Any]) -> TrialRequest:
    from tttab.evaluation.setup import TrialRequest

    rest = {name: value for name, value in options.items() if name not in ("column", "dataset")}
    dataset = os.path.expanduser(options["dataset"])
    return TrialRequest(dataset=dataset, columns=columns_of(options["column"]), **rest)


def step_info(step: Step) -> str:
    """Say where training stands, for a progress bar."""
    return f"loss {step.loss:.4f}  held-out {step.held_out:.4f}  best {step.best:.4f}"


def _describe(table: Table) -> str:
    kinds = f"{len(table.classes)} classes" if table.classes else "a regression target"
    where = f"OpenML {table.openml_id}, " if table.openml_id else ""
    return (
        f"table: {table.name} ({where}source: {table.source}), {len(table):,} rows, "
        f"{table.x.shape[1]} features, target {table.target!r} with {kinds}"
    )
