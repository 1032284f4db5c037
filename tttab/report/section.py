"""A section of a report: tables for every form of it, figures for the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from tttab.report.tables import ReportTable

if TYPE_CHECKING:
    from markupsafe import Markup

Subject = TypeVar("Subject")


def no_figures(subject: object) -> Iterable[Markup]:
    """Return nothing: the section has tables alone."""
    return ()


@dataclass(frozen=True)
class Section(Generic[Subject]):
    """What one section says of its subject."""

    name: str
    """Its heading on the page."""
    tables: Callable[[Subject], Iterable[ReportTable]]
    """For the terminal, JSON, Markdown and the page."""
    figures: Callable[[Subject], Iterable[Markup]] = no_figures
    """SVG elements, see `figures.on_page`; for the page."""
