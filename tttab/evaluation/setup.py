"""What a comparison needs, put together once: table, split, opened model. Requests are checked first."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tttab.blend.blending import check_blend
from tttab.core import Table, Task
from tttab.data.apart import Apart, apart_of, split_apart, take_column
from tttab.data.context_selection import check_choice, choose_context
from tttab.data.splits import Split, SplitRequest, split_rows
from tttab.data.weights import take_weights
from tttab.errors import DataError, RequestError
from tttab.evaluation.loggers import check_logger
from tttab.evaluation.trial import Trial
from tttab.metrics import check_metric, check_threshold
from tttab.rules import get_rule
from tttab.system.resources import parse_bytes, parse_seconds
from tttab.text import brief, shell_word
from tttab.training.checks import check_schedule
from tttab.training.config import Schedule
from tttab.training.recipes import schedule_of


@dataclass(frozen=True)
class TrialRequest:
    """The options of `tttab run` and `tttab adapt`, by the same names."""

    dataset: str | int | Table = "31"
    """An OpenML id, a known name, a path, or a table in memory."""
    task: int | None = None
    """An OpenML task instead: its data set, target and official split."""
    fold: int = 0
    target: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """What single columns are: `{"zip": "level"}`."""
    regression: bool | None = None
    """Whether the target is a number or a class; None: guessed."""
    n: int = 200
    """Context rows: what the model reads at prediction time."""
    k: int = 1000
    """Further labelled rows, the training queries."""
    test_size: int | None = None
    """Test rows; None: a quarter of the table, at most 2,000."""
    validation: str | None = None
    """A file of labelled rows that choose the step, in the place of a part of the k; None: a part does."""
    group: str | None = None
    """The column whose equal values must not stand on two sides of the split; it is no feature."""
    time_column: str | None = None
    """The column that orders the rows: earlier ones train, later ones judge; it is no feature."""
    seed: int = 0
    model: str = "auto"
    rule: str = "full"
    recipe: str = "default"
    """Which schedule these replace where they are not None: see `training.recipes`."""
    steps: int | None = None
    lr: float | None = None
    optimizer: str | None = None
    init: str = "pretrained"
    context: str = "stratified"
    split: str = "fixed"
    guard: str = "loss"
    loss: str | None = None
    metric: str | None = None
    """What the guard compares in the place of the loss: `roc_auc`, `accuracy`, …"""
    precision: str = "auto"
    device: str = "auto"
    max_memory: str = "4G"
    top_classes: int | None = None
    top_features: int | None = None
    members: int | None = None
    """Ensemble members that serve; None: as many as the model's file says."""
    train_members: int | None = None
    """Ensemble members that train; None: all that serve."""
    step_members: int | None = None
    """Of those, how many one step trains, taking turns; None: at most two."""
    time: str | float | None = None
    """The most that training may take: seconds, or `120s`, `10m`, `1h`; None: all steps."""
    blend: str | None = None
    """`trees`: mix the predictions with those of boosted trees on the same rows; None: the model alone."""
    weights: str | None = None
    """The column that says how much each row counts in training, guard and metrics; it is no feature."""
    balanced: bool = False
    """Whether every class counts alike in training and guard."""
    threshold: str | None = None
    """Choose on held-out rows from which probability on a row counts as of the second of two classes, by
    `balanced_accuracy`, `accuracy` or `f1`; None: the likelier one."""
    log: str | None = None
    """Where steps and figures are written down: `mlflow` or `wandb`; None: nowhere."""
    strict: bool = False
    """Refuse to shrink k, and to take another model where the download of TabPFN v2 fails."""

    @property
    def schedule(self) -> Schedule:
        """How far the weights may move."""
        names = ("steps", "lr", "optimizer", "init", "split", "guard", "metric", "precision")
        names = (*names, "loss", "balanced", "train_members", "step_members")
        limit = None if self.time is None else parse_seconds(self.time)
        return schedule_of(self.recipe, max_seconds=limit, **{name: getattr(self, name) for name in names})

    @property
    def sizes(self) -> SplitRequest:
        """How many rows play which part."""
        return SplitRequest(self.n, self.k, self.test_size, strict=self.strict)

    @property
    def stated_task(self) -> Task | None:
        """The task that the options state; None: guessed."""
        return None if self.regression is None else "regression" if self.regression else "classification"

    def check(self) -> None:
        """Raise TttabError where an option makes no sense, before anything is read."""
        parse_bytes(self.max_memory)
        check_schedule(self.schedule)
        get_rule(self.rule)
        check_choice(self.context)
        check_blend(self.blend)
        check_threshold(self.threshold)
        check_logger(self.log)
        self.sizes.check()
        if self.seed < 0:
            raise RequestError(f"the seed must be at least 0, got {self.seed}", "--seed 0")
        if self.task is not None and self.stated_task is not None:
            raise RequestError("an OpenML task says itself what it is", f"leave out --{self.stated_task}")
        self._check_sides()

    def _check_sides(self) -> None:
        options = {"--validation": self.validation, "--group": self.group, "--time-column": self.time_column}
        stated = [option for option, value in options.items() if value is not None]
        if len(stated) > 1:
            raise RequestError(
                f"{' and '.join(stated)} both say which rows are held out", f"leave out {stated[-1]}"
            )


