"""Charts of a metric against energy, with the Pareto front marked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
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
    tick_words,
    ticks,
)
from greentrain.report.formats import energy, metric, shown
from greentrain.report.row_helpers import grouped
from greentrain.report.trials import Trial
from greentrain.units import energy_in, energy_unit

_LINE, _SOFT = "var(--accent, #1f7a5c)", "var(--soft, #9aa3ad)"
_CHARACTER = 7.0
MOST_NAMED = 30
"""Points with a name on a chart. Of more, only those on the front are named."""


class MetricPoint(NamedTuple):
    """A trial on a chart: its name, the joules that it used and the metric that it reached."""

    name: str
    energy_j: float
    value: float


def pareto_charts(trials: Iterable[Trial]) -> list[tuple[str, str]]:
    """Return a chart for each metric of two or more trials, with the name of the metric.

    A trial without known energy, whose better direction of the metric is unknown, or whose metric
    is not finite, is left out. So is a chart whose values span more than numbers can hold.
    """
    known = [
        one
        for one in trials
        if one["energy_j"] is not None and one["mode"] is not None and math.isfinite(one["value"])
    ]
    charts = []
    for (name, mode), held in grouped(known, lambda one: (one["metric"], one["mode"])).items():
        values = [one["value"] for one in held]
        if len(held) > 1 and math.isfinite(2 * (max(values) - min(values))):
            points = [
                MetricPoint(one["name"], one["energy_j"] or 0.0, one["value"]) for one in held
            ]
            charts.append((name, pareto_chart(points, name, str(mode))))
    return charts


def pareto(points: Sequence[MetricPoint], mode: str) -> list[MetricPoint]:
    """Return the points that no other point beats: none has a better metric for less energy.

    Equal points do not beat each other.

    Example:
        >>> found = [MetricPoint("a", 1.0, 0.5), MetricPoint("b", 2.0, 0.4)]
        >>> [one.name for one in pareto(found, "max")], [one.name for one in pareto(found, "min")]
        (['a'], ['a', 'b'])
    """
    sign = -1.0 if mode == "min" else 1.0
    best: list[MetricPoint] = []
    for one in sorted(points, key=lambda point: (point.energy_j, -sign * point.value)):
        if not best or sign * one.value > sign * best[-1].value or one[1:] == best[-1][1:]:
            best.append(one)
    return best


def pareto_chart(points: Sequence[MetricPoint], name: str, mode: str) -> str:
    """Plot a metric against energy; a line joins the points that no other point beats.

    Args:
        points: The trials, two or more.
        name: Name of the metric.
        mode: ``"max"`` if more is better, otherwise ``"min"``.
    """
    best = pareto(points, mode)
    front, few = set(best), len(points) <= MOST_NAMED
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
        marks.append(text(plot.x(tick / top), HEIGHT - BOTTOM + 20, tick_words(tick), "middle"))
    named = set(points if few else best[:: math.ceil(len(best) / MOST_NAMED)])
    taken: list[tuple[float, float, float]] = []
    for one in sorted(points, key=front.__contains__):  # the front is above the others
        x, y = at[one]
        marks.append(dot(x, y, _LINE, hollow=one not in front))
        words = f"{shown(one.name, 80)}: {energy(one.energy_j)}, {short} {metric(one.value)}"
        words += ", on the Pareto front" if one in front else ""
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{12 if few else 5}" fill-opacity="0">'
            f"<title>{escape(words)}</title></circle>"
        )
        if one not in named:
            continue
        label = shown(one.name, 24)
        width = _CHARACTER * len(label)
        right = x + 9 + width < plot.x(1)
        start = x + 9 if right else x - 9 - width
        below = y - 7 if mode == "min" else y + 15  # the dashes of the front go the other way
        while any(
            start < to and begin < start + width and abs(below - row) < 14
            for begin, to, row in taken
        ):
            below += 14
        taken.append((start, start + width, below))
        if below < HEIGHT - BOTTOM:
            marks.append(text(x + 9 if right else x - 9, below, label, "start" if right else "end"))
    names = shown(", ".join(one.name for one in best), 60)
    return svg(f"{short} against energy; nothing else beats {names}", plot, marks)
