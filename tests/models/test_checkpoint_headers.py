"""Headers that lie: every one ends in one line, in seconds and without memory, before a network is built."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import time
import typing

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from tests.support.small_models import SIZES, small_model
from tttab.errors import ModelError, TttabError
from tttab.models import open_model
from tttab.models.catalog import KNOWN
from tttab.models.tabpfn.checkpoint import read_checkpoint
from tttab.models.tabpfn.ranges import LENGTHS, ONLY_OFF, RANGES, SHARES
from tttab.system.resources import resident_bytes

TRIES = int(os.environ.get("TTTAB_FUZZ", "30"))
GROWTH = 2**30
KINDS = [(architecture, task) for architecture in SIZES for task in ("classification", "regression")]
TRANSFORM = ("inference_config", "PREPROCESS_TRANSFORMS", 0)
TABLE = pd.DataFrame({"a": np.linspace(0, 1, 30) ** 2, "b": np.sin(np.arange(30)), "c": np.arange(30) % 7.0})
CODES = np.arange(30) % 3


@dataclasses.dataclass
class File:
    """A good checkpoint, taken apart."""

    task: str
    header: dict
    state: dict

    def write(self, path, header=None, state=None):
        tensors = self.state if state is None else state
        metadata = {key: json.dumps(value) for key, value in (header or self.header).items()}
        path.write_bytes(save(tensors, metadata=metadata))

    def lie(self, where, value):
        """Return the header with `value` at the place `where`."""
        header = copy.deepcopy(self.header)
        place = header
        for key in where[:-1]:
            place = place[key]
        place[where[-1]] = value
        return header

    def fields(self):
        """Return the place of every field of the three configurations."""
        transform = self.header[TRANSFORM[0]][TRANSFORM[1]][TRANSFORM[2]]
        return [
            *(("config", name) for name in self.header["config"]),
            *(("inference_config", name) for name in self.header["inference_config"]),
            *((*TRANSFORM, name) for name in transform),
        ]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file per architecture and task."""
    made = {}
    for architecture, task in KINDS:
        path = tmp_path_factory.mktemp("good") / "good.safetensors"
        members = 2 if architecture == "tabpfn_v2" else 1
        small_model(architecture, task, members=members).save(path)
        header = read_checkpoint(path)
        del header["sha256"]
        made[architecture, task] = File(task, header, header.pop("state_dict"))
    return made


def use(path, task):
    """Open a file and predict with it; the predictions are numbers."""
    session = open_model(str(path), task, device="cpu")
    y, classes = (CODES, 3) if task == "classification" else (TABLE["b"].to_numpy() + TABLE["a"], 0)
    context = session.context(TABLE[:20], np.asarray(y)[:20], classes)
    answer = session.predict(context, TABLE[20:])
    assert np.isfinite(answer).all()


def refused(path, task):
    """Return the one line in which a file is refused, soon and without memory; fail if it is not."""
    before, start = resident_bytes(), time.process_time()
    with pytest.raises(ModelError) as caught:
        open_model(str(path), task, device="cpu")
    assert time.process_time() - start < 5 and resident_bytes() - before < GROWTH
    assert "\n" not in caught.value.message and len(caught.value.message) < 300 and caught.value.hint
    return caught.value.message


