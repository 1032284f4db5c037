"""One HTML page that stands alone: style inside, no script, no font, no image and no request to anywhere.

Its templates are in `templates/`.
"""

from __future__ import annotations

from typing import Any

from tttab.report.figures import PAGE_COLOURS
from tttab.report.tables import cell_text
from tttab.text import shown


def page(template: str, **content: Any) -> str:
    """Return a template filled in; every text is shown as text, whatever it holds, `Markup` as it stands."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tttab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_fit,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = cell_text
    return environment.get_template(template).render(colours=PAGE_COLOURS, **content)


def _fit(value: object) -> object:
    return value if hasattr(value, "__html__") else shown(value)
