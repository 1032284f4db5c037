"""Where a run may be logged while it is running: a small protocol, and adapters for MLflow and W&B.

A logger of your own is any object with the three methods.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from tttab.errors import MissingExtra, RequestError

if TYPE_CHECKING:
    from tttab.training.result import Step

LOGGED = ("loss", "held_out", "best", "ece", "metric", "size")
"""The figures of a step that are logged."""


class RunLogger(Protocol):
    """Records a run: each training step, the figures, the end."""

    def step(self, arm: str, step: Step) -> None:
        """A training step of an arm is done."""
        return

    def figures(self, arm: str, metrics: Mapping[str, float]) -> None:
        """An arm was measured."""
        return

    def end(self, *, failed: bool) -> None:
        """The run is over."""
        return


class Silent(RunLogger):
    """Logs nothing."""


class MLflow:
    """A run of MLflow, in the experiment and at the server that its environment variables name."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._mlflow = import_module("mlflow")
        self._mlflow.start_run()
        self._mlflow.log_params({name: str(value) for name, value in request.items()})

    def step(self, arm: str, step: Step) -> None:
        """Log a step."""
        self._mlflow.log_metrics(_prefixed(arm, _of_step(step)), step=step.number)

    def figures(self, arm: str, metrics: Mapping[str, float]) -> None:
        """Log figures."""
        self._mlflow.log_metrics(_prefixed(arm, metrics))

    def end(self, *, failed: bool) -> None:
        """End the run."""
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


class WandB:
    """A run of Weights & Biases, in the project that its environment variables name."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._run = import_module("wandb").init(config=dict(request))

    def step(self, arm: str, step: Step) -> None:
        """Log a step."""
        self._run.log(_prefixed(arm, _of_step(step)))

    def figures(self, arm: str, metrics: Mapping[str, float]) -> None:
        """Log figures."""
        self._run.summary.update(_prefixed(arm, metrics))

    def end(self, *, failed: bool) -> None:
        """End the run."""
        self._run.finish(exit_code=int(failed))


LOGGERS: dict[str, Callable[[Mapping[str, Any]], RunLogger]] = {"mlflow": MLflow, "wandb": WandB}
"""By the name of `--log`, which is that of the package and of the extra."""


def check_logger(name: str | None) -> None:
    """Raise RequestError where there is no such logger, MissingExtra where its package is not installed."""
    if name is None:
        return
    if name not in LOGGERS:
        raise RequestError(f"no logger is called {name!r}", f"--log {'|'.join(LOGGERS)}")
    if find_spec(name) is None:
        raise MissingExtra(name, name)


@contextmanager
def logging_to(name: str | None, request: Mapping[str, Any]) -> Generator[RunLogger]:
    """Yield the logger called `name` and end it, whether the run succeeds or fails.

    Args:
        name: one of `LOGGERS`; None logs nothing.
        request: the options of the run, logged as its parameters.

    Raises:
        RequestError: there is no such logger.
        MissingExtra: its package is not installed.
    """
    check_logger(name)
    logger = Silent() if name is None else LOGGERS[name](request)
    try:
        yield logger
    except BaseException:
        logger.end(failed=True)
        raise
    logger.end(failed=False)


def _of_step(step: Step) -> dict[str, float]:
    return {name: getattr(step, name) for name in LOGGED}


def _prefixed(arm: str, values: Mapping[str, float]) -> dict[str, float]:
    """Return finite values under names that both services take: `ttt-n-k.loss` for the arm `ttt@n+k`."""
    prefix = arm.replace("@", "-").replace("+", "-")
    return {f"{prefix}.{name}": float(value) for name, value in values.items() if abs(value) < float("inf")}
