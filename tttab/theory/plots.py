"""Figures of the theory commands: panels of curves and points, drawn to an SVG or PNG file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tttab.errors import RequestError
from tttab.report.figures import COLOURS, SAME_BYTES, figure_style, label_log_axis, settle
from tttab.system.files import atomic_path
from tttab.text import shell_word

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Style = Literal["line", "dashed", "dashdot", "dotted", "points", "crosses"]
SUFFIXES = (".svg", ".png")
_FORMAT = {"line": "-", "dashed": "--", "dashdot": "-.", "dotted": ":", "points": "o", "crosses": "x"}
_COLUMNS = 2
_SIDE_BY_SIDE, _LEGEND = 2, 0.16
"""Entries of a legend in a line, and the inches of a line."""


@dataclass(frozen=True)
class Series:
    """One curve or one set of points. None and NaN in `y` leave a gap."""

    label: str
    """Text in the legend; empty: none."""
    x: Sequence[float]
    y: Sequence[float | None]
    style: Style = "line"
    colour: int = 0
    """Number in `COLOURS`, taken modulo its length."""
    error: Sequence[float | None] = ()
    """Half lengths of the error bars of points; empty: none."""


@dataclass(frozen=True)
class Marker:
    """A vertical line at `x`, with a band from `low` to `high` where there is one."""

    label: str
    x: float
    style: Style = "dotted"
    colour: int = 6
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    markers: Sequence[Marker] = field(default=())
    log_x: bool = False
    log_y: bool = False
    x_names: Sequence[str] = ()
    """Names for the places 0, 1, … of the x axis."""
    falling: bool = False
    """Whether x falls to the right."""


def column(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """Return a field of every row; None where a row has none."""
    return [row.get(name) for row in rows]


def distinct(rows: Sequence[Mapping[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    """Return the different values of some fields in the order in which they come."""
    return list(dict.fromkeys(tuple(row[name] for name in names) for row in rows))


def curve(
    label: str,
    x: Sequence[float],
    y: Sequence[float | None],
    error: Sequence[float | None] = (),
    *,
    colour: int = 0,
    style: Style = "line",
) -> list[Series]:
    """Return a line through measured points, and the points with their error bars."""
    return [Series(label, x, y, style, colour), Series("", x, y, "points", colour, error)]


def check_plot_path(path: str | os.PathLike[str]) -> Path:
    """Return `path`; call it before long work.

    Raises:
        RequestError: the suffix is neither .svg nor .png.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise RequestError(
            f"a plot is an .svg or a .png file, not {path.name}", f"--plot {shell_word(path.stem + '.svg')}"
        )
    return path


def draw(panels: Sequence[Panel], path: str | os.PathLike[str], title: str = "") -> None:
    """Draw `panels` side by side, two in a line, to `path`; equal panels give equal files.

    Raises:
        RequestError: the suffix is neither .svg nor .png.
    """
    target = check_plot_path(path)
    suffix = target.suffix.lower().removeprefix(".")
    with figure_style(), atomic_path(target) as part:
        metadata = SAME_BYTES if suffix == "svg" else {}
        _figure(panels, title).savefig(part, format=suffix, dpi=150, metadata=metadata)


def _figure(panels: Sequence[Panel], title: str) -> Figure:
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    entries = max(len(panel.series) + len(panel.markers) for panel in panels)
    height = 3.5 + _LEGEND * -(-entries // _SIDE_BY_SIDE)
    figure = Figure(figsize=(5.2 * columns, height * lines + 0.3), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for place, panel in zip(axes, panels, strict=False):
        _fill(place, panel)
    for place in axes[len(panels) :]:
        place.set_visible(False)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _fill(axes: Axes, panel: Panel) -> None:
    for series in panel.series:
        _plot(axes, series)
    for marker in panel.markers:
        colour = COLOURS[marker.colour % len(COLOURS)]
        axes.axvline(marker.x, color=colour, linestyle=_FORMAT[marker.style], lw=1.2, label=marker.label)
        if marker.low is not None and marker.high is not None:
            axes.axvspan(marker.low, marker.high, color=colour, alpha=0.15, lw=0)
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    axes.set_xscale("log" if panel.log_x else "linear")
    axes.set_yscale("log" if panel.log_y else "linear")
    if panel.log_x:
        _tick_at_data(axes, panel)
    if panel.x_names:
        axes.set_xticks(range(len(panel.x_names)), panel.x_names)
        axes.margins(x=0.1)
    if panel.falling:
        axes.invert_xaxis()
    settle(axes)
    if axes.get_legend_handles_labels()[1]:  # below the axes: inside it would cover a curve somewhere
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17)}
        axes.legend(fontsize=7, frameon=False, ncols=_SIDE_BY_SIDE, **below)


def _tick_at_data(axes: Axes, panel: Panel) -> None:
    """Label a logarithmic axis at the measured places where they are few: its own labels run together."""
    places = sorted({float(x) for series in panel.series for x in series.x})
    if 1 < len(places) <= 8:
        label_log_axis(axes, places)


def _plot(axes: Axes, series: Series) -> None:
    colour, y = COLOURS[series.colour % len(COLOURS)], _numbers(series.y)
    label = series.label or None
    if series.style in ("points", "crosses"):
        bars = _numbers(series.error) if len(series.error) else None
        axes.errorbar(
            series.x, y, yerr=bars, fmt=_FORMAT[series.style], ms=4, lw=1, color=colour, label=label
        )
    else:
        axes.plot(series.x, y, _FORMAT[series.style], color=colour, lw=1.4, label=label)


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else float(value) for value in values]
