"""The bundled files are those their cards describe and predict what was stored."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.pretrain.references import MODELS, STORED, WEIGHTS
from tests.support.cards import head_of
from tttab.errors import ModelError
from tttab.pretrain.bundle import bundle, reference_predictions
from tttab.pretrain.card import read_card
from tttab.pretrain.checkpoint import new_network, write_model
from tttab.pretrain.settings import recipe
from tttab.system.files import sha256_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", MODELS)
def test_card_and_hash_match_the_file(name):
    head, wrong = head_of((WEIGHTS / name).with_suffix(".md"))
    assert not wrong
    assert head["task"] == MODELS[name]
    assert len(head["training"]) >= 1
    text = read_card((WEIGHTS / name).with_suffix(".md"))[1]
    for word in ("not", "Limits", "Results"):
        assert word in text


@pytest.mark.skipif(not (ROOT / "results").exists(), reason="an sdist has no results")
@pytest.mark.parametrize(
    "document", ["docs/benchmark.md", "results/offline/report.md", "results/run-tables.md"]
)
def test_published_results_are_those_of_the_bundled_classifier(document):
    short = sha256_of(WEIGHTS / "tttab-tiny-classifier.safetensors")[:12]
    assert short in (ROOT / document).read_text(encoding="utf-8")


def test_both_files_are_small():
    assert sum((WEIGHTS / name).stat().st_size for name in MODELS) < 12e6


@pytest.mark.parametrize("name", MODELS)
def test_reference_predictions_still_hold(name):
    stored = json.loads(STORED.read_text())[name]
    assert stored["sha256"] == sha256_of(WEIGHTS / name)
    found = reference_predictions(WEIGHTS / name, MODELS[name])
    np.testing.assert_allclose(found, stored["predictions"], atol=1e-4)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_bundling_keeps_the_predictions_and_writes_a_card_that_fits(tmp_path, task):
    settings = recipe("tiny", task)
    write_model(tmp_path / "model.safetensors", new_network(settings, 0), settings)
    target = tmp_path / "small.safetensors"
    facts = {"prior": {}, "training": []}
    storage = bundle(tmp_path / "model.safetensors", target, settings, {"SOFTMAX_TEMPERATURE": 0.8}, facts)
    assert storage == "float16"
    assert target.stat().st_size < (tmp_path / "model.safetensors").stat().st_size
    head, wrong = head_of(target.with_suffix(".md"))
    assert head["served"] == {"SOFTMAX_TEMPERATURE": 0.8} and not wrong
    target.write_bytes((tmp_path / "model.safetensors").read_bytes())
    assert head_of(target.with_suffix(".md"))[1] == {"sha256"}


def test_a_card_without_its_head_is_refused(tmp_path):
    (tmp_path / "card.md").write_text("# no head\n")
    with pytest.raises(ModelError, match="lacks name"):
        read_card(tmp_path / "card.md")
