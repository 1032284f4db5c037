"""Errors for Python users: the hint is part of the message and names parameters instead of options."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tttab.errors import RequestError, TttabError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PARAMETERS = {
    "n": "n_context", "k": "n_queries", "seed": "random_state", "max-memory": "max_memory",
    "members": "n_members", "time": "max_seconds",
    "group": "groups", "time-column": "times", "validation": "X_val",
    "weights": "sample_weight", "balanced": "class_weight",
    "train-members": "", "top-classes": "", "top-features": "", "test-size": "", "strict": "",
}  # fmt: skip
"""The estimators' parameter for an option where the names differ; empty where there is none."""
_OPTION = re.compile(r"(leave out )?--([a-z][a-z-]*)(?:[ =]([^\s,]+))?")
_NUMBER = re.compile(r"[0-9.]+(?:e-?[0-9]+)?")


def check_options(options: Mapping[str, Any], request: type[DataclassInstance]) -> None:
    """Raise RequestError where an option is no field of `request`."""
    known = sorted(item.name for item in fields(request))
    for name in options:
        if name not in known:
            raise RequestError(f"there is no option {name!r}; there are {', '.join(known)}")


@contextmanager
def in_python_words(names: Mapping[str, str] = PARAMETERS) -> Generator[None]:
    """Put the hint of every tttab error into its message, with parameters for options.

    Args:
        names: the parameter of each option whose name differs; an empty name drops the option.
    """
    try:
        yield
    except TttabError as error:
        hint = _translated(error.hint, names)
        error.message += f"; {hint}" if hint else ""
        error.args, error.hint = (error.message,), ""
        error.__notes__ = []
        raise


def _translated(hint: str, names: Mapping[str, str]) -> str:
    """Return a hint with `n_context=200` for `--n 200`; of "A, or in Python B" it is B."""
    _, in_python, rest = hint.partition("in Python ")
    if in_python:
        return f"try {rest}"
    parts = [_OPTION.sub(lambda found: _parameter(found, names), part) for part in hint.split(", or ")]
    kept = [part.strip() for part in parts if part.strip()]
    return ", or ".join(kept)


def _parameter(found: re.Match[str], names: Mapping[str, str]) -> str:
    without, option, value = found.groups()
    name = names.get(option, option.replace("-", "_"))
    if name and without:
        return f"leave out {name}"
    if not name or value is None:
        return name and f"{name}=True"
    if option == "column":
        column, _, kind = value.rpartition("=")
        return f"columns={{{column!r}: {kind!r}}}"
    choices = [word if _NUMBER.fullmatch(word) else repr(word) for word in value.split("|")]
    return " or ".join(f"{name}={word}" for word in choices)