NAN, INF = math.nan, math.inf
LIES = [
    *((("inference_config", "SOFTMAX_TEMPERATURE"), value) for value in (0, 0.0, -1, NAN, INF, 1e-300, 1e9)),
    *((("inference_config", "N_ESTIMATORS"), value) for value in (0, -1, 65, 10**6, 10**9, NAN, "many")),
    *((("inference_config", "OUTLIER_REMOVAL_STD"), value) for value in (0, -1, NAN, INF, 1e9)),
    *((("inference_config", f"_{kind}_DEFAULT_OUTLIER_REMOVAL_STD"), -1) for kind in
      ("CLASSIFICATION", "REGRESSION")),
    *((("inference_config", "POLYNOMIAL_FEATURES"), value) for value in (0, -1, 10**9)),
    *((("inference_config", "SUBSAMPLE_SAMPLES"), value) for value in (0, 1, 0.5, [], [[0, 1]], [[10**9]])),
    *((("inference_config", "REGRESSION_Y_PREPROCESS_TRANSFORMS"), value) for value in
      ([], ["no such"], ["adaptive"], [None] * 10**5)),
    *((("inference_config", f"MAX_NUMBER_OF_{what}"), value) for value in (0, -1, NAN, 1e12)
      for what in ("CLASSES", "FEATURES", "SAMPLES")),
    (("inference_config", "PREPROCESS_TRANSFORMS"), []),
    (("inference_config", "PREPROCESS_TRANSFORMS"), [{"name": "none"}] * 65),
    (("inference_config", "PREPROCESS_TRANSFORMS"), [{"name": "none"}] * 10**5),
    *(((*TRANSFORM, "name"), value) for value in ("adaptive", "kdi_random_alpha", "no such", None, 1)),
    *(((*TRANSFORM, "max_features_per_estimator"), value) for value in (0, -1, NAN)),
    *(((*TRANSFORM, "max_onehot_cardinality"), value) for value in (0, -1)),
    ((*TRANSFORM, "differentiable"), True),
    (("inference_config", "NO_SUCH_FIELD"), 1),
    (("inference_config",), "text"),
    *((("config", "nlayers"), value) for value in (0, -1, 2, 4, 200, 10**6, 10**9, NAN, 10**30, "x" * 10**5)),
    *((("config", "emsize"), value) for value in (0, -1, 25, 48, 10**4, 10**9)),
    *((("config", "nhead"), value) for value in (0, -1, 5, 10**9)),
    *((("config", "features_per_group"), value) for value in (0, 1, 3, 10**9)),
    *((("config", "max_num_classes"), value) for value in (0, -1, 9, 11, 10**4, 10**9)),
    *((("config", "seed"), value) for value in (-1, 2**63, NAN)),
    (("config", "nlayers"), [[[]]] * 10**5),
    (("architecture_name",), "tabpfn_v3"),
    (("architecture_name",), {"a": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("where", "value"), LIES, ids=lambda part: str(part)[:40])
def test_every_lie_ends_in_one_line(files, tmp_path, where, value):
    file = files["tabpfn_v2", "classification"]
    path = tmp_path / "lie.safetensors"
    file.write(path, file.lie(where, value))
    message = refused(path, "classification")
    if where[-1] in RANGES and isinstance(value, int | float) and not RANGES[where[-1]][0] <= value:
        assert str(where[-1]) in message


def test_blocks_that_no_tensor_can_fill_are_not_made(files, tmp_path):
    file = files["tabpfn_v3", "classification"]
    file.write(tmp_path / "m.safetensors", file.lie(("config", "feat_agg_num_blocks"), 200))
    assert refused(tmp_path / "m.safetensors", "classification").startswith(
        f"m.safetensors tells of 204 blocks and holds {len(file.state)} tensors"
    )


def test_what_tabpfn_says_of_a_field_is_told_in_short(files, tmp_path):
    file = files["tabpfn_v2", "classification"]
    file.write(tmp_path / "m.safetensors", file.lie(("config", "nlayers"), "twelve"))
    assert refused(tmp_path / "m.safetensors", "classification").endswith(
        "tabpfn can build: nlayers: Input should be a valid integer, unable to parse string as an integer"
    )


def test_a_number_out_of_range_is_named_with_its_range(files, tmp_path):
    file = files["tabpfn_v2", "classification"]
    file.write(tmp_path / "m.safetensors", file.lie(("inference_config", "SOFTMAX_TEMPERATURE"), NAN))
    message = refused(tmp_path / "m.safetensors", "classification")
    assert message == "m.safetensors sets SOFTMAX_TEMPERATURE to nan; it goes from 0.0001 to 10000"


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("architecture", SIZES)
def test_every_number_is_refused_or_served_at_0_minus_1_nan_and_a_billion(
    files, tmp_path, architecture, task
):
    file, path = files[architecture, task], tmp_path / "model.safetensors"
    places = [place for place in file.fields() if place[-1] in RANGES]
    if architecture != "tabpfn_v2":  # how tables are prepared is the same for every architecture
        places = [place for place in places if place[0] == "config"]
    assert len(places) > 5
    for place in places:
        for value in (0, -1, NAN, 1e9):
            file.write(path, file.lie(place, value))
            low, high = RANGES[place[-1]]
            if not low <= value <= high:
                message = refused(path, task)
                assert place[-1] in message or "that tabpfn can build" in message
            else:
                used_or_refused(path, task)


def used_or_refused(path, task):
    before, start = resident_bytes(), time.process_time()
    try:
        use(path, task)
    except TttabError as error:
        assert "\n" not in error.message and len(error.message) < 300
    assert time.process_time() - start < 10 and resident_bytes() - before < GROWTH


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from([0, -1, 10**9]), st.lists(st.integers() | st.text(max_size=3), max_size=3),
    st.just({}), st.floats(0, 1), st.integers(0, 300),
)  # fmt: skip


@settings(max_examples=TRIES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(KINDS), st.integers(0, 10**4), ANYTHING)
def test_headers_with_anything_in_any_field_are_refused_or_served(files, tmp_path, kind, number, value):
    file = files[kind]
    places = file.fields()
    file.write(tmp_path / "model.safetensors", file.lie(places[number % len(places)], value))
    used_or_refused(tmp_path / "model.safetensors", file.task)


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e30])
def test_weights_that_are_no_numbers_are_refused_by_name(files, tmp_path, value):
    file, path, name = (
        files["tabpfn_v2", "classification"],
        tmp_path / "m.safetensors",
        "target_embedder.bias",
    )
    wrong = file.state[name].clone()
    wrong[3] = value
    file.write(path, state=file.state | {name: wrong})
    assert refused(path, "classification").endswith(f"not all numbers up to 1e+06: {name}")


