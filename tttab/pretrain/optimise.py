"""Muon for the blocks' matrices, AdamW for everything else, and the schedule of both.

Muon: Jordan et al. 2024 (kellerjordan.github.io/posts/muon); the update's scale, which makes its step
comparable to AdamW's: Liu et al., arXiv 2502.16982, equation 4. All matrices of one shape are orthogonalised
in one batched product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from tttab.pretrain.settings import Optimiser

if TYPE_CHECKING:
    from tabpfn.architectures.tabpfn_v2 import TabPFNV2

MOMENTUM = 0.95
QUINTIC = (3.4445, -4.7750, 2.0315)
"""The Newton-Schulz polynomial's coefficients, from Jordan et al."""


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Return matrices of shape (count, rows, columns) with their singular values moved near 1."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x.to(torch.bfloat16) if x.is_cuda else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon:
    """Momentum, orthogonalised, for a list of matrices."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], weight_decay: float) -> None:
        self._groups: dict[tuple[int, ...], list[torch.Tensor]] = {}
        for parameter in parameters:
            self._groups.setdefault(tuple(parameter.shape), []).append(parameter)
        self._momentum = {
            shape: torch.zeros(len(group), *shape, device=group[0].device)
            for shape, group in self._groups.items()
        }
        self._weight_decay = weight_decay

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Take one Nesterov step of size `rate`."""
        for shape, group in self._groups.items():
            gradient = torch.stack([_gradient_of(parameter) for parameter in group])
            momentum = self._momentum[shape]
            momentum.mul_(MOMENTUM).add_(gradient)
            update = orthogonalise(gradient + MOMENTUM * momentum) * (0.2 * math.sqrt(max(shape)))
            torch._foreach_mul_(group, 1.0 - rate * self._weight_decay)
            torch._foreach_add_(group, list(update.unbind()), alpha=-rate)

    def state(self) -> list[torch.Tensor]:
        """Return the momenta, in the order of the shapes."""
        return list(self._momentum.values())

    def restore(self, state: list[torch.Tensor]) -> None:
        """Take over what `state` returned."""
        for momentum, saved in zip(self._momentum.values(), state, strict=True):
            momentum.copy_(saved)


def _gradient_of(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None, "every matrix of the blocks is in every loss"
    return parameter.grad


class Optimisers:
    """Both optimisers of one network."""

    def __init__(self, network: TabPFNV2, settings: Optimiser) -> None:
        matrices = network.muon_compatible_params()
        self._parameters = list(network.parameters())
        self._settings = settings
        self._muon = Muon([p for p in self._parameters if p in matrices], settings.weight_decay)
        self._adamw = torch.optim.AdamW(
            [p for p in self._parameters if p not in matrices],
            lr=settings.adamw,
            betas=(0.9, 0.98),
            weight_decay=0.0,
        )

    def step(self, scale: float) -> bool:
        """Clip the gradients and take one step with rates times `scale`; False where they are not finite."""
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.clip)
        if not math.isfinite(norm.item()):
            return False
        self._muon.step(self._settings.muon * scale)
        for group in self._adamw.param_groups:
            group["lr"] = self._settings.adamw * scale
        self._adamw.step()
        return True

    def clear(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def state(self) -> dict[str, Any]:
        """Return everything a resumed run needs."""
        return {"muon": self._muon.state(), "adamw": self._adamw.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self._muon.restore(state["muon"])
        self._adamw.load_state_dict(state["adamw"])


def rate_at(progress: float, warm_up: float, decay: float = 1.0) -> float:
    """Return the share of the full learning rate at `progress`: linear warm-up, full, cosine to zero.

    `decay` is the share of the budget in which it falls. A run whose rate is still full can be given more
    budget and goes on as if it had always had it.
    """
    falling = max(0.0, 1.0 - (1.0 - progress) / decay)
    return min(1.0, (progress + 1e-4) / warm_up) * 0.5 * (1.0 + math.cos(math.pi * falling))
