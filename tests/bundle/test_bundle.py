"""Bundles: what is written is what is served, damage is refused, and nothing in a bundle is run."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.manifests import forge
from tttab.bundle import Bundle, load_bundle, save_bundle
from tttab.bundle.manifest import MANIFEST, check_files, read_manifest
from tttab.errors import BundleError
from tttab.system.files import sha256_of

FRESH_PROCESS = """
import sys, numpy, pandas, torch
torch.set_num_threads(1)
from tttab.bundle import load_bundle
folder, rows, out = sys.argv[1:]
numpy.save(out, load_bundle(folder, device="cpu").predict(pandas.read_csv(rows)))
"""


@pytest.fixture(scope="module")
def bundle(tiny_model, mixed_frame):
    """The tiny model moved a little, with 60 context rows."""
    from tttab.data import Origin, schema_of, table_from_frame

    frame, y = mixed_frame
    table = table_from_frame(frame.assign(kind=np.array(["a", "b", "c"])[y]), Origin("mixed", "file"))
    session = tiny_model.fork()
    for number, weight in enumerate(session.module.parameters()):
        weight.data.add_(0.002 * (-1) ** number)
    session.log_temperature.data.add_(0.1)
    return Bundle(session, table.x.iloc[:60], table.y[:60], schema_of(table), {"loss": np.float64(0.5)})


@pytest.fixture
def saved(bundle, tmp_path):
    folder = tmp_path / "bundle"
    save_bundle(folder, bundle)
    return folder


def forge_file(folder: Path, role: str, content: bytes) -> None:
    """Put other content under a role, with every hash and name made to fit."""

    def change(manifest):
        about = manifest["files"][role]
        path = folder / "new"
        path.write_bytes(content)
        about["sha256"] = sha256_of(path)
        about["file"] = f"{role}-{about['sha256'][:16]}{Path(about['file']).suffix}"
        path.rename(folder / about["file"])

    forge(folder, change)


def test_round_trip_keeps_predictions_and_description(bundle, saved, mixed_frame):
    frame, _ = mixed_frame
    loaded = load_bundle(saved, device="cpu")
    assert np.array_equal(loaded.predict(frame), bundle.predict(frame))
    assert np.array_equal(loaded.y, bundle.y)
    assert loaded.schema == bundle.schema
    assert loaded.record == {"loss": 0.5}
    assert loaded.notes == ()
    assert loaded.session.info == bundle.session.info
    assert [verdict for _, _, verdict in check_files(saved)] == ["ok", "ok"]


def test_a_fresh_process_predicts_the_same(bundle, saved, mixed_frame, tmp_path):
    frame, _ = mixed_frame
    frame.to_csv(tmp_path / "rows.csv", index=False)
    command = [
        sys.executable, "-c", FRESH_PROCESS, str(saved), str(tmp_path / "rows.csv"), str(tmp_path / "p.npy"),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=120)
    assert np.abs(np.load(tmp_path / "p.npy") - bundle.predict(frame)).max() < 1e-6


def test_plain_tabpfn_loads_the_weights(bundle, saved, mixed_frame):
    import torch
    from tabpfn import TabPFNClassifier

    path = saved / read_manifest(saved)["files"]["weights"]["file"]
    assert not any(part in path.name for part in ("v2.5", "v2.6", "v3"))
    plain = TabPFNClassifier(
        model_path=path,
        device="cpu",
        random_state=0,
        fit_mode="fit_with_cache",
        inference_precision=torch.float32,
    )
    plain.fit(bundle.x, bundle.y)
    x = bundle.schema.apply(mixed_frame[0])
    assert np.abs(plain.predict_proba(x) - bundle.predict(mixed_frame[0])).max() < 1e-5


def test_saving_again_replaces_the_bundle_and_removes_the_old_files(bundle, saved):
    (saved / "mine.txt").write_text("kept")
    before = {path.name for path in saved.iterdir()}
    save_bundle(saved, replace(bundle, x=bundle.x.iloc[:50], y=bundle.y[:50]))
    after = {path.name for path in saved.iterdir()}
    assert len(after) == len(before)
    assert len(after - before) == 1  # the context is another, the weights are the same
    assert (saved / "mine.txt").read_text() == "kept"
    assert len(load_bundle(saved, device="cpu").y) == 50


def test_attachments_are_hashed_and_replaced_with_the_rest(bundle, tmp_path):
    save_bundle(tmp_path, bundle, {"result.json": lambda path: path.write_text("1")})
    save_bundle(tmp_path, bundle, {"result.json": lambda path: path.write_text("22")})
    (result,) = tmp_path.glob("result-*.json")
    assert result.read_text() == "22"
    result.write_text("23")
    assert ("result", result.name, "was changed: its hash is not the manifest's") in check_files(tmp_path)
    with pytest.raises(BundleError, match="cannot be the name"):
        save_bundle(tmp_path, bundle, {"../result.json": lambda path: None})


@pytest.mark.parametrize("role", ["weights", "context"])
def test_changed_or_missing_files_are_refused(saved, role):
    path = saved / read_manifest(saved)["files"][role]["file"]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="was changed"):
        load_bundle(saved, device="cpu")
    path.unlink()
    with pytest.raises(BundleError, match="is missing"):
        load_bundle(saved, device="cpu")


def test_a_changed_manifest_is_refused(saved):
    path = saved / MANIFEST
    path.write_text(path.read_text().replace('"rows": 60', '"rows": 59'))
    with pytest.raises(BundleError, match="its own SHA-256"):
        load_bundle(saved, device="cpu")


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "weights-0000000000000000.ckpt", "weights-.safetensors", "", None, 7, ["a"]],
)
def test_path_tricks_in_names_are_refused(saved, name):
    forge(saved, lambda manifest: manifest["files"]["weights"].update(file=name))
    with pytest.raises(BundleError, match="damaged or was changed"):
        load_bundle(saved, device="cpu")


@pytest.mark.parametrize("role", ["../x", "a/b", "A", "", "x" * 40])
def test_path_tricks_in_roles_are_refused(saved, role):
    about = {"sha256": "0" * 64, "file": f"{role}-{'0' * 16}.csv"}
    forge(saved, lambda manifest: manifest["files"].update({role: about}))
    with pytest.raises(BundleError, match="damaged or was changed"):
        check_files(saved)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("role", ["weights", "context"])
def test_a_pickle_in_a_bundle_is_never_run(saved, role, tmp_path):
    forge_file(saved, role, pickle.dumps(Bomb(tmp_path / "bang")))
    with pytest.raises(BundleError, match="cannot be used"):
        load_bundle(saved, device="cpu")
    assert not (tmp_path / "bang").exists()


def test_a_context_of_other_rows_or_columns_is_refused(saved, bundle, tmp_path):
    bundle.x.to_parquet(tmp_path / "other.parquet")
    forge_file(saved, "context", (tmp_path / "other.parquet").read_bytes())
    with pytest.raises(BundleError, match="does not hold the 60 context rows of the manifest"):
        load_bundle(saved, device="cpu")


def test_another_device_dtype_or_tabpfn_is_noted(saved):
    def change(manifest):
        manifest["model"].update(device="cuda", dtype="float16")
        manifest["versions"]["tabpfn"] = "9.0.0"

    forge(saved, change)
    device, dtype, version = load_bundle(saved, device="cpu").notes
    assert "cuda" in device
    assert "float16" in dtype
    assert "9.0.0" in version


def test_no_bundle_and_a_folder_that_cannot_be_made(bundle, tmp_path):
    with pytest.raises(BundleError, match="there is no bundle") as caught:
        load_bundle(tmp_path)
    assert "tttab adapt" in caught.value.hint
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        save_bundle(tmp_path / "file", bundle)


def test_a_bundle_pickles_without_its_cache(bundle, mixed_frame):
    p = bundle.predict(mixed_frame[0])
    data = pickle.dumps(bundle)
    assert len(data) < 2 * sum(w.numel() * 4 for w in bundle.session.module.parameters())
    assert np.array_equal(pickle.loads(data).predict(mixed_frame[0]), p)


def parquet(frame, **settings) -> bytes:
    stream = io.BytesIO()
    frame.to_parquet(stream, **settings)
    return stream.getvalue()


def test_the_context_is_read_once_so_what_was_hashed_is_what_is_used(bundle, saved, mixed_frame, monkeypatch):
    other = parquet(bundle.x.assign(kind="a", size=0.0))
    read = Path.read_bytes

    def swap_after(path):
        content = read(path)
        if path.name.startswith("context-"):
            path.write_bytes(other)
        return content

    monkeypatch.setattr(Path, "read_bytes", swap_after)
    loaded = load_bundle(saved, device="cpu")
    assert np.array_equal(loaded.x["size"], bundle.x["size"])
    assert np.array_equal(loaded.predict(mixed_frame[0]), bundle.predict(mixed_frame[0]))


def context_of(bundle):
    return bundle.x.assign(kind=np.array(["a", "b", "c"])[bundle.y])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.assign(size=[[1.0]] * 60), "does not hold the 60 context rows"),
        (lambda frame: frame.iloc[:59], "does not hold the 60 context rows"),
        (lambda frame: frame.drop(columns="kind"), "does not hold the 60 context rows"),
        (lambda frame: frame.drop(columns="size"), "lack 1 of 4 columns"),
        (lambda frame: frame.assign(size="big"), "not a number"),
        (lambda frame: frame.assign(size=b"\xff\xfe"), "number"),
        (lambda frame: frame.assign(kind="d"), "none of the table's classes"),
        (lambda frame: frame.assign(kind=None), "no value"),
        (lambda frame: frame.assign(kind=b"\xff"), ""),
    ],
)
def test_a_context_that_lies_under_a_fitting_hash_is_one_line(saved, bundle, change, message):
    forge_file(saved, "context", parquet(change(context_of(bundle))))
    with pytest.raises(BundleError, match="cannot be used") as caught:
        load_bundle(saved, device="cpu")
    assert message in caught.value.message


def test_a_small_context_file_does_not_fill_the_memory(saved, bundle):
    """20,000 times a text of 1 MB, coded once: 20 GB if it were written out."""
    rows = 20_000
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * 2**20]))
    columns = {name: pa.array(np.zeros(rows)) for name in bundle.x.columns}
    stream = io.BytesIO()
    table = pa.table({**columns, "colour": text, "kind": text})
    pq.write_table(table, stream, store_schema=False)
    forge_file(saved, "context", stream.getvalue())
    forge(saved, lambda manifest: manifest.update(rows=rows))
    code = "import sys; from tttab.cli import run; code = run(sys.argv[1:]); "
    code += "from tttab.system.resources import peak_resident_bytes; print(code, peak_resident_bytes() >> 20)"
    (saved / "rows.csv").write_text("size,weight,colour,constant\n1,2,red,1\n")
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", str(saved), str(saved / "rows.csv"), "--device", "cpu"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    exit_code, megabytes = map(int, done.stdout.split())
    assert exit_code == 2
    assert "far more memory" in done.stderr
    assert megabytes < 1500


def test_rows_beyond_what_the_file_can_hold_are_refused_before_they_are_made(saved, bundle):
    rows = 50_000_000
    columns = {name: pa.nulls(10, pa.float64()) for name in [*bundle.x.columns, "kind"]}
    stream = io.BytesIO()
    with pq.ParquetWriter(stream, pa.table(columns).schema) as writer:
        for _ in range(10):
            nulls = {name: pa.nulls(rows // 10, pa.float64()) for name in columns}
            writer.write_table(pa.table(nulls), row_group_size=rows)
    forge_file(saved, "context", stream.getvalue())
    forge(saved, lambda manifest: manifest.update(rows=rows))
    with pytest.raises(BundleError, match="far more memory"):
        load_bundle(saved, device="cpu")