def draw_rows(request: TrialRequest, *, keep_test: bool = True) -> tuple[Table, Split]:
    """Load the table and say which rows play which part.

    Args:
        request: the options.
        keep_test: keep rows for a test; else every row is context or query.

    Raises:
        DataError: the table cannot be had.
        SplitError: it is too small for the sizes.
        RequestError: an option does not fit it.
    """
    request.check()
    table = _load(request)
    check_metric(request.metric, table.task)
    check_threshold(request.threshold, len(table.classes))
    if request.balanced and not table.classes:
        raise RequestError("a regression target has no classes to balance", "leave out --balanced")
    if request.top_classes is not None:
        from tttab.data.narrow import keep_classes

        table = keep_classes(table, request.top_classes)
    table, apart = _set_apart(table, request)
    rows, classes = len(table), len(table.classes)
    if apart is not None:
        if table.official_split is not None and keep_test:
            option = "--group" if request.group is not None else "--time-column"
            raise RequestError("an OpenML task says itself which rows are the test", f"leave out {option}")
        sizes, share = request.sizes, request.schedule.held_out
        split = split_apart(
            table.y, sizes, request.seed, apart, classes=classes, share=share, keep_test=keep_test
        )
    else:
        prescribed = table.official_split if keep_test else (np.arange(rows), np.arange(0))
        table, held = _with_validation(table, request)
        split = split_rows(
            table.y[:rows], request.sizes, request.seed, classes=classes, prescribed=prescribed, held=held
        )
    if request.weights is not None:
        table = take_weights(table, request.weights)
    split = choose_context(split, request.context, table.x, table.y, classes=classes)
    if request.top_features is not None:
        from tttab.data.narrow import keep_features

        table = keep_features(table, request.top_features, split.free)
    return table, split


def open_trial(request: TrialRequest, table: Table, split: Split) -> Trial:
    """Open the model for a table and its split, as `draw_rows` gives them.

    Raises:
        ModelError: the model cannot be had, or the table is beyond its limits.
    """
    from tttab.models import for_classes, open_model

    start = time.perf_counter()
    session = open_model(
        request.model, table.task, device=request.device, strict=request.strict, members=request.members
    )
    opened = time.perf_counter() - start
    session = for_classes(session, len(table.classes))
    session.check_fits(len(table.classes), table.x.shape[1])
    budget = parse_bytes(request.max_memory)
    return Trial(
        table, split, session, request.rule, request.schedule, request.seed, budget, opened,
        members=request.members,
    )  # fmt: skip


def _load(request: TrialRequest) -> Table:
    from tttab.data import load_table, load_task

    if request.task is not None:
        return load_task(request.task, request.fold, columns=request.columns)
    if isinstance(request.dataset, Table):
        return request.dataset
    return load_table(
        request.dataset, target=request.target, task=request.stated_task, columns=request.columns
    )


def _set_apart(table: Table, request: TrialRequest) -> tuple[Table, Apart | None]:
    """Return the table without the column that divides its rows, and what that column asks for."""
    import pandas as pd

    if request.group is not None:
        table, groups = take_column(table, request.group, "--group")
        return table, apart_of(groups=groups)
    if request.time_column is None:
        return table, None
    table, times = take_column(table, request.time_column, "--time-column")
    if isinstance(times.dtype, pd.CategoricalDtype):
        raise DataError(
            f"column {brief(request.time_column)} holds texts, which have no order in time",
            f"--column {shell_word(request.time_column)}=date:%d.%m.%Y",
        )
    return table, apart_of(times=times)


def _with_validation(table: Table, request: TrialRequest) -> tuple[Table, np.ndarray | None]:
    """Return the table with the validation rows behind its own, and their numbers."""
    if request.validation is None:
        return table, None
    from tttab.data.validation import append_file

    longer = append_file(table, request.validation)
    return longer, np.arange(len(table), len(longer))
