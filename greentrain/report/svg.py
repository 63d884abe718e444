"""Charts as inline SVG: pure functions from the report's values to text without scripts.

Colours are CSS variables with a fallback, and text has ``currentColor``. So one chart is readable
on a light page, on a dark page, and alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from html import escape

from greentrain.control import UPDATE_MODES
from greentrain.report.budget_figures import BudgetFigures
from greentrain.report.chart_shapes import (
    BOTTOM,
    HEIGHT,
    LEFT,
    TOP,
    Plot,
    dot,
    line,
    rect,
    svg,
    text,
    ticks,
)
from greentrain.report.document import EpochEnergy, ExperienceEntry, HourFigures, SourceFigures
from greentrain.report.experiences import is_baseline
from greentrain.report.formats import amount, energy, metric, shown
from greentrain.units import J_PER_WH, energy_in, energy_unit, format_number, plural

MODE_COLOURS: Mapping[str, str] = {
    mode: f"var(--{traits.short_name}, {traits.colour})" for mode, traits in UPDATE_MODES.items()
}
BASELINE_COLOUR = "var(--baseline, #a8527a)"
_BASE = "base"
_LINE, _ALARM = "var(--accent, #1f7a5c)", "var(--alarm, #c0392b)"
_SOFT = "var(--soft, #9aa3ad)"
_SHORT: Mapping[str, str] = {mode: traits.short_name for mode, traits in UPDATE_MODES.items()}
_CHARACTER = 6.8
"""Approximate width of a character of a label, in the units of a chart."""
_SHORTEST = 8
"""Fewest characters that labels are cut to; if fewer fit, some bars have none."""
_MOST_POINTS = 400
_MOST_SOURCES = 12
_HOUR_S = 3600.0
_TIMES = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))


def energy_chart(experiences: Sequence[ExperienceEntry], stream: str = "") -> str:
    """Plot the energy of each experience of a stream as a bar in the colour of its update mode.

    The part above the coloured one is energy outside the update: probes and calibration. A tick
    marks the predicted energy of the update. Baseline retrainings are bars of another colour,
    after their experiences.
    """
    tops = [value for one in experiences for value in (one["energy_j"], one["predicted_j"])]
    plot, y_of = _energy_plot(tops, len(experiences), "experience")
    width = min(56.0, plot.slot * 0.62)
    marks = []
    for index, one in enumerate(experiences):
        left = plot.centre(index) - width / 2
        energy_j, update_j = one["energy_j"], one["update_energy_j"]
        if energy_j is None:
            marks.append(text(plot.centre(index), plot.y(0) - 6, "?", "middle"))
        else:
            y = y_of(energy_j if update_j is None else min(update_j, energy_j))
            colour = _colour(one)
            marks.append(rect(left, y_of(energy_j), width, y, _SOFT))
            marks.append(rect(left, y, width, plot.y(0), colour))
        if one["predicted_j"]:
            y = y_of(one["predicted_j"])
            marks.append(line(left - 5, y, left + width + 5, y, "currentColor", 2.5))
        words = (
            f"{one['experience_id']}, {_kind(one)}: {energy(energy_j)} with its probe, the update "
            f"{energy(update_j)}, predicted {energy(one['predicted_j'])}"
        )
        marks.append(_tooltip(plot, index, words))
    labels = _labels(
        plot,
        [
            (_name(one), _BASE if is_baseline(one) else _SHORT.get(one["update_mode"], ""))
            for one in experiences
        ],
    )
    baselines = sum(map(is_baseline, experiences))
    title = f"Energy of {plural(len(experiences) - baselines, 'experience')}"
    title += f" and {plural(baselines, 'baseline retraining')}" if baselines else ""
    title += f" of {shown(stream, 60)}" if stream else ""
    return svg(title, plot, [*marks, *labels])


def epoch_chart(epochs: Sequence[EpochEnergy], title: str) -> str:
    """Plot the energy of each epoch as a bar: training in colour, its validation on top of it."""
    sums_j = [(one["train_j"] or 0.0) + (one["validation_j"] or 0.0) for one in epochs]
    plot, y_of = _energy_plot(sums_j, len(epochs), "epoch")
    width = min(56.0, plot.slot * 0.8)
    marks = []
    for index, (one, sum_j) in enumerate(zip(epochs, sums_j, strict=True)):
        left, y = plot.centre(index) - width / 2, y_of(one["train_j"] or 0.0)
        marks.append(rect(left, y_of(sum_j), width, y, _SOFT))
        marks.append(rect(left, y, width, plot.y(0), _LINE))
        words = (
            f"epoch {one['epoch']}: training {energy(one['train_j'])}, validation "
            f"{energy(one['validation_j'])}"
        )
        marks.append(_tooltip(plot, index, words))
    labels = _labels(plot, [(str(one["epoch"]), "") for one in epochs])
    return svg(f"Energy of {len(epochs)} epochs of {shown(title, 60)}", plot, [*marks, *labels])


def spending_chart(budget: BudgetFigures) -> str:
    """Plot the amount spent of a budget over time, as steps, against the budget's line."""
    start = _seconds(budget["opened_utc"])
    if budget["unit"] == "g":
        key, name, scale = "spent_g", "g CO2e", 1.0
        total, spent, reserved = budget["total_g"], budget["spent_g"], budget["reserved_g"]
    else:
        name = energy_unit([budget["total_j"], budget["spent_j"]])
        key, scale = "spent_j", energy_in(1.0, name)
        total, spent, reserved = budget["total_j"], budget["spent_j"], budget["reserved_j"]
    points = [(_seconds(one["recorded_utc"]) - start, one[key]) for one in budget["spending"]]
    points = _thinned([(0.0, 0.0), *points])
    end_s = max(points[-1][0], 1e-3)
    unit, unit_s = next((one for one in _TIMES if end_s >= one[1]), _TIMES[-1])
    line_at, committed = (total or 0.0) * scale, ((spent or 0.0) + (reserved or 0.0)) * scale
    x_label = f"time since the budget was opened ({unit})"
    plot = Plot(max(line_at, committed) * 1.02, 0, f"spent ({name})", x_label)
    steps = [f"M{plot.x(0):.1f},{plot.y(0):.1f}"]
    for moment_s, spent_then in points:
        steps.append(f"H{plot.x(moment_s / end_s):.1f}V{plot.y(spent_then * scale):.1f}")
    path = "".join(steps)
    area = f"{path}V{plot.y(0):.1f}H{plot.x(0):.1f}Z"
    y = plot.y(line_at)
    marks = [
        f'<path d="{area}" style="fill:{_LINE};opacity:0.16"/>',
        _stroke(path),
        line(plot.x(0), y, plot.x(1), y, _ALARM, 2, dashes="7 5"),
        text(plot.x(1), y + 16, f"budget {amount(budget, 'total')}", "end"),
    ]
    for one in budget["overruns"]:
        moment = (_seconds(one["recorded_utc"]) - start) / end_s
        marks.append(dot(plot.x(min(moment, 1.0)), plot.y(0), _ALARM))
    if reserved:
        y = plot.y(committed)
        marks.append(line(plot.x(0), y, plot.x(1), y, _SOFT, 2, dashes="2 4"))
        marks.append(text(plot.x(0) + 6, y - 6, "spent and reserved", "start"))
    marks += _time_ticks(plot, end_s, unit_s)
    title = (
        f"{amount(budget, 'spent')} spent of the budget {shown(budget['name'], 60)} "
        f"of {amount(budget, 'total')}"
    )
    return svg(title, plot, marks)


