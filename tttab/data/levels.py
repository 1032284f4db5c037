"""Category columns of frames that one schema made, side by side: the levels of one for the other.

What does not belong here: what a column means (`columns`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
