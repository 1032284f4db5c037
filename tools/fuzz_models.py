"""Checkpoints and bundles for `fuzz`: small models of every architecture, changed in what is valid."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import tempfile
import warnings
from functools import cache
from pathlib import Path

import numpy as np

from tools.fuzz_inputs import change_values, json_bytes, pick

TASKS = ("classification", "regression")


def small_model(architecture, task):
    """Return a session around a small network with random weights."""
    from tests.support import small_models

    return small_models.small_model(architecture, task, members=1, nlayers=2)


def checkpoint_seeds():
    """Return a checkpoint of every architecture and task, as safetensors."""
    from tabpfn.architectures import ARCHITECTURES

    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        for architecture in sorted(name for name in ARCHITECTURES if name != "base"):
            for task in TASKS:
                small_model(architecture, task).save(Path(folder, "model.safetensors"))
                seeds.append(Path(folder, "model.safetensors").read_bytes())
    return seeds


def change_checkpoint(data, rng):
    """Change fields of the header or tensors, and write it as safetensors or as a torch archive."""
    import safetensors.torch
    import torch

    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    header = {name: json.loads(value) for name, value in header.items()}
    state = safetensors.torch.load(data)
    as_archive = rng.random() < 0.4
    what = pick(rng, ["header", "header", "header", "tensors", "both", "neither"])
    if what in ("header", "both"):
        _change_header(header, rng)
    if what in ("tensors", "both"):
        for _ in range(int(pick(rng, [1, 1, 2, 5]))):
            _change_tensor(state, rng, as_archive)
    stream = io.BytesIO()
    if as_archive:
        torch.save({**header, "state_dict": state}, stream)
        return stream.getvalue()
    state = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    return safetensors.torch.save(state, {name: json_bytes(value).decode() for name, value in header.items()})


def _change_header(header, rng):
    """Change values of the header; those of the table of ranges mostly to values near their ends."""
    from tttab.models.tabpfn.ranges import RANGES

    def fitting(key):
        if key not in RANGES:
            return None
        low, high = RANGES[key]
        step = 1 if isinstance(low, int) else 1e-6
        return (
            low,
            high,
            low - step,
            high + step,
            low + step,
            high - step,
            math.sqrt(max(1, low) * max(1, high)),
            2,
            3,
            8,
            0,
            -1,
            10**9,
            10**18,
            math.nan,
            math.inf,
            True,
            None,
            "2",
            [1],
            1e-300,
            0.5,
        )

    if rng.random() < 0.8:
        for _ in range(int(pick(rng, [1, 1, 2]))):
            part = header[pick(rng, ["config", "inference_config"])]
            known = [key for key in part if key in RANGES] or list(RANGES)
            key = pick(rng, known) if rng.random() < 0.9 else pick(rng, list(RANGES))
            part[key] = pick(rng, fitting(key))
    else:
        change_values(header, rng, fitting)


def _change_tensor(state, rng, as_archive):
    """Change one tensor: values, shape, type, name, or (in an archive) what lies below it."""
    import torch

    name = pick(rng, [name for name, value in state.items() if isinstance(value, torch.Tensor)])
    tensor = state[name]
    flat = tensor.reshape(-1)
    values = [math.nan, math.inf, -math.inf, 1e7, -1e6, 999_999.0, 1e-40, 3e38, 0.0]
    match int(rng.integers(0, 9)):
        case 0 | 1 | 2 if len(flat) and tensor.is_floating_point():
            flat[int(rng.integers(len(flat)))] = pick(rng, values)
        case 3 if tensor.is_floating_point():
            flat.fill_(pick(rng, values))
        case 4:
            del state[name]
        case 5:
            new = pick(
                rng, ["extra", "criterion.borders", "criterion.losses", "regression_borders", name[::-1], ""]
            )
            state[new] = tensor.clone()
        case 6:
            shapes = [
                tensor.mT if tensor.ndim > 1 else tensor[None],
                flat,
                tensor[:0],
                tensor[None],
                tensor[:1],
                torch.cat([flat, flat]),
                torch.zeros(()),
            ]
            state[name] = pick(rng, shapes)
        case 7:
            types = [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8]
            state[name] = tensor.to(pick(rng, [*types, torch.complex64] if as_archive else types))
        case _ if as_archive:
            odd = [
                torch.zeros(1).expand(10 ** int(rng.integers(1, 12))),
                tensor.to_sparse(),
                tensor.to("meta"),
                torch.empty(10**9, device="meta"),
                torch.nn.Parameter(tensor.clone()) if tensor.is_floating_point() else tensor,
                tensor.tolist(),
                None,
            ]
            state[name] = pick(rng, odd)


def read_any_model(path):
    """Open a checkpoint for both tasks; a model that opens must answer with numbers."""
    from tttab.errors import TttabError
    from tttab.models import open_model

    refused = []
    for task in TASKS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                session = open_model(str(path), task, device="cpu")
                _check_answers(session, task)
        except TttabError as error:
            refused.append(error)
    if len(refused) == len(TASKS):
        raise refused[0]


@cache
def _rows():
    """Return 12 rows with a gap and a category, and their targets."""
    import pandas as pd

    rng = np.random.default_rng(0)
    x = pd.DataFrame(
        {"a": rng.normal(size=12), "b": [1.0, np.nan] * 6, "c": pd.Categorical(["u", "v", "w"] * 4)}
    )
    return x, np.arange(12) % 3


def _check_answers(session, task):
    x, y = _rows()
    classes = 3 if task == "classification" else 0
    context = session.context(x, y if classes else y.astype(float), classes)
    answers = session.predict(context, x[:4])
    if not np.isfinite(answers).all() or answers.shape[:1] != (4,):
        raise AssertionError(f"{task}: answers are {answers!r:.200}")


@cache
def _bundles():
    """Return the files of three bundles and further contexts by name, the manifests, and some raw rows."""
    import pandas as pd

    from tttab.api.estimator import TTTClassifier, TTTRegressor
    from tttab.bundle.manifest import MANIFEST, read_manifest

    x, y = _rows()
    x = pd.concat([x] * 4, ignore_index=True)
    x["a"] = np.arange(len(x)) % 11 / 8
    x["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(len(x)) % 9, unit="D")
    x["flag"] = np.arange(len(x)) % 2 == 0
    files, manifests = {}, []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for estimator, task, labels in (
            (TTTClassifier, TASKS[0], np.array(["low", "mid", "top"])[np.tile(y, 4)]),
            (TTTClassifier, TASKS[0], np.tile(y, 4)),
            (TTTRegressor, TASKS[1], np.arange(len(x)) / 7),
        ):
            model, saved = Path(folder, f"{task}.safetensors"), Path(folder, "bundle")
            small_model("tabpfn_v2", task).save(model)
            fitted = estimator(n_context=24, steps=1, model=str(model), device="cpu", random_state=0)
            fitted.fit(x, labels).save(saved)
            manifests.append({**read_manifest(saved), "created": "2026-01-01T00:00:00+00:00"})
            files |= {file.name: file.read_bytes() for file in saved.iterdir() if file.is_file()}
            shutil.rmtree(saved)
    del files[MANIFEST]
    return files | _odd_contexts(files), manifests, x[:3]


def _odd_contexts(files):
    """Return contexts that are whole files under names that fit, and not those of their manifests."""
    import hashlib

    import pandas as pd

    frame = pd.read_parquet(
        io.BytesIO(next(data for name, data in files.items() if name.startswith("context")))
    )
    target = frame.columns[-1]
    found = {}
    for odd in (
        frame[:3],
        frame[:0],
        frame.assign(a="x"),
        frame.assign(a=1e300),
        frame.assign(a=[[1.0]] * len(frame)),
        frame.drop(columns="a"),
        frame.assign(**{target: "none of them"}),
        frame.assign(**{target: 1e31}),
        frame.assign(a="1" * 1_000_000),
        frame.assign(a=True),
        frame.assign(a=pd.Timestamp("2024-01-01")),
    ):
        data = odd.to_parquet()
        found[f"context-{hashlib.sha256(data).hexdigest()[:16]}.parquet"] = data
    return found


def bundle_seeds():
    """Return the manifests of the bundles; `read_bundle` puts the files beside them."""
    return [json_bytes(manifest) for manifest in _bundles()[1]]


def change_manifest(data, rng):
    """Change values of a manifest, or take another whole file, and make its own hash fit."""
    import hashlib

    from tttab.bundle.manifest import digest_of

    manifest = json.loads(data)
    if rng.random() < 0.1:
        role = pick(rng, ["weights", "context"])
        name = pick(rng, [name for name in _bundles()[0] if name.startswith(role)])
        content = _bundles()[0][name]
        manifest["files"][role] = {
            "file": name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
        }
        if rng.random() < 0.5:
            manifest["rows"] = int(pick(rng, [3, 0, 24, 10**8]))
    if rng.random() < 0.9:
        change_values(manifest, rng, _manifest_values)
    if isinstance(manifest, dict):
        with contextlib.suppress(RecursionError):
            manifest["sha256"] = digest_of(json.loads(json_bytes(manifest)))
    return json_bytes(manifest)


def _manifest_values(key):
    return {
        "rows": (0, 1, 23, 24, 25, 10**8, 10**8 + 1, 24.0, "24", True),
        "seed": (0, 2**32 - 1, 2**32, -1, 1.0, "0"),
        "device": ("cuda", "cuda:99", "meta", "cpu:0", ""),
        "dtype": ("<U500000000", "<U1", "<i8", "<f8", "|O", "|b1", "|V8", "<M8[s]", "float16", "complex64"),
        "task": (*TASKS, "ranking"),
        "kind": ("number", "level", "date", "duration", "boolean", "empty", "category", "pickle"),
        "format": ("1.234,5", "%d.%m.%Y", "%", "%Y" * 200, "1,234,5"),
        "target": ("a", "c", "", "y", "target"),
        "n_context": (0, -1, 10**12, 24.5, None),
        "rule": ("none", "full", "no such"),
        "classes": (
            [],
            ["low"],
            ["low", "low"],
            ["0", "1", "2"],
            ["x"] * 1000,
            [0, 1, 2],
            [1.5, 2.5, 3.5],
            [True, False, True],
        ),
        "levels": ([], ["u"], ["u", "u"], ["\ud800"], ["x" * 100_000]),
        "missing": ([], ["1.0"], ["x"] * 10_000, "x"),
        "bytes": (0, 2**60, 2**61, -1),
        "max_memory": ("1K", "4G", "x", 10**30),
    }.get(key)


def read_bundle(path):
    """Read a bundle with this manifest; what loads must answer, as a bundle and as an estimator."""
    from tttab.api.estimator import TTTClassifier, TTTRegressor
    from tttab.bundle import load_bundle
    from tttab.bundle.manifest import MANIFEST, check_files, read_manifest

    folder = path.parent / "bundle"
    if not folder.exists():
        folder.mkdir()
        for name, data in _bundles()[0].items():
            (folder / name).write_bytes(data)
    (folder / MANIFEST).write_bytes(path.read_bytes())
    manifest = read_manifest(folder)
    check_files(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bundle = load_bundle(folder, device="cpu")
        for answers in (bundle.server.predict(bundle.x[:3]), bundle.predict(_bundles()[2])):
            if not np.isfinite(answers).all():
                raise AssertionError(f"answers are {answers!r:.200}")
        if "estimator" in manifest["record"]:
            estimator = TTTClassifier if bundle.schema.classes else TTTRegressor
            estimator.load(folder, device="cpu").get_params()
