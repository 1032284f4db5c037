"""Frames of other libraries as those of pandas, and back; narwhals knows polars, Arrow and more."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from tttab.errors import RequestError

FRAMES = ("default", "pandas", "polars", "pyarrow", "input")
"""What predictions can come as: an array, a frame of one of these libraries, or of that of the rows."""


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


def check_kind_of_frame(kind: str) -> None:
    """Raise RequestError where predictions cannot come as that."""
    if kind not in FRAMES:
        raise RequestError(f"predictions cannot come as {kind!r:.40}", f"--predict-proba {'|'.join(FRAMES)}")
    if kind == "polars" and find_spec("polars") is None:
        raise RequestError("polars is not installed", "pip install polars")


def like_rows(values: np.ndarray, names: Sequence[str], kind: str, rows: Any) -> Any:
    """Return values, shape (rows, columns), as a frame with these columns, in the form that is asked for.

    Args:
        values: what was predicted.
        names: of the columns.
        kind: one of `FRAMES`.
        rows: what they were predicted for; a pandas frame's index is that of the predictions.
    """
    known = nw.from_native(rows, eager_only=True, pass_through=True)
    if kind == "default" or (kind == "input" and not isinstance(known, nw.DataFrame)):
        return values
    library = nw.get_native_namespace(known) if kind == "input" else import_module(kind)
    made = nw.from_numpy(values, schema=list(names), backend=library).to_native()
    both = isinstance(made, pd.DataFrame) and isinstance(rows, pd.DataFrame)
    return made.set_axis(rows.index) if both else made
