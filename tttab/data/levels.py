"""Category columns of two frames of one schema: the levels of one for the other, or codes as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def match_categories(x: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Give `x` the categories of `reference`; values that it never saw become missing."""
    import pandas as pd

    columns = {}
    for name in reference.columns:
        dtype, column = reference[name].dtype, x[name]
        if isinstance(dtype, pd.CategoricalDtype):
            known = column if isinstance(column.dtype, pd.CategoricalDtype) else column.astype("category")
            column = known.cat.set_categories(dtype.categories, ordered=dtype.ordered)
        columns[name] = column
    return pd.DataFrame(columns, index=x.index)


def drop_unused_categories(x: pd.DataFrame) -> pd.DataFrame:
    """Forget the categories that no row of `x` has."""
    import pandas as pd

    columns = {
        name: x[name].cat.remove_unused_categories()
        if isinstance(x[name].dtype, pd.CategoricalDtype)
        else x[name]
        for name in x.columns
    }
    return pd.DataFrame(columns, index=x.index)


def levels_of(x: pd.DataFrame) -> tuple[int, ...]:
    """Return the number of categories of each column; 0 where it holds numbers."""
    return tuple(len(x[name].cat.categories) if x[name].dtype == "category" else 0 for name in x.columns)


def coded(x: pd.DataFrame, levels: tuple[int, ...]) -> np.ndarray:
    """Return the cells as numbers, shape (rows, features): categories as codes, missing as NaN.

    Args:
        x: a frame of the schema that `levels` comes from.
        levels: `levels_of` the rows that are known; a category beyond them counts as missing.
    """
    columns = [
        _codes(x[name], count) if count else x[name].to_numpy(float)
        for name, count in zip(x.columns, levels, strict=True)
    ]
    return np.stack(columns, axis=1)


def _codes(column: pd.Series, count: int) -> np.ndarray:
    codes = column.cat.codes.to_numpy(float)
    return np.where((codes < 0) | (codes >= count), np.nan, codes)
