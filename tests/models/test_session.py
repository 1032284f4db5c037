"""What keeps a session's weights its own: no shared module, no stale cache, no silent change of device."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from tests.support.small_models import SIZES, small_model
from tttab.contracts import Execution
from tttab.models import open_model
from tttab.models.tabpfn.checkpoint import read_checkpoint
from tttab.system.files import sha256_of


def test_sessions_share_no_module_even_where_tabpfn_caches_them(monkeypatch, tiny_model):
    from tabpfn.model_loading import clear_built_model_cache

    monkeypatch.setenv("TABPFN_MODEL_CACHE_SIZE", "4")
    first, second = (open_model("tttab-tiny", device="cpu") for _ in range(2))
    with torch.no_grad():
        for parameter in first.module.parameters():
            parameter.zero_()
    third = open_model("tttab-tiny", device="cpu")
    clear_built_model_cache()
    for other in (second, third):
        for mine, theirs in zip(other.module.parameters(), tiny_model.module.parameters(), strict=True):
            assert torch.equal(mine, theirs) and mine.data_ptr() != theirs.data_ptr()


def test_a_context_survives_changes_of_the_weights_and_is_served_with_the_new_ones(parts):
    x, y, x_query, y_query = parts
    fork = small_model().fork()
    context = fork.context(x, y, 3)
    stale = fork.predict(context, x_query)
    with torch.no_grad():
        for parameter in fork.module.parameters():
            parameter.mul_(1.1)
    served = fork.predict(context, x_query)
    queries = fork.queries(context, x_query, y_query)
    with torch.no_grad():
        trained = fork.log_probabilities(context, queries, np.arange(40)).exp().numpy()
    assert np.abs(served - trained).max() < 1e-5 < np.abs(served - stale).max()


def test_a_saved_file_says_where_it_was_adapted_and_warns_elsewhere(tiny_model, tmp_path, monkeypatch):
    file = tmp_path / "adapted.safetensors"
    tiny_model.save(file, {"note": "kept"})
    header = read_checkpoint(file)
    assert header["adapted_on"] == {"device": "cpu", "dtype": "float32"} and header["note"] == "kept"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_model(str(file), device="cpu").info.notes == ()
    tiny_model.save(file, {"adapted_on": {"device": "cuda", "dtype": "float32"}})
    with pytest.warns(UserWarning, match="adapted on cuda in float32; on cpu"):
        session = open_model(str(file), device="cpu")
    assert "other random numbers" in session.info.notes[0]
    assert session.info.sha256 == sha256_of(file)


def gradient(session, parts, precision):
    x, y, x_query, y_query = parts
    fork = session.fork()
    fork.module.requires_grad_(True)
    context = fork.context(x, y, 3)
    queries, how = fork.queries(context, x_query, y_query), Execution(precision=precision)
    loss = fork.accumulate_gradients(context, queries, np.arange(40), 1 / 40, how)
    return loss, torch.cat([p.grad.flatten() for p in fork.module.parameters() if p.grad is not None])


@pytest.mark.parametrize("architecture", list(SIZES))
def test_bfloat16_trains_on_the_served_column_embeddings(parts, architecture):
    session = small_model(architecture)
    loss, exact = gradient(session, parts, "fp32")
    rough_loss, rough = gradient(session, parts, "bf16")
    assert rough_loss == pytest.approx(loss, abs=0.02)
    assert torch.nn.functional.cosine_similarity(exact, rough, dim=0) > 0.98
    assert (exact - rough).abs().max() > 0, "the arithmetic did change"


def test_without_the_repair_bfloat16_would_draw_other_column_embeddings(parts, monkeypatch):
    monkeypatch.setattr("tttab.models.tabpfn.forward.EMBEDDERS", ())
    session = small_model()
    _, exact = gradient(session, parts, "fp32")
    _, rough = gradient(session, parts, "bf16")
    assert torch.nn.functional.cosine_similarity(exact, rough, dim=0) < 0.98


def test_scores_and_predictions_stay_in_float32(parts):
    x, y, x_query, y_query = parts
    session = small_model().fork()
    context = session.context(x, y, 3)
    queries = session.queries(context, x_query, y_query)
    scores = session.row_scores(context, queries, np.arange(40)).loss
    rough = session.row_scores(context, queries, np.arange(40), Execution(precision="bf16"))
    assert np.array_equal(rough.loss, scores)
