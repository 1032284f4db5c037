"""The error that the one-layer in-context model keeps with infinitely many rows, by quadrature.

With G = projection / sqrt(r) the attention's output at a query depends on z = <b, x> alone, so the model is a
function of g_c(z), the same for every link c. What it cannot tell apart is E Var(s_c(z) | g_c(z)).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tttab.theory.single_index.attention import CLIP
from tttab.theory.single_index.tasks import IndexLaw, series

LINKS, POINTS, REACH = 161, 1601, 6.0
"""Links, and places z from -REACH to REACH."""
TOGETHER = 64
"""Neighbours in g whose values count as one answer of several links; 2 where there is one link."""
BULK = 2.5


@dataclass(frozen=True)
class Plateau:
    """Mean squared errors without the label's noise, over links and z ~ N(0, 1)."""

    mean: float
    median: float
    """Over links."""
    bulk: float
    """The part of the mean that comes from |z| < `BULK`."""


def plateau(law: IndexLaw, temp: float) -> Plateau:
    """Return the least error of any function of the attention's output, contexts without end."""
    weights = links(law)
    z = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
    mass = torch.exp(-z.square() / 2)
    mass = mass / mass.sum()
    clean = series(weights, z.expand(len(weights), -1))
    read = limit_output(law, weights, z, temp)
    error = _within(read, clean, mass, TOGETHER if len(weights) > 1 else 2)
    per_link = error @ mass
    inside = mass * (z.abs() < BULK)
    return Plateau(float(per_link.mean()), float(per_link.quantile(0.5)), float((error @ inside).mean()))


def links(law: IndexLaw) -> Tensor:
    """Return the weights of evenly spaced links of the law, shape (links, degrees)."""
    weights = torch.zeros(LINKS if law.vary else 1, law.degrees, dtype=torch.float64)
    weights[:, : len(law.link)] = torch.tensor(law.link, dtype=torch.float64)
    if law.vary:
        weights[:, law.vary] += torch.linspace(law.low, law.high, LINKS, dtype=torch.float64)
    return weights


def limit_output(law: IndexLaw, weights: Tensor, z: Tensor, temp: float) -> Tensor:
    """Return the attention's output g_c(z) for contexts without end, shape (links, z).

    E[y e^(y/T) e^(zt/(sqrt(r) T))] / E[e^(y/T) e^(zt/(sqrt(r) T))] over t ~ N(0, 1) and y = s_c(t) + noise.
    """
    t = torch.linspace(-REACH, REACH, 1201, dtype=torch.float64)
    mass = torch.exp(-t.square() / 2)
    clean = series(weights, t.expand(len(weights), -1))
    tilt = torch.exp(torch.outer(t, z) / (law.r**0.5 * temp)) * mass[:, None]
    top = bottom = torch.zeros(())
    for noise in (law.noise, -law.noise):
        labels = (clean + noise).clamp(-CLIP, CLIP)
        pull = torch.exp(labels / temp)
        top, bottom = top + (labels * pull) @ tilt, bottom + pull @ tilt
    return top / bottom


def _within(read: Tensor, clean: Tensor, mass: Tensor, together: int) -> Tensor:
    """Return the squared distance of every value to the mean of its neighbours in g, shape of `clean`."""
    order = read.flatten().argsort()
    whole = order[: len(order) // together * together].view(-1, together)
    values, weights = clean.flatten()[whole], mass.expand_as(clean).flatten()[whole]
    mean = (values * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
    error = torch.zeros_like(clean).flatten()
    error[whole] = (values - mean).square()
    return error.view_as(clean)
