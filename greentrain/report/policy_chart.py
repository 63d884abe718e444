"""A chart of the share of the gap that policies close at several budgets."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from greentrain.report.chart_shapes import BOTTOM, HEIGHT, TOP, Plot, dot, line, svg, text
from greentrain.report.formats import shown

_COLOURS = (
    "var(--accent, #1f7a5c)",
    "var(--warm, #c77700)",
    "var(--replay, #2f7fc1)",
    "var(--full, #7b4fb5)",
    "var(--alarm, #c0392b)",
    "var(--skip, #8a8f98)",
)
_DASHES = ("", "6 4", "2 3")
_LEGEND_SLOTS = 2
"""Slots to the right of the budgets, for the names of the policies."""
_LONGEST = 24
"""Characters of a policy's name that are shown."""
_LOWEST = -50.0
"""Lowest share on the chart in percent; lower ones are placed there, so one hides no others."""


def comparison_chart(budgets: Sequence[str], shares: Mapping[str, Sequence[float | None]]) -> str:
    """Plot the share of the gap that policies close, in percent, at each budget.

    Args:
        budgets: The names of the budgets.
        shares: For each policy its share at each budget, 1 for all of the gap; ``None`` where there
            is none.
    """
    known = [100 * share for each in shares.values() for share in each if share is not None]
    floor = max(_LOWEST, min([0.0, *known]))
    slots = len(budgets) + _LEGEND_SLOTS
    plot = Plot(max([100.0, *known]), slots, "gap closed (%)", "budget", floor)
    marks = [
        text(plot.centre(index), HEIGHT - BOTTOM + 18, name, "middle")
        for index, name in enumerate(budgets)
    ]
    for number, (policy, reached) in enumerate(shares.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        dashes = _DASHES[number // len(_COLOURS) % len(_DASHES)]
        points = [
            (plot.centre(index), plot.y(max(floor, 100 * share)))
            for index, share in enumerate(reached)
            if share is not None
        ]
        for (x1, y1), (x2, y2) in itertools.pairwise(points):
            marks.append(line(x1, y1, x2, y2, colour, 2, dashes))
        marks += [dot(x, y, colour) for x, y in points]
        x, y = plot.centre(len(budgets)) - plot.slot / 2, TOP + 14 + 15 * number
        marks += [
            line(x, y - 4, x + 24, y - 4, colour, 2, dashes),
            text(x + 30, y, shown(policy, _LONGEST), "start"),
        ]
    return svg("Share of the gap that policies close at several budgets", plot, marks)
