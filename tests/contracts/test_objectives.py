"""Every loss x every family: its gradient is that of the plain formula, however a step runs."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch

from tests.support.small_models import small_model
from tests.support.small_tabicl import small_tabicl
from tttab.contracts import Execution
from tttab.core import Loss, Objective
from tttab.errors import ModelError
from tttab.models import for_classes
from tttab.models.coded import CodedSession
from tttab.models.tabicl.passes import TEMPERATURE
from tttab.testing import ToySession
from tttab.training.config import LOSSES

ROWS = np.arange(20)[::-1].copy()
OPENED = {
    "tabpfn": small_model,
    "tabpfn regressor": lambda: small_model(task="regression"),
    "tabicl": small_tabicl,
    "toy": ToySession,
    "coded": lambda: for_classes(ToySession(classes=2), 3),
}


def log_probabilities(session, context, queries):
    """Return log p by member and class, and that of their average as the family serves it.

    Codes have no losses of their own: it is that of the classes decoded.
    """
    if isinstance(session, CodedSession):
        parts = zip(context.parts, queries.parts, context.book, strict=True)
        said = [log_probabilities(session._inner, *pair)[1][:, code] for *pair, code in parts]
        alone = sum(said).log_softmax(dim=-1)
        return alone[None], alone
    if isinstance(session, ToySession):
        alone = session.log_probabilities(context, queries.inputs[ROWS.copy()])
        return alone[None], alone
    if session.task == "regression":
        each = torch.cat(
            [session.member_log_likelihoods(context, queries, ROWS, w) for w in session.whole_calls(context)]
        )
        return each[..., None], (each.exp().mean(dim=0)).log()[..., None]
    if session.package == "tabicl":  # its own forward pass: ours cuts the context's graph off
        x = torch.cat([context.inputs, queries.inputs], dim=1)
        logits = session.module.train()(x, context.labels.float())
        session.module.eval()
        logits = logits.gather(-1, context.columns[:, None].expand(-1, 20, -1))[:, ROWS.copy()]
        return (logits / TEMPERATURE).log_softmax(-1), (logits.mean(dim=0) / TEMPERATURE).log_softmax(-1)
    logits = session.logits(context, queries, ROWS)
    each = (logits / session.log_temperature.exp()).log_softmax(-1)
    return each, each.logsumexp(dim=0) - math.log(len(each))


@pytest.fixture(scope="module", params=OPENED)
def opened(request, mixed_frame):
    x, y = mixed_frame
    session = OPENED[request.param]().fork()
    classes = 3 if session.task == "classification" else 0
    for parameter in session.parameters("all"):
        parameter.requires_grad_(True)
    y = y if classes else 5.0 + x["size"].to_numpy() + np.sin(np.arange(len(y)))
    context = session.context(x[:30], y[:30], classes)
    return session, context, session.queries(context, x[30:50], y[30:50]), y[30:50]


def taken(session):
    """Return the gradient and forget it."""
    grads = [p.grad.flatten().clone() for p in session.trainable().values() if p.grad is not None]
    for parameter in session.trainable().values():
        parameter.grad = None
    return torch.cat(grads)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_is_that_of_the_plain_formula_however_a_step_runs(opened, loss):
    session, context, queries, y = opened
    rng = np.random.default_rng(0)
    weights, soft = rng.uniform(0, 2, 20), rng.dirichlet(np.ones(3), 20)

    def compare(objective, ways):
        each, served = log_probabilities(session, context, queries)
        labels = np.eye(3)[y] if session.task == "classification" else np.ones((20, 1))
        aim = labels if objective.targets is None else objective.targets
        losses = -(torch.as_tensor(aim[ROWS]) * (served if loss == "ensemble" else each.mean(dim=0)))
        wanted = 0.1 * (torch.as_tensor(weights[ROWS]) * losses.sum(dim=1)).sum()
        wanted.backward()
        exact = taken(session)
        for how in ways:
            found = session.accumulate_gradients(context, queries, ROWS, 0.1, how, objective)
            assert found == pytest.approx(wanted.item(), rel=1e-4)
            assert (taken(session) - exact).norm() < 1e-4 * exact.norm()

    last = Execution(5, True, True)
    compare(Objective(loss, weights), (Execution(), last))
    if session.task == "regression":
        with pytest.raises(ModelError, match="not on classes' probabilities"):
            compare(Objective(loss, weights, soft), (last,))
    else:
        compare(Objective(loss, weights, soft), (Execution(7), Execution(5, True), last))


def test_losses_differ_where_there_is_an_ensemble_and_the_contract_names_them_all(opened):
    assert tuple(LOSSES) == get_args(Loss)
    session, context, queries, _ = opened
    found = []
    for loss in LOSSES:
        session.accumulate_gradients(context, queries, ROWS, 0.1, Execution(), Objective(loss))
        found.append(taken(session))
    assert torch.allclose(*found) == (session.members == 1 or isinstance(session, CodedSession))
