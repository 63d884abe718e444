"""The charts of a report as PNG: what a pixel has, and what a user's settings do not change."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from greentrain.ledger import Ledger
from greentrain.report import build
from greentrain.report.chart_shapes import Plot, line, rect, svg, text
from greentrain.report.document import Report
from greentrain.report.html import charts
from greentrain.report.png import render_png
from tests.report.month import two_streams

TITLE = 26


def picture(*marks: str, title: str = "a title") -> Image.Image:
    drawn = render_png(svg(title, Plot(1.0, 1, "wide", "long"), marks))
    return Image.open(io.BytesIO(drawn)).convert("RGB")


def at(image: Image.Image, x: float, y: float) -> tuple[int, ...]:
    """The colour at a place of the chart: two pixels are one of its units."""
    return image.getpixel((round(2 * x), round(2 * (y + TITLE))))


def test_shapes_are_where_the_svg_has_them_in_their_colours() -> None:
    image = picture(
        rect(100, 100, 50, 200, "var(--warm, #c77700)"),
        line(300, 60, 500, 60, "currentColor", 4),
        '<path d="M550,100.0H650V150.0H550Z" style="fill:#ff0000;opacity:0.5"/>',
        '<rect x="700" y="80" width="40" height="40" fill-opacity="0"><title>more</title></rect>',
    )
    assert image.size == (1520, 652)
    assert at(image, 125, 150) == (0xC7, 0x77, 0x00)
    assert at(image, 125, 210) == (255, 255, 255)
    assert at(image, 400, 60) == (0x1B, 0x25, 0x30)
    assert at(image, 600, 125) == pytest.approx((255, 128, 128), abs=2)
    assert at(image, 720, 100) == (255, 255, 255)  # a tooltip's rectangle


def test_a_later_mark_lies_above_an_earlier_one() -> None:
    line_over_bar = picture(rect(100, 80, 99, 200, "#00ff00"), line(90, 99, 300, 99, "#0000ff", 6))
    assert at(line_over_bar, 150, 99) == (0, 0, 255)
    bar_over_line = picture(line(90, 99, 300, 99, "#0000ff", 6), rect(100, 80, 99, 200, "#00ff00"))
    assert at(bar_over_line, 150, 99) == (0, 255, 0)


def test_names_are_drawn_as_they_are() -> None:
    """No formula begins at a dollar, and a sign that the font lacks is no warning."""
    words = r"$\frac{1}{2 <&> 漢字 \N{no}"
    image = picture(text(300, 150, words, "middle"), title=words)
    assert np.asarray(image)[2 * (TITLE + 135) : 2 * (TITLE + 155), 400:800].min() < 100


def test_settings_of_the_users_own_plots_change_nothing() -> None:
    usual = picture(text(300, 150, "words", "end"))
    with matplotlib.rc_context(
        {
            "figure.facecolor": "black",
            "text.usetex": True,
            "font.size": 40,
            "text.color": "red",
            "figure.constrained_layout.use": True,
            "savefig.dpi": 10,
        }
    ):
        assert picture(text(300, 150, "words", "end")) == usual
    before = dict(matplotlib.rcParams)
    picture()
    assert dict(matplotlib.rcParams) == before


@pytest.fixture(scope="module")
def month() -> Report:
    ledger = Ledger.in_memory()
    two_streams(ledger)
    return build(ledger)


def test_every_chart_of_a_report_is_drawn(month: Report) -> None:
    plotted = charts(month)
    assert {place for place, found in plotted.items() if found} >= {"energy", "spending", "metric"}
    for found in plotted.values():
        for _, chart in found:
            drawn = np.asarray(Image.open(io.BytesIO(render_png(chart))).convert("RGB"))
            assert drawn.shape == (652, 1520, 3)
            assert (drawn != 255).any(axis=2).mean() > 0.005
