"""Whether a schedule makes sense, before anything is read or opened."""

from __future__ import annotations

from tttab.core import Task
from tttab.errors import RequestError, check_name
from tttab.metrics import check_metric
from tttab.training.config import LARGEST_RATE, LOSSES, STARTS, Schedule
from tttab.training.context_policy import get_context_policy
from tttab.training.optimizers import get_optimizer
from tttab.training.precision import PRECISIONS
from tttab.training.selection import GUARDS


def check_schedule(schedule: Schedule, task: Task | None = None) -> None:
    """Raise RequestError where a value makes no sense, for a task if one is named."""
    if schedule.steps < 1:
        raise RequestError(f"steps must be at least 1, got {schedule.steps}", "--steps 50, or --rule none")
    for rate in (schedule.lr, *schedule.rates):
        if not 0 < rate <= LARGEST_RATE:
            raise RequestError(
                f"the learning rate must be above 0 and at most {LARGEST_RATE:g}, got {rate}", "--lr 3e-4"
            )
    check_name("start", schedule.init, STARTS, "--init")
    check_name("loss", schedule.loss, LOSSES, "--loss")
    if schedule.train_members is not None and schedule.train_members < 1:
        raise RequestError(
            f"at least one member must train, got {schedule.train_members}", "--train-members 1"
        )
    if schedule.step_members is not None and schedule.step_members < 1:
        raise RequestError(
            f"at least one member must train in a step, got {schedule.step_members}", "--step-members 1"
        )
    get_optimizer(schedule.optimizer)
    get_context_policy(schedule.split)
    check_name("guard", schedule.guard, GUARDS, "--guard")
    check_metric(schedule.metric, task)
    check_name("precision", schedule.precision, PRECISIONS, "--precision")
