"""Shift six hours of work within each day of recorded grids: savings by kinds of foresight.

All figures are against the mean of each day, as the sum over the days, in steps of an hour.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _results import Row
from numpy.typing import NDArray

from greentrain.carbon import CsvIntensity
from greentrain.carbon.correction import READ_DAYS, expected_errors
from greentrain.carbon.planning import HURDLE, best_steps

ZONES = ("DE", "PJM", "ERCO")
WORK_H = 6
PUBLISHED = {"DE": (17.2, 18.7), "PJM": (4.0, 4.8), "ERCO": (7.8, 11.2)}
"""Savings in percent by the day-ahead forecast and by the oracle, in the reference."""
TUNED = 92
"""Days from July to September, on which the parameters of the correction were chosen."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Hourly values by day, each of shape ``(days, 24)``."""

    zone: str
    actual: Floats
    forecast: Floats

    def saving(self, costs: Floats, days: slice = slice(None)) -> float:
        """Return the saving in percent against the mean of each day."""
        return float(100 * (1 - costs[days].sum() / (WORK_H * self.actual[days].mean(1)).sum()))


def folder() -> Path:
    """Return the folder of the recorded grids."""
    return Path(os.environ["GREENTRAIN_DATA"]) / "carbon"


def grid(zone: str, *, days: int | None = None) -> Grid:
    """Read a recorded grid through the provider of files."""
    from datetime import UTC, datetime, timedelta

    series = CsvIntensity(folder() / f"dacf_{zone}.csv", zone=zone)
    start, end = datetime(2021, 7, 1, tzinfo=UTC), datetime(2022, 1, 1, tzinfo=UTC)
    actual = np.array([one.g_per_kwh for one in series.history(start, end)])
    predicted: list[float] = []
    while start < end:
        found = series.forecast(start, timedelta(days=1))  # known at the beginning of the day
        predicted += [one.g_per_kwh for one in found]
        start += timedelta(days=1)
    shape = (-1, 24)
    return Grid(zone, actual.reshape(shape)[:days], np.array(predicted).reshape(shape)[:days])


def planned_once(found: Grid, foresight: Floats) -> Floats:
    """Return the cost of each day, planned at its beginning by some foresight."""
    costs = []
    for actual, predicted in zip(found.actual, foresight, strict=True):
        segments = best_steps(predicted, WORK_H, 0.0)
        costs.append(sum(float(actual[first:last].sum()) for first, last in segments))
    return np.array(costs)


def planned_hourly(found: Grid, *, present_known: bool = False) -> Floats:
    """Return the cost of each day, planned again each hour by the corrected forecast.

    Args:
        found: The grid.
        present_known: Whether the value of the hour that begins is known, as from a live estimate.
    """
    errors = (found.actual - found.forecast).ravel()
    costs = np.zeros(len(found.actual))
    for day, (actual, forecast) in enumerate(zip(found.actual, found.forecast, strict=True)):
        left = WORK_H
        for hour in range(24):
            if not left:
                break
            first, known = 24 * max(0, day - READ_DAYS), 24 * day + hour + present_known
            values = forecast[hour:].copy()
            values[present_known:] += expected_errors(
                found.forecast.ravel()[first : 24 * (day + 1)], errors[first:known]
            ).mean
            if present_known:
                values[0] = actual[hour]
            if best_steps(values, left, 0.0)[0][0] == 0:
                costs[day] += actual[hour]
                left -= 1
    return costs


def shift(zone: str, *, quick: bool) -> list[Row]:
    """Return the rows of a zone: the oracle, the forecast as published, and the corrected one."""
    found = grid(zone, days=14 if quick else None)
    days = len(found.actual)
    oracle, day_ahead = planned_once(found, found.actual), planned_once(found, found.forecast)
    corrected = planned_hourly(found)
    best, published = found.saving(oracle), found.saving(day_ahead)
    later = slice(TUNED, None)
    off = max(
        abs(value - of_reference)
        for value, of_reference in zip((published, best), PUBLISHED[zone], strict=True)
    )

    def row(
        what: str, value: float | None, note: str, reach: float | None = None, cases: int = days
    ) -> Row:
        return Row(
            id=f"shift_{zone}",
            what=f"{zone}: saving {what}",
            value=value,
            unit="%",
            reach=reach,
            better="higher",
            seeds=cases,
            note=note,
        )

    rows = [
        row("with full foresight (oracle)", best, "6 h of work per day, against the day's mean"),
        row("by the day-ahead forecast, planned once", published, "known as the UTC day begins"),
        Row(
            id=f"shift_{zone}",
            what=f"{zone}: largest difference of these two from the reference",
            value=off,
            unit="points",
            reach=None if quick else 0.3,
            seeds=days,
            note=f"the reference has {PUBLISHED[zone][0]} and {PUBLISHED[zone][1]} %",
        ),
        row(
            "by the forecast corrected by its own past errors, planned again each hour",
            found.saving(corrected),
            f"{_gained(found, oracle, day_ahead, corrected)} of what was left; errors known up to "
            "the hour that ended",
            None if quick else published + (best - published) / 2,
        ),
    ]
    if not quick:
        rows.append(
            row(
                "likewise, October to December only",
                found.saving(corrected, later),
                f"oracle {found.saving(oracle, later):.1f} %, forecast "
                f"{found.saving(day_ahead, later):.1f} %: "
                f"{_gained(found, oracle, day_ahead, corrected, later)} of what was left; the "
                "parameters were chosen on July to September",
                cases=days - TUNED,
            )
        )
    known = planned_hourly(found, present_known=True)
    rows.append(
        row(
            "likewise, with a live value of the hour that begins",
            found.saving(known),
            f"{_gained(found, oracle, day_ahead, known)} of what was left; an assumption that the "
            "recorded data cannot test",
        )
    )
    return rows


