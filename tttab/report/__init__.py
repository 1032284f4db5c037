"""How results are written down: tables as plain data, their Markdown and HTML, and inline SVG charts.

What does not belong here: computing a result, or knowing what a number means.
"""

from tttab.report.tables import ReportTable, to_html, to_markdown

__all__ = ["ReportTable", "to_html", "to_markdown"]
