"""A small chart in SVG: axes, lines, bands, points and labels, as text to stand inside an HTML page.

Colours come from the page's style sheet through classes, so that a dark page stays readable. What does
not belong here: which numbers are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from tttab.text import html_text as escape

Kind = Literal["linear", "log"]


@dataclass(frozen=True)
class Axis:
    """One axis: its range in data units and its ticks."""

    label: str
    low: float
    high: float
    kind: Kind = "linear"
    ticks: tuple[float, ...] = ()
    """Tick values; empty: about five round ones."""

    def place(self, value: float) -> float:
        """Return where `value` stands between low (0) and high (1)."""
        if self.kind == "log":
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def marks(self) -> tuple[float, ...]:
        """Return the ticks inside the range."""
        ticks = self.ticks or (_decades(self.low, self.high) if self.kind == "log" else _round_steps(self))
        slack = 1e-9 * max(abs(self.low), abs(self.high))
        low = self.low * (1 - 1e-9) if self.kind == "log" else self.low - slack  # 0 is on no log axis
        return tuple(tick for tick in ticks if low <= tick <= self.high + slack)


@dataclass
class Chart:
    """A chart under construction; `svg` gives the text. Sizes are in pixels of the view box."""

    title: str
    x: Axis
    y: Axis
    width: int = 340
    height: int = 230
    left: int = 52
    """Room for the y axis's labels."""
    names: Sequence[str] = ()
    """Names for the ticks of the y axis (a chart of categories); empty: numbers."""
    parts: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return pixel coordinates of a data point."""
        across = self.left + self.x.place(x) * (self.width - self.left - 14)
        down = self.height - 40 - self.y.place(y) * (self.height - 40 - 28)
        return round(across, 2), round(down, 2)

    def line(self, xs: Sequence[float], ys: Sequence[float], kind: str) -> None:
        """Draw a polyline of the class `kind`."""
        path = " ".join(f"{a},{b}" for a, b in map(self.at, xs, ys))
        self.parts.append(f'<polyline class="line {kind}" points="{path}"/>')

    def band(self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], kind: str) -> None:
        """Fill between two curves."""
        there = [*map(self.at, xs, highs), *reversed([*map(self.at, xs, lows)])]
        path = " ".join(f"{a},{b}" for a, b in there)
        self.parts.append(f'<polygon class="band {kind}" points="{path}"/>')

    def point(self, x: float, y: float, kind: str, tip: str, *, radius: float = 3.5) -> None:
        """Draw a dot with a tool tip."""
        a, b = self.at(x, y)
        self.parts.append(
            f'<circle class="dot {kind}" cx="{a}" cy="{b}" r="{radius}"><title>{escape(tip)}</title></circle>'
        )

    def arrow(self, x: float, y: float, kind: str, *, to_left: bool) -> None:
        """Draw an arrow head beside a point: the true value lies further out."""
        a, b = self.at(x, y)
        tip, base = (a - 11, a - 4) if to_left else (a + 11, a + 4)
        self.parts.append(f'<polygon class="dot {kind}" points="{tip},{b} {base},{b - 4} {base},{b + 4}"/>')

    def text(self, x: float, y: float, words: str, *, dx: float = 6, dy: float = 3) -> None:
        """Write a small label beside a data point: to its right, with a negative `dx` to its left."""
        a, b = self.at(x, y)
        anchor = "end" if dx < 0 else "start"
        where = f'x="{a + dx:.1f}" y="{b + dy:.1f}" text-anchor="{anchor}"'
        self.parts.append(f'<text class="label" {where}>{escape(words)}</text>')

    def svg(self) -> str:
        """Return the SVG element, with a title for readers who cannot see it."""
        view = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        words = escape(self.title)
        head = f'<text class="title" x="14" y="16">{words}</text>'
        inner = "".join([head, *self._x_axis(), *self._y_axis(), *self.parts])
        return f'<svg {view} role="img" aria-label="{words}">{inner}</svg>'

    def _x_axis(self) -> list[str]:
        bottom, middle = self.height - 40, (self.left + self.width - 14) / 2
        where = f'x="{middle}" y="{self.height - 6}" text-anchor="middle"'
        parts = [f'<text class="axis" {where}>{escape(self.x.label)}</text>']
        for value in self.x.marks():
            a, _ = self.at(value, self.y.low)
            where = f'x="{a}" y="{bottom + 14}" text-anchor="middle"'
            parts.append(f'<line class="grid" x1="{a}" x2="{a}" y1="28" y2="{bottom}"/>')
            parts.append(f'<text class="tick" {where}>{tick_text(value)}</text>')
        return parts

    def _y_axis(self) -> list[str]:
        parts = []
        for number, value in enumerate(self.y.marks()):
            _, b = self.at(self.x.low, value)
            name = self.names[number] if self.names else tick_text(value)
            where = f'x="{self.left - 6}" y="{b + 3.5}" text-anchor="end"'
            parts.append(f'<line class="grid" x1="{self.left}" x2="{self.width - 14}" y1="{b}" y2="{b}"/>')
            parts.append(f'<text class="tick" {where}>{escape(name)}</text>')
        if self.y.label:
            where = f'x="{-(self.height - 12) / 2}" y="12" transform="rotate(-90)" text-anchor="middle"'
            parts.append(f'<text class="axis" {where}>{escape(self.y.label)}</text>')
        return parts


def span(values: Sequence[float], *, around: float | None = None, share: float = 0.06) -> tuple[float, float]:
    """Return a range that holds all finite values (and `around`) with a margin on both sides."""
    finite = [value for value in values if math.isfinite(value)] + ([] if around is None else [around])
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    margin = share * (high - low) or max(abs(high) * share, 1e-3)
    return low - margin, high + margin


def tick_text(value: float) -> str:
    """Return a short form of a tick's value."""
    if abs(value) >= 10_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:.4g}"


def _round_steps(axis: Axis) -> tuple[float, ...]:
    raw = (axis.high - axis.low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= raw)
    first = math.ceil(axis.low / step)
    return tuple(round(i * step, 12) for i in range(first, first + 9))


def _decades(low: float, high: float) -> tuple[float, ...]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    return tuple(step * 10.0**power for power in range(first, last + 1) for step in steps)