def _gained(
    found: Grid, oracle: Floats, day_ahead: Floats, costs: Floats, days: slice = slice(None)
) -> str:
    best, published = found.saving(oracle, days), found.saving(day_ahead, days)
    left = best - published
    return f"{100 * (found.saving(costs, days) - published) / left:.0f} %" if left > 0 else "none"


def pause_cost(*, quick: bool) -> list[Row]:
    """Return the rows of slices against one window, where a pause costs 30 minutes."""
    worse_grids, worse_expected, worse_works, works = 0, 0, 0, 0
    changes = []
    for zone in ZONES:
        found = grid(zone, days=8 if quick else None)
        for foresight in (found.actual, found.forecast, _corrected_at_midnight(found)):
            for days, work_h in ((1, WORK_H), (4, 24)):
                one, slices = (
                    _pausing(found.actual, foresight, days, work_h, sliced=sliced)
                    for sliced in (False, True)
                )
                worse_expected += int((slices[1] > one[1] * (1 + 1e-6)).sum())
                worse_works += int((slices[0] > one[0] * (1 + 1e-6)).sum())
                works += len(one[0])
                worse_grids += int(slices[0].sum() > one[0].sum() * (1 + 1e-9))
                changes.append(float(100 * (1 - slices[0].sum() / one[0].sum())))
    note = (
        "6 h in a day and 24 h in four days, 5-minute steps, three grids by oracle, forecast and "
        "corrected forecast"
    )
    return [
        Row(
            id="pause_cost",
            what="grids and forecasts with more grams in slices than in one window, over all works",
            value=worse_grids,
            unit="",
            reach=None if quick else 0,
            seeds=len(changes),
            interval=(min(changes), max(changes)),
            note=f"{note}; in brackets the percent that slices save of one window. A pause has to "
            f"save {1 + HURDLE:g} times its cost, chosen on July to September",
        ),
        Row(
            id="pause_cost",
            what="works whose slices are expected to emit more than one window",
            value=worse_expected,
            unit="",
            reach=0,
            seeds=works,
            note=note,
        ),
        Row(
            id="pause_cost",
            what="works whose slices then emitted more than one window",
            value=worse_works,
            unit="",
            seeds=works,
            note="no forecast can exclude it; the sums over all works are above",
        ),
    ]


def _pausing(
    actual: Floats, foresight: Floats, days: int, work_h: int, *, sliced: bool
) -> tuple[Floats, Floats]:
    """Return the costs of works within some days: those that came, and those expected."""
    per_hour, cost_h = 12, 0.5
    costs, expected = [], []
    for first in range(0, len(actual) - days + 1, days):
        came, predicted = (
            np.repeat(one[first : first + days].ravel(), per_hour) for one in (actual, foresight)
        )
        segments = best_steps(
            predicted, work_h * per_hour, cost_h * per_hour, sliced=sliced, hurdle=HURDLE
        )
        costs.append(_sum(came, segments) / per_hour)
        expected.append(_sum(predicted, segments) / per_hour)
    return np.array(costs), np.array(expected)


def _corrected_at_midnight(found: Grid) -> Floats:
    errors = (found.actual - found.forecast).ravel()
    shifts = []
    for day in range(len(found.actual)):
        first = 24 * max(0, day - READ_DAYS)
        forecast = found.forecast.ravel()[first : 24 * (day + 1)]
        shifts.append(expected_errors(forecast, errors[first : 24 * day]).mean)
    return found.forecast + np.array(shifts)


def _sum(values: Floats, segments: list[tuple[int, int]]) -> float:
    return sum(float(values[first:last].sum()) for first, last in segments)
