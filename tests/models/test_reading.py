"""A model file is read once: what was hashed is checked and used, whatever happens to the file meanwhile."""

from __future__ import annotations

import builtins
import dataclasses
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.bomb import Bomb
from tests.support.small_models import SIZES, small_model
from tttab.errors import BundleError, ModelError
from tttab.models import open_model
from tttab.models.tabpfn.checkpoint import read_checkpoint
from tttab.pretrain import checkpoint as pretraining
from tttab.pretrain import choose
from tttab.pretrain.settings import recipe
from tttab.system.files import sha256_of


def as_ckpt(source, target, **more):
    """Write a safetensors checkpoint as a torch archive."""
    content = read_checkpoint(source)
    del content["sha256"]
    torch.save(content | more, target)
    return target


@pytest.fixture
def two(tmp_path):
    """Two files of the same form with other weights."""
    files = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for seed, file in enumerate(files):
        small_model(seed=seed).save(file)
    return files


def swap_after_first_opening(monkeypatch, path, other):
    """From the second opening on, `path` is another file; who holds the first one keeps it."""
    real, opened = builtins.open, []

    def open_and_swap(file, *arguments, **settings):
        stream = real(file, *arguments, **settings)
        if isinstance(file, str | os.PathLike) and Path(file) == path and not opened:
            opened.append(path)
            shutil.copy(other, path.with_name("swapped"))
            os.replace(path.with_name("swapped"), path)
        return stream

    monkeypatch.setattr(builtins, "open", open_and_swap)
    return opened


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_file_swapped_while_it_is_read_gives_the_weights_whose_hash_is_recorded(
    two, tmp_path, monkeypatch, suffix
):
    first, second = two
    if suffix == ".ckpt":
        first, second = (as_ckpt(file, file.with_suffix(suffix)) for file in two)
    wanted, digest = open_model(str(first), device="cpu").module, sha256_of(first)
    opened = swap_after_first_opening(monkeypatch, first, second)
    session = open_model(str(first), device="cpu")
    assert opened and sha256_of(first) == sha256_of(second) != digest
    assert session.info.sha256 == digest
    assert same_weights(session.module, wanted)


