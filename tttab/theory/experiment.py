"""What an experiment is: settings, rows, columns, tables and a figure under one name.

A command of `tttab theory`, its options, its table and its figure are made from an `Experiment` listed in
`registry`. Its module is imported on the way to `--help`, so it imports torch and numpy inside its functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from inspect import get_annotations
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tttab.errors import RequestError
from tttab.theory.plots import Panel

if TYPE_CHECKING:
    from torch import Tensor

Row = dict[str, Any]
T = TypeVar("T")
PAPER_A = "Linear attention (arXiv 2503.11842)"
PAPER_B = "Single-index models and transformers (arXiv 2509.25741)"


@dataclass(frozen=True, kw_only=True)
class About:
    """What a field of the settings says of itself as an option."""

    help: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    strict: bool = False
    """Whether the bounds themselves are excluded."""
    infinite: bool = False
    """Whether inf is a value."""
    switch: bool = False
    """A flag without its opposite: `--full`, but no `--no-full`."""


def option(default: T, help: str, **about: Any) -> T:
    """Return the dataclass field of an option with the fields of `About`; one of many values is a tuple."""
    return field(default=default, metadata=required(help, **about))


def required(help: str, **about: Any) -> dict[str, About]:
    """Return the metadata of a field that is an option without a default."""
    return {"about": About(help=help, **about)}


@dataclass(frozen=True)
class Option:
    """A field of the settings as an option of the command."""

    name: str
    kind: type
    """Of one value: int, float, bool, str or Path."""
    many: bool
    """Whether the field is a tuple; then a command takes a list with commas."""
    optional: bool
    """Whether None is a value."""
    choices: tuple[str, ...]
    """What the field's Literal names; empty: anything."""
    default: Any
    """MISSING: the option must be there."""
    about: About

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def example(self) -> str:
        """The option with a value that fits."""
        if self.default not in (MISSING, None, ()):
            return f"{self.flag} {self.text(self.default)}"
        if self.choices:
            return f"{self.flag} {self.choices[0]}"
        return f"{self.flag} {'64,128,256' if self.many else f'{self.about.low:g}'}"

    def text(self, value: Any) -> str:
        """Return a value as it is typed."""
        parts = value if self.many else [value]
        return ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)

    def check(self, value: Any) -> None:
        """Raise RequestError where a value is none of the choices or out of bounds."""
        for part in value if self.many else [value]:
            if self.choices and part is not None and part not in self.choices:
                *most, last = self.choices
                listed = f"{', '.join(most)} and {last}"
                raise RequestError(
                    f"unknown {self.name.replace('_', ' ')} {part}; there are {listed}", self.example
                )
            if self.kind in (int, float) and part is not None and not self._holds(part):
                raise RequestError(f"{self.flag} must be {self._bounds()}, got {part:g}", self.example)

    def _holds(self, value: float) -> bool:
        low, high = self.about.low, self.about.high
        inside = low < value < high if self.about.strict else low <= value <= high
        return inside and (math.isfinite(value) or self.about.infinite)

    def _bounds(self) -> str:
        about = self.about
        unit = f" {about.unit}" if about.unit else ""
        least, most = ("greater than", "less than") if about.strict else ("at least", "at most")
        words = [f"{least} {about.low:g}{unit}"] if math.isfinite(about.low) else []
        words += [f"{most} {about.high:g}{unit}"] if math.isfinite(about.high) else []
        return " and ".join(words) or "a finite number"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The choices of an experiment, each with its default.

    A field made by `option` is an option of the command; other fields are for Python alone.

    Raises:
        RequestError: a value is none of its choices or out of its bounds.
    """

    def __post_init__(self) -> None:
        for item in options(type(self)):
            item.check(getattr(self, item.name))


@cache
def options(settings: type[Settings]) -> tuple[Option, ...]:
    """Return the options of a settings class: its own first, then those of each base, as they are written."""
    hints = get_type_hints(settings)
    bases = enumerate(settings.__mro__)
    place = {name: depth for depth, base in bases for name in get_annotations(base)}
    ordered = sorted(fields(settings), key=lambda item: place[item.name])
    return tuple(
        _option(item.name, hints[item.name], item.default, item.metadata["about"])
        for item in ordered
        if "about" in item.metadata
    )


def _option(name: str, hint: Any, default: Any, about: About) -> Option:
    optional = get_origin(hint) in (UnionType, Union)
    if optional:
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    many = get_origin(hint) is tuple
    kind = get_args(hint)[0] if many else hint
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    return Option(name, str if choices else kind, many, optional, choices, default, about)


@dataclass(frozen=True)
class Progress:
    """How far what comes before the rows is, such as pre-training."""

    label: str
    done: int
    total: int
    info: str = ""
    note: str = ""
    """A remark to make when the label first comes."""
    interrupted: str = ""
    """What to say on Ctrl-C; the same settings go on."""


@dataclass(frozen=True)
class Table:
    """Rows as a reader sees them."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    remark: str = ""
    """A sentence below the table."""


def stderr(values: Tensor) -> float | None:
    """Return the standard error of the mean of `values`, shape (tasks,); None of a single task."""
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else None


def over_tasks(name: str, values: Tensor) -> Row:
    """Return the mean of `values`, shape (tasks,), under `name`, its `stderr` and their `median`."""
    return {name: float(values.mean()), "stderr": stderr(values), "median": float(values.quantile(0.5))}


class WrongOption(RequestError):
    """An option that does not fit the others; `changes` are the options of a command that fits."""

    def __init__(self, message: str, **changes: object) -> None:
        super().__init__(message, " ".join(f"--{name} {value}" for name, value in changes.items()))
        self.changes = changes


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, kw_only=True)
class Experiment(Generic[S]):
    """One experiment: all that a command, a table and a figure need to know of it."""

    name: str
    help: str
    example: str
    """The options of a command to copy."""
    group: str
    """The heading under which it stands in the help: `PAPER_A` or `PAPER_B`."""
    settings: type[S]
    rows: Callable[[S], Iterator[Row | Progress]]
    """A generator; it raises RequestError or MemoryPlanError before its first row where it cannot run."""
    columns: tuple[str, ...]
    """Every field that a row may have, in the order in which they first come."""
    quick: tuple[S, ...]
    """Settings that take a second, for tests; together their rows have every column."""
    tables: Callable[[Sequence[Row]], list[Table]] | None = None
    """None: one table with every column."""
    panels: Callable[[Sequence[Row]], list[Panel]] | None = None
    """From all rows to the panels of the figure; None: there is no figure."""
    title: Callable[[Sequence[Row]], str] | None = None
    """From all rows to the title of the figure; None: the name."""
    total: Callable[[S], int] | None = None
    """The number of rows to come; None: not known."""
    retry: Callable[[S], Mapping[str, object]] | None = None
    """The options to change where rows disagree with the exact law (`agrees: False`)."""

    def tables_of(self, rows: Sequence[Row]) -> list[Table]:
        """Return the tables of all rows."""
        return self.tables(rows) if self.tables else [Table(self.name, self.columns, rows)]

    def title_of(self, rows: Sequence[Row]) -> str:
        """Return the title of the figure of all rows."""
        return self.title(rows) if self.title else self.name
