"""Bundles: folders with adapted weights, the context rows they belong to, and a manifest.

What does not belong here: training, and the conversion of a table.
"""

from tttab.bundle.bundle import (
    Bundle,
    adaptation_record,
    bundle_folder,
    load_bundle,
    room_for,
    save_bundle,
    table_record,
)

__all__ = [
    "Bundle",
    "adaptation_record",
    "bundle_folder",
    "load_bundle",
    "room_for",
    "save_bundle",
    "table_record",
]