def test_a_pickle_swapped_in_runs_no_code_where_torch_is_told_to_allow_it(two, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    first, exploded = as_ckpt(two[0], tmp_path / "first.ckpt"), tmp_path / "exploded"
    bomb = as_ckpt(two[1], tmp_path / "bomb.ckpt", extra=Bomb(exploded))
    with pytest.raises(ModelError, match="neither a tensor nor plain data") as caught:
        open_model(str(bomb), device="cpu")
    assert "\n" not in caught.value.message
    swap_after_first_opening(monkeypatch, first, bomb)
    assert same_weights(open_model(str(first), device="cpu").module, small_model(seed=0).module)
    assert not exploded.exists()
    with pytest.raises(ModelError):
        open_model(str(first), device="cpu")
    assert not exploded.exists()


def test_another_hash_than_the_expected_one_is_refused(two):
    digest = sha256_of(two[0])
    assert open_model(str(two[0]), device="cpu", expected_sha256=digest).info.sha256 == digest
    with pytest.raises(ModelError, match=r"was changed: its hash is"):
        open_model(str(two[1]), device="cpu", expected_sha256=digest)


def test_bundle_weights_swapped_after_their_hash_was_checked_are_refused(
    tiny_model, mixed_table, tmp_path, monkeypatch
):
    from tttab.bundle import bundle as bundles
    from tttab.data import schema_of

    x, y, folder = mixed_table.x[:60], mixed_table.y[:60], tmp_path / "bundle"
    bundles.save_bundle(folder, bundles.Bundle(tiny_model, x, y, schema_of(mixed_table), {}))
    other = tiny_model.fork()
    with torch.no_grad():
        next(iter(other.module.parameters())).add_(1.0)
    other.save(tmp_path / "other.safetensors")
    weights = next(folder.glob("weights-*"))
    read = bundles.read_context

    def swap_then_read(*arguments):
        shutil.copy(tmp_path / "other.safetensors", weights)
        return read(*arguments)

    assert len(bundles.load_bundle(folder, device="cpu").y) == 60
    monkeypatch.setattr(bundles, "read_context", swap_then_read)
    with pytest.raises(BundleError, match="was changed: its hash is"):
        bundles.load_bundle(folder, device="cpu")


def test_pretraining_starts_from_the_weights_whose_hash_it_is_told(tmp_path, monkeypatch):
    settings = recipe("nano", "classification")
    for seed, name in enumerate(("first", "second")):
        pretraining.write_model(
            tmp_path / f"{name}.safetensors", pretraining.new_network(settings, seed), settings
        )
    first = tmp_path / "first.safetensors"
    digest, network = sha256_of(first), pretraining.new_network(settings, 7)
    swap_after_first_opening(monkeypatch, first, tmp_path / "second.safetensors")
    assert pretraining.load_weights(network, first) == digest
    assert same_weights(network, pretraining.new_network(settings, 0))


def test_a_run_is_continued_by_the_hash_of_the_weights_it_started_from(tmp_path, monkeypatch):
    from tttab.pretrain.loop import Run, Trainer
    from tttab.pretrain.settings import Budget

    settings = recipe("nano", "classification")
    for seed, name in enumerate(("first", "second")):
        network = pretraining.new_network(settings, seed)
        pretraining.write_model(tmp_path / f"{name}.safetensors", network, settings)
    first = tmp_path / "first.safetensors"
    digest = sha256_of(first)
    swap_after_first_opening(monkeypatch, first, tmp_path / "second.safetensors")
    run = Run(settings, Budget(steps=1), tmp_path / "out", seed=3, start_from=first)
    trainer = Trainer(run, None)
    assert json.loads(trainer._identity())["from"] == digest != sha256_of(first)
    assert same_weights(trainer._network, pretraining.new_network(settings, 0))


def test_choosing_hands_tabpfn_what_was_read_and_no_file(tmp_path, monkeypatch):
    import tabpfn
    from tabpfn.checkpoint import Checkpoint

    from tttab.models.catalog import WEIGHTS

    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    table = choose.HeldOut(x[:30], (x[:30, 0] > 0) * 1.0, x[30:], (x[30:, 0] > 0) * 1.0)
    model = WEIGHTS / "tttab-tiny-classifier.safetensors"
    plain = tabpfn.TabPFNClassifier(
        model_path=model, inference_config=choose.CANDIDATES["none"], **choose._SERVED
    )
    wanted = plain.fit(table.x, table.y.astype(int)).predict_proba(table.x_query)
    monkeypatch.setattr(Checkpoint, "load", lambda self: pytest.fail(f"tabpfn opened {self.path}"))
    unseen = shutil.copy(model, tmp_path / "model.safetensors")  # tabpfn keeps the last file that it read
    tried = next(choose.compare(unseen, "classification", [table], 1))
    assert np.array_equal(tried.probabilities[0], wanted)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_link_to_a_blob_without_suffix_opens_under_the_links_name(two, tmp_path, suffix):
    blob = tmp_path / "blobs" / "0123abcd"
    blob.parent.mkdir()
    shutil.copy(two[0] if suffix == ".safetensors" else as_ckpt(two[0], tmp_path / "a.ckpt"), blob)
    link = tmp_path / "snapshots" / "tabpfn-v2-classifier-gn2p4bpt.ckpt"
    link.parent.mkdir()
    link.symlink_to(blob)
    info = open_model(str(link), device="cpu").info
    assert (info.name, info.file) == ("tabpfn-v2-gn2p4bpt", link.name)
    assert info.provenance == "trained on synthetic tables only"
    assert info.sha256 == sha256_of(blob)
    assert open_model(str(blob), device="cpu").info.name == "0123abcd"


def test_a_file_is_held_twice_at_most_while_it_is_opened(tmp_path):
    """Its bytes or the network beside the tensors, never all three."""
    file = tmp_path / "large.safetensors"
    small_model(emsize=192, nlayers=40, nhead=6).save(file)
    megabytes = file.stat().st_size / 1e6
    assert megabytes > 90
    probe = """
import sys
from tttab.system.resources import peak_resident_bytes
from tttab.models import open_model
open_model("tttab-tiny", device="cpu")
before = peak_resident_bytes()
session = open_model(sys.argv[1], device="cpu")
print((peak_resident_bytes() - before) / 1e6)
"""
    run = subprocess.run([sys.executable, "-c", probe, file], capture_output=True, text=True, check=True)
    assert 0.9 < float(run.stdout) / megabytes < 2.3


def old_names(state, heads):
    """Return a v2 state dict under the names and in the layout of the files that were published."""
    old = {}
    for name, value in state.items():
        new = name.replace("feature_group_embedder", "encoder.4.layer")
        new = new.replace("target_embedder", "y_encoder.2.layer")
        new = new.replace("output_projection.", "decoder_dict.standard.")
        new = new.replace("blocks.", "transformer_encoder.layers.")
        new = new.replace("mlp.0", "mlp.linear1").replace("mlp.2", "mlp.linear2")
        new = new.replace("per_sample_attention_between_features", "self_attn_between_features")
        new = new.replace("per_column_attention_between_cells", "self_attn_between_items")
        if new.endswith("q_projection.weight"):
            parts = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            new = new.replace("q_projection.weight", "_w_qkv")
            value = torch.stack([part.reshape(heads, -1, part.shape[1]) for part in parts])
        elif new.endswith(("k_projection.weight", "v_projection.weight")):
            continue
        elif new.endswith("out_projection.weight"):
            new = new.replace("out_projection.weight", "_w_out")
            value = value.T.reshape(heads, -1, value.shape[0])
        old[new] = value.contiguous()
    return old


FORMS = ("safetensors", "torch", "without inference configuration")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("architecture", SIZES)
def test_what_is_built_is_what_tabpfn_builds(tmp_path, architecture, task, form):
    from tabpfn.model_loading import load_model

    file = tmp_path / "model.safetensors"
    small_model(architecture, task).save(file)
    if form != "safetensors":
        file = as_ckpt(file, tmp_path / "model.ckpt")
    if form == "without inference configuration":
        content = torch.load(file, weights_only=True)
        del content["inference_config"]
        if architecture == "tabpfn_v2_5":
            content["architecture_name"] = "base"
        torch.save(content, file)
    kind = "classifier" if task == "classification" else "regressor"
    module, criterion, config, inference = load_model(path=file, estimator_type=kind)
    before = torch.random.get_rng_state()
    weights = open_model(str(file), task, device="cpu")._weights
    draws = architecture in ("tabpfn_v3", "tabpfn_v3_5")  # for weights that are overwritten, as tabpfn does
    assert draws or torch.equal(before, torch.random.get_rng_state())
    assert same_weights(weights.module, module) and not weights.module.training
    assert (weights.config, weights.inference_config) == (config, inference)
    for mine, theirs in zip(weights.module.modules(), module.modules(), strict=True):
        mine, theirs = ({k: v for k, v in vars(m).items() if torch.is_tensor(v)} for m in (mine, theirs))
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    if task == "regression":
        assert same_weights(weights.criterion, criterion)


def test_the_published_v2_form_opens_as_tabpfn_opens_it(tmp_path):
    from tabpfn.model_loading import load_model

    session = small_model()
    config = dataclasses.asdict(session._weights.config)
    state = old_names(session.module.state_dict(), config["nhead"])
    file = tmp_path / "tabpfn-v2-classifier.ckpt"
    torch.save({"state_dict": state, "config": config | {"unused": torch.float32}}, file)
    opened = open_model(str(file), device="cpu")
    assert same_weights(opened.module, session.module)
    assert same_weights(opened.module, load_model(path=file, estimator_type="classifier")[0])


def rezipped(source, target, change=lambda name, data: data, method=zipfile.ZIP_STORED):
    """Write an archive again, its entries changed or compressed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", method) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return target


def nested(depth):
    """A list that prints as 2^depth values."""
    value = [0]
    for _ in range(depth):
        value = [value, value]
    return value


def altered(file, **more):
    """Write the archive `file` again with other fields."""
    torch.save(torch.load(file, weights_only=True) | more, file)


def archives(good, folder):
    """Yield archives that are not what they seem, with what is said of them."""
    content = torch.load(good, weights_only=True)
    state, name = content["state_dict"], "target_embedder.bias"
    endless = torch.zeros(1).expand(10**9)
    for tensor, said in (
        (endless, "not plain numbers of its own"),
        (torch.zeros(4).to_sparse(), "not plain numbers of its own"),
        (torch.empty(24, device="meta"), "not plain numbers of its own"),
        (torch.zeros(24, dtype=torch.complex64), "not plain numbers of its own"),
    ):
        yield {"state_dict": state | {name: tensor}}, said
    yield {"state_dict": state | {7: torch.zeros(1)}}, "lacks the state_dict"
    yield {"config": content["config"] | {"nlayers": nested(60)}}, "something else than plain data"
    yield {"config": content["config"] | {"nlayers": torch.ones(1)}}, "something else than plain data"
    yield {"inference_config": nested(60)}, "something else than plain data"
    yield {"config": content["config"] | {"seed": 10**5000}}, "neither a tensor nor plain data"
    yield {"config": content["config"] | {"seed": 10**60}}, "something else than plain data"
    yield {"architecture_name": ["tabpfn_v2"]}, "does not know the architecture"
    yield {"architecture_name": "tabpfn_v9"}, "does not know the architecture"


def test_archives_that_are_not_what_they_seem_are_refused_in_one_line(two, tmp_path):
    good = as_ckpt(two[0], tmp_path / "good.ckpt")
    open_model(str(good), device="cpu")
    for fields, said in archives(good, tmp_path):
        file = shutil.copy(good, tmp_path / "case.ckpt")
        altered(file, **fields)
        with pytest.raises(ModelError, match=said) as caught:
            open_model(str(file), device="cpu")
        assert "\n" not in caught.value.message and len(caught.value.message) < 300


def test_compressed_archives_and_long_headers_are_refused_before_they_are_unpacked(two, tmp_path):
    good = as_ckpt(two[0], tmp_path / "good.ckpt")
    open_model(str(rezipped(good, tmp_path / "again.ckpt")), device="cpu")
    packed = rezipped(good, tmp_path / "packed.ckpt", method=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match="compressed, which torch never does"):
        read_checkpoint(packed)
    long = rezipped(
        good, tmp_path / "long.ckpt", lambda name, data: data + b"]" * 5_000_000 * name.endswith("pkl")
    )
    with pytest.raises(ModelError, match=r"header has 5\.0 MB"):
        read_checkpoint(long)
    header = b'{"__metadata__":{"config":"' + b"x" * 5_000_000 + b'"}}'
    file = tmp_path / "long.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError, match=r"header has 5\.0 MB"):
        read_checkpoint(file)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"PK\x03\x04 and no more", b"\x00" * 100, pickle.dumps([1]), (10**9).to_bytes(8, "little")],
)
def test_what_is_no_checkpoint_is_told_by_its_content(tmp_path, content):
    for name in ("model.ckpt", "model.safetensors", "model"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=f"{name} is not a readable checkpoint: "):
            read_checkpoint(tmp_path / name)


def test_a_file_larger_than_any_checkpoint_is_not_read(tmp_path):
    file = tmp_path / "sparse.ckpt"
    with open(file, "wb") as stream:
        stream.write(b"PK\x03\x04")
        stream.truncate(5 * 1024**3)
    with pytest.raises(ModelError, match=r"it has 5\.4 GB"):
        read_checkpoint(file)


def test_old_torch_archives_are_refused_and_say_so(tmp_path):
    file = tmp_path / "old.ckpt"
    buffer = io.BytesIO()
    torch.save({"config": {}, "state_dict": {}}, buffer, _use_new_zipfile_serialization=False)
    file.write_bytes(buffer.getvalue())
    with pytest.raises(ModelError, match="neither a safetensors file nor a torch archive"):
        read_checkpoint(file)


def test_a_name_that_is_not_utf8_is_recorded_as_text(two, tmp_path):
    file = tmp_path / os.fsdecode(b"m\xe9.safetensors")
    shutil.copy(two[0], file)
    info = open_model(str(file), device="cpu").info
    json.dumps([info.name, info.file], ensure_ascii=False).encode()
    assert info.file == "m?.safetensors"
