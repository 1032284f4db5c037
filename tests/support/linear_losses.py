"""`law.loss` of many weights at once, for simulations that form them."""

from __future__ import annotations

import numpy as np
import pytest

from tttab.theory.linear_attention.law import context_moment, loss


def losses(problem, weights):
    """Return L(W) of every W in an array of shape (trials, d, d)."""
    sx, b, moment = (value.numpy() for value in (problem.covariance, problem.task, context_moment(problem)))

    def of(w):
        cross = problem.n * np.einsum("i,tij,j->t", b @ sx, w, sx @ b)
        square = ((np.swapaxes(w, 1, 2) @ sx @ w) * moment.T).sum((1, 2))
        return problem.signal + problem.noise - 2 * cross + square

    assert of(problem.weights.numpy()[None])[0] == pytest.approx(loss(problem), rel=1e-12)
    return of(weights)
