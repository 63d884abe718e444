"""Choose when work starts: grams saved by waiting, against what the wait costs.

A pure function: a forecast in, a start out. Waiting costs the energy of the idle machine, and it
delays the benefit of the work. A delay by the whole time that the benefit lasts would lose all of
it, so each hour of waiting loses the same share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from greentrain.carbon.intensity import Interval
from greentrain.carbon.planning import filled, step_means
from greentrain.units import J_PER_WH

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

STEP = timedelta(minutes=5)
MIN_KNOWN = 0.5
"""Least share of the time to the latest end that a forecast has to cover."""
_MOST_STEPS = 4000
_LISTED = timedelta(hours=1)
_TIE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayCosts:
    """The work, and what waiting for it costs.

    Args:
        energy_j: Joules of the work, PUE included if you want it in the grams.
        duration: Time that it takes.
        idle_w: Power while waiting.
        lasts: Time for which the work is of use. A wait loses the share of it that it takes.
        worth_g: Grams that the benefit of the work is worth. The default is the grams of a start at
            once: those that just justify the work.
    """

    energy_j: float
    duration: timedelta
    idle_w: float
    lasts: timedelta
    worth_g: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayOption:
    """A possible start.

    Args:
        start: The start, in UTC.
        work_g: Expected grams of the work.
        idle_g: Expected grams of waiting until then.
        lost_g: Grams that the benefit lost by waiting is worth.
        segments: Start and end of each slice, in UTC; empty for one block.
    """

    start: datetime
    work_g: float
    idle_g: float
    lost_g: float
    segments: tuple[tuple[datetime, datetime], ...] = ()

    @property
    def cost_g(self) -> float:
        """Sum of the three, which the chosen start has the least of."""
        return self.work_g + self.idle_g + self.lost_g

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for the ledger."""
        slices = [[one.isoformat() for one in times] for times in self.segments]
        return {
            "start_utc": self.start.isoformat(),
            "work_g": self.work_g,
            "idle_g": self.idle_g,
            "lost_g": self.lost_g,
            **({"slices": slices} if slices else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """A chosen start, and the options that were compared.

    Args:
        now: The start at once.
        chosen: The start with the least cost; the same as ``now`` if no wait is worth it.
        options: The start at once, one option for each hour, and the chosen one, by time.
    """

    now: DelayOption
    chosen: DelayOption
    options: tuple[DelayOption, ...]

    @property
    def saving_g(self) -> float:
        """Expected grams saved, those of waiting subtracted."""
        return self.now.work_g - self.chosen.work_g - self.chosen.idle_g


def choose_start(
    forecast: Sequence[Interval], *, now: datetime, latest: datetime, costs: DelayCosts
) -> Delay | None:
    """Return the start with the least grams, those of waiting and of the lost benefit included.

    Args:
        forecast: Expected intensities; values that are no numbers are unknown.
        now: Earliest start, aware.
        latest: Latest start, aware.
        costs: The work, and what waiting costs.

    Returns:
        ``None`` if less than half of the time to the latest end has a forecast.

    Example:
        >>> noon, hour = datetime(2026, 1, 1, 12, tzinfo=UTC), timedelta(hours=1)
        >>> forecast = [
        ...     Interval(start=noon + n * hour, end=noon + (n + 1) * hour, g_per_kwh=value)
        ...     for n, value in enumerate([400.0, 200.0, 100.0])
        ... ]
        >>> costs = DelayCosts(energy_j=3.6e6, duration=hour, idle_w=0.0, lasts=8 * hour)
        >>> found = choose_start(forecast, now=noon, latest=noon + 2 * hour, costs=costs)
        >>> f"{found.chosen.start:%H:%M}", found.saving_g, round(found.chosen.lost_g)
        ('14:00', 300.0, 100)
    """
    import numpy as np

    now, latest = now.astimezone(UTC), max(now, latest).astimezone(UTC)
    length = latest - now + costs.duration
    step = max(STEP, length / _MOST_STEPS)
    count = max(1, math.ceil(length / step))
    usable = [one for one in forecast if math.isfinite(one.g_per_kwh) and one.g_per_kwh >= 0]
    means = step_means(usable, now, count, step)
    if np.isnan(means).mean() > 1.0 - MIN_KNOWN:
        return None
    means = filled(means, now, step)
    # Grams of 1 W from now on, up to each border of a step.
    sums = np.concatenate([[0.0], means.cumsum()]) * (step.total_seconds() / (1000.0 * J_PER_WH))
    borders = np.arange(count + 1) * step.total_seconds()
    waits = np.append(np.arange(0.0, (latest - now).total_seconds(), step.total_seconds()), 0.0)
    waits[-1] = (latest - now).total_seconds()
    duration_s = costs.duration.total_seconds()

    def grams(seconds: Floats) -> Floats:
        return np.interp(seconds, borders, sums)

    power_w = costs.energy_j / duration_s
    work = power_w * (grams(waits + duration_s) - grams(waits))
    idle = costs.idle_w * grams(waits)
    worth_g = float(work[0]) if costs.worth_g is None else costs.worth_g
    lost = worth_g * waits / costs.lasts.total_seconds()
    total = work + idle + lost
    best = int((total <= total.min() * (1.0 + _TIE)).argmax())  # the first of equal ones

    def option(place: int) -> DelayOption:
        return DelayOption(
            start=now + timedelta(seconds=float(waits[place])),
            work_g=float(work[place]),
            idle_g=float(idle[place]),
            lost_g=float(lost[place]),
        )

    places = sorted({*range(0, len(waits), max(1, round(_LISTED / step))), best})
    found = {place: option(place) for place in places}
    return Delay(now=found[0], chosen=found[best], options=tuple(found.values()))


def forecast_origin(forecast: Sequence[Interval], now: datetime) -> dict[str, Any]:
    """Return what a decision used as its forecast: origin, time, extent and a hash of the values.

    Args:
        forecast: The intervals.
        now: Time of the decision.
    """
    import hashlib
    import json

    values = [
        [one.start.isoformat(), one.end.isoformat(), one.g_per_kwh, one.high_g_per_kwh]
        for one in forecast
    ]
    origins = dict.fromkeys(one.provenance for one in forecast if one.provenance is not None)
    return {
        "as_of_utc": now.astimezone(UTC).isoformat(),
        "until_utc": max(one.end for one in forecast).isoformat(),
        "sha256": hashlib.sha256(json.dumps(values).encode()).hexdigest(),
        "origins": [one.as_dict() for one in list(origins)[:8]],
    }