@pytest.mark.parametrize("change", ["missing", "more", "shape", "whole numbers"])
def test_weights_that_are_not_the_headers_are_refused(files, tmp_path, change):
    file, path, name = (
        files["tabpfn_v2", "classification"],
        tmp_path / "m.safetensors",
        "target_embedder.bias",
    )
    state = dict(file.state)
    match change:
        case "missing":
            del state[name]
        case "more":
            state["blocks.77.mlp.0.weight"] = torch.zeros(2)
        case "shape":
            state[name] = torch.zeros(7)
        case "whole numbers":
            state[name] = torch.zeros(24, dtype=torch.int64)
    file.write(path, state=state)
    refused(path, "classification")


@pytest.mark.parametrize("architecture", ["tabpfn_v2", "tabpfn_v2_5", "tabpfn_v2_6"])
@pytest.mark.parametrize(
    ("borders", "said"),
    [
        (torch.linspace(-3, 3, 40), "another number of outputs"),
        (torch.linspace(3, -3, 41), "not finite and rising"),
        (torch.full((41,), NAN), "not finite and rising"),
        (torch.zeros(41), "not finite and rising"),
        (torch.linspace(-INF, 3, 41), "not finite and rising"),
        (torch.linspace(-3, 3, 41)[:, None], "another number of outputs"),
    ],
)
def test_bucket_borders_are_as_many_as_the_outputs_and_rise(files, tmp_path, architecture, borders, said):
    file, path = files[architecture, "regression"], tmp_path / "m.safetensors"
    file.write(path, state=file.state | {"criterion.borders": borders.contiguous()})
    assert said in refused(path, "regression")


def test_a_classifier_with_borders_is_no_regressor(files, tmp_path):
    path, borders = tmp_path / "m.safetensors", files["tabpfn_v2", "regression"].state["criterion.borders"]
    for architecture in ("tabpfn_v2", "tabpfn_v2_6", "tabpfn_v3"):
        file = files[architecture, "classification"]
        file.write(path, file.lie(("config", "num_buckets"), 40), file.state | {"criterion.borders": borders})
        refused(path, "regression")


def test_bundled_models_and_a_random_one_of_full_size_pass(tmp_path):
    for model in (model for model in KNOWN if model.bundled):
        assert open_model(model.name, model.task, device="cpu").info.parameters > 300_000
    small_model(emsize=192, nlayers=12, nhead=6).save(tmp_path / "full.safetensors")
    assert open_model(str(tmp_path / "full.safetensors"), device="cpu").info.parameters > 7_000_000


def test_the_table_knows_every_number_of_the_installed_tabpfn():
    from tabpfn.architectures import ARCHITECTURES
    from tabpfn.inference_config import InferenceConfig
    from tabpfn.preprocessing import PreprocessorConfig

    kinds = {type(module.parse_config({})[0]) for module in ARCHITECTURES.values()}
    fields = {
        field.name: str(typing.get_type_hints(kind, include_extras=True)[field.name])
        for kind in (*kinds, InferenceConfig, PreprocessorConfig)
        for field in dataclasses.fields(kind)
    }
    numbers = {name for name, hint in fields.items() if re.search(r"\b(int|float)\b", hint)}
    lists = {name for name, hint in fields.items() if re.search(r"\b(list|tuple)\b", hint)}
    only = {"features_per_group"}  # in one version one of two whole numbers
    assert numbers | only == set(RANGES)
    assert lists - {"SUBSAMPLE_SAMPLES"} == set(LENGTHS)
    assert set(SHARES) < numbers and set(ONLY_OFF) < set(fields)


def test_a_model_that_would_show_members_a_part_of_the_context_is_refused(files, tmp_path):
    file, path = files["tabpfn_v2", "classification"], tmp_path / "m.safetensors"
    file.write(path, file.lie(("inference_config", "SUBSAMPLE_SAMPLES"), 1000))
    session = open_model(str(path), device="cpu")
    session.context(TABLE, CODES, 3)
    many = pd.concat([TABLE] * 40, ignore_index=True)
    with pytest.raises(ModelError, match="SUBSAMPLE_SAMPLES"):
        session.context(many, np.tile(CODES, 40), 3)


def test_a_model_that_claims_more_classes_than_it_has_outputs_refuses_the_table(files, tmp_path):
    file, path = files["tabpfn_v2", "classification"], tmp_path / "m.safetensors"
    file.write(path, file.lie(("inference_config", "MAX_NUMBER_OF_CLASSES"), 10**6))
    with pytest.raises(ModelError, match="the table has 11 classes, the model can tell 10 apart"):
        open_model(str(path), device="cpu").check_fits(11, 3)


def test_shapes_are_checked_without_torchs_compiler():
    """Loading it makes a folder in the temporary directory; a large count of classes once did."""
    code = """
import sys
import torch
from tttab.models.tabpfn.building import _Unfilled
with _Unfilled(weightless=True):
    rows = torch.randn(2**21, 2)
    rows = rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-8)
assert rows.is_meta and rows.shape == (2**21, 2)
assert "torch._dynamo" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
