"""Every rule trains every architecture, moves what it says and leaves the given model alone."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from tests.support.small_models import SIZES, small_model
from tttab.contracts import Execution
from tttab.errors import MissingExtra, RuleError
from tttab.models import open_model
from tttab.rules import RULES, get_rule
from tttab.training.config import Schedule
from tttab.training.loop import Adaptation

PAIRS = [(architecture, rule) for architecture in SIZES for rule in RULES if rule != "none"]


@pytest.fixture(scope="module")
def models():
    return {architecture: small_model(architecture) for architecture in SIZES}


def adapt(session, rule, parts, **schedule):
    x, y, x_query, y_query = parts
    run = Adaptation(
        session, get_rule(rule), session.context(x, y, 3), (x_query, y_query),
        Schedule(steps=2, lr=1e-3, guard="off", batch=16, precision="fp32", **schedule),
    )  # fmt: skip
    return run, list(run)


def everything(session):
    return {**session.module.state_dict(), "log_temperature": session.log_temperature.detach()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(("architecture", "rule"), PAIRS)
def test_every_rule_trains_every_architecture_and_leaves_the_given_model_alone(
    models, parts, architecture, rule
):
    given = models[architecture]
    before = {name: tensor.clone() for name, tensor in everything(given).items()}
    run, history = adapt(given, rule, parts)
    after = everything(run.result.session)
    assert len(history) == 2 and np.isfinite([step.loss for step in history]).all()
    assert list(after) == list(before), "the network is plain again"
    assert changed(before, after), "something moved"
    assert not changed(before, everything(given))
    assert not run.result.session.trainable() and not given.trainable()


@pytest.mark.parametrize(
    ("rule", "moved"),
    [
        ("head", lambda name: name.startswith("output_projection")),
        ("attention", lambda name: ".per_" in name and "_projection" in name),
        ("last-layers:1", lambda name: name.startswith(("blocks.2.", "output_projection"))),
        ("lora", lambda name: name.startswith("blocks.")),
        ("temperature", lambda name: name == "log_temperature"),
    ],
)
def test_a_rule_moves_what_it_says_and_nothing_else(models, parts, rule, moved):
    given = models["tabpfn_v2"]
    run, _ = adapt(given, rule, parts)
    before = everything(given)
    assert changed(before, everything(run.result.session)) == set(filter(moved, before))


def test_a_lora_merge_is_the_trained_network_and_its_file_loads_as_plain_weights(tiny_model, parts, tmp_path):
    x, y, x_query, y_query = parts
    run, history = adapt(tiny_model, "lora", parts)
    session, context = run.result.session, run.result.context
    queries = session.queries(context, x_query, y_query)
    with torch.no_grad():
        merged = session.loss(context, queries, run._held).item() / len(run._held)
    assert merged == pytest.approx(history[-1].held_out, abs=1e-5)
    session.save(tmp_path / "merged.safetensors")
    reopened = open_model(str(tmp_path / "merged.safetensors"), device="cpu")
    assert not changed(everything(session), everything(reopened)) - {"log_temperature"}
    assert (
        np.abs(reopened.predict(reopened.context(x, y, 3), x_query) - session.predict(context, x_query)).max()
        < 1e-5
    )
    rank = torch.linalg.matrix_rank(
        session.module.blocks[0].mlp[0].weight - tiny_model.module.blocks[0].mlp[0].weight, atol=1e-6
    )
    assert 1 <= rank <= RULES["lora"].rank


def test_without_peft_lora_names_the_extra(tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra) as caught:
        get_rule("lora").parameters(tiny_model.fork())
    assert caught.value.hint == "pip install 'tttab[lora]'"


@pytest.mark.parametrize("name", ["norms", "last-layers:x", "last-layers:", "head:2", "ful"])
def test_rules_that_do_not_exist_are_refused(name):
    with pytest.raises(RuleError) as caught:
        get_rule(name)
    assert caught.value.hint.startswith("--rule ")


@pytest.mark.parametrize("name", ["last-layers:0", "last-layers:99"])
def test_a_count_the_network_does_not_have_is_refused(tiny_model, name):
    fork = tiny_model.fork()
    with pytest.raises(RuleError, match=f"has {len(fork.layers)} layers"):
        get_rule(name).parameters(fork)


def test_a_rule_that_selects_nothing_is_an_error(models, parts, monkeypatch):
    monkeypatch.setattr("tttab.models.tabpfn.parts.HEADS", ())
    with pytest.raises(RuleError, match="no output projection"):
        adapt(models["tabpfn_v2"], "head", parts)


@pytest.mark.parametrize("architecture", list(SIZES))
def test_what_is_trained_is_what_is_served_on_every_architecture(models, parts, architecture):
    x, y, x_query, y_query = parts
    session = models[architecture]
    context = session.context(x, y, 3)
    queries = session.queries(context, x_query, y_query)
    rows = np.arange(len(queries))
    with torch.no_grad():
        trained = session.log_probabilities(context, queries, rows).exp().numpy()
        total = session.loss(context, queries, rows).item()
    served = session._estimator("fit_preprocessors", session.module).fit(x, y).predict_proba(x_query)
    assert np.abs(trained - served).max() < 1e-6
    # The newer architectures keep their key-value cache in half precision.
    exact = architecture in ("tabpfn_v2", "tabpfn_v2_5", "tabpfn_v2_6")
    assert np.abs(session.predict(context, x_query) - served).max() < (1e-6 if exact else 1e-4)
    assert total == pytest.approx(-np.log(served[rows, y_query]).sum(), rel=1e-5)
    assert np.ptp(served, axis=0).max() > 1e-3, "the prediction depends on the row"


@pytest.mark.parametrize("architecture", list(SIZES))
def test_members_one_at_a_time_and_recomputed_give_the_same_gradient(models, parts, architecture):
    x, y, x_query, y_query = parts

    def gradient(by_member, recompute):
        fork = models[architecture].fork()
        how = Execution(None, by_member, recompute)
        fork.module.requires_grad_(True)
        context = fork.context(x, y, 3)
        loss = fork.accumulate_gradients(
            context, fork.queries(context, x_query, y_query), np.arange(40), 1 / 40, how
        )
        grads = [p.grad.flatten() for p in fork.module.parameters() if p.grad is not None]
        return loss, torch.cat(grads)

    loss, whole = gradient(False, False)
    for setting in ((True, False), (False, True), (True, True)):
        other, parts_ = gradient(*setting)
        assert other == pytest.approx(loss, rel=1e-5)
        assert (whole - parts_).abs().max() < 1e-4 * whole.abs().max()
