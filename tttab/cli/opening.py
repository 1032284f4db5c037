"""What the commands that adapt share: opening the trial, and printing what was decided."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tttab.cli import output
from tttab.cli.options import columns_of
from tttab.errors import FallbackWarning

if TYPE_CHECKING:
    from tttab.core import Table
    from tttab.evaluation.setup import TrialRequest
    from tttab.evaluation.trial import Trial
    from tttab.training.result import Adapted, Estimate, Step

LONG_SECONDS = 120.0
FOLDS = (
    "kfold: in training the folds of n rows take turns as the context, with all other rows as queries. If "
    "one context is used for prediction, as here, the theory prefers --split fixed (docs/theory-open.md)"
)


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
    with output.waiting("opening the model", quiet=quiet), warnings.catch_warnings():
        if not quiet:  # the note below says the same
            warnings.simplefilter("ignore", FallbackWarning)
        trial = setup.open_trial(request, table, split)
    info = trial.model.info
    where = f"sha256 {info.sha256[:12]}…) on {trial.model.device}"
    output.note(f"model: {info.file} ({info.provenance}; {where}", quiet=quiet)
    if request.split == "kfold":
        output.note(FOLDS, quiet=quiet)
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
    return f"rate {step.size:.0e}  loss {step.loss:.4f}  held-out {step.held_out:.4f}  best {step.best:.4f}"


def expected(estimate: Estimate) -> str:
    """Say what training will cost, from one measured step."""
    from tttab.system.resources import format_bytes, format_seconds

    memory = f", {format_bytes(estimate.memory)} planned" if estimate.memory else ""
    opening = estimate.seconds - estimate.steps * estimate.step_seconds
    return (
        f"about {format_seconds(estimate.seconds)}: {format_seconds(opening)} to prepare, then up to "
        f"{estimate.steps} steps of {format_seconds(estimate.step_seconds)}; {estimate.members} of "
        f"{estimate.served} ensemble members train{memory}"
    )


def warn_of_length(step: Step, quiet: bool) -> None:
    """After the second step say what is to come, where somebody waits for more than two minutes."""
    from tttab.system.resources import format_seconds

    if step.number != 2:
        return
    whole = step.seconds / step.number * step.total
    if whole > LONG_SECONDS and output.stderr().is_terminal:
        remedies = "--time 2m, --members 2, --steps 20 or --rule head"
        output.note(f"training will take up to {format_seconds(whole)}; shorter with {remedies}", quiet=quiet)


def trained(trial: Trial, quiet: bool) -> Adapted:
    """Train, with what it will cost and a bar."""
    from tttab.api.calls import steps_of

    with output.waiting("preparing the context", quiet=quiet):
        adaptation = trial.adaptation()
        adaptation.prepare()
    if adaptation.result.estimate is not None:
        output.note(expected(adaptation.result.estimate), quiet=quiet)
    with output.progress(quiet=quiet) as bar:
        task = bar.add_task("adapting", total=trial.schedule.steps, info="")
        for step in steps_of(trial, adaptation):
            warn_of_length(step, quiet)
            bar.update(task, completed=step.number, total=step.total, info=step_info(step))
    return adaptation.result


@contextmanager
def ended_by_ctrl_c(trial: Trial, keep: bool) -> Generator[None]:
    """Let a first Ctrl-C end the training and keep what it has, where the user asked for that.

    A second one interrupts the command as ever.
    """
    pressed: list[int] = []
    if not keep:
        yield
        return

    def note(number: int, _: object) -> None:
        pressed.append(number)
        output.note("training ends after this step; Ctrl-C again interrupts the command")
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    trial.stop = lambda: "it was interrupted" if pressed else ""
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _describe(table: Table) -> str:
    target = f"{len(table.classes)} classes" if table.classes else "a regression target"
    where = f"OpenML {table.openml_id}, " if table.openml_id else ""
    return (
        f"table: {table.name} ({where}source: {table.source}), {len(table):,} rows, "
        f"{table.x.shape[1]} features, target {table.target!r} with {target}"
    )
