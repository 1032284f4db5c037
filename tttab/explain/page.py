"""Explanations as tables and as a page that stands alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tttab.explain.shapley import Dependence, Explanation
from tttab.report import ReportTable
from tttab.report.figures import COLOURS, SOFT, on_page, text_of, tip
from tttab.report.page import page

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

WIDE, TALL, BAR = 556, 300, 22
SHOWN = 20
"""Features that a figure or a line of the table has room for."""
ROWS, MOST_CLASSES = 20, 6
"""Rows that are explained one by one on the page, and classes that a figure has colours for."""


def importance_table(found: Explanation, shuffled: np.ndarray | None, title: str) -> ReportTable:
    """One line per feature, the most important first.

    Args:
        found: the Shapley values.
        shuffled: shape (features, repeats), or None where labels are not known.
        title: of the table.
    """
    order = np.argsort(-found.importance)
    columns = ["feature", "mean |SHAP|"] + ["loss when shuffled"] * (shuffled is not None)
    rows = []
    for place in order:
        line = [text_of(found.features[place]), float(found.importance[place])]
        if shuffled is not None:
            line.append(f"{shuffled[place].mean():+.4f} ± {shuffled[place].std():.4f}")
        rows.append(tuple(line))
    unit = "probability" if len(found.outputs) > 1 else f"units of {text_of(found.outputs[0], 40)}"
    notes = [f"SHAP: how far a feature moves a prediction on average over {len(found.x):,} rows, {unit}."]
    if shuffled is not None:
        notes.append(
            "Shuffled: how much the loss on these rows rises where the feature's cells are mixed up."
        )
    return ReportTable(title, tuple(columns), tuple(rows), left=("feature",), notes=tuple(notes))


def row_table(found: Explanation, row: int) -> ReportTable:
    """What made one row's prediction, the largest effect first; of several classes for the likeliest."""
    output = int(found.predictions[row].argmax()) if len(found.outputs) > 1 else 0
    values, name = found.values[row, :, output], text_of(found.outputs[output], 60)
    lines = [
        (text_of(found.features[place]), text_of(found.x.iloc[row, place], 40), f"{values[place]:+.4f}")
        for place in np.argsort(-np.abs(values))[:SHOWN]
    ]
    base, end = found.base[output], found.predictions[row, output]
    title = f"Row {row + 1}: {name} {end:.3f}"
    note = f"Starts from {base:.3f}, the mean over the background, and ends at {end:.3f}."
    return ReportTable(
        title, ("feature", "cell", "effect"), tuple(lines), left=("feature", "cell"), notes=(note,)
    )


def explanation_page(
    found: Explanation, shuffled: np.ndarray | None, curves: Sequence[Dependence], *, name: str
) -> str:
    """Return the whole page: importance, dependence of the features in `curves`, the first rows."""
    return page(
        "explain.html.j2",
        title=f"What predictions of {text_of(name)} rest on",
        shown=found.outputs[:MOST_CLASSES] if len(found.outputs) > 2 else (),
        importance=importance_table(found, shuffled, "Importance"),
        bars=_bars(found),
        curves=list(_curves(found, curves)),
        rows=[row_table(found, row) for row in range(min(ROWS, len(found.x)))],
    )


def _bars(found: Explanation) -> Markup:
    order = np.argsort(-found.importance)[:SHOWN][::-1]

    def fill(axes: Axes) -> None:
        for height, place in enumerate(order):
            value = float(found.importance[place])
            (bar,) = axes.barh([height], [value], color=COLOURS[0], height=0.7)
            tip(bar, f"{found.features[place]}: {value:.4f}")
        axes.set_yticks(range(len(order)), [text_of(found.features[place], 26) for place in order])
        axes.set_xlabel("mean |SHAP|")
        axes.set_ylim(-0.6, len(order) - 0.4)

    return on_page("What moves the predictions", WIDE, 90 + BAR * len(order), fill, left=190)


def _curves(found: Explanation, curves: Sequence[Dependence]) -> Iterator[Markup]:
    """Yield a figure per feature: for two classes the second's probability, with a thin line per row."""
    outputs = range(len(found.outputs))
    shown = outputs[-1:] if len(outputs) <= 2 else outputs[:MOST_CLASSES]
    label = text_of(found.outputs[-1], 30) if len(shown) == 1 else "probability"
    label = f"p({label})" if len(outputs) == 2 else label
    for curve in curves:
        fill = partial(_draw_curve, curve=curve, shown=shown, label=label)
        yield on_page(text_of(curve.feature, 60), WIDE, TALL, fill, left=64)


def _draw_curve(axes: Axes, *, curve: Dependence, shown: range, label: str) -> None:
    texts = isinstance(curve.grid[0], str)
    places = list(range(len(curve.grid))) if texts else list(curve.grid)
    if len(shown) == 1:
        axes.plot(places, curve.rows[shown[0]].T, color=SOFT, lw=0.6, alpha=0.4)
    for series, output in enumerate(shown):
        axes.plot(places, curve.mean[output], color=COLOURS[series], lw=2.2, marker="o" if texts else "")
    if texts:
        every = slice(None, None, 1 + len(places) // 8)
        axes.set_xticks(places[every], [text_of(value, 12) for value in curve.grid[every]])
    axes.set_ylabel(label)