def metric_chart(experiences: Sequence[ExperienceEntry], title: str, stream: str = "") -> str:
    """Plot a metric before (hollow) and after (filled) each experience; a line joins the latter.

    The line breaks between runs and where the metric is not known. A baseline retraining is a
    square: the metric of its model.
    """
    values = [one[key] for one in experiences for key in ("metric_before", "metric_after")]
    name = shown(title, 24)
    known = [value for value in values if value is not None]
    floor, top = _range(known)
    plot = Plot(top, len(experiences), name, "experience", floor)
    marks: list[str] = []
    last: tuple[str, float, float] | None = None
    for index, one in enumerate(experiences):
        before, after, x = one["metric_before"], one["metric_after"], plot.centre(index)
        if is_baseline(one):
            if after is not None:
                y = plot.y(after)
                marks.append(rect(x - 5, y - 5, 10, y + 5, BASELINE_COLOUR))
            words = f"baseline retraining at {one['experience_id']}: {name} {metric(after)}"
            marks.append(_tooltip(plot, index, words))
            continue
        point = None if after is None else (one["run_id"], x, plot.y(after))
        if point and last and last[0] == point[0]:
            marks.insert(0, line(last[1], last[2], x, point[2], _LINE, 2.5))
        if before is not None and after is not None and before != after:
            marks.append(line(x, plot.y(before), x, plot.y(after), _SOFT, 2))
        if before is not None:
            marks.append(dot(x, plot.y(before), _LINE, hollow=True))
        if point:
            marks.append(dot(x, point[2], _LINE))
        words = f"{one['experience_id']}: {name} {metric(before)} before, {metric(after)} after"
        marks.append(_tooltip(plot, index, words))
        last = point
    labels = _labels(plot, [(_name(one), "") for one in experiences])
    title = f"{name} before and after each experience"
    title += f" of {shown(stream, 60)}" if stream else ""
    return svg(title, plot, [*marks, *labels])


