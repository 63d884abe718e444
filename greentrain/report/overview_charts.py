"""Charts of the overview: budgets burning down, and metrics against energy."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from greentrain.report.chart_shapes import (
    BOTTOM,
    HEIGHT,
    Plot,
    dot,
    line,
    svg,
    text,
    ticks,
)
from greentrain.report.formats import energy, metric, shown
from greentrain.report.overview import BudgetState
from greentrain.units import energy_in, energy_unit, format_number

_LINE, _SOFT = "var(--accent, #1f7a5c)", "var(--soft, #9aa3ad)"
_WARN, _ALARM = "var(--warn, #c77700)", "var(--alarm, #c0392b)"
_CHARACTER = 7.0


class MetricPoint(NamedTuple):
    """A stream on a chart: its name, the joules that it used and the metric that it reached."""

    name: str
    energy_j: float
    value: float


def burn_down_chart(budget: BudgetState, points: Sequence[tuple[int, float]]) -> str:
    """Plot the joules left after each experience, and the forecast to the last one as dashes.

    A thin line from the whole amount to zero is an even use.

    Args:
        budget: The budget, of energy.
        points: Numbers of experiences, each with the joules left after it.
    """
    ahead, total_j = budget["forecast"], budget["total_j"] or 0.0
    left_j, end_j = budget["left_j"] or 0.0, ahead["left_j"]
    unit = energy_unit([total_j])
    scale = energy_in(1.0, unit)
    values = [total_j, left_j, *(value for _, value in points)]
    low = min([0.0, *values, *([] if end_j is None else [end_j])])
    last = max([ahead["planned"], ahead["done"], *(number for number, _ in points), 1])
    plot = Plot(1.05 * max(values) * scale, 0, f"left ({unit})", "experiences", 1.05 * low * scale)

    def x(number: float) -> float:
        return plot.x(number / last)

    def y(joules: float) -> float:
        return plot.y(joules * scale)

    path = f"M{x(0):.1f},{y(total_j):.1f}"
    path += "".join(f"L{x(number):.1f},{y(joules):.1f}" for number, joules in points)
    marks = [
        line(x(0), y(total_j), x(ahead["planned"]), y(0), _SOFT, 1.5, dashes="2 4"),
        f'<path d="{path}" style="fill:none;stroke:{_LINE};stroke-width:2.5"/>',
        dot(x(ahead["done"]), y(left_j), _LINE),
    ]
    if low < 0:
        marks.append(line(x(0), y(0), x(last), y(0), _ALARM, 1.5))
    if end_j is not None and ahead["planned"] > ahead["done"]:
        colour = _ALARM if end_j < 0 else _WARN
        marks.append(
            line(x(ahead["done"]), y(left_j), x(ahead["planned"]), y(end_j), colour, 2.5, "7 5")
        )
        marks.append(dot(x(ahead["planned"]), y(end_j), colour, hollow=True))
    for tick in ticks(float(last)):
        if tick == int(tick):
            marks.append(text(x(tick), HEIGHT - BOTTOM + 20, format_number(tick, 6), "middle"))
    title = f"{energy(left_j)} of {energy(total_j)} left of the budget {shown(budget['name'], 60)}"
    title += f" after {ahead['done']} of {ahead['planned']} experiences"
    if end_j is not None:
        title += f", {energy(end_j)} expected after the last"
    return svg(title, plot, marks)


def pareto(points: Sequence[MetricPoint], mode: str) -> list[MetricPoint]:
    """Return the points that no other point beats: none has a better metric for less energy.

    Example:
        >>> found = [MetricPoint("a", 1.0, 0.5), MetricPoint("b", 2.0, 0.4)]
        >>> [one.name for one in pareto(found, "max")], [one.name for one in pareto(found, "min")]
        (['a'], ['a', 'b'])
    """
    sign = -1.0 if mode == "min" else 1.0
    best: list[MetricPoint] = []
    for one in sorted(points, key=lambda point: (point.energy_j, -sign * point.value)):
        if not best or sign * one.value > sign * best[-1].value:
            best.append(one)
    return best


def pareto_chart(points: Sequence[MetricPoint], name: str, mode: str) -> str:
    """Plot a metric against energy; a line joins the points that no other point beats.

    Args:
        points: The streams, two or more.
        name: Name of the metric.
        mode: ``"max"`` if more is better, otherwise ``"min"``.
    """
    best = pareto(points, mode)
    unit = energy_unit([one.energy_j for one in points])
    values = [one.value for one in points]
    margin = 0.15 * (max(values) - min(values)) or 0.1 * abs(max(values)) or 0.1
    top_j = 1.15 * max(one.energy_j for one in points) or 1.0
    short = shown(name, 24)
    plot = Plot(max(values) + margin, 0, short, f"energy used ({unit})", min(values) - margin)
    at = {one: (plot.x(one.energy_j / top_j), plot.y(one.value)) for one in points}
    marks = [
        line(*at[one], *at[other], _SOFT, 2, dashes="4 4")
        for one, other in itertools.pairwise(best)
    ]
    top = energy_in(top_j, unit)
    for tick in ticks(top):
        marks.append(
            text(plot.x(tick / top), HEIGHT - BOTTOM + 20, format_number(tick, 6), "middle")
        )
    taken: list[tuple[float, float, float]] = []
    for one in points:
        x, y = at[one]
        label = shown(one.name, 24)
        width = _CHARACTER * len(label)
        start = x + 9 if x + 9 + width < plot.x(1) else x - 9 - width
        below = y + 4
        while any(
            start < to and begin < start + width and abs(below - row) < 14
            for begin, to, row in taken
        ):
            below += 14
        taken.append((start, start + width, below))
        words = f"{shown(one.name, 80)}: {energy(one.energy_j)}, {short} {metric(one.value)}"
        marks.append(dot(x, y, _LINE, hollow=one not in best))
        if below < HEIGHT - BOTTOM:
            marks.append(text(start, below, label, "start"))
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="12" fill-opacity="0">'
            f"<title>{escape(words)}</title></circle>"
        )
    names = ", ".join(shown(one.name, 40) for one in best[:5])
    return svg(f"{short} against energy; no other stream beats {names}", plot, marks)
