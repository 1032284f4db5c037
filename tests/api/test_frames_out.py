"""Probabilities come as the frame that was asked for, in values and names those of the array."""

from __future__ import annotations

import pickle

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from sklearn.base import clone

import tttab.models
from tttab import TTTClassifier
from tttab.errors import RequestError
from tttab.models.families import FAMILIES
from tttab.testing import ToyFamily, ToySession


@pytest.fixture(scope="module")
def fitted(mixed_frame, tmp_path_factory):
    path = tmp_path_factory.mktemp("toy") / "toy.safetensors"
    ToySession().save(path)
    x, y = mixed_frame
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tttab.models, "FAMILIES", (*FAMILIES, ToyFamily()))
        return TTTClassifier(30, rule="none", model=str(path), device="cpu").fit(x, y * 10)


@pytest.mark.parametrize(
    ("kind", "made"), [("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "Table"), ("input", "")]
)
def test_frames_hold_the_array_and_the_names_of_the_classes(fitted, mixed_frame, kind, made):
    x = mixed_frame[0].set_index(np.arange(120)[::-1])
    plain = pickle.loads(pickle.dumps(fitted))
    array, told = plain.predict_proba(x), plain.predict(x)
    assert type(array) is np.ndarray
    model = pickle.loads(pickle.dumps(plain.set_output(predict_proba=kind)))
    for rows in (x, pl.from_pandas(x), pa.Table.from_pandas(x, preserve_index=False)):
        found = model.predict_proba(rows)
        assert type(found).__name__ == (made or type(rows).__name__)
        library = {"input": type(rows).__module__}.get(kind, kind).split(".")[0]
        assert type(found).__module__.split(".")[0] == library
        names = found.column_names if isinstance(found, pa.Table) else list(found.columns)
        assert names == ["0", "10", "20"]
        np.testing.assert_array_equal(np.column_stack([found[name] for name in names]), array)
        assert np.array_equal(model.predict(rows), told)
    again = model.predict_proba(x)
    assert made != "DataFrame" or kind != "pandas" or list(again.index) == list(x.index)
    assert clone(model)._sklearn_output_config == {"predict_proba": kind}
    numbers = model.set_output().predict_proba(x)
    assert type(numbers) is np.ndarray


def test_a_kind_that_is_none_is_refused(fitted):
    with pytest.raises(RequestError, match="cannot come as 'dask'; predict_proba='default' or"):
        fitted.set_output(predict_proba="dask")
