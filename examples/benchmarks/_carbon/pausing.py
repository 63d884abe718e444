"""Pause trainings by the rule of ``CarbonAwarePause``, over half a year of three grids.

A training has epochs of half an hour, and is given once a day.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
from _results import Row
from numpy.typing import NDArray

from greentrain.callbacks.pause_rule import PauseCosts, Shifted, State, choose

GRIDS = ("DE", "PJM", "ERCO")
EPOCH_S, PAUSE_S = 1800.0, 1800.0
PLANS_H = ((6, 18), (6, 42), (24, 48))
"""Hours of work, and hours of slack before the deadline."""
CANDIDATES = (0.05, 0.1, 0.15, 0.2, 0.3)
"""Values of ``min_saving`` that are tried on the first half of the data."""
DEFAULT = 0.1
"""The callback's default, by which deadlines are tried."""
HALF = datetime(2021, 10, 1, tzinfo=UTC)
"""End of the data that ``min_saving`` is chosen on, and begin of the data that are reported."""
_HOUR_S = 3600.0
_START_S = 300.0

Floats = NDArray[np.float64]

_WRONG: dict[str, Callable[[Floats], Floats]] = {
    "as published": lambda values: values,
    "constant": lambda values: np.full_like(values, 300.0),
    "inverted": lambda values: values.max() - values,
    "missing": lambda values: values[:0],
    "NaN": lambda values: np.where(np.arange(len(values)) % 2, np.nan, values),
    "6 hours late": lambda values: np.concatenate([np.full(6, np.nan), values[:-6]]),
    "always falling": lambda values: np.linspace(900.0, 1.0, len(values)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One training.

    Args:
        grams: Emissions of a power of 1 W.
        at_once: The same without waiting.
        contiguous: The same in the one window that the forecast expected to be the cleanest.
        late_s: Seconds after the deadline; negative before it.
        pauses: Pauses after its start.
    """

    grams: float
    at_once: float
    contiguous: float
    late_s: float
    pauses: int


def pausing(folder: Path, *, quick: bool) -> list[Row]:
    """Return the rows of pauses that cost energy, and of wrong forecasts.

    Args:
        folder: A folder; nothing is written.
        quick: Whether to try a day in twenty.
    """
    every = 20 if quick else 1
    rows = [_pause_cost(every)]
    missed = count = 0
    for wrong in _WRONG:
        for cost_s in (0.0, PAUSE_S):
            for plan_h in ((6, 0), *PLANS_H[:2]):
                for grid in GRIDS:
                    for found in _days(grid, plan_h, cost_s, wrong, every):
                        missed, count = missed + (found.late_s > 1.0), count + 1
    rows.append(
        Row(
            id="pause_deadlines",
            what="trainings with pauses that missed their deadline",
            value=float(missed),
            unit="trainings",
            reach=0.0,
            seeds=count,
            note=f"forecasts {', '.join(_WRONG)}; a pause takes 0 or 30 minutes; 6 hours of work "
            "with 0, 18 and 42 hours of slack; a second after the deadline counts as missed",
        )
    )
    return rows


def _pause_cost(every: int) -> Row:
    tried = {one: max(_excess(one, every, first=True)[0]) for one in CANDIDATES}
    # The smallest one that costs nothing, or the one that costs least.
    harmless = [one for one, worst in tried.items() if worst <= 0.0]
    min_saving = min(harmless) if harmless else min(tried, key=lambda one: tried[one])
    worse, of_days, pauses, shown = _excess(min_saving, every, first=False)
    listed = ", ".join(f"{one:.0%} {worst:+.3f} %" for one, worst in tried.items())
    return Row(
        id="callback_pause_cost",
        what="grams of trainings with pauses of 30 minutes at full power, above those of one "
        "window, October to December; the worst of 3 grids and 3 plans",
        value=round(max(worse), 6) + 0.0,
        unit="%",
        reach=0.0,
        seeds=len(of_days),
        interval=(round(min(worse), 6) + 0.0, round(max(worse), 6) + 0.0),
        note=f"by the day-ahead forecast, {pauses} pauses. A min_saving of {min_saving:.0%} was "
        f"chosen on July to September, where the worst is: {listed}. The callback's default is "
        f"{DEFAULT:.0%}. Of single days, the best has {100.0 * min(of_days):.0f} % and the worst "
        f"{100.0 * max(of_days):+.0f} %. Saving (of one window): {', '.join(shown)}",
    )


def _excess(
    min_saving: float, every: int, *, first: bool
) -> tuple[list[float], list[float], int, list[str]]:
    """Return grams above those of one window, over one half of the data.

    Args:
        min_saving: As for the callback.
        every: Every how many days a training is tried.
        first: Whether it is the first half.

    Returns:
        The percent of each plan and grid, the share of each day, the pauses, and the savings.
    """
    worse, of_days, pauses, shown = [], [], 0, []
    for plan_h in PLANS_H:
        for grid in GRIDS:
            given = _days(grid, plan_h, PAUSE_S, "as published", every, min_saving, first)
            found = [*given]
            if not found:
                continue
            of_days += [each.grams / each.contiguous - 1.0 for each in found]
            ours, at_once, contiguous = (
                math.fsum(getattr(each, name) for each in found)
                for name in ("grams", "at_once", "contiguous")
            )
            worse.append(100.0 * (ours / contiguous - 1.0))
            work_h, slack_h = plan_h
            shown.append(
                f"{grid} {work_h} h in {work_h + slack_h} h {1.0 - ours / at_once:.1%} "
                f"({1.0 - contiguous / at_once:.1%})"
            )
            pauses += sum(each.pauses for each in found)
    return worse, of_days, pauses, shown


def _days(
    grid: str,
    plan_h: tuple[int, int],
    cost_s: float,
    wrong: str,
    every: int,
    min_saving: float = DEFAULT,
    half: bool | None = None,
) -> Iterator[Outcome]:
    """Yield the trainings of each day, or of those within the first or the second half."""
    times, truth, forecast = _series(grid)
    work_s, slack_s = (hours * _HOUR_S for hours in plan_h)
    length = sum(plan_h) + 2
    for first in range(0, len(times) - length, 24 * every):
        part = slice(first, first + length)
        if half is not None and half != (times[part][-1] < HALF):
            continue
        if half is False and times[first] < HALF:
            continue
        if not (np.isnan(truth[part]).any() or np.isnan(forecast[part]).any()):
            expected = _WRONG[wrong](forecast[part])
            yield _train(times[first], truth[part], expected, (work_s, slack_s), cost_s, min_saving)


def _train(
    begins: datetime,
    truth: Floats,
    forecast: Floats,
    plan_s: tuple[float, float],
    cost_s: float,
    min_saving: float,
) -> Outcome:
    """Train once; the hourly values begin at ``begins``."""
    work_s, slack_s = plan_s
    deadline = begins + timedelta(seconds=work_s + slack_s)
    hour = timedelta(hours=1)
    intervals = [
        Shifted(begins + number * hour, begins + (number + 1) * hour, float(value))
        for number, value in enumerate(forecast)
    ]
    state: State = "new"
    now_s, left_s, grams, pauses = 0.0, work_s, 0.0, 0
    while left_s > 1e-6:
        costs = PauseCosts() if state == "new" else PauseCosts(pause_j=cost_s, restart_s=cost_s)
        choice = choose(
            begins + timedelta(seconds=now_s),
            intervals,
            state=state,
            work_s=left_s,
            deadline=deadline,
            costs=costs,
            min_saving=min_saving,
            margin=0.0,
        )
        if choice.wait:
            pauses += state == "running"
            state = "new" if state == "new" else "paused"
            now_s = (choice.until - begins).total_seconds()
            continue
        if state == "paused":
            grams += _between(truth, now_s, now_s + cost_s)
            now_s += cost_s
        part_s = min(EPOCH_S, left_s)
        grams += _between(truth, now_s, now_s + part_s)
        state, now_s, left_s = "running", now_s + part_s, left_s - part_s
    starts_s = np.arange(0.0, slack_s + 1.0, _START_S)
    usable = len(forecast) == len(truth) and not np.isnan(forecast).any()
    expected = [_between(forecast if usable else truth, s, s + work_s) for s in starts_s]
    best_s = float(starts_s[int(np.argmin(expected))])
    return Outcome(
        grams=grams,
        at_once=_between(truth, 0.0, work_s),
        contiguous=_between(truth, best_s, best_s + work_s),
        late_s=now_s - work_s - slack_s,
        pauses=pauses,
    )


def _between(values: Floats, first_s: float, last_s: float) -> float:
    """Return the grams of a power of 1 W between two times."""
    edges = np.arange(len(values) + 1) * _HOUR_S
    sums = np.concatenate([[0.0], np.cumsum(values) * _HOUR_S / 3.6e6])
    return float(np.interp(last_s, edges, sums) - np.interp(first_s, edges, sums))


@cache
def _series(grid: str) -> tuple[list[datetime], Floats, Floats]:
    default = Path(__file__).parents[3].parent / "shared" / "data"
    folder = Path(os.environ.get("GREENTRAIN_DATA", default)) / "carbon"
    with (folder / f"dacf_{grid}.csv").open(encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    times = [datetime.fromisoformat(row["datetime_utc"]).replace(tzinfo=UTC) for row in rows]
    truth, forecast = (
        np.array([float(row[name] or "nan") for row in rows])
        for name in ("carbon_intensity_g_per_kwh", "day_ahead_forecast_g_per_kwh")
    )
    return times, truth, forecast
