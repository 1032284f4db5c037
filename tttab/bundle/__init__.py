"""Bundles: folders with adapted weights, the context rows they belong to, and a manifest.

Start with `save_bundle` and `load_bundle`.
"""

from tttab.bundle.bundle import (
    Bundle,
    bundle_folder,
    load_bundle,
    room_for,
    save_bundle,
    schema_in,
)
from tttab.bundle.record import bundle_record

__all__ = ["Bundle", "bundle_folder", "bundle_record", "load_bundle", "room_for", "save_bundle", "schema_in"]
