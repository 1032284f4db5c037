"""The registry of model families, asked in this order."""

from __future__ import annotations

from tttab.contracts import ModelFamily
from tttab.models.tabicl.family import TabICL
from tttab.models.tabpfn.family import TabPFN

FAMILIES: tuple[ModelFamily, ...] = (TabPFN(), TabICL())
