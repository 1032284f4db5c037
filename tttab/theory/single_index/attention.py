"""The one-layer softmax attention of 2509.25741: its output g, and the one-step pre-training of G.

g(G, X, y, x) = sum_i y_i w_i / sum_i w_i with w_i = exp((y_i + x_i'G x)/temp). Labels are clipped, because
the tails of a polynomial would put all weight on one row.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tttab.theory.single_index.tasks import IndexLaw, draw_rows, draw_tasks, series

CLIP = 3.0
CPU_BUDGET = 2**19
GPU_BUDGET = 2**28


def attention_output(gamma: Tensor, x: Tensor, y: Tensor, queries: Tensor, temp: float = 1.0) -> Tensor:
    """Return g, shape (tasks, queries), of contexts (tasks, rows, d), (tasks, rows), queries (tasks, q, d).

    Scores are formed in blocks that stay in the processor's cache; float32 (or the inputs' own type).
    """
    labels = y.clamp(-CLIP, CLIP)
    tilted = queries @ (gamma.T / temp)
    outputs = torch.empty(queries.shape[:2], dtype=x.dtype, device=x.device)
    for tasks, rows in _blocks(queries.shape[0], queries.shape[1], x.shape[1], x.device):
        bias = labels[tasks, None, :] / temp  # the weights are exp((y_i + x_i'G x) / temp)
        scores = torch.baddbmm(bias, tilted[tasks, rows], x[tasks].transpose(1, 2))
        outputs[tasks, rows] = (scores.softmax(dim=2) @ labels[tasks, :, None]).squeeze(2)
    return outputs


def _blocks(tasks: int, queries: int, rows: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Yield blocks of tasks and queries with at most the budget's number of scores."""
    budget = CPU_BUDGET if device.type == "cpu" else GPU_BUDGET
    wide = max(1, min(queries, budget // rows))
    deep = max(1, budget // (rows * queries)) if wide == queries else 1
    for first in range(0, tasks, deep):
        for start in range(0, queries, wide):
            yield slice(first, first + deep), slice(start, start + wide)


def pretraining_step(
    gamma: Tensor, x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor, temp: float = 1.0
) -> Tensor:
    """Return minus the gradient of the mean of (query_y - g)^2 / 2 over tasks with respect to G, (d, d).

    One query per task: query_x (tasks, d), query_y (tasks,). With weight decay 1/step size the start
    cancels and this is the pre-trained G up to scale (2509.25741, pre-training).
    """
    labels, wanted = y.clamp(-CLIP, CLIP), query_y.clamp(-CLIP, CLIP)
    scores = (labels + torch.einsum("tnd,de,te->tn", x, gamma, query_x)) / temp
    share = scores.softmax(dim=1)
    output = (share * labels).sum(dim=1)
    weighted = share * (labels - output[:, None])
    pulled = torch.bmm(weighted[:, None, :], x).squeeze(1) / temp
    return ((wanted - output)[:, None] * pulled).T @ query_x / len(x)


def normalised(gamma: Tensor, r: int) -> Tensor:
    """Return G scaled to trace sqrt(r): eigenvalues near 1/sqrt(r) on the subspace, whatever the sign was.

    The step's sign depends on the link, so only G / trace(G) is used.
    """
    return gamma * (r**0.5 / gamma.trace())


def population_gamma(law: IndexLaw, basis: Tensor, temp: float = 1.0) -> tuple[Tensor, float]:
    """Return the normalised G of infinitely many tasks and rows, and the signed scale of the raw step.

    The raw step is scale * projection: scale = E[(s - g(a)) k(a) z]/(r temp), where, under the weight
    exp((y + a z')/temp) on a context row, g is the mean of y and k the covariance of y and z'; a =
    z/sqrt(d) is the query's share along b. Quadrature over z and z', links averaged.
    """
    z = torch.linspace(-7, 7, 701, dtype=torch.float64)  # clipped labels have kinks: a fine grid
    mass = torch.exp(-z.square() / 2)
    mass = mass / mass.sum()
    scales = []
    for shift in torch.linspace(law.low, law.high, 9).tolist() if law.vary else [0.0]:
        weights = torch.zeros(1, law.degrees, dtype=torch.float64)
        weights[0, : len(law.link)] = torch.tensor(law.link, dtype=torch.float64)
        if law.vary:
            weights[0, law.vary] += shift
        scales.append(_quadrature_scale(series(weights, z[None])[0], z, mass, law, temp))
    scale = sum(scales) / len(scales)
    return basis @ basis.T / law.r**0.5, scale / (law.r * temp)


def _quadrature_scale(clean: Tensor, z: Tensor, mass: Tensor, law: IndexLaw, temp: float) -> float:
    labels = torch.cat([clean + law.noise, clean - law.noise]).clamp(-CLIP, CLIP)
    inside, weight = torch.cat([z, z]), torch.cat([mass, mass]) / 2
    share = z[:, None] / law.d**0.5 * inside[None]
    tilt = weight * torch.exp((labels[None] + share) / temp)
    tilt = tilt / tilt.sum(dim=1, keepdim=True)
    output = tilt @ labels
    pull = tilt @ (labels * inside) - output * (tilt @ inside)
    wanted = (labels[: len(z)] + labels[len(z) :]) / 2
    return float((mass * (wanted - output) * pull * z).sum())


def sampled_gamma(
    law: IndexLaw, basis: Tensor, tasks: int, rows: int, generator: torch.Generator, temp: float = 1.0
) -> Iterator[tuple[int, Tensor]]:
    """Yield (tasks so far, raw step) while pre-training on `tasks` sampled tasks of `rows` context rows.

    The raw step is not normalised: its trace carries the sign. d = 16 needs about a million tasks.
    """
    device = generator.device
    start = torch.eye(law.d, device=device) / law.d**0.5
    total, done = torch.zeros_like(start), 0
    block = max(1, (2**21 if device.type == "cpu" else 2**27) // (rows * law.d))
    while done < tasks:
        size = min(block, tasks - done)
        drawn = draw_tasks(law, basis, size, generator)
        x, y = draw_rows(drawn, rows + 1, generator)
        total += size * pretraining_step(start, x[:, 1:], y[:, 1:], x[:, 0], y[:, 0], temp)
        done += size
        yield done, total / done
