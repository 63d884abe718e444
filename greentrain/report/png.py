"""Render the report's SVG charts as PNG, for places that show no SVG.

Matplotlib comes with MLflow and brings its own font, so a server without fonts renders the same
text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, PathPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.text import Text
from matplotlib.transforms import Affine2D

from greentrain.report.chart_shapes import HEIGHT, WIDTH

_DPI = 200
_PT = 0.72
"""Points of a unit of a chart, of which 100 are an inch."""
_TITLE = 26
"""Height of the title, which a page has outside of its chart."""
_PAPER, _INK = "#ffffff", "#1b2530"
_FALLBACK = re.compile(r"var\(--[\w-]+, *(#[0-9a-fA-F]+)\)")
_COMMAND = re.compile(r"([MHVLZ])([^MHVLZ]*)")
_ANCHORS: Mapping[str, Literal["left", "center", "right"]] = {
    "start": "left",
    "middle": "center",
    "end": "right",
}
_FONTS = {"": "DejaVuSans.ttf", "600": "DejaVuSans-Bold.ttf"}
_MISSING = "\N{WHITE SQUARE}"


def render_png(chart: str) -> bytes:
    """Render a chart of :mod:`greentrain.report.svg`, with its title above it, on white.

    Args:
        chart: The SVG; only the shapes of :mod:`greentrain.report.chart_shapes` are rendered.

    Returns:
        A PNG of 1520 pixels in width.
    """
    root = ElementTree.fromstring(chart)
    size = WIDTH / 100, (HEIGHT + _TITLE) / 100
    figure = Figure(figsize=size, dpi=_DPI, facecolor=_PAPER, edgecolor=_PAPER)
    figure.set_layout_engine("none")
    canvas = FigureCanvasAgg(figure)
    place = Affine2D().scale(_DPI / 100, -_DPI / 100).translate(0, HEIGHT * _DPI / 100)
    title = root.findtext("{*}title") or ""
    figure.add_artist(_text(title, 12, 8 - _TITLE / 2, place, size=13, weight="600"))
    for order, mark in enumerate(root):
        for artist in _artists(mark, place):
            artist.set_zorder(order)  # as in SVG: later marks are above earlier ones
            figure.add_artist(artist)
    written = io.BytesIO()
    # Matplotlib's annotations leave this method out.
    canvas.print_png(  # type: ignore[no-untyped-call]
        written, metadata={"Software": "greentrain", "Title": title}
    )
    return written.getvalue()


def _artists(mark: ElementTree.Element, place: Affine2D) -> Iterator[Artist]:
    """Return a mark as artists of matplotlib; a rectangle for a tooltip is nothing to see."""
    kind = mark.tag.rpartition("}")[2]
    style = _style(mark)
    shape: dict[str, Any] = {
        "facecolor": _colour(style.get("fill", "none")),
        "edgecolor": _colour(style.get("stroke", "none")),
        "linewidth": _PT * float(style.get("stroke-width", 0)),
        "alpha": float(style.get("opacity", 1)),
        "transform": place,
    }
    if kind == "rect" and style.get("fill-opacity") != "0":
        x, y, width, height = (float(mark.get(name, 0)) for name in ("x", "y", "width", "height"))
        yield Rectangle((x, y), width, height, **shape)
    elif kind == "circle":
        x, y, radius = (float(mark.get(name, 0)) for name in ("cx", "cy", "r"))
        yield Circle((x, y), radius, **shape)
    elif kind == "path":
        yield PathPatch(_path(mark.get("d", "")), **shape)
    elif kind == "line":
        x1, x2, y1, y2 = (float(mark.get(name, 0)) for name in ("x1", "x2", "y1", "y2"))
        dashes = [_PT * float(each) for each in style.get("stroke-dasharray", "").split()]
        yield Line2D(
            [x1, x2],
            [y1, y2],
            color=shape["edgecolor"],
            linewidth=shape["linewidth"],
            linestyle=(0, dashes) if dashes else "-",
            dash_capstyle="butt",
            solid_capstyle="butt",
            marker="",
            transform=place,
        )
    elif kind == "text":
        yield _text(
            mark.text or "",
            float(mark.get("x", 0)),
            float(mark.get("y", 0)),
            place,
            size=12,
            weight=mark.get("font-weight", ""),
            anchor=mark.get("text-anchor", "start"),
            alpha=float(mark.get("opacity", 1)),
        )


def _text(
    words: str,
    x: float,
    y: float,
    place: Affine2D,
    *,
    size: float,
    weight: str,
    anchor: str = "start",
    alpha: float = 1.0,
) -> Text:
    """Return a label as it is: a user's ``$`` begins no formula."""
    file, known = _font(weight)
    return Text(
        x,
        y,
        "".join(each if ord(each) in known else _MISSING for each in words),
        fontproperties=FontProperties(fname=file, size=_PT * size),
        color=_INK,
        alpha=alpha,
        horizontalalignment=_ANCHORS[anchor],
        verticalalignment="baseline",
        parse_math=False,
        usetex=False,
        transform=place,
    )


@cache
def _font(weight: str) -> tuple[Path, frozenset[int]]:
    """Return the file of a font of matplotlib, and the characters that it has."""
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", _FONTS[weight])
    return file, frozenset(FT2Font(str(file)).get_charmap())


def _path(commands: str) -> Outline:
    """Convert a path of straight lines."""
    points: list[tuple[float, float]] = []
    codes: list[int] = []
    x = y = 0.0
    for letter, numbers in _COMMAND.findall(commands):
        if letter == "Z":
            codes.append(int(Outline.CLOSEPOLY))
        else:
            given = [float(each) for each in numbers.replace(",", " ").split()]
            x = given[0] if letter != "V" else x
            y = given[-1] if letter != "H" else y
            codes.append(int(Outline.MOVETO if letter == "M" else Outline.LINETO))
        points.append((x, y))
    return Outline(points, codes)


def _style(mark: ElementTree.Element) -> dict[str, str]:
    pairs = [part.partition(":") for part in mark.get("style", "").split(";") if part]
    return {**mark.attrib, **{name.strip(): value.strip() for name, _, value in pairs}}


def _colour(value: str) -> str:
    """Return a colour that matplotlib accepts: the fallback of a variable."""
    found = _FALLBACK.fullmatch(value)
    return found[1] if found else _INK if value == "currentColor" else value
