"""Tables: from an id, a name or a file to a `tttab.core.Table`.

Importing this package loads neither pandas nor openml: public names load when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tttab.data.build import Origin as Origin
    from tttab.data.build import table_from_frame as table_from_frame
    from tttab.data.checks import Facts as Facts
    from tttab.data.checks import Limits as Limits
    from tttab.data.checks import duplicates_between as duplicates_between
    from tttab.data.checks import facts_of as facts_of
    from tttab.data.checks import thin_classes as thin_classes
    from tttab.data.load import Delivery as Delivery
    from tttab.data.load import get_tables as get_tables
    from tttab.data.load import load_table as load_table
    from tttab.data.load import load_task as load_task
    from tttab.data.reading import RawFrame as RawFrame
    from tttab.data.reading import read_frame as read_frame
    from tttab.data.registry import Catalog as Catalog
    from tttab.data.registry import Entry as Entry
    from tttab.data.registry import catalog as catalog
    from tttab.data.registry import names as names
    from tttab.data.registry import read_catalog as read_catalog
    from tttab.data.registry import suite_names as suite_names
    from tttab.data.schema import Schema as Schema
    from tttab.data.schema import schema_from_dict as schema_from_dict
    from tttab.data.schema import schema_of as schema_of

_HOME = {
    "Origin": "build",
    "table_from_frame": "build",
    "Facts": "checks",
    "Limits": "checks",
    "duplicates_between": "checks",
    "facts_of": "checks",
    "thin_classes": "checks",
    "Delivery": "load",
    "get_tables": "load",
    "Catalog": "registry",
    "Entry": "registry",
    "catalog": "registry",
    "names": "registry",
    "read_catalog": "registry",
    "suite_names": "registry",
    "load_table": "load",
    "load_task": "load",
    "RawFrame": "reading",
    "read_frame": "reading",
    "Schema": "schema",
    "schema_from_dict": "schema",
    "schema_of": "schema",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
