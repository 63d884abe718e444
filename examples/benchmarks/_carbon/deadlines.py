"""Run works that plan again and again by hostile forecasts, and count missed deadlines."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
from _results import Row

from greentrain.carbon.intensity import MOST_G_PER_KWH, Interval
from greentrain.carbon.planning import State, plan

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
AGAIN = 10 * MINUTE
"""Time after which a waiting or running work plans again."""

Forecast = Callable[[datetime], list[Interval]]


def hours(values: object, start: datetime = START) -> list[Interval]:
    """Return intervals of an hour, without the values that are no number."""
    found = np.asarray(values, dtype=float)
    return [
        Interval(start=start + n * HOUR, end=start + (n + 1) * HOUR, g_per_kwh=float(value))
        for n, value in enumerate(found)
        if np.isfinite(value)
    ]


def forecasts(rng: np.random.Generator) -> dict[str, Forecast]:
    """Return the hostile forecasts of one grid."""
    actual = rng.uniform(50, 800, 96)

    def shown(now: datetime) -> int:
        return int((now - START) / HOUR)

    holes = np.where(rng.random(96) < 0.5, np.nan, actual)
    return {
        "constant": lambda now: hours(np.full(96, 300.0)),
        "inverted": lambda now: hours(850 - actual),
        "missing": lambda now: [],
        "NaN": lambda now: hours(holes),
        "all NaN": lambda now: hours(np.full(96, np.nan)),
        "hours late": lambda now: hours(actual)[: max(0, shown(now) - 5)],
        "other each time": lambda now: hours(rng.permutation(actual)),
        "always better later": lambda now: hours(np.linspace(800, 50, 96)),
        "extreme": lambda now: hours(np.where(rng.random(96) < 0.5, MOST_G_PER_KWH, 0.0)),
    }


def run(
    forecast: Forecast, duration: timedelta, deadline: datetime, pause: timedelta, *, sliced: bool
) -> datetime:
    """Return the end of a work that plans again every ten minutes."""
    now, left = START, duration
    state: State = "new"
    while left > timedelta(0):
        found = plan(
            forecast(now),
            now=now,
            duration=left,
            deadline=deadline,
            pause_cost=pause,
            sliced=sliced,
            state=state,
        )
        first, last = found.segments[0]
        if first > now:
            state = "new" if state == "new" else "paused"
            now = min(first, now + AGAIN)
            continue
        if state == "paused":
            now += pause
        state, until = "running", min(max(last, now + MINUTE), now + AGAIN, now + left)
        left -= until - now
        now = until
    return now


def deadlines(*, quick: bool) -> list[Row]:
    """Return the row of missed deadlines."""
    rng = np.random.default_rng(0)
    works = 3 if quick else 60
    missed = cases = 0
    for _ in range(works):
        for forecast in forecasts(rng).values():
            for sliced in (False, True):
                duration = int(rng.integers(10, 600)) * MINUTE
                slack = timedelta(minutes=float(rng.choice([0, 1, 7, 45, 300, 1500])))
                pause = int(rng.choice([0, 3, 10, 30])) * MINUTE
                ended = run(forecast, duration, START + duration + slack, pause, sliced=sliced)
                # Steps are rounded to whole microseconds.
                missed += ended > START + duration + slack + timedelta(milliseconds=1)
                cases += 1
    return [
        Row(
            id="deadlines",
            what="works that ended after their deadline",
            value=missed,
            unit="",
            reach=0,
            seeds=cases,
            note="nine hostile forecasts, one window and slices, slack from 0 to 25 h, pauses that "
            "cost up to 30 minutes, a new plan every 10 minutes",
        )
    ]


def plan_ms(*, quick: bool) -> list[Row]:
    """Return the row of the time of a plan over a week at 5-minute steps."""
    rng = np.random.default_rng(0)
    day = 300 + 100 * np.sin(np.arange(168) / 24 * 2 * np.pi)
    forecast = hours(day + rng.normal(0, 20, 168))
    found = []
    for work_h in (1, 8, 24, 84):
        times = []
        for _ in range(3 if quick else 20):
            began_s = time.perf_counter()
            plan(
                forecast,
                now=START,
                duration=work_h * HOUR,
                deadline=START + 168 * HOUR,
                pause_cost=15 * MINUTE,
                sliced=True,
            )
            times.append(1000 * (time.perf_counter() - began_s))
        found.append(float(np.median(times)))
    return [
        Row(
            id="plan_ms",
            what="planning a week at 5-minute steps, in slices",
            value=max(found),
            unit="ms",
            reach=50,
            seeds=len(found),
            interval=(min(found), max(found)),
            note="medians for 1, 8, 24 and 84 h of work; the slowest is shown",
        )
    ]
