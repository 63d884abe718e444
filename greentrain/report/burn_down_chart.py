"""Charts of budgets that burn down."""

from __future__ import annotations

from collections.abc import Sequence

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
from greentrain.report.formats import energy, shown
from greentrain.report.overview import BudgetState
from greentrain.units import energy_in, energy_unit, format_number

_LINE, _SOFT = "var(--accent, #1f7a5c)", "var(--soft, #9aa3ad)"
_WARN, _ALARM = "var(--warn, #c77700)", "var(--alarm, #c0392b)"


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
