"""What trains while every weight is frozen, on TabPFN v2: see `tttab.contracts.Tuning`.

Training a context's keys and values is prefix tuning (Li and Liang 2021) in place of the rows. TuneTables
(Feuer et al. 2024) and in-context data distillation (Ma et al. 2024) do the same to a context's embeddings
and cells.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tttab.models.tabpfn.shared_context import SharedContext, face_of

if TYPE_CHECKING:
    from tabpfn.architectures.tabpfn_v2 import TabPFNV2

Inputs = tuple[torch.Tensor, torch.Tensor, Mapping[str, Any]]
"""A call's context rows, their targets and the module's options."""


class Tuned(ABC):
    """What trains, for every call of one context, as the parameters `leaves`."""

    def __init__(self) -> None:
        self.leaves: dict[str, torch.nn.Parameter] = {}

    @abstractmethod
    def share(self, module: TabPFNV2, number: int, inputs: Inputs) -> SharedContext:
        """Return what queries of call `number` read."""

    def fork(self) -> Tuned:
        """Return the same with leaves of its own."""
        twin = copy.copy(self)
        twin.leaves = copy.deepcopy(self.leaves)
        return twin

    def _leaf(self, name: str, value: torch.Tensor) -> None:
        self.leaves[name] = torch.nn.Parameter(value.detach().clone(), requires_grad=False)


class TunedCache(Tuned):
    """Keys and values of the context rows, or beside them of some more, which start as the first rows'."""

    def __init__(self, module: TabPFNV2, calls: Sequence[Inputs], rows: int) -> None:
        """Start from what the weights make of the context; `rows`: those beside it, 0 for its own."""
        super().__init__()
        self._rows = rows
        with torch.no_grad():
            self._shared = [SharedContext(module, *inputs) for inputs in calls]
        for number, shared in enumerate(self._shared):
            for place, tensor in enumerate(shared.read):
                self._leaf(f"call{number}.{place}", tensor[:, : rows or None])

    def share(self, module: TabPFNV2, number: int, inputs: Inputs) -> SharedContext:
        """Return the context with the leaves in its keys' and values' place, or beside them."""
        shared = self._shared[number]
        leaves: list[torch.Tensor] = [self.leaves[f"call{number}.{i}"] for i in range(len(shared.read))]
        if self._rows:
            leaves = [torch.cat(pair, dim=1) for pair in zip(shared.read, leaves, strict=True)]
        return shared.reading(module, leaves)


class TunedInputs(Tuned):
    """A gain and a shift of every column of every member, behind the network's own standardisation.

    Before it they would change nothing: the network standardises by the context.
    """

    def __init__(self, module: TabPFNV2, calls: Sequence[Inputs]) -> None:
        super().__init__()
        for number, (x, _, _) in enumerate(calls):
            group = module.features_per_group
            shape = (x.shape[1] * -(-x.shape[2] // group), group)
            for name in ("gain", "shift"):
                self._leaf(f"call{number}.{name}", torch.zeros(shape, device=x.device))

    def share(self, module: TabPFNV2, number: int, inputs: Inputs) -> SharedContext:
        """Run the context as the adapter lets it through."""
        face: Any = face_of(module)
        gain, shift = (self.leaves[f"call{number}.{name}"] for name in ("gain", "shift"))
        face.standard_scaler = _Adapter(module.standard_scaler, gain, shift)
        return SharedContext(face, *inputs)


class _Adapter:
    """A scaler of tabpfn's with a gain and a shift behind it; zeros change nothing."""

    def __init__(self, scaler: Any, gain: torch.Tensor, shift: torch.Tensor) -> None:
        self._scaler, self._gain, self._shift = scaler, gain, shift

    def fit(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return self._scaler.fit(x)

    def transform(self, x: torch.Tensor, fitted_cache: dict[str, torch.Tensor]) -> torch.Tensor:
        return self._scaler.transform(x, fitted_cache=fitted_cache) * (1 + self._gain) + self._shift
