"""A user's own validation rows: they choose the step and are never trained on.

They are appended to the table; `splits.Split.held` marks them.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from tttab.core import Table
from tttab.data.build import fingerprint
from tttab.data.reading import read_frame
from tttab.data.schema import schema_of
from tttab.errors import DataError
from tttab.text import brief, shell_word


def append_file(table: Table, path: str | os.PathLike[str]) -> Table:
    """Return the table with the labelled rows of a file behind its own.

    Raises:
        DataError: the file cannot be read, or its rows are not of the table's form.
    """
    schema, name = schema_of(table), Path(path).name
    raw = read_frame(path, text_columns=(*schema.text_columns, *([table.target] if table.classes else ())))
    if table.target not in raw.frame.columns:
        raise DataError(
            f"{name} has no column {brief(table.target)}, which holds the labels",
            f"head -1 {shell_word(path)}",
        )
    if raw.frame.empty:
        raise DataError(f"{name} has no rows", "leave out --validation")
    read = schema.read(raw.frame, raw.decimals)
    labels = schema.labels(raw.frame[table.target], raw.decimals.get(table.target, ""))
    x, y = append_rows(table.x, read.x), np.concatenate([table.y, labels])
    notes = (
        *table.notes,
        f"the last {len(labels):,} rows are those of {name}: they choose the step",
        *read.remarks,
    )
    mark = fingerprint(x, y, table.classes, table.target)
    return replace(table, x=x, y=y, fingerprint=mark, notes=notes)


def append_rows(x: pd.DataFrame, more: pd.DataFrame) -> pd.DataFrame:
    """Return rows with more of the same schema behind them; texts that `x` never had are missing in those."""
    same = {
        name: values.cat.set_categories(x[name].cat.categories)
        if isinstance(x[name].dtype, pd.CategoricalDtype)
        else values
        for name, values in more.items()
    }
    return pd.concat([x, pd.DataFrame(same)], ignore_index=True)
