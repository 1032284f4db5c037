"""From the settings of an experiment to a command's options, and from the values typed back to settings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING
from math import isfinite
from typing import Any, TypeVar

import typer
from rich.markup import escape

from tttab.errors import RequestError
from tttab.theory.experiment import Option, Settings, options

S = TypeVar("S", bound=Settings)


def parameters(settings: type[Settings]) -> list[inspect.Parameter]:
    """Return the command's parameters, one per option of the settings."""
    return [_parameter(item) for item in options(settings)]


def parsed(settings: type[S], values: Mapping[str, Any]) -> S:
    """Return the settings of a command's values.

    Raises:
        RequestError: a list cannot be read, or a value is none of its choices or out of its bounds.
    """
    return settings(**{item.name: _value(item, values[item.name]) for item in options(settings)})


def _parameter(item: Option) -> inspect.Parameter:
    kind: Any = str if item.many else item.kind
    about, flags = item.about, [item.flag] if item.about.switch else []
    text = f"{about.help.removesuffix('.')}, {about.unit}." if about.unit else about.help
    default = item.text(item.default) if item.many and item.default is not MISSING else item.default
    return inspect.Parameter(
        item.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=typer.Option(... if default is MISSING else default, *flags, help=escape(text)),
        annotation=kind | None if item.optional else kind,
    )


def _value(item: Option, value: Any) -> Any:
    if not item.many:
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if item.kind is str:
        return tuple(parts or [""])
    if not parts and item.default == ():
        return ()
    return _whole_numbers(item, parts) if item.kind is int else _numbers(item, parts)


def _numbers(item: Option, parts: list[str]) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in parts)
    except ValueError:
        text = ",".join(parts)
        raise RequestError(f"{item.flag} takes numbers with commas, not {text}", item.example) from None
    if not values or not all(isfinite(value) or item.about.infinite for value in values):
        raise RequestError(f"{item.flag} takes at least one finite number", item.example)
    return values


def _whole_numbers(item: Option, parts: list[str]) -> tuple[int, ...]:
    values = _numbers(item, parts)
    if any(value < 1 or value != int(value) for value in values):
        rounded = ",".join(str(max(1, round(value))) for value in values)
        raise RequestError(
            f"{item.flag} takes whole numbers of at least 1, got {','.join(parts)}", f"{item.flag} {rounded}"
        )
    return tuple(int(value) for value in values)
