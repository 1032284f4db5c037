"""The registry of model families, asked in this order.

What does not belong here: what a family knows.
"""

from __future__ import annotations

from tttab.contracts import ModelFamily
from tttab.models.tabicl.family import TabICL
from tttab.models.tabpfn.family import TabPFN

FAMILIES: tuple[ModelFamily, ...] = (TabPFN(), TabICL())
