"""Charts as inline SVG: pure functions from the report's values to text, with no script in it.

Colours are CSS variables with a fallback, and text takes ``currentColor``, so that one chart is
readable on a light and on a dark page and, alone, outside of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from greentrain.report.chart_shapes import (
    BOTTOM,
    HEIGHT,
    LEFT,
    TOP,
    Plot,
    dot,
    line,
    number,
    rect,
    svg,
    text,
    ticks,
)
from greentrain.report.text import shown
from greentrain.units import format_carbon, format_energy, wh

MODE_COLOURS: Mapping[str, str] = {
    "SKIP": "var(--skip, #8a8f98)",
    "REPLAY": "var(--replay, #2f7fc1)",
    "WARM_START": "var(--warm, #c77700)",
    "FULL_RETRAIN": "var(--full, #7b4fb5)",
}
_LINE, _ALARM = "var(--accent, #1f7a5c)", "var(--alarm, #c0392b)"
_SOFT = "var(--soft, #9aa3ad)"
_SHORT = {"SKIP": "skip", "REPLAY": "replay", "WARM_START": "warm", "FULL_RETRAIN": "full"}
_CHARACTER = 6.8
"""How wide a character of a label is, about, in the units of a chart."""
_MOST_POINTS = 400
_MOST_SOURCES = 12
_HOUR_S = 3600.0
_TIMES = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))


def energy_chart(experiences: Sequence[Mapping[str, Any]]) -> str:
    """Draw the energy of each experience as a bar in the colour of its update mode.

    The part above the coloured one is what was drawn beside the update: looks at the data and
    calibration. A tick marks what the update was predicted to cost.
    """
    tops = [value for one in experiences for value in (one["energy_j"], one["predicted_j"])]
    plot = Plot(_highest(tops), len(experiences), "energy (Wh)", "experience")
    width = min(56.0, plot.slot * 0.62)
    marks = []
    for index, one in enumerate(experiences):
        left = plot.centre(index) - width / 2
        energy_j, update_j = one["energy_j"], one["update_energy_j"]
        if energy_j is None:
            marks.append(text(plot.centre(index), plot.y(0) - 6, "?", "middle"))
        else:
            update_wh = wh(energy_j if update_j is None else min(update_j, energy_j))
            colour = MODE_COLOURS.get(one["update_mode"], _SOFT)
            marks.append(rect(left, plot.y(wh(energy_j)), width, plot.y(update_wh), _SOFT))
            marks.append(rect(left, plot.y(update_wh), width, plot.y(0), colour))
        if one["predicted_j"]:
            y = plot.y(wh(one["predicted_j"]))
            marks.append(line(left - 5, y, left + width + 5, y, "currentColor", 2.5))
        marks.append(_tooltip(plot, index, _bar_words(one)))
    labels = _labels(plot, [_label(one) for one in experiences])
    return svg(f"Energy of each of {len(experiences)} experiences", plot, [*marks, *labels])


def spending_chart(budget: Mapping[str, Any]) -> str:
    """Draw what was spent of a budget over time, as steps, against the budget's line."""
    start = _seconds(budget["opened_utc"])
    carbon = budget["unit"] == "g"
    key, name = ("g", "g CO2e") if carbon else ("j", "Wh")
    points = [
        (_seconds(one["recorded_utc"]) - start, one[f"spent_{key}"]) for one in budget["spending"]
    ]
    points = _thinned([(0.0, 0.0), *points])
    scale = 1.0 if carbon else wh(1.0)
    written = format_carbon if carbon else format_energy
    total, end_s = budget[f"total_{key}"] * scale, max(points[-1][0], 1e-3)
    unit, unit_s = next((one for one in _TIMES if end_s >= one[1]), _TIMES[-1])
    committed = (budget[f"spent_{key}"] + budget[f"reserved_{key}"]) * scale
    plot = Plot(
        max(total, committed) * 1.02, 0, f"spent ({name})", f"time since it was opened ({unit})"
    )
    steps = [f"M{plot.x(0):.1f},{plot.y(0):.1f}"]
    for moment_s, spent in points:
        x, y = plot.x(moment_s / end_s), plot.y(spent * scale)
        steps.append(f"H{x:.1f}V{y:.1f}")
    path = "".join(steps)
    area = f"{path}V{plot.y(0):.1f}H{plot.x(0):.1f}Z"
    y = plot.y(total)
    marks = [
        f'<path d="{area}" style="fill:{_LINE};opacity:0.16"/>',
        f'<path d="{path}" style="fill:none;stroke:{_LINE};stroke-width:2.5"/>',
        line(plot.x(0), y, plot.x(1), y, _ALARM, 2, dashes="7 5"),
        text(plot.x(1), y + 16, f"budget {written(budget[f'total_{key}'])}", "end"),
    ]
    for one in budget["overruns"]:
        moment = (_seconds(one["recorded_utc"]) - start) / end_s
        marks.append(dot(plot.x(min(moment, 1.0)), plot.y(0), _ALARM))
    if budget[f"reserved_{key}"]:
        y = plot.y(committed)
        marks.append(line(plot.x(0), y, plot.x(1), y, _SOFT, 2, dashes="2 4"))
        marks.append(text(plot.x(0) + 6, y - 6, "spent and reserved", "start"))
    marks += [
        text(plot.x(tick * unit_s / end_s), plot.y(0) + 18, number(tick), "middle")
        for tick in ticks(end_s / unit_s)
    ]
    title = (
        f"{written(budget[f'spent_{key}'])} spent of the budget {shown(budget['name'], 60)} "
        f"of {written(budget[f'total_{key}'])}"
    )
    return svg(title, plot, marks)