def source_chart(sources: Sequence[SourceFigures]) -> str:
    """Plot the energy of each source as a bar, the largest first, with a 95 % whisker."""
    measured = [(one["energy_j"] or 0.0, one) for one in sources]
    largest = sorted(measured, key=lambda pair: -pair[0])[:_MOST_SOURCES]
    spreads = [2 * (one["standard_uncertainty_j"] or 0.0) for _, one in largest]
    tops = [energy_j + spread for (energy_j, _), spread in zip(largest, spreads, strict=True)]
    plot, y_of = _energy_plot(tops, len(largest), "source")
    width, marks = min(72.0, plot.slot * 0.62), []
    for index, ((energy_j, one), spread) in enumerate(zip(largest, spreads, strict=True)):
        x = plot.centre(index)
        marks.append(rect(x - width / 2, y_of(energy_j), width, plot.y(0), _SOFT))
        if spread:
            low, high = y_of(max(0.0, energy_j - spread)), y_of(energy_j + spread)
            marks.append(line(x, low, x, high, "currentColor", 2))
            marks += [line(x - 7, y, x + 7, y, "currentColor", 2) for y in (low, high)]
        words = f"{one['name']}: {energy(energy_j)}, {one['method'] or 'method unknown'}"
        marks.append(_tooltip(plot, index, words))
    labels = _labels(plot, [(shown(str(one["name"]), 14), "") for _, one in largest])
    return svg(f"Energy of {len(largest)} of {len(sources)} sources", plot, [*marks, *labels])


def intensity_chart(hours: Sequence[HourFigures], pue: float = 1.0) -> str:
    """Plot the grid's grams of each kilowatt-hour over time, in steps of one or more hours.

    Args:
        hours: Hours in order; where one is missing, the line breaks.
        pue: The PUE that the grams include, and the intensity does not.
    """
    every = math.ceil(len(hours) / _MOST_POINTS)
    start_s = _seconds(hours[0]["hour_utc"])
    end_s = _seconds(hours[-1]["hour_utc"]) + _HOUR_S - start_s
    steps = []
    for index in range(0, len(hours), every):
        together = hours[index : index + every]
        energy_j = math.fsum(one["energy_j"] or 0.0 for one in together)
        if energy_j > 0:
            grams = math.fsum(one["carbon_g"] or 0.0 for one in together)
            begin_s, last_s = (_seconds(one["hour_utc"]) for one in (together[0], together[-1]))
            per_kwh = grams / (pue * energy_j) * J_PER_WH * 1000.0
            steps.append((begin_s - start_s, last_s + _HOUR_S - start_s, per_kwh))
    unit, unit_s = next((one for one in _TIMES[:2] if end_s >= 2 * one[1]), _TIMES[1])
    first = datetime.fromisoformat(hours[0]["hour_utc"]).strftime("%Y-%m-%d %H:%M UTC")
    values = [value for _, _, value in steps]
    plot = Plot(1.15 * max(values), 0, "g CO2e per kWh", f"time since {first} ({unit})")
    path, last_s = "", -1.0
    for begin_s, until_s, value in steps:
        x, y = plot.x(begin_s / end_s), plot.y(value)
        path += f"{'V' if begin_s == last_s else f'M{x:.1f},'}{y:.1f}H{plot.x(until_s / end_s):.1f}"
        last_s = until_s
    low, high = format_number(min(values)), format_number(max(values))
    title = f"Carbon intensity over time: {low} to {high} g/kWh"
    return svg(title, plot, [_stroke(path), *_time_ticks(plot, end_s, unit_s)])


