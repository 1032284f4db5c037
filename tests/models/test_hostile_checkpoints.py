"""Damaged checkpoints and result stores: one clear error or what is still whole, never code run."""

from __future__ import annotations

import json
import os
import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.bomb import Bomb
from tttab.bench.store import read_store
from tttab.errors import ModelError, StoreError
from tttab.models.catalog import WEIGHTS
from tttab.models.tabpfn.checkpoint import read_checkpoint

TRIES = int(os.environ.get("TTTAB_FUZZ", "100"))
quick = settings(
    max_examples=TRIES, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def damages(draw, whole):
    """Cut, overwrite or insert bytes, mostly near the start where the header is."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, min(len(data) - 1, 4000))) if data else 0
        match draw(st.sampled_from(["cut", "overwrite", "insert"])):
            case "cut":
                del data[place:]
            case "overwrite":
                data[place : place + 8] = draw(st.binary(min_size=1, max_size=8))
            case "insert":
                data[place:place] = draw(st.binary(min_size=1, max_size=64))
    return bytes(data)


def small_checkpoint():
    import torch
    from safetensors.torch import save

    return save(
        {"w": torch.zeros(2)}, metadata={"config": '{"emsize": 8}', "architecture_name": '"tabpfn_v2"'}
    )


@quick
@given(damages(small_checkpoint()))
def test_damaged_safetensors_are_refused_or_read_whole(tmp_path, data):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    try:
        assert read_checkpoint(path)["config"] is not None
    except ModelError as error:
        assert "\n" not in error.message


@quick
@given(st.binary(max_size=300) | st.recursive(st.integers() | st.text(), st.lists).map(pickle.dumps))
def test_arbitrary_bytes_as_ckpt_are_refused(tmp_path, data):
    path = tmp_path / "model.ckpt"
    path.write_bytes(data)
    with pytest.raises(ModelError):
        read_checkpoint(path)


def test_code_in_a_ckpt_is_never_run(tmp_path):
    import torch

    exploded = tmp_path / "exploded"
    for name, save in (
        ("a.ckpt", lambda thing, path: path.write_bytes(pickle.dumps(thing))),
        ("b.ckpt", torch.save),
    ):
        path = tmp_path / name
        save({"state_dict": {}, "config": Bomb(exploded)}, path)
        with pytest.raises(ModelError, match="not a readable checkpoint"):
            read_checkpoint(path)
        assert not exploded.exists()


def test_the_bundled_file_cut_short_is_refused(tmp_path):
    whole = (WEIGHTS / "tttab-tiny-classifier.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError):
        read_checkpoint(path)


LINES = st.lists(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(
                    st.sampled_from(["kind", "key", "row", "arm", "identity", "x"]), inner, max_size=5
                )
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
    ),
    max_size=6,
)


@quick
@given(LINES)
def test_a_damaged_store_is_read_or_refused_in_one_line(tmp_path, lines):
    folder = tmp_path / "store"
    folder.mkdir(exist_ok=True)
    (folder / "cells-a.jsonl").write_bytes(b"\n".join(lines))
    try:
        read_store(folder).records
    except StoreError as error:
        assert "\n" not in error.message