def metric_chart(experiences: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Draw a metric before (hollow) and after (filled) each experience; a line joins the latter.

    The line breaks between runs and where the metric is not known.
    """
    values = [one[key] for one in experiences for key in ("metric_before", "metric_after")]
    name = shown(metric, 24)
    known = [value for value in values if value is not None]
    floor, top = _range(known)
    plot = Plot(top, len(experiences), name, "experience", floor)
    marks: list[str] = []
    last: tuple[str, float, float] | None = None
    for index, one in enumerate(experiences):
        before, after, x = one["metric_before"], one["metric_after"], plot.centre(index)
        point = None if after is None else (one["run_id"], x, plot.y(after))
        if point and last and last[0] == point[0]:
            marks.insert(0, line(last[1], last[2], x, point[2], _LINE, 2.5))
        if before is not None and after is not None and before != after:
            marks.append(line(x, plot.y(before), x, plot.y(after), _SOFT, 2))
        if before is not None:
            marks.append(dot(x, plot.y(before), _LINE, hollow=True))
        if point:
            marks.append(dot(x, point[2], _LINE))
        words = f"{one['experience_id']}: {name} {_known(before)} before, {_known(after)} after"
        marks.append(_tooltip(plot, index, words))
        last = point
    labels = _labels(plot, [(_name(one), "") for one in experiences])
    return svg(f"{name} before and after each experience", plot, [*marks, *labels])


def source_chart(sources: Sequence[Mapping[str, Any]]) -> str:
    """Draw the energy of each source as a bar, the largest first, with a 95 % whisker."""
    largest = sorted(sources, key=lambda one: -one["energy_j"])[:_MOST_SOURCES]
    spreads = [2 * (one["standard_uncertainty_j"] or 0.0) for one in largest]
    tops = [one["energy_j"] + spread for one, spread in zip(largest, spreads, strict=True)]
    plot = Plot(_highest(tops), len(largest), "energy (Wh)", "source")
    width, marks = min(72.0, plot.slot * 0.62), []
    for index, (one, spread) in enumerate(zip(largest, spreads, strict=True)):
        x, energy_j = plot.centre(index), one["energy_j"]
        marks.append(rect(x - width / 2, plot.y(wh(energy_j)), width, plot.y(0), _SOFT))
        if spread:
            low, high = plot.y(wh(max(0.0, energy_j - spread))), plot.y(wh(energy_j + spread))
            marks.append(line(x, low, x, high, "currentColor", 2))
            marks += [line(x - 7, y, x + 7, y, "currentColor", 2) for y in (low, high)]
        words = f"{one['name']}: {format_energy(energy_j)}, {one['method'] or 'method unknown'}"
        marks.append(_tooltip(plot, index, words))
    labels = _labels(plot, [(shown(str(one["name"]), 14), "") for one in largest])
    return svg(f"Energy of {len(largest)} of {len(sources)} sources", plot, [*marks, *labels])


def intensity_chart(hours: Sequence[Mapping[str, Any]]) -> str:
    """Draw the grams of each kilowatt-hour over time, as steps of an hour or of several.

    Args:
        hours: Hours in order, with ``energy_j`` and ``carbon_g``; where one is missing, the line
            breaks.
    """
    every = math.ceil(len(hours) / _MOST_POINTS)
    start_s = _seconds(hours[0]["hour_utc"])
    end_s = _seconds(hours[-1]["hour_utc"]) + _HOUR_S - start_s
    steps = []
    for index in range(0, len(hours), every):
        together = hours[index : index + every]
        energy_j = math.fsum(one["energy_j"] or 0.0 for one in together)
        if energy_j > 0:
            grams = math.fsum(one["carbon_g"] for one in together)
            begin_s, last_s = (_seconds(one["hour_utc"]) for one in (together[0], together[-1]))
            per_kwh = grams / wh(energy_j) * 1000.0
            steps.append((begin_s - start_s, last_s + _HOUR_S - start_s, per_kwh))
    unit, unit_s = next((one for one in _TIMES[:2] if end_s >= 2 * one[1]), _TIMES[1])
    first = datetime.fromisoformat(hours[0]["hour_utc"]).strftime("%Y-%m-%d %H:%M UTC")
    top = 1.15 * max(value for _, _, value in steps)
    plot = Plot(top, 0, "g CO2e per kWh", f"time since {first} ({unit})")
    path, last_s = "", -1.0
    for begin_s, until_s, value in steps:
        x, y = plot.x(begin_s / end_s), plot.y(value)
        path += f"{'V' if begin_s == last_s else f'M{x:.1f},'}{y:.1f}H{plot.x(until_s / end_s):.1f}"
        last_s = until_s
    marks = [f'<path d="{path}" style="fill:none;stroke:{_LINE};stroke-width:2.5"/>']
    marks += [
        text(plot.x(tick * unit_s / end_s), plot.y(0) + 18, number(tick), "middle")
        for tick in ticks(end_s / unit_s)
    ]
    low, high = (choose(value for _, _, value in steps) for choose in (min, max))
    return svg(f"Carbon intensity over time: {low:.3g} to {high:.3g} g/kWh", plot, marks)


def _labels(plot: Plot, pairs: Sequence[tuple[str, str]]) -> list[str]:
    longest = max((len(words) for pair in pairs for words in pair), default=0)
    every = max(1, math.ceil((_CHARACTER * longest + 8) / plot.slot))
    labels = []
    for index in range(0, len(pairs), every):
        for row, words in enumerate(pairs[index]):
            if words:
                x, y = plot.centre(index), plot.y(plot.floor) + 16 + 14 * row
                labels.append(text(x, y, words, "middle", quiet=row > 0))
    return labels


def _label(one: Mapping[str, Any]) -> tuple[str, str]:
    return _name(one), _SHORT.get(one["update_mode"], "")


def _name(one: Mapping[str, Any]) -> str:
    return shown(str(one["experience_id"]), 11)


def _bar_words(one: Mapping[str, Any]) -> str:
    return (
        f"{one['experience_id']}, {one['update_mode']}: {format_energy(one['energy_j'])}, the "
        f"update {format_energy(one['update_energy_j'])}, predicted "
        f"{format_energy(one['predicted_j'])}"
    )


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


def _highest(values: Sequence[float | None]) -> float:
    return max((wh(value) for value in values if value is not None), default=0.0) * 1.06


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
    # An accuracy axis that goes below nothing would puzzle its reader.
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin


def _seconds(utc: str) -> float:
    return datetime.fromisoformat(utc).timestamp()


def _known(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