def _colour(one: ExperienceEntry) -> str:
    return BASELINE_COLOUR if is_baseline(one) else MODE_COLOURS.get(one["update_mode"], _SOFT)


def _kind(one: ExperienceEntry) -> str:
    return "baseline retraining" if is_baseline(one) else one["update_mode"]


def _energy_plot(
    tops: Sequence[float | None], slots: int, x_label: str
) -> tuple[Plot, Callable[[float], float]]:
    """Return a plot with an axis of energy, and a function that places joules on it."""
    unit = energy_unit(tops)
    top = max((energy_in(value, unit) for value in tops if value is not None), default=0.0)
    plot = Plot(top * 1.06, slots, f"energy ({unit})", x_label)
    return plot, lambda energy_j: plot.y(energy_in(energy_j, unit))


def _stroke(path: str) -> str:
    return f'<path d="{path}" style="fill:none;stroke:{_LINE};stroke-width:2.5"/>'


def _time_ticks(plot: Plot, end_s: float, unit_s: float) -> list[str]:
    return [
        text(plot.x(tick * unit_s / end_s), plot.y(0) + 18, format_number(tick, 6), "middle")
        for tick in ticks(end_s / unit_s)
    ]


def _labels(plot: Plot, pairs: Sequence[tuple[str, str]]) -> list[str]:
    longest = max((len(words) for pair in pairs for words in pair), default=0)
    fitting = int((plot.slot - 8) / _CHARACTER)
    if _SHORTEST <= fitting < longest:  # short names at each bar are better than some long ones
        pairs = [(_cut(first, fitting), shown(second, fitting - 1)) for first, second in pairs]
        longest = fitting
    every = max(1, math.ceil((_CHARACTER * longest + 8) / plot.slot))
    labels = []
    for index in range(0, len(pairs), every):
        for row, words in enumerate(pairs[index]):
            if words:
                x, y = plot.centre(index), plot.y(plot.floor) + 16 + 14 * row
                labels.append(text(x, y, words, "middle", quiet=row > 0))
    return labels


def _name(one: ExperienceEntry) -> str:
    return _cut(str(one["experience_id"]), 12)


def _cut(text: str, limit: int) -> str:
    """Leave out the middle of a name: the names of a row often differ at one end alone."""
    whole = shown(text)
    return whole if len(whole) <= limit else f"{whole[: limit - 5]}…{whole[-4:]}"


def _tooltip(plot: Plot, index: int, words: str) -> str:
    x, height = LEFT + index * plot.slot, HEIGHT - TOP - BOTTOM
    return (
        f'<rect x="{x:.1f}" y="{TOP}" width="{plot.slot:.1f}" height="{height}" '
        f'fill-opacity="0"><title>{escape(shown(words, 300))}</title></rect>'
    )


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    every = math.ceil(len(points) / _MOST_POINTS)
    kept = points[::every]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
    # An axis of accuracies does not go below zero.
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin


def _seconds(utc: str) -> float:
    return datetime.fromisoformat(utc).timestamp()
