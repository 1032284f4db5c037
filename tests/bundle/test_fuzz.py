"""Bundles from hostile hands: any manifest ends in an answer or one BundleError, and touches nothing else.

More inputs: TTTAB_FUZZ=10000 python -m pytest tests/bundle/test_fuzz.py
"""

from __future__ import annotations

import copy
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bundle.test_faults import stand_in
from tests.support.manifests import write_manifest
from tttab.bundle import load_bundle, save_bundle
from tttab.bundle.manifest import MANIFEST, check_files, read_manifest
from tttab.errors import BundleError

INPUTS = int(os.environ.get("TTTAB_FUZZ", "150"))
FUZZ = settings(max_examples=INPUTS, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
NASTY = st.sampled_from(
    [
        "../../x",
        "/etc/passwd",
        "",
        "weights-0.ckpt",
        "\x00",
        "\ud800",
        "a" * 3000,
        "NaN",
        "=1+1",
        1e308,
        -1,
        2**70,
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | NASTY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle whose weights are no model: nothing behind the manifest's checks is reached by luck."""
    folder = tmp_path_factory.mktemp("fuzz") / "bundle"
    save_bundle(folder, stand_in(1))
    return folder


@pytest.fixture(scope="module")
def manifest(folder):
    return read_manifest(folder)


def paths_of(document, path=()):
    """Return the path of every value in a JSON document."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    found = [path] if path else []
    for key, value in items if isinstance(document, dict | list) else ():
        found.append((*path, key))
        if isinstance(value, dict | list):
            found += paths_of(value, (*path, key))
    return found


def answer(folder):
    """Load and check the bundle; return whether it was refused. Any other exception fails the test."""
    before = sorted(folder.parent.rglob("*"))
    refused = False
    for ask in (check_files, lambda place: load_bundle(place, device="cpu")):
        try:
            ask(folder)
        except BundleError as error:
            assert error.message.isprintable() or "\n" not in error.message
            refused = True
    assert sorted(folder.parent.rglob("*")) == before
    return refused


@FUZZ
@given(data=st.data())
def test_changed_values_under_a_fitting_hash(folder, manifest, data):
    document = copy.deepcopy(manifest)
    for path in data.draw(st.lists(st.sampled_from(paths_of(manifest)), min_size=1, max_size=3)):
        place = document
        try:
            for key in path[:-1]:
                place = place[key]
            if data.draw(st.booleans()):
                place[path[-1]] = data.draw(JSON)
            else:
                del place[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change has removed this place
    write_manifest(folder, document)
    assert answer(folder)  # the stand-in's weights are no checkpoint, so nothing loads


@FUZZ
@given(data=st.binary(max_size=400))
def test_bytes_that_are_no_manifest(folder, data):
    (folder / MANIFEST).write_bytes(data)
    assert answer(folder)


@FUZZ
@given(document=JSON)
def test_json_that_is_no_manifest(folder, document):
    (folder / MANIFEST).write_text(json.dumps(document))
    assert answer(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "9" * 10_000, "{" + " " * 1_000_000 + "}"])
def test_deep_and_large_manifests(folder, text):
    (folder / MANIFEST).write_text(text)
    assert answer(folder)


def test_a_manifest_that_is_no_regular_file(folder):
    (folder / MANIFEST).unlink()
    os.mkfifo(folder / MANIFEST)
    assert answer(folder)
