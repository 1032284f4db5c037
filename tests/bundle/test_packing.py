"""Packed bundles: smaller, byte for byte the same again, and of no other base."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from tests.bundle.test_bundle import forge, forge_file
from tttab.bundle import Bundle, load_bundle, save_bundle
from tttab.bundle.manifest import read_manifest
from tttab.bundle.packing import pack_bundle, unpack_bundle, weights_file
from tttab.cli import run
from tttab.errors import BundleError, ModelError


@pytest.fixture(scope="module")
def saved(tiny_model, mixed_frame, tmp_path_factory):
    """A bundle whose head moved a little, and one matrix in one number."""
    from tttab.data import Origin, schema_of, table_from_frame

    frame, y = mixed_frame
    table = table_from_frame(frame.assign(kind=np.array(["a", "b", "c"])[y]), Origin("mixed", "file"))
    session = tiny_model.fork()
    for weight in session.parameters("head"):
        weight.data.add_(1e-4 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    max(session.parameters("attention"), key=torch.numel).data.flatten()[3] += 0.5
    rng = torch.Generator().manual_seed(1)
    for weight in session.layers[0].parameters():
        if weight.ndim == 2:  # as the rule lora leaves it
            left, right = (torch.randn(size, 8, generator=rng) for size in weight.shape)
            weight.data.add_(1e-3 * left @ right.T)
    session.log_temperature.data.add_(0.1)
    rows = (table.x.iloc[:40], table.y[:40]), (table.x.iloc[40:60], table.y[40:60])
    folder = tmp_path_factory.mktemp("packing") / "people"
    save_bundle(folder, Bundle(session, *rows[0], schema_of(table), {"a": 1}, held=rows[1]))
    return folder


@pytest.fixture(scope="module")
def packed(saved):
    pack_bundle(saved, saved.with_name("packed"))
    return saved.with_name("packed")


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_what_comes_back_is_the_bundle_byte_for_byte(saved, packed, tmp_path, capfd):
    unpack_bundle(packed, tmp_path / "again")
    assert content(tmp_path / "again") == content(saved)
    sizes = {folder: sum(map(len, content(folder).values())) for folder in (saved, packed)}
    assert sizes[packed] < 0.25 * sizes[saved]
    assert not list(packed.glob("weights-*")) and run(["inspect", str(packed)]) == 0
    assert "packed\twhat training moved" in capfd.readouterr().out


def test_a_packed_bundle_serves_and_is_told_by_command(saved, packed, tmp_path, mixed_frame, capfd):
    expected = load_bundle(saved, device="cpu").predict(mixed_frame[0])
    assert np.array_equal(load_bundle(packed, device="cpu").predict(mixed_frame[0]), expected)
    assert run(["bundle", "pack", str(saved), "--out", str(tmp_path / "p"), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["before"] == read_manifest(saved)["files"]["weights"]["bytes"] > told["after"]
    assert 1 < told["moved"] < told["tensors"] and content(tmp_path / "p") == content(packed)
    assert run(["bundle", "unpack", str(tmp_path / "p"), "--out", str(tmp_path / "u")]) == 0
    assert content(tmp_path / "u") == content(saved)


def test_several_bundles_over_one_base_hold_each_weight_once_and_answer_as_alone(
    saved, packed, tmp_path, mixed_frame
):
    from fastapi.testclient import TestClient

    from tttab.cli.commands.serve import _open
    from tttab.serve.app import application

    other = load_bundle(saved, device="cpu")
    moved = other.session.parameters("head")[0]
    moved.data.mul_(0.9)
    save_bundle(tmp_path / "other", other)
    pack_bundle(tmp_path / "other", tmp_path / "other-packed")
    folders = {"people": packed, "other": tmp_path / "other-packed"}
    rows = json.loads(mixed_frame[0].tail(4).to_json(orient="records"))
    got, weights = {}, {}
    opened = {name: _open(folder, "cpu", weights) for name, folder in folders.items()}
    for bundle in opened.values():
        served = {weight.data_ptr() for weight in bundle.server._estimator.models_[0].parameters()}
        assert served == {weight.data_ptr() for weight in bundle.session.parameters("all")}
        assert served <= {weight.data_ptr() for weight in weights.values()}
    assert sum(w.numel() for w in weights.values()) <= other.session.info.parameters + moved.numel()
    with TestClient(application(opened)) as client:
        for name in folders:
            answers = client.post(f"/predict/{name}", json={"rows": rows}).json()["predictions"]
            got[name] = np.array([[answer[f"p({kind})"] for kind in "abc"] for answer in answers])
    for name, folder in (("people", saved), ("other", tmp_path / "other")):
        expected = load_bundle(folder, device="cpu").predict(mixed_frame[0].tail(4))
        assert np.array_equal(got[name], expected)
    assert np.abs(got["people"] - got["other"]).max() > 1e-4


def test_another_base_and_a_base_that_is_not_here_are_refused(saved, packed, tmp_path):
    with pytest.raises(ModelError, match=r"is not the base tttab-tiny-classifier\.safetensors"):
        unpack_bundle(packed, tmp_path / "u", next(saved.glob("weights-*")))
    copy = shutil.copytree(packed, tmp_path / "copy")
    forge(copy, lambda manifest: manifest["base"].update(name="tttab-huge"))
    with pytest.raises(ModelError, match="base model tttab-huge is not here") as caught:
        unpack_bundle(copy, tmp_path / "u")
    assert "--base FILE" in caught.value.hint and not (tmp_path / "u").exists()
    with pytest.raises(BundleError, match="cannot be used: the base model"):
        load_bundle(copy, device="cpu")


def test_of_a_low_rank_the_factors_and_the_last_bits_are_kept(saved, packed):
    from safetensors.numpy import load, load_file

    arrays = load(next(packed.glob("moved-*")).read_bytes())
    shapes = {name: array.shape for name, array in load_file(next(saved.glob("weights-*"))).items()}
    names = [name.partition(".")[2] for name in arrays if name.startswith("factors.")]
    assert len(names) > 3
    for name in names:
        rank, width = arrays[f"factors.{name}"].shape
        assert rank in (8, 9) and width == sum(shapes[name])  # 9 where a single number moved too
        kept = arrays[f"factors.{name}"].nbytes + arrays.get(f"moved.{name}", np.zeros(0)).nbytes
        assert kept < 2 * np.prod(shapes[name])  # half of the matrix


def damaged_header(arrays):
    import zlib

    text = b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}'
    data = zlib.compress(len(text).to_bytes(8, "little") + text)
    return arrays | {"header": np.frombuffer(data, np.uint8)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: {**arrays, "header": np.zeros(9, np.uint8)}, "cannot be unpacked"),
        (damaged_header, "the place of a is none"),
        (lambda arrays: {name: arrays[name] for name in list(arrays)[1:]}, "cannot be unpacked|not those"),
        (lambda arrays: dict.fromkeys(arrays, arrays["header"]), "cannot be unpacked"),
        (lambda arrays: {n: a[:, 1:] if n[0] == "f" else a for n, a in arrays.items()}, "of another matrix"),
    ],
)
def test_differences_that_lie_under_fitting_hashes_are_refused(packed, tmp_path, change, message):
    from safetensors.numpy import load, save

    copy = shutil.copytree(packed, tmp_path / "copy")
    arrays = load(next(copy.glob("moved-*")).read_bytes())
    forge_file(copy, "moved", save(change(arrays)))
    with pytest.raises(BundleError, match=message), weights_file(copy, read_manifest(copy)):
        pass


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pack", "{packed}", "--out", "{new}"], "packed already"),
        (["unpack", "{saved}", "--out", "{new}"], "is not packed"),
        (["pack", "{saved}", "--out", "{saved}"], "never packed or unpacked in place"),
        (["unpack", "{packed}", "--out", "{new}", "--base", "gone.ckpt"], "gone.ckpt is not the base"),
        (["pack", "{new}", "--out", "{packed}"], "there is no bundle"),
    ],
)
def test_mistakes_leave_nothing(saved, packed, tmp_path, capfd, words, message):
    places = {"{saved}": str(saved), "{packed}": str(packed), "{new}": str(tmp_path / "new")}
    assert run(["bundle", *(places.get(word, word) for word in words)]) == 2
    assert message in capfd.readouterr().err and not list(tmp_path.iterdir())
