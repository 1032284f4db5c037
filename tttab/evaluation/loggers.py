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

TOLD = ("loss", "held_out", "best", "ece", "metric", "size")
"""What is written down of every step."""


class RunLogger(Protocol):
    """Is told of a run: what was asked, each training step, the figures."""

    def step(self, arm: str, step: Step) -> None:
        """A training step of an arm is done."""
        ...

    def figures(self, arm: str, metrics: Mapping[str, float]) -> None:
        """An arm was measured."""
        ...

    def end(self, *, failed: bool) -> None:
        """The run is over."""
        ...


class Silent:
    """Writes nothing down."""

    def step(self, arm: str, step: Step) -> None:
        """Do nothing."""

    def figures(self, arm: str, metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def end(self, *, failed: bool) -> None:
        """Do nothing."""


class MLflow:
    """A run of MLflow, in the experiment and at the server that its environment variables name."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self._mlflow = import_module("mlflow")
        self._mlflow.start_run()
        self._mlflow.log_params({name: str(value) for name, value in asked.items()})

    def step(self, arm: str, step: Step) -> None:
        """Write a step down."""
        self._mlflow.log_metrics(_named(arm, _of_step(step)), step=step.number)

    def figures(self, arm: str, metrics: Mapping[str, float]) -> None:
        """Write figures down."""
        self._mlflow.log_metrics(_named(arm, metrics))

    def end(self, *, failed: bool) -> None:
        """End the run."""
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


class WandB:
    """A run of Weights & Biases, in the project that its environment variables name."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self._run = import_module("wandb").init(config=dict(asked))

    def step(self, arm: str, step: Step) -> None:
        """Write a step down."""
        self._run.log(_named(arm, _of_step(step)))

    def figures(self, arm: str, metrics: Mapping[str, float]) -> None:
        """Write figures down."""
        self._run.summary.update(_named(arm, metrics))

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
def logging_to(name: str | None, asked: Mapping[str, Any]) -> Generator[RunLogger]:
    """Yield the logger of a name, told what was asked; it is told of the end, whatever it is.

    Raises:
        RequestError: there is no such logger.
        MissingExtra: its package is not installed.
    """
    check_logger(name)
    logger = Silent() if name is None else LOGGERS[name](asked)
    try:
        yield logger
    except BaseException:
        logger.end(failed=True)
        raise
    logger.end(failed=False)


def _of_step(step: Step) -> dict[str, float]:
    return {name: getattr(step, name) for name in TOLD}


def _named(arm: str, values: Mapping[str, float]) -> dict[str, float]:
    """Return finite values under names that both services take: `ttt-n-k.loss` for the arm `ttt@n+k`."""
    prefix = arm.replace("@", "-").replace("+", "-")
    return {f"{prefix}.{name}": float(value) for name, value in values.items() if abs(value) < float("inf")}
