"""How every figure looks, in a file of its own (theory) or as SVG inside a page (report).

On a page colours are variables of its style sheet and texts are texts, so a dark page stays readable and the
names in a figure can be found.
"""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from tttab.system.files import cache_folder
from tttab.text import shown

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
INK, SOFT = "#1c2430", "#5b6675"
_ON_DARK = ("#56b4e9", "#ff8c42", "#2fcf9f", "#e8a8cb", "#f0bf4c", "#9bd3f5", "#b8c0ca")
PAGE_COLOURS: dict[str, tuple[str, str]] = {
    "ink": (INK, "#e8ecf1"),
    "soft": (SOFT, "#a3adba"),
    **{f"series-{place}": pair for place, pair in enumerate(zip(COLOURS, _ON_DARK, strict=True))},
}
"""The page's colour variables: name to what it is on a light and on a dark page."""
SAME_BYTES: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
"""Metadata of an SVG file that would differ from day to day."""
_STYLE = {"svg.hashsalt": "tttab", "font.size": 9, "axes.titlesize": 10}
_ON_PAGE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
    "text.parse_math": False,  # a `$` in a table's name is a dollar
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "grid.color": SOFT,
}
_TIP = "tip "
_TOP, _RIGHT, _BOTTOM = 36, 14, 42
"""Room around the axes on a page, pixels."""
_LONGEST_TITLE = 80
_PLACE = re.compile(r"-?\d+\.\d{3,}")
_NO_XML = re.compile("[\ufffe\uffff]")


@contextmanager
def figure_style(**more: str | float | bool) -> Generator[None]:
    """Draw in the style of all figures; `more` are further settings of matplotlib.

    Raises:
        ImportError: matplotlib is not installed.
    """
    os.environ.setdefault("MPLCONFIGDIR", str(cache_folder() / "matplotlib"))  # else a folder in the home
    import matplotlib

    settings: dict[Any, Any] = {**_STYLE, **more}
    with matplotlib.rc_context(settings):
        yield


def settle(axes: Axes) -> None:
    """Give axes their grid, and no frame above and to the right."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def label_log_axis(axes: Axes, places: Sequence[float], *, apart: float = 0.08, form: str = "g") -> None:
    """Label a logarithmic x axis at `places` alone; of two that would run together the larger stays.

    Args:
        axes: with its limits set.
        places: increasing.
        apart: the least distance of two labels as a share of the axis.
        form: of the numbers.
    """
    kept: list[float] = []
    for place in reversed(places):
        across = _across(axes, place)
        if -1e-9 <= across <= 1 + 1e-9 and (not kept or _across(axes, kept[0]) - across >= apart):
            kept.insert(0, place)
    axes.set_xticks(kept, [f"{place:{form}}" for place in kept])
    axes.set_xticks([], minor=True)


def on_page(title: str, width: int, height: int, fill: Callable[[Axes], None], *, left: int = 56) -> Markup:
    """Return a figure of one pair of axes as an SVG element to stand in a page; equal calls, equal text.

    Args:
        title: above the axes, and what a reader hears who cannot see the figure.
        width: pixels.
        height: pixels.
        fill: draws.
        left: pixels for the labels of the y axis.
    """
    from matplotlib.figure import Figure

    title = text_of(title)
    with figure_style(**_ON_PAGE | {"svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has other fonts
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        sides = (width - left - _RIGHT) / width, (height - _BOTTOM - _TOP) / height
        axes = figure.add_axes((left / width, _BOTTOM / height, *sides))
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        settle(axes)
        corner = (14 - left) / (width - left - _RIGHT)
        axes.set_title(text_of(title, _LONGEST_TITLE), x=corner, y=1, ha="left")
        fill(axes)
        return _element(figure, title)


def text_of(value: object, most: int | None = None) -> str:
    """Return `value` as a figure can show it: see `shown`; every character is one that SVG knows."""
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", shown(value, most))


def tip(artist: Artist, words: str) -> None:
    """Give what is drawn a tool tip on the page."""
    artist.set_gid(_TIP + text_of(words))


def _across(axes: Axes, place: float) -> float:
    """Return where a value stands between the left (0) and right end (1) of a logarithmic x axis."""
    low, high = axes.get_xlim()
    return math.log(place / low) / math.log(high / low) if place > 0 else -math.inf


def _element(figure: Figure, title: str) -> Markup:
    from markupsafe import Markup

    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=SAME_BYTES)
    root = ElementTree.fromstring(stream.getvalue())
    root.remove(root[0])  # a style for every element of the page; the page's own has it
    size = {name: root.attrib[name].removesuffix("pt") for name in ("width", "height")}
    used = set(re.findall(r'(?:url\(|href=")#(\w+)', stream.getvalue()))
    for element in list(root.iter()):
        _tidy(element, used)
    root[:] = list(_flat(root))
    root.attrib = {"viewBox": root.attrib["viewBox"], **size, "role": "img", "aria-label": title}
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # escaped by the line itself


def _flat(element: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """Yield what is in an element without the groups that say nothing."""
    for child in element:
        if child.tag == "g" and not child.attrib and child.find("title") is None:
            yield from _flat(child)
        else:
            yield child


def _tidy(element: ElementTree.Element, used: set[str]) -> None:
    """Take away what a page does not need, and let it choose colours and fonts."""
    element.tag = element.tag.rpartition("}")[2]
    element.tail = None
    if element.tag != "text":
        element.text = None
    name = element.attrib.get("id", "")
    if name not in used:
        element.attrib.pop("id", None)
    if name.startswith(_TIP):
        element.insert(0, _title(name.removeprefix(_TIP)))
    if link := element.attrib.pop("{http://www.w3.org/1999/xlink}href", ""):
        element.set("href", link)
    for name in {"d", "x", "y"} & element.attrib.keys():
        element.set(name, _PLACE.sub(_rounded, " ".join(element.attrib[name].split())))
    if element.attrib.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    if "style" in element.attrib:
        element.set("style", _style(element.attrib["style"]))


def _rounded(place: re.Match[str]) -> str:
    return f"{float(place[0]):.2f}".rstrip("0").removesuffix(".")


def _title(words: str) -> ElementTree.Element:
    title = ElementTree.Element("title")
    title.text = words
    return title


def _style(style: str) -> str:
    parts = [part for part in style.split("; ") if not part.startswith("font-family")]
    text = ";".join(part.replace(": ", ":") for part in parts)
    for name, (light, _) in PAGE_COLOURS.items():
        text = text.replace(light.lower(), f"var(--{name})")
    return text
