"""Manifests whose hashes fit and whose fields lie: one line that names the field, before any is used.

More inputs: TTTAB_FUZZ=10000 python -m pytest tests/bundle/test_manifest_form.py
"""

from __future__ import annotations

import copy
import os
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bundle.test_fuzz import JSON, paths_of
from tests.support.manifests import write_manifest
from tttab.api.estimator import TTTClassifier
from tttab.bundle import load_bundle
from tttab.bundle.manifest import check_files, read_manifest
from tttab.cli import run
from tttab.errors import BundleError, TttabError

INPUTS = int(os.environ.get("TTTAB_FUZZ", "50"))
FUZZ = settings(max_examples=INPUTS, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture(scope="module")
def rows(mixed_frame):
    return mixed_frame[0].iloc[:3]


@pytest.fixture(scope="module")
def folder(mixed_frame, tmp_path_factory):
    """A whole bundle of an estimator with text labels."""
    frame, y = mixed_frame
    labels = np.array(["low", "mid", "top"])[y]
    fitted = TTTClassifier(n_context=40, steps=1, model="tttab-tiny", device="cpu").fit(frame, labels)
    folder = tmp_path_factory.mktemp("form") / "bundle"
    fitted.save(folder)
    return folder


@pytest.fixture(scope="module")
def manifest(folder):
    return read_manifest(folder)


def changed(manifest, path, value):
    document = copy.deepcopy(manifest)
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = document
    for step in steps:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


LIES = [
    ("created", 7),
    ("tttab", None),
    ("task", "regression"),
    ("task", "ranking"),
    ("rows", 0),
    ("rows", True),
    ("rows", 1e9),
    ("rows", 10**12),
    ("held", {"rows": 5}),
    ("base", []),
    ("base.name", ...),
    ("base.provenance", {"a": 1}),
    ("model.seed", -1),
    ("model.seed", 2**64),
    ("model.seed", 0.5),
    ("model.device", "cuda\x1b]52;"),
    ("model.dtype", 32),
    ("schema", None),
    ("schema.columns", []),
    ("schema.columns", "size"),
    ("schema.columns.0", "size"),
    ("schema.columns.0.name", 7),
    ("schema.columns.1.name", "size"),
    ("schema.columns.2.levels", ["red", "red", "blue"]),
    ("schema.columns.2.levels", 3),
    ("schema.columns.2.levels", [1, 2, 3]),
    ("schema.target", "size"),
    ("schema.classes", []),
    ("schema.classes", ["a", "a", "b"]),
    ("schema.classes", ["a", None, "b"]),
    ("versions", {"tabpfn": 9}),
    ("record", 3),
    ("record.split", []),
    ("record.split.k", "many"),
    ("record.adaptation", "none"),
    ("record.adaptation.accepted", "yes"),
    ("record.estimator", []),
    ("record.estimator.parameters", ["n_context"]),
    ("record.estimator.parameters.rule", {"a": 1}),
    ("record.estimator.history", 7),
    ("record.estimator.history", [7]),
    ("record.estimator.names", "yes"),
    ("record.estimator.dtype", "<U500000000"),
    ("record.estimator.dtype", "<U4"),
    ("record.estimator.dtype", "<i8"),
    ("record.estimator.dtype", "<M8[ns]"),
    ("record.estimator.dtype", 8),
    ("record.estimator.classes", ["low", "mid"]),
    ("record.estimator.classes", ["low", "mid", ["top"]]),
    ("record.estimator.classes", ...),
    ("files", []),
    ("files.weights", "weights.safetensors"),
    ("files.weights.bytes", "many"),
    ("files.weights.sha256", 7),
    ("files.context", ...),
]


TOLD_AS = {
    ("schema.columns.1.name", "size"): "schema holds two 'columns' of one name",
    ("schema.target", "size"): "schema holds two 'columns' of one name",
    ("record.estimator.dtype", "<i8"): "record.estimator.classes holds 'low', which is no <i8",
}


@pytest.mark.parametrize(("path", "value"), LIES)
def test_a_lie_is_told_by_the_name_of_its_field(folder, manifest, path, value, capfd):
    write_manifest(folder, changed(manifest, path, value))
    twice = isinstance(value, list) and len(set(map(str, value))) < len(value)
    name = "colour" if twice and "levels" in path else path.rpartition(".")[2] if twice else path
    expected = f"schema holds two {name!r} of one name" if twice else TOLD_AS.get((path, str(value)), path)
    for ask in (check_files, load_bundle, TTTClassifier.load):
        with pytest.raises(BundleError) as caught:
            ask(folder)
        assert expected in caught.value.message
    assert run(["inspect", str(folder)]) == 1
    assert expected[:40] in capfd.readouterr().err


@pytest.mark.parametrize(
    ("dtype", "classes"),
    [
        ("<i1", [1, 2, 300]),
        ("<u2", [-1, 2, 3]),
        ("|b1", [0, 1, 2]),
        ("<i3", [1, 2, 3]),
        ("<f8", ["1", "2", "3"]),
    ],
)
def test_labels_must_be_of_their_type(folder, manifest, dtype, classes):
    document = changed(manifest, "record.estimator.dtype", dtype)
    document["record"]["estimator"]["classes"] = classes
    write_manifest(folder, document)
    with pytest.raises(BundleError, match=r"record\.estimator\.(dtype|classes)"):
        TTTClassifier.load(folder)


def test_depth_and_memory_stay_small(folder, manifest):
    deep = changed(manifest, "record.split", {})
    inner = deep["record"]["split"]
    for _ in range(300):
        inner["a"] = {}
        inner = inner["a"]
    write_manifest(folder, deep)
    with pytest.raises(BundleError, match="nested too deep"):
        read_manifest(folder)
    write_manifest(folder, changed(manifest, "record.estimator.dtype", "<U500000000"))
    tracemalloc.start()
    with pytest.raises(BundleError, match="dtype"):
        TTTClassifier.load(folder)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_the_whole_manifest_is_accepted(folder, manifest, rows):
    write_manifest(folder, copy.deepcopy(manifest))
    loaded = TTTClassifier.load(folder, device="cpu")
    assert loaded.classes_.tolist() == ["low", "mid", "top"]
    assert loaded.predict_proba(rows).shape == (3, 3)


@FUZZ
@given(data=st.data())
def test_whatever_a_manifest_says_it_ends_in_an_answer_or_one_line(folder, manifest, rows, data):
    document = copy.deepcopy(manifest)
    for path in data.draw(st.lists(st.sampled_from(paths_of(manifest)), min_size=1, max_size=2)):
        place = document
        try:
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = data.draw(JSON)
        except (KeyError, IndexError, TypeError):
            continue
    try:
        write_manifest(folder, document)
    except (TypeError, ValueError):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notes: another tabpfn, another device
            TTTClassifier.load(folder, device="cpu").predict_proba(rows)
    except TttabError as error:
        assert "\n" not in error.message
