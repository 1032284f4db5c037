"""Frames and columns of other libraries as those of pandas: polars, Arrow and others that narwhals knows."""

from __future__ import annotations

from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd


def as_frame(data: Any) -> pd.DataFrame | None:
    """Return a frame in memory as a pandas one with the same names and values; None for what is no frame.

    The columns of other libraries arrive as Arrow columns, so whole numbers with gaps stay whole.
    """
    if isinstance(data, pd.DataFrame):
        return data
    known = nw.from_native(data, eager_only=True, pass_through=True)
    if not isinstance(known, nw.DataFrame):
        return None
    return known.to_arrow().to_pandas(types_mapper=pd.ArrowDtype)


def as_series(data: Any) -> pd.Series | None:
    """Return one column as a pandas series: a series of any library, a list or an array of one dimension.

    None for what is none of these.
    """
    if isinstance(data, pd.Series):
        return data
    if isinstance(data, list | tuple) or (isinstance(data, np.ndarray) and data.ndim == 1):
        return pd.Series(data, dtype=None if isinstance(data, np.ndarray) else object)
    known = nw.from_native(data, series_only=True, pass_through=True)
    if not isinstance(known, nw.Series):
        return None
    return pd.Series(pd.arrays.ArrowExtensionArray(known.to_arrow()), name=known.name or None)
