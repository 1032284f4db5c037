"""The features of a raw table: each column's kind and values, and the notes on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
import pandas as pd

from tttab.core import Column
from tttab.data.cells import Cells, opened
from tttab.data.columns import IN_WORDS, LARGEST, convert
from tttab.data.guess import MANY_VALUES, Guess, declared_column, fit_declared, guess_column
from tttab.errors import RequestError
from tttab.text import brief, listed, shell_word


@dataclass(frozen=True)
class Features:
    """Converted features, and what was decided on the way."""

    x: pd.DataFrame
    """As `tttab.core.Table.x`."""
    columns: tuple[Column, ...]
    notes: tuple[str, ...]
    """What was decided, a sentence each."""
    doubts: tuple[str, ...]
    """Those of `notes` that a user may want otherwise: texts read as numbers or dates, cells left out."""


def convert_features(
    frame: pd.DataFrame,
    names: Sequence[str],
    *,
    decimals: Mapping[str, str] | None = None,
    declared: Mapping[str, str] | None = None,
) -> Features:
    """Return the features of a frame.

    Args:
        frame: the raw table.
        names: the feature columns.
        decimals: the decimal mark of each column where the file that it comes from told one.
        declared: what single columns are, as `declared_column` reads it; the others are guessed.

    Raises:
        DataError: a cell is no number, date or text, or not what its column was declared as.
        RequestError: a declaration names no column or no kind.
    """
    declarations = check_declared(declared, names)
    guesses: list[Guess] = []
    converted: dict[str, np.ndarray | pd.Categorical] = {}
    for name, values in frame[list(names)].items():
        cells, mark = opened(values), (decimals or {}).get(name, "")
        guesses.append(fit_column(cells, declarations.get(name), mark))
        converted[name] = convert(cells, guesses[-1].column, mark)
    columns = tuple(_with_levels(guess.column, converted[guess.column.name]) for guess in guesses)
    doubts = _doubts(guesses)
    notes = [*_notes(columns, converted), *doubts]
    values = {name: finite(cells) for name, cells in converted.items()}
    return Features(pd.DataFrame(values, index=frame.index), columns, tuple(notes), tuple(doubts))


def check_declared(declared: Mapping[str, str] | None, names: Collection[str]) -> dict[str, Column]:
    """Return declared columns by name.

    Raises:
        RequestError: a declaration names no column of `names`, or no kind.
    """
    for name in declared or {}:
        if name not in names:
            near = get_close_matches(str(name), list(names), n=1)
            raise RequestError(
                f"there is no column {brief(name)} to declare"
                + (f"; the nearest is {brief(near[0])}" if near else ""),
                f"--column {shell_word(near[0] if near else 'NAME')}={shell_word((declared or {})[name])}",
            )
    return {name: declared_column(name, text) for name, text in (declared or {}).items()}


def finite(values: np.ndarray | pd.Categorical) -> np.ndarray | pd.Categorical:
    """Return the values with NaN for infinite ones and those beyond `columns.LARGEST`."""
    if isinstance(values, pd.Categorical):
        return values
    return np.where(np.abs(values) <= LARGEST, values, np.nan)


def fit_column(values: pd.Series | Cells, declared: Column | None, decimal_mark: str = "") -> Guess:
    """Return what a column is: as declared, else guessed.

    Raises:
        DataError: its cells are nothing that a table can hold, or not what was declared.
    """
    if declared is None:
        return guess_column(values, decimal_mark)
    return fit_declared(values, declared, decimal_mark)


def _with_levels(column: Column, values: np.ndarray | pd.Categorical) -> Column:
    if not isinstance(values, pd.Categorical):
        return column
    return replace(column, levels=tuple(values.categories.tolist()))


def _notes(columns: Sequence[Column], converted: Mapping[str, np.ndarray | pd.Categorical]) -> list[str]:
    """Return what every reader of the table should know."""
    numbers = {name: cells for name, cells in converted.items() if not isinstance(cells, pd.Categorical)}
    infinite = [name for name, cells in numbers.items() if np.isinf(cells).any()]
    huge = [name for name, cells in numbers.items() if (np.isfinite(cells) & (np.abs(cells) > LARGEST)).any()]
    unique = [name for name, cells in converted.items() if _one_text_per_row(cells)]
    groups = {
        "infinite values count as missing": infinite,
        f"values beyond {LARGEST:g} count as missing": huge,
        "dates became days since 1970-01-01": [c.name for c in columns if c.kind == "date"],
        "a different text in every row, so nothing to learn (--column NAME=ignore leaves it out)": unique,
    }
    return [f"{words}: {listed(names)}" for words, names in groups.items() if names]


def _doubts(guesses: Sequence[Guess]) -> list[str]:
    """Return what was read out of texts, a sentence for each way of writing."""
    ways: dict[str, list[str]] = {}
    for guess in guesses:
        column = guess.column
        if guess.as_text and (column.kind != "date" or column.format):
            ways.setdefault(_way(column), []).append(column.name)
    doubts = [f"{way}: {listed(names)}" for way, names in ways.items()]
    doubts += [
        f"column {brief(guess.column.name)}: {_cells_left_out(guess)}" for guess in guesses if guess.dropped
    ]
    doubts += [
        f"column {brief(guess.column.name)}: its dates could also be read as {guess.other}; --column "
        f"{shell_word(guess.column.name)}=date:{guess.other} does so" for guess in guesses if guess.other
    ]  # fmt: skip
    return doubts


def _way(column: Column) -> str:
    written = f" written like {column.format}" if column.format else ""
    return f"texts were read as {IN_WORDS[column.kind]}{written} (--column NAME=level keeps texts)"


def _cells_left_out(guess: Guess) -> str:
    texts = ", ".join(map(brief, list(guess.dropped)[:3])) + (", …" if len(guess.dropped) > 3 else "")
    count = sum(guess.dropped.values())
    cells = "cell is" if count == 1 else "cells are"
    return f"{count:,} {cells} no {guess.column.kind}, missing from now on: {texts}"


def _one_text_per_row(values: np.ndarray | pd.Categorical) -> bool:
    return isinstance(values, pd.Categorical) and MANY_VALUES < len(values) == len(values.categories)
