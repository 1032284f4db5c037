"""How results are written down: tables and sections as plain data, their Markdown, figures, and the page.

Nothing here computes a result or knows what a number means.
"""

from tttab.report.section import Section
from tttab.report.tables import ReportTable, to_markdown

__all__ = ["ReportTable", "Section", "to_markdown"]
