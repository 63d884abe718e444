"""Building blocks of charts: shapes, text, round axis values, and a plot that places them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from greentrain.units import format_number

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 72, 16, 28, 64


def ticks(top: float, floor: float = 0.0) -> list[float]:
    """Choose round values between a floor and a top.

    Example:
        >>> ticks(1.0)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = top - floor
    if not (math.isfinite(span) and span > 0):
        return [0.0]
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= 6)
    first, last = math.ceil(floor / step - 1e-9), math.floor(top / step + 1e-9)
    return [float(f"{count * step:.12g}") for count in range(first, last + 1)]


def tick_words(tick: float) -> str:
    """Write a value of an axis; one that is too long for its place has an exponent.

    Example:
        >>> tick_words(0.25), tick_words(200000.0), tick_words(3.4e38), tick_words(2e-12)
        ('0.25', '200000', '3.4e+38', '2e-12')
    """
    words = format_number(tick, 6)
    fits = len(words) <= 9 and (words != "0" or not tick)
    return words if fits else f"{tick:.4g}"


class Plot:
    """The axes and the grid of a chart, and the places of values on them.

    Args:
        top: The highest value.
        slots: Positions side by side.
        y_label: Name of the values, with their unit.
        x_label: Name of the positions.
        floor: The lowest value.
    """

    def __init__(
        self, top: float, slots: int, y_label: str, x_label: str, floor: float = 0.0
    ) -> None:
        self.floor = floor
        self.top = top if top > floor else floor + 1.0
        self.slot = (WIDTH - LEFT - RIGHT) / max(1, slots)
        self.frame = [
            *(mark for tick in ticks(self.top, floor) for mark in self._grid(tick)),
            line(LEFT, self.y(floor), WIDTH - RIGHT, self.y(floor), "currentColor", 1),
            text(LEFT, 12, y_label, "middle", strong=True),
            text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle", strong=True),
        ]

    def x(self, share: float) -> float:
        """Place a share (0 to 1) of the width."""
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Place a value."""
        share = (value - self.floor) / (self.top - self.floor)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def centre(self, index: int) -> float:
        """Place the middle of a slot."""
        return LEFT + (index + 0.5) * self.slot

    def _grid(self, tick: float) -> list[str]:
        y = self.y(tick)
        return [
            line(LEFT, y, WIDTH - RIGHT, y, "var(--grid, #d8dce1)", 1),
            text(LEFT - 8, y + 4, tick_words(tick), "end"),
        ]


def svg(title: str, plot: Plot, marks: Sequence[str]) -> str:
    """Put marks into a picture whose title is read aloud by screen readers."""
    body = "".join([*plot.frame, *marks])
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}" xmlns="http://www.w3.org/2000/svg" '
        f'font-family="system-ui, sans-serif" font-size="12"><title>{escape(title)}</title>'
        f"{body}</svg>"
    )


def rect(x: float, top: float, width: float, bottom: float, colour: str) -> str:
    """Return a filled rectangle."""
    height = max(0.0, bottom - top)
    return (
        f'<rect x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'style="fill:{colour}"/>'
    )


def line(
    x1: float, y1: float, x2: float, y2: float, colour: str, width: float, dashes: str = ""
) -> str:
    """Return a line."""
    dashed = f";stroke-dasharray:{dashes}" if dashes else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'style="stroke:{colour};stroke-width:{width}{dashed}"/>'
    )


def dot(x: float, y: float, colour: str, *, hollow: bool = False) -> str:
    """Return a point."""
    fill = "var(--card, #ffffff)" if hollow else colour
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" '
        f'style="fill:{fill};stroke:{colour};stroke-width:2"/>'
    )


def text(
    x: float, y: float, text: str, anchor: str, *, strong: bool = False, quiet: bool = False
) -> str:
    """Return a label, escaped."""
    style = ' font-weight="600"' if strong else ' opacity="0.8"' if quiet else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor"{style}>'
        f"{escape(text)}</text>"
    )
