"""Bundles without their rows: keys and values serve in their place, where the model can."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tttab.bundle.bundle import Bundle, Cache, load_bundle, save_bundle
from tttab.bundle.packing import Packed, pack_bundle
from tttab.errors import BundleError

if TYPE_CHECKING:
    from tttab.contracts import Rowless, Session


def check_rowless(session: Session) -> Rowless:
    """Return what serves without rows.

    Raises:
        BundleError: the model reads its context rows at every prediction.
    """
    if session.rowless is None:
        raise BundleError(
            f"{session.info.name} has no keys and values that serve without the rows: TabPFN v2 has, "
            "for as many classes as it has outputs",
            "leave --no-rows out",
        )
    return session.rowless


def without_rows(bundle: Bundle) -> Bundle:
    """Return the bundle with keys and values in the place of its context rows; held-out rows go too.

    Raises:
        BundleError: the model reads its context rows at every prediction.
    """
    if bundle.cache is not None:
        return bundle
    cache = Cache(check_rowless(bundle.session).pack(bundle.context), len(bundle.y))
    return replace(bundle, x=bundle.x.iloc[:0], y=bundle.y[:0], held=None, cache=cache)


def pack_without_rows(directory: Path, out: Path, base: Path | None = None) -> Packed:
    """Write a packed copy of a bundle that holds no rows; as `pack_bundle`.

    Raises:
        BundleError: as there, or the model reads its context rows at every prediction.
        ModelError: as there.
    """
    bundle = without_rows(load_bundle(directory, device="cpu"))
    with tempfile.TemporaryDirectory(prefix="tttab-") as folder:
        save_bundle(folder, bundle)
        return pack_bundle(Path(folder), out, base)
